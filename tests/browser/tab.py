"""A page in a headless browser that is asked things and photographed while it lives, by the DevTools protocol."""

import base64
import io
import itertools
import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from websockets.sync.client import ClientConnection, connect

from tests.browser.pages import chromium

SOFTWARE_WEBGL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--hide-scrollbars", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0", *SOFTWARE_WEBGL,
)  # fmt: skip
STARTED_S, ANSWERED_S = 60.0, 60.0


class Tab:
    """An open page."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection, self._ids = connection, itertools.count(1)
        self.errors: list[str] = []
        """What went wrong on the page: exceptions, and what the console was told as an error."""
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def open(self, address: str) -> None:
        """Go to an address; does not wait for what it loads."""
        self._call("Page.navigate", url=address)

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression; None where it has none, or cannot be told yet."""
        return self._call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def until(self, expression: str, timeout_s: float = 60.0) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + timeout_s
        while self.ask(expression) is not True:
            assert time.monotonic() < end, f"not true after {timeout_s:g} s: {expression}; errors: {self.errors}"
            time.sleep(0.1)

    def photographed(self) -> np.ndarray:
        """The page as it is seen (y, x, 3)."""
        found = self._call("Page.captureScreenshot", format="png")
        with Image.open(io.BytesIO(base64.b64decode(found["data"]))) as picture:
            return np.asarray(picture.convert("RGB"))

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._ids)
        self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._connection.recv(timeout=ANSWERED_S))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def _note(self, event: dict[str, Any]) -> None:
        told = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(told["exceptionDetails"].get("exception", told["exceptionDetails"]))[:500])
        elif event.get("method") == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.errors.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")


@contextmanager
def opened_tab(profile: Path, width: int = 1000, height: int = 800) -> Iterator[Tab]:
    """A browser with one blank page; it is ended at last."""
    command = [chromium(), *FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = _address_of_page(profile / "DevToolsActivePort")
        with connect(address, max_size=None, origin=None) as connection:
            yield Tab(connection)
    finally:
        process.terminate()
        process.wait(30)


def _address_of_page(port_file: Path) -> str:
    """Where the page is spoken to; the browser writes its port into a file once it listens."""
    end = time.monotonic() + STARTED_S
    while time.monotonic() < end:
        lines = port_file.read_text().splitlines() if port_file.is_file() else []
        if len(lines) > 1:
            with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json") as told:
                pages = [one for one in json.load(told) if one["type"] == "page"]
            if pages:
                return str(pages[0]["webSocketDebuggerUrl"])
        time.sleep(0.1)
    raise AssertionError(f"the browser did not start within {STARTED_S:g} s")
