"""What `make serve` serves is the store's own tracking database, wherever the store lies and what served it before."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from cytoarch.brains import Brain
from cytoarch.store.brain_store import BrainStore
from flows.serving import direct_loopback
from tasks.tracking import BrainLedger, fetch_head, of_brains, run_url
from tests.deployments.scripts import imported
from tests.heads import files_of_head, register_in

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = pytest.mark.xdist_group("tracking")

NAME = "a%20b #c?d;e&f ü"
TAGS = {"config_digest": "c0", "input_digest": "i0", "encoder_digest": "e0"}


@pytest.fixture(scope="module")
def serve() -> ModuleType:
    return imported("serve")


@contextmanager
def served(serve: ModuleType, store: BrainStore, monkeypatch: pytest.MonkeyPatch, logs: Path) -> Iterator[None]:
    """MLflow serves a store; runs in here are tracked through it, past a proxy that is dead."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    for name, value in direct_loopback(os.environ).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    servers = serve.Servers(logs)
    with ExitStack() as stack:
        stack.callback(servers.stop)
        servers.start("mlflow", serve.mlflow_command(store.root, port), dict(os.environ))
        servers.wait_until(lambda: serve.answers(f"{url}/health"), "MLflow")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        stack.callback(monkeypatch.delenv, "MLFLOW_TRACKING_URI")
        yield


def use(store: BrainStore, number: int) -> str:
    """Tell MLflow of a brain and a head; fetch the head from there, and give its digest."""
    ledger = BrainLedger(
        store, Brain(brain_id="B01", sections=()), {}, TAGS | {"config_digest": f"c{number}"}, of_brains("areas")
    )
    ledger.open()
    ledger.close({})
    register_in(store, number, number / 10)
    digest = store.models.add(files_of_head(number))
    store.models.remove(digest)
    assert fetch_head(store, f"models:/areas-probe-B01/{number}") == digest
    assert run_url(store, str(ledger.run_id)).partition("?")[0].endswith(f"{ledger.run_id}")  # then the view
    return digest


@pytest.mark.long
@pytest.mark.slow
def test_a_store_is_served_and_not_and_moved_and_keeps_all(
    serve: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    store = BrainStore(disk / NAME)
    with served(serve, store, monkeypatch, tmp_path / "logs"):
        digests = [use(store, 1)]
    digests.append(use(store, 2))
    moved = BrainStore(disk / "moved")
    store.root.rename(moved.root)
    digests.append(use(moved, 3))
    with served(serve, moved, monkeypatch, tmp_path / "logs"):
        digests.append(use(moved, 4))
        for number, digest in enumerate(digests, start=1):
            moved.models.remove(digest)
            assert fetch_head(moved, f"models:/areas-probe-B01/{number}") == digest
    assert [path.name for path in disk.iterdir()] == ["moved"]
    assert {path.name for path in moved.root.iterdir()} == {"mlflow", "models"}
    kept = {path.name for path in moved.tracking_path.rglob("*") if path.is_file()}
    assert kept == {"mlflow.db", "config.json", "brain.json", "head.json", "head.safetensors"}


def test_loopback_is_direct_for_everything_that_is_served(
    serve: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, str] = {}

    def start(_servers: object, _options: object, environment: dict[str, str], *_urls: str) -> None:
        given.update(environment)
        raise SystemExit(0)

    monkeypatch.setattr(serve, "_start", start)
    monkeypatch.setattr(serve, "SERVING_PATH", tmp_path / "serving.json")
    monkeypatch.setattr(serve, "answers", lambda _url: False)
    monkeypatch.setattr(serve.signal, "signal", lambda *_arguments: None)
    monkeypatch.setattr(sys, "argv", ["serve.py", "--store", str(tmp_path / "store")])
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with pytest.raises(SystemExit):
        serve.main()
    assert given["HTTP_PROXY"] == "http://127.0.0.1:9"
    for name in ("NO_PROXY", "no_proxy"):
        assert {"127.0.0.1", "localhost", "::1"} <= set(given[name].split(","))


def test_servers_are_waited_for_and_it_is_said(
    serve: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    servers, looks = serve.Servers(tmp_path), iter(range(10_000))
    monkeypatch.setattr(servers.stopping, "wait", lambda _seconds: False)
    servers.wait_until(lambda: next(looks) >= 45, "MLflow")
    said = capsys.readouterr().out.splitlines()
    assert said == [f"waiting for MLflow ({seconds} s); its first start takes longest" for seconds in (10, 20)]
    with pytest.raises(SystemExit, match=r"MLflow did not come up within 600 s; see "):
        servers.wait_until(lambda: False, "MLflow")
    monkeypatch.setattr(servers.stopping, "wait", lambda _seconds: True)
    with pytest.raises(SystemExit) as stopped:
        servers.wait_until(lambda: False, "MLflow")
    assert stopped.value.code == 130


def test_a_server_that_ends_by_itself_is_not_waited_for(serve: ModuleType, tmp_path: Path) -> None:
    servers = serve.Servers(tmp_path)
    servers.start("mlflow", [sys.executable, "-S", "-c", "print('no port is free'); raise SystemExit(7)"], {})
    with pytest.raises(SystemExit, match=r"mlflow ended with exit code 7; see .*mlflow\.log"):
        servers.wait_until(lambda: False, "MLflow")
    assert (tmp_path / "mlflow.log").read_text() == "no port is free\n"


def test_a_server_that_ends_by_itself_while_it_serves_is_started_again_but_not_for_ever(
    serve: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    servers = serve.Servers(tmp_path)
    servers.start("worker", [sys.executable, "-S", "-c", "print('here'); raise SystemExit(3)"], {})
    servers.start("steady", [sys.executable, "-S", "-c", "import time; time.sleep(60)"], {})
    try:
        for _ in range(serve.MOST_STARTS - 1):
            dict(servers._running)["worker"].wait()
            servers.restart_ended()
        dict(servers._running)["worker"].wait()
        with pytest.raises(SystemExit, match="worker ended with exit code 3 and was started 5 times within 10 minutes"):
            servers.restart_ended()
        assert (tmp_path / "worker.log").read_text().count("here") == serve.MOST_STARTS
        said = capsys.readouterr().out
        assert said.count("worker ended with exit code 3 and is started again") == serve.MOST_STARTS - 1
        assert "steady" not in said
        servers.stop(["worker"])
        assert [name for name, _ in servers._running] == ["steady"]
    finally:
        servers.stop()


def test_prefects_history_lies_with_the_store_unless_the_environment_says_where(
    serve: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "prefect.db").write_bytes(b"")
    home = {"PREFECT_HOME": str(tmp_path / "home")}
    found = serve.prefect_database(tmp_path / "store", home)
    assert found["PREFECT_SERVER_DATABASE_CONNECTION_URL"] == f"sqlite+aiosqlite:///{tmp_path}/store/prefect/prefect.db"
    assert f"{tmp_path}/home/prefect.db is left" in capsys.readouterr().out
    odd = serve.prefect_database(tmp_path / "which?", home)["PREFECT_SERVER_DATABASE_CONNECTION_URL"]
    assert odd.endswith("/which%3F/prefect/prefect.db?uri=true")
    named = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": "postgresql+asyncpg://lab/prefect"}
    assert serve.prefect_database(tmp_path / "other", named) == {}
    assert not (tmp_path / "other").exists()


def test_the_script_starts_from_anywhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "deployments" / "serve.py", "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "--mlflow-port" in done.stdout
