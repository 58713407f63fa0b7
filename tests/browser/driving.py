"""A real browser without a window, driven over its debugging port: pages are opened, pressed and looked at."""

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.request import urlopen

import pytest
from websockets.sync.client import connect
from websockets.sync.connection import Connection

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0",
)  # fmt: skip
PATIENCE_S = 60.0


class Page:
    """The one page of a browser."""

    def __init__(self, line: Connection) -> None:
        self._line, self._asked = line, 0

    @classmethod
    @contextmanager
    def opened(cls, profile: Path, size: tuple[int, int] = (1280, 1000)) -> Iterator[Self]:
        """A browser with a profile of its own; skips the test where chromium is not installed."""
        chromium = shutil.which("chromium")
        if chromium is None:
            pytest.skip("chromium is not installed")
        flags = [*FLAGS, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}", "about:blank"]
        browser = subprocess.Popen([chromium, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            port = awaited(lambda: (profile / "DevToolsActivePort").read_text().split()[0], OSError, IndexError)
            with urlopen(f"http://127.0.0.1:{port}/json") as told:
                pages = [one for one in json.loads(told.read()) if one["type"] == "page"]
            with connect(pages[0]["webSocketDebuggerUrl"], max_size=None) as line:
                yield cls(line)
        finally:
            browser.terminate()
            browser.wait()

    def ask(self, method: str, **parameters: Any) -> Any:
        """What the browser answers to a command of its protocol."""
        self._asked += 1
        self._line.send(json.dumps({"id": self._asked, "method": method, "params": parameters}))
        while True:
            told = json.loads(self._line.recv(timeout=PATIENCE_S))
            if told.get("id") == self._asked:
                assert "error" not in told, told
                return told["result"]

    def go(self, address: str) -> None:
        """Open an address."""
        self.ask("Page.navigate", url=address)

    def value(self, script: str) -> Any:
        """What an expression of JavaScript is."""
        return self.ask("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def wait_for(self, script: str) -> Any:
        """The same, once it is anything but nothing."""

        def found() -> Any:
            seen = self.value(script)
            if not seen:
                raise LookupError(f"{script} on {self.value('document.body.innerText')}"[:1500])
            return seen

        return awaited(found, LookupError)

    def click(self, text: str, within: str = "document") -> None:
        """Press the button that shows a text."""
        button = f"[...{within}.querySelectorAll('button, a')].filter(one => one.innerText.trim() === {text!r}).at(-1)"
        self.wait_for(f"!!{button}")
        self.value(f"{button}.click()")

    def fill(self, field: str, text: str) -> None:
        """Type into a field, an expression of JavaScript, over what is there."""
        self.wait_for(f"!!{field}")
        self.value(f"{field}.focus(); {field}.select()")
        self.ask("Input.insertText", text=text)

    def picture(self, path: Path) -> None:
        """Keep what is seen as a PNG."""
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))


def awaited(found: Any, *errors: type[Exception]) -> Any:
    """What a call gives, once it raises none of some errors any more."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return found()
        except errors:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
