"""MLflow that does not answer is told again, aloud, and given up at last; what is nobody's outage is raised."""

import http.server
import logging
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import ENOSPC
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, RESOURCE_DOES_NOT_EXIST, TEMPORARILY_UNAVAILABLE
from requests.exceptions import ConnectionError as RequestsConnectionError
from sqlalchemy.exc import DatabaseError, OperationalError

from cytoarch.errors import ModelError, StoreError
from cytoarch.store.brain_store import BrainStore
from tasks.progress import listening
from tasks.tracking import Fault, TrackingLine, database_path, needed, outages, unreached
from tasks.tracking.experiments import CLUSTERS, experiment_id

REFUSED = MlflowException("API request failed: [Errno 111] Connection refused\nin the depths of a pool")


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited; nobody waits for real."""
    waits: list[float] = []
    monkeypatch.setattr(outages, "sleep", waits.append)
    return waits


@pytest.fixture
def line(tmp_path: Path, slept: list[float]) -> TrackingLine:
    return TrackingLine(BrainStore(tmp_path), logging.getLogger("test"))


def answering(*answers: Any) -> Callable[[], Any]:
    """Gives or raises one after the other, the last again and again."""
    left = list(answers)

    def call() -> Any:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return call


def test_what_is_back_within_the_waits_is_told_and_nothing_is_left(
    line: TrackingLine, slept: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    assert line.tell("the model", answering(REFUSED, RequestsConnectionError("reset"), "version 1")) == "version 1"
    assert slept == [2.0, 5.0]
    assert line.left == ""
    assert "the connection is refused; the model is told again in 2 s" in caplog.text


def test_what_is_given_up_is_said_and_the_next_things_wait_no_more(
    line: TrackingLine, slept: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[tuple[str, float, int, str]] = []
    with listening(lambda *told: heard.append(told)):
        assert line.tell("the model", answering(REFUSED)) is None
        assert slept == list(outages.WAITS_S)
        assert line.tell("this run", answering(REFUSED)) is None
    assert slept == list(outages.WAITS_S), "the run does not wait twice"
    assert line.left == "the model (the connection is refused); this run (the connection is refused)"
    assert heard[-1] == ("MLflow", 1, 1, "does not know this run; the next run tells it")
    assert "start MLflow and run again: nothing is made twice" in caplog.text
    assert line.tell("the model", answering("version 1")) == "version 1"
    assert line.left == "this run (the connection is refused)"


def test_what_is_tried_once_is_not_waited_for_and_may_be_told_later(
    line: TrackingLine, slept: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    assert line.try_once("the model", answering(REFUSED)) is None
    assert (slept, line.left) == ([], "the model (the connection is refused)")
    assert "the model is left for now" in caplog.text
    assert line.tell("the model", answering(REFUSED, "version 1")) == "version 1"
    assert (slept, line.left) == ([2.0], "")
    assert line.try_once("the model", answering("version 2")) == "version 2"
    with pytest.raises(KeyError):
        line.try_once("the model", answering(KeyError("score")))


def test_a_refusal_that_waiting_does_not_mend_is_left_at_once(
    line: TrackingLine, slept: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    deleted = MlflowException("Run 'x' not found", error_code=RESOURCE_DOES_NOT_EXIST)
    assert line.tell("this run", answering(deleted)) is None
    assert line.tell("its files", answering(StoreError("the files lie elsewhere"))) is None
    assert slept == []
    assert "RESOURCE_DOES_NOT_EXIST: Run 'x' not found" in line.left
    assert "mend what it says and run again" in caplog.text
    assert "start MLflow" not in caplog.text
    assert "lie elsewhere" in line.left


@pytest.mark.parametrize(
    "error",
    [
        KeyError("score"),
        ModelError("a damaged head"),
        KeyboardInterrupt(),
        FileNotFoundError("index.html"),
        OSError(ENOSPC, "No space left on device"),
    ],
)
def test_faults_that_are_not_of_mlflow_are_raised(line: TrackingLine, error: BaseException) -> None:
    with pytest.raises(type(error)):
        line.tell("the model", answering(error))


def test_what_cannot_be_done_without_is_one_clear_error(tmp_path: Path) -> None:
    store = BrainStore(tmp_path)
    with pytest.raises(StoreError, match=r"does not answer .*, and the model auto is looked up there; start it"):
        needed(store, "the model auto", answering(REFUSED))
    with pytest.raises(ModelError, match="names no model"):
        needed(store, "the model x", answering(ModelError("names no model")))
    assert needed(store, "the model", answering(3)) == 3


def test_what_is_asked_of_the_store_alone_does_not_need_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert needed(BrainStore(tmp_path), "the model of that digest", answering(3)) == 3


def test_whether_mlflow_is_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = BrainStore(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert unreached(store) == ("the connection is refused", Fault.AWAY)


@contextmanager
def answering_with(status: int) -> Iterator[str]:
    """The address of a server, or of what stands before one, that answers everything like this."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Keeps it silent."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_database_that_is_damaged_costs_no_map_and_is_told_in_words(
    tmp_path: Path, slept: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = BrainStore(tmp_path)
    database_path(store).parent.mkdir(parents=True)
    database_path(store).write_text("no database at all")
    assert unreached(store) == ("its database cannot be used: file is not a database", Fault.DAMAGED)
    line = TrackingLine(store, logging.getLogger("test"))
    assert line.tell("this run", lambda: experiment_id(store, CLUSTERS)) is None
    assert line.left == "this run (its database cannot be used: file is not a database)"
    assert slept == [], "waiting does not mend it"
    assert "restore it from a backup, or move it away to begin anew and run again" in caplog.text
    with pytest.raises(StoreError, match="what is registered is looked up there; restore it from a backup"):
        needed(store, "what is registered", lambda: experiment_id(store, CLUSTERS))


def said_by_mlflow(code: int, cause: Exception) -> MlflowException:
    error = MlflowException(str(cause), error_code=code)
    error.__cause__ = cause
    return error


LOCKED = OperationalError("SELECT 1", {}, sqlite3.OperationalError("database is locked"))
TORN = DatabaseError("SELECT 1", {}, sqlite3.DatabaseError("database disk image is malformed"))


@pytest.mark.parametrize("error", [LOCKED, said_by_mlflow(TEMPORARILY_UNAVAILABLE, LOCKED)])
def test_a_database_that_is_whole_but_held_up_is_not_to_be_moved_away(
    line: TrackingLine, slept: list[float], caplog: pytest.LogCaptureFixture, tmp_path: Path, error: Exception
) -> None:
    assert line.tell("this run", answering(error)) is None
    assert slept == list(outages.WAITS_S), "it may pass"
    assert "wait, free the disk, or mend the rights of its files and run again" in caplog.text
    with pytest.raises(StoreError, match=r"used now: database is locked.*looked up there; wait, free") as said:
        needed(BrainStore(tmp_path), "the model", answering(error))
    assert "backup" not in f"{said.value}{caplog.text}"


@pytest.mark.parametrize("error", [TORN, said_by_mlflow(BAD_REQUEST, TORN)])
def test_what_is_torn_is_to_be_restored_whoever_says_it(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(StoreError, match=r"disk image is malformed.*looked up there; restore it from a backup"):
        needed(BrainStore(tmp_path), "the model", answering(error))


def test_a_server_that_hangs_costs_a_look_and_no_request(
    line: TrackingLine, slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes connections and says nothing, as one that was stopped or lies behind a firewall."""
    asked: list[int] = []
    monkeypatch.setattr(outages, "LOOK_S", 0.05)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{mute.getsockname()[1]}")
        assert line.try_once("this run", lambda: asked.append(1)) is None
        assert line.left == "this run (it timed out)"
        assert line.tell("this run", lambda: asked.append(1)) is None
    assert (asked, slept) == ([], list(outages.WAITS_S))


@pytest.mark.parametrize(("status", "left"), [(200, ""), (404, ""), (502, "this run (it answers 502 Bad Gateway)")])
def test_what_a_server_says_of_its_health_decides_whether_it_is_told(
    line: TrackingLine, monkeypatch: pytest.MonkeyPatch, status: int, left: str
) -> None:
    with answering_with(status) as url:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        told = line.try_once("this run", lambda: True)
    assert (told, line.left) == (None if left else True, left)
