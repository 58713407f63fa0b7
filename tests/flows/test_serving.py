"""Servers are found whatever proxy is set, and a temporary one is waited for as long as it may take."""

import http.server
import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
import requests
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    temporary_settings,
)

from cytoarch.errors import StoreError
from flows import serving
from flows.serving import (
    START_LIMIT,
    answers,
    direct_loopback,
    running_servers,
    start_prefect,
    unusable_proxies,
)

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = [pytest.mark.alone, pytest.mark.xdist_group("alone")]

DEAD = "http://127.0.0.1:9"
"""Nothing listens at the discard port: what goes there is lost."""
PROXIES = dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"), DEAD)


class Healthy(http.server.BaseHTTPRequestHandler):
    """Answers /health, and nothing else."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path.endswith("/health") else 503)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Keeps it silent."""


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a web server on loopback."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Healthy) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running.server_port
        running.shutdown()
        thread.join()


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment as hospitals have it, whose proxy does not know this machine."""
    for name, value in PROXIES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NO_PROXY", ".hospital.org")
    monkeypatch.delenv("no_proxy", raising=False)


def test_a_server_on_loopback_answers_whatever_the_proxy(port: int, proxied: None) -> None:
    assert answers(f"http://127.0.0.1:{port}/health")
    assert not answers(f"http://127.0.0.1:{port}/elsewhere")
    assert not answers(DEAD)


GETS: dict[str, Callable[[str], int]] = {
    "urllib": lambda url: int(urllib.request.urlopen(url, timeout=5).status),  # noqa: S310 - http on loopback
    "requests": lambda url: requests.get(url, timeout=5).status_code,
    "httpx": lambda url: httpx.get(url, timeout=5).status_code,
}
"""The libraries by which MLflow and Prefect speak to their servers."""


@pytest.mark.parametrize("library", GETS)
def test_loopback_is_not_proxied_by_any_library(
    library: str, port: int, proxied: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"http://127.0.0.1:{port}/health"
    with pytest.raises((OSError, httpx.HTTPError)):
        GETS[library](url)
    for name, value in direct_loopback(os.environ).items():
        monkeypatch.setenv(name, value)
    assert GETS[library](url) == 200
    assert GETS[library](url.replace("127.0.0.1", "localhost")) == 200
    with pytest.raises((OSError, httpx.HTTPError)):  # others still are
        GETS[library]("http://example.org/health")


@pytest.mark.parametrize(
    ("environment", "value"),
    [
        ({}, "127.0.0.1,localhost,::1"),
        ({"NO_PROXY": ""}, "127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "a.org, b.org,"}, "a.org,b.org,127.0.0.1,localhost,::1"),
        ({"no_proxy": "a.org"}, "a.org,127.0.0.1,localhost,::1"),
        ({"no_proxy": "a.org", "NO_PROXY": "b.org"}, "a.org,127.0.0.1,localhost,::1"),
        ({"no_proxy": "", "NO_PROXY": "b.org"}, "b.org,127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "localhost,a.org"}, "localhost,a.org,127.0.0.1,::1"),
        ({"NO_PROXY": "*"}, "*"),
    ],
)
def test_what_was_not_proxied_before_is_not_now(environment: dict[str, str], value: str) -> None:
    assert direct_loopback(environment) == {"NO_PROXY": value, "no_proxy": value}
    assert direct_loopback(direct_loopback(environment)) == direct_loopback(environment)


@pytest.mark.parametrize(
    ("url", "usable"),
    [
        ("http://proxy.hospital.org:3128", True),
        ("https://proxy.hospital.org:3128", True),
        ("proxy.hospital.org:3128", True),
        ("", True),
        ("socks://proxy.hospital.org:1080/", False),
        ("socks4://proxy.hospital.org:1080", False),
        ("socks5://proxy.hospital.org:1080", None),
        ("socks5h://proxy.hospital.org:1080", None),
        ("ftp://proxy.hospital.org", False),
    ],
)
@pytest.mark.parametrize("name", ["ALL_PROXY", "all_proxy", "HTTPS_PROXY"])
def test_proxies_that_prefects_library_cannot_build_are_left_aside(
    monkeypatch: pytest.MonkeyPatch, name: str, url: str, usable: bool | None
) -> None:
    """Even for addresses that go past the proxy; None: where the package for SOCKS is installed."""
    monkeypatch.setenv(name, url)
    for other, value in direct_loopback(os.environ).items():
        monkeypatch.setenv(other, value)
    expected = find_spec("socksio") is not None if usable is None else usable
    assert unusable_proxies({name: url}) == (() if expected else (name,))
    if expected:
        httpx.Client().close()
    else:
        with pytest.raises((ValueError, ImportError)):
            httpx.Client()


def test_servers_are_believed_if_both_answer_on_loopback(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "SERVING_PATH", tmp_path / "serving.json")
    assert running_servers() == {}
    up = {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api", "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}

    def stated(text: str) -> dict[str, str]:
        serving.SERVING_PATH.write_text(text)
        return running_servers()

    assert stated(json.dumps(up)) == up
    assert stated(json.dumps({**up, "PATH": "/evil"})) == up
    for name, value in up.items():
        assert stated(json.dumps({**up, name: "http://127.0.0.1:9"})) == {}
        assert stated(json.dumps({**up, name: f"http://localhost:{port}"})) == {}
        assert stated(json.dumps({name: value})) == {}
    for text in ("", "[]", "{", "null"):
        assert stated(text) == {}


@pytest.fixture
def temporary() -> Iterator[None]:
    """No server is named, so that Prefect would start one; it is given 20 s."""
    with temporary_settings(
        {PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: True, PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: 20},
        restore_defaults={PREFECT_API_URL},
    ):
        yield
    assert SubprocessASGIServer().server_process is None, "nothing is left running"
    SubprocessASGIServer().stop()


def starts(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Have Prefect run something else as its server; it is told its port."""

    def run(server: SubprocessASGIServer) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, "-S", "-c", program, str(server.port)])

    monkeypatch.setattr(SubprocessASGIServer, "_run_uvicorn_command", run)
    monkeypatch.setattr(serving, "LOOK_EVERY_S", 0.05)


def test_a_server_that_takes_long_is_waited_for_and_said_so(temporary: None, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    starts(monkeypatch, SLOW)
    monkeypatch.setattr(serving, "SAY_EVERY_S", 0.0)
    start_prefect(said.append)
    assert said
    assert said[0].startswith("waiting for Prefect's temporary server (0 s)")
    assert answers(f"{SubprocessASGIServer().api_url}/health")
    SubprocessASGIServer().stop()


SLOW = """
import http.server, sys, time
time.sleep(0.5)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *arguments):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.mark.parametrize(
    ("program", "fault"),
    [
        ("import sys; sys.exit(1)", "it ended with exit code 1"),
        ("import sys; sys.exit(3)", r"it ended at once on 5 ports; its database .* may be damaged"),
    ],
)
def test_a_server_that_cannot_start_is_not_waited_for(
    program: str, fault: str, temporary: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts(monkeypatch, program)
    with pytest.raises(StoreError, match=fault):
        start_prefect(lambda _text: None)


def test_a_server_that_does_not_come_up_is_one_error(temporary: None, monkeypatch: pytest.MonkeyPatch) -> None:
    starts(monkeypatch, "import time; time.sleep(60)")
    with (
        temporary_settings({PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: 1}),
        pytest.raises(
            StoreError, match=rf"did not answer within 1 s; .*\({START_LIMIT}=SECONDS\), or run `make serve`"
        ),
    ):
        start_prefect(lambda _text: None)


def test_where_a_server_is_named_none_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SubprocessASGIServer, "start", lambda _self: pytest.fail("one was started"))
    with temporary_settings({PREFECT_API_URL: DEAD}):
        start_prefect(lambda _text: None)


def terminal(home: Path, inbox: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Look into an empty inbox, as a user does who has a proxy."""
    names = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_API")}
    command = [sys.executable, "-m", "flows", "watch-inbox", "--inbox-path", str(inbox)]
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**names, **PROXIES, "PREFECT_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.long
@pytest.mark.slow
def test_a_flow_runs_behind_a_proxy_that_is_dead(tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    done = terminal(tmp_path / "home", tmp_path / "inbox", ALL_PROXY="socks://127.0.0.1:9/")
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stdout
    assert done.stderr.startswith("note: the proxy in ALL_PROXY is of a kind that Prefect cannot use")


@pytest.mark.slow
def test_a_machine_too_busy_for_the_first_start_costs_one_line(tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    done = terminal(tmp_path / "home", tmp_path / "inbox", **{START_LIMIT: "1"})
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: Prefect's temporary server did not start: it did not answer within 1 s")
