"""Finds manifests of new brains in an inbox folder and starts a run for each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.deployments import run_deployment
from prefect.states import Completed
from pydantic import BaseModel, Field

from cytoarch.errors import StoreError
from cytoarch.settings import Settings
from flows.map_brain import map_brain
from flows.parameters import BrainSource, MapSettings, RunSettings
from flows.places import DEFAULT_STORE
from flows.stages import Summary
from tasks.cancelling import HOOKS
from tasks.inbox import (
    Arrival,
    Looked,
    Ticket,
    arrivals,
    counted_statuses,
    earlier_runs,
    publish_inbox,
    tagged,
    ticket,
)

MOST_SHOWN = 2000
"""Characters of a state's message."""


class InboxSettings(Settings):
    """Where new brains arrive, and when a run is started for them."""

    inbox_path: Path = Field(
        title="Inbox",
        examples=["/data/inbox"],
        default=Path("work/inbox"),
        description="Folder with manifests, directly or one folder deep; scans beside them.",
    )
    store_path: Path = Field(
        title="Store", examples=["/data/store"], default=DEFAULT_STORE, description="Folder of the store."
    )
    settle_s: float = Field(
        title="A file is whole once it stood still for (s)",
        default=60.0,
        ge=0,
        le=86400,
        description="A manifest or scan changed more recently than this may be half copied: wait.",
    )
    missing_grace_s: float = Field(
        title="Missing scans are waited for (s)",
        default=3600.0,
        ge=0,
        le=30 * 86400,
        description="How long to wait for scans that a manifest names but that are not there.",
    )
    max_attempts: int = Field(
        title="Starts of a failing brain",
        default=3,
        ge=1,
        le=100,
        description="How often a failing brain is started in all.",
    )
    map_on: str = Field(
        title="Deployment that maps",
        default="map-brain/map-brain",
        max_length=200,
        description="Deployment that maps the brains, or here: in this process.",
    )


@flow(name="watch-inbox", flow_run_name="watch-inbox", **HOOKS)
def watch_inbox(
    inbox: InboxSettings = InboxSettings(),
    settings: MapSettings = MapSettings(),
    run: RunSettings = RunSettings(),
) -> Summary:
    """Start map-brain for every brain whose manifest has newly arrived; at most one live run per brain and content.

    Args:
        inbox: Where brains arrive and when they are started.
        settings: How the brains are mapped, stage by stage.
        run: How the work is spread.

    """
    if not inbox.inbox_path.is_dir():
        raise StoreError(f"the inbox {inbox.inbox_path} does not exist; make the folder or set inbox_path")
    parameters: dict[str, BaseModel] = {"settings": settings, "run": run}
    looked = [
        looked_at(inbox, one, parameters) for one in arrivals(inbox.inbox_path, inbox.settle_s, inbox.missing_grace_s)
    ]
    publish_inbox(looked)
    return seen(str(inbox.inbox_path), looked)


def looked_at(inbox: InboxSettings, arrival: Arrival, parameters: dict[str, BaseModel]) -> Looked:
    """What is done about one thing in the inbox, now."""
    if arrival.faults:
        return Looked(arrival.name, "unreadable", arrival.faults)
    if arrival.wait:
        return Looked(arrival.name, "waiting", (arrival.wait,))
    one = ticket(arrival, parameters)
    earlier = earlier_runs(one)
    if earlier.live or earlier.done:
        return Looked(arrival.name, "running" if earlier.live else "done", (earlier.latest,))
    if earlier.failed >= inbox.max_attempts:
        told = f"{earlier.failed} times, not started again: {earlier.latest}"
        return Looked(arrival.name, "failed", (told,))
    return Looked(arrival.name, "started", (_start(inbox, arrival, one, earlier.failed, parameters),))


def seen(where: str, looked: Sequence[Looked]) -> Summary:
    """The state a look ends in; its name says what was found."""
    started = sum(one.status == "started" for one in looked)
    notes = {one.name: f"{one.status}: {'; '.join(one.told)}" for one in looked}
    summary = Summary(where, started, {}, notes)
    message = "; ".join(f"{name}: {note}" for name, note in notes.items())[:MOST_SHOWN]
    state: Any = Completed(name=counted_statuses(looked), message=message or "the inbox is empty", data=summary)
    return cast("Summary", state)


def _start(inbox: InboxSettings, arrival: Arrival, one: Ticket, attempt: int, parameters: dict[str, BaseModel]) -> str:
    source = BrainSource(manifest_path=arrival.manifest_path, brain_id=arrival.brain_id, store_path=inbox.store_path)
    if inbox.map_on == "here":
        with tagged(one):
            state = cast("State[Any]", map_brain(source=source, **parameters, return_state=True))
        return f"here: {state.name}"
    plain = {name: value.model_dump(mode="json") for name, value in parameters.items()}
    # typed for both worlds; called from a flow that is not async it returns the run
    flow_run: Any = run_deployment(
        inbox.map_on,
        parameters={"source": source.model_dump(mode="json"), **plain},
        flow_run_name=f"map-{arrival.brain_id}",
        timeout=0,
        as_subflow=False,
        tags=list(one.tags),
        idempotency_key=f"{one.digest}-{attempt}",
    )
    return str(flow_run.name)
