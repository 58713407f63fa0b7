"""The report opens in a real browser from its files alone, with every picture there."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.browser.pages import examined
from tests.flows.conftest import MappedBrain

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.xdist_group("flows")]

COUNT = """<script>
for (const image of document.images) image.loading = "eager";
setInterval(() => {
  const missing = [...document.images].filter(image => !image.naturalWidth).length;
  document.title = `pictures ${document.images.length} missing ${missing} wide ${document.documentElement.scrollWidth}`;
}, 100);
</script>"""


def test_every_picture_is_shown_and_nothing_runs_off_the_page(mapped: MappedBrain, tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    home = tmp_path / "brain"
    for folder in ("report", *(f"derived/{one}" for one in ("pictures", "alignment", "layout", "retrieval"))):
        shutil.copytree(mapped.store.brain_path("P01") / folder, home / folder)
    page = home / "report" / "index.html"
    page.write_text(page.read_text().replace("</body>", f"{COUNT}</body>"))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1280,2000", "--virtual-time-budget=20000"]
    done = subprocess.run([chromium, *flags, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120)
    title = re.search(r"<title>pictures (\d+) missing (\d+) wide (\d+)</title>", done.stdout)
    assert title, done.stdout[:500] + done.stderr[-500:]
    pictures, missing, width = (int(number) for number in title.groups())
    assert (pictures, missing) == (page.read_text().count("<img "), 0)
    assert pictures >= 5 * 6 + 1
    assert width <= 1280


@pytest.mark.parametrize("name", ["report/index.html", "report/viewer.html", "alignment", "quality"])
def test_axe_finds_no_serious_fault(mapped: MappedBrain, tmp_path: Path, name: str) -> None:
    folder = mapped.store.brain_path("P01")
    source = folder / name if "/" in name else next((folder / "derived" / name).rglob("index.html"))
    page = tmp_path / source.relative_to(folder)
    if "/" in name:
        shutil.copytree(source.parent, page.parent)
    for kind in ("pictures", "alignment", "layout", "retrieval") if "/" in name else (name,):
        shutil.copytree(folder / "derived" / kind, tmp_path / "derived" / kind)
    found = examined(page, tmp_path / "profile")
    bad = [one for one in found["faults"] if one["impact"] in ("serious", "critical")]
    assert not bad, bad
    assert not found["errors"]
    assert found["width"] <= 1280
