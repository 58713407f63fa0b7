"""Cancel works whatever has become of the worker: a run asks the server itself whether somebody wants it to end.

Prefect's worker hears of cancellations over a connection that it does not open again once the server was away for some
time (its log says "Flow run cancellation disabled"). The setting that it names crashes every run at such a moment; here
runs go on through the outage and still end when they are told to.
"""

import os
import signal
import threading
from contextlib import suppress
from typing import Any
from uuid import UUID

import httpx
from prefect import Flow
from prefect.client.base import ServerType, determine_server_type
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun, State, StateType
from prefect.states import Cancelled

LOOK_EVERY_S = 8.0
"""Prefect's own way is given one look's time, so that a run ends within half a minute in any case."""
ENDS_WITHIN_S = 20.0
"""What does not end by itself within this time (compiled code may not hear of it) is ended by force."""

_told_to_end = threading.Event()


def watch_cancellation(_flow: "Flow[..., Any]", flow_run: FlowRun, _state: "State[Any]") -> None:
    """Hook of a flow that starts: watch whether its run is cancelled, where a worker started it."""
    if flow_run.deployment_id is None or determine_server_type() is ServerType.EPHEMERAL:
        return
    threading.Thread(target=_watch, args=(flow_run.id,), name="watch-cancellation", daemon=True).start()


def name_cancellation(_flow: "Flow[..., Any]", flow_run: FlowRun, _state: "State[Any]") -> None:
    """Hook of a flow that broke off: what was told to end is called cancelled, and not crashed."""
    if _told_to_end.is_set():
        _set_cancelled(flow_run.id)


HOOKS: dict[str, Any] = {"on_running": [watch_cancellation], "on_crashed": [name_cancellation]}
"""For every flow that is deployed."""


def _watch(flow_run_id: UUID) -> None:
    wait, seen = threading.Event(), 0
    while not wait.wait(LOOK_EVERY_S):
        state = _state_of(flow_run_id)
        if state in TERMINAL_STATES:
            return
        if state is not None:
            seen = seen + 1 if state is StateType.CANCELLING else 0
        if seen >= 2:
            _end(flow_run_id, wait)


def _end(flow_run_id: UUID, wait: threading.Event) -> None:
    """End this process as a worker would."""
    _told_to_end.set()
    os.kill(os.getpid(), signal.SIGTERM)
    wait.wait(ENDS_WITHIN_S)
    _set_cancelled(flow_run_id)
    os.kill(os.getpid(), signal.SIGKILL)


def _state_of(flow_run_id: UUID) -> StateType | None:
    """The state that the server has of a run; None: it does not answer."""
    with suppress(httpx.HTTPError, OSError), get_client(sync_client=True) as client:
        return client.read_flow_run(flow_run_id).state_type
    return None


def _set_cancelled(flow_run_id: UUID) -> None:
    state: State[Any] = Cancelled(message="Ended by the run itself, as it was cancelled.")
    with suppress(httpx.HTTPError, OSError), get_client(sync_client=True) as client:
        client.set_flow_run_state(flow_run_id, state, force=True)
