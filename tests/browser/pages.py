"""Pages opened in a headless browser from their files alone, and what it says of them."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--allow-file-access-from-files",
    "--enable-logging=stderr", "--log-level=0",
)  # fmt: skip
PROBE = """<script>
window.__errors = [];
addEventListener("error", event => window.__errors.push(String(event.message || event.target.src)), true);
</script>"""
ASK = """<pre id="answer" hidden></pre><script>
const answer = found => { document.getElementById("answer").textContent = JSON.stringify(found); };
const told = fault => ({
  id: fault.id, impact: fault.impact, help: fault.help,
  where: fault.nodes.slice(0, 3).map(node => node.html.slice(0, 200)),
});
axe.run(document, { resultTypes: ["violations"] }).then(one => one.violations.map(told)).then(
  found => answer({ faults: found, errors: window.__errors, width: document.documentElement.scrollWidth }),
  error => answer({ faults: [], errors: [String(error)], width: 0 }));
</script>"""


def chromium() -> str:
    """The browser; the test is skipped where there is none."""
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("chromium is not installed")
    return found


def axe_source() -> str:
    """The checker of accessibility; the test is skipped where it was not installed."""
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: npm ci --prefix tests/browser")
    return AXE.read_text()


def examined(page: Path, profile: Path, width: int = 1280) -> dict[str, Any]:
    """What axe-core finds on a page, which errors it had, and how wide it is; a copy beside it is opened."""
    text, asked = page.read_text(), f"<script>{axe_source()}</script>{ASK}</body>"
    copy = page.with_name(f"examined-{page.name}")
    copy.write_text(text.replace("<head>", f"<head>{PROBE}", 1).replace("</body>", asked, 1))
    flags = [*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},2000", "--virtual-time-budget=20000"]
    command = [chromium(), *flags, "--dump-dom", copy.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    copy.unlink()
    found = re.search(r'<pre id="answer" hidden="">(.+?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stdout[-500:] + done.stderr[-500:]
    answer: dict[str, Any] = json.loads(html.unescape(found[1]))
    return answer
