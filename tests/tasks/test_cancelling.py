"""A run that is cancelled ends itself where nobody else ends it, and only then."""

import signal
import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import StateType

from tasks import cancelling

CANCELLING, RUNNING = StateType.CANCELLING, StateType.RUNNING


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What was done to end the run; nobody waits, and no signal is sent."""
    done: list[Any] = []

    def kill(_pid: int, number: int) -> None:
        done.append(number)
        if number == signal.SIGKILL:
            raise SystemExit

    monkeypatch.setattr(cancelling.os, "kill", kill)
    monkeypatch.setattr(cancelling, "_set_cancelled", lambda _id: done.append("cancelled"))
    monkeypatch.setattr(cancelling, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(cancelling, "ENDS_WITHIN_S", 0.0)
    yield done
    cancelling._told_to_end.clear()


def looks(monkeypatch: pytest.MonkeyPatch, *states: StateType | None) -> None:
    left = iter(states)
    monkeypatch.setattr(cancelling, "_state_of", lambda _id: next(left))


def test_a_run_that_stays_cancelling_is_asked_to_end_and_then_made_to(
    monkeypatch: pytest.MonkeyPatch, ended: list[Any]
) -> None:
    looks(monkeypatch, RUNNING, None, CANCELLING, None, CANCELLING)
    with pytest.raises(SystemExit):
        cancelling._watch(uuid4())
    assert ended == [signal.SIGTERM, "cancelled", signal.SIGKILL]


@pytest.mark.parametrize("last", [StateType.COMPLETED, StateType.CANCELLED, StateType.CRASHED])
def test_a_run_that_ends_otherwise_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, ended: list[Any], last: StateType
) -> None:
    looks(monkeypatch, RUNNING, CANCELLING, RUNNING, CANCELLING, last)
    cancelling._watch(uuid4())
    assert ended == []


def test_what_broke_off_is_called_cancelled_only_if_it_was_told_to_end(ended: list[Any]) -> None:
    class Run:
        id = uuid4()

    cancelling.name_cancellation(None, Run(), None)  # type: ignore[arg-type]
    assert ended == []
    cancelling._told_to_end.set()
    cancelling.name_cancellation(None, Run(), None)  # type: ignore[arg-type]
    assert ended == ["cancelled"]


def test_runs_that_no_worker_started_are_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    class Run:
        id, deployment_id = uuid4(), None

    before = threading.active_count()
    cancelling.watch_cancellation(None, Run(), None)  # type: ignore[arg-type]
    assert threading.active_count() == before
