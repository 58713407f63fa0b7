"""Finds manifests of new brains in an inbox folder and starts a run for each."""

from pathlib import Path
from typing import Any, cast

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.deployments import run_deployment
from pydantic import BaseModel, ConfigDict, Field

from cytoarch.errors import StoreError
from flows.map_brain import map_brain
from flows.parameters import BrainSource, MapSettings, RunSettings
from flows.places import DEFAULT_STORE
from flows.stages import Summary, final_state
from tasks.inbox import Arrival, Ticket, arrivals, earlier_runs, tagged, ticket


class InboxSettings(BaseModel):
    """Where new brains arrive, and when a run is started for them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inbox_path: Path = Field(
        default=Path("work/inbox"), description="Folder with manifests, directly or one folder deep; scans beside them."
    )
    store_path: Path = Field(default=DEFAULT_STORE, description="Folder of the store.")
    settle_s: float = Field(
        default=60.0,
        ge=0,
        le=86400,
        description="A manifest or scan changed more recently than this may be half copied: wait.",
    )
    missing_grace_s: float = Field(
        default=3600.0,
        ge=0,
        le=30 * 86400,
        description="How long to wait for scans that a manifest names but that are not there.",
    )
    max_attempts: int = Field(default=3, ge=1, le=100, description="How often a failing brain is started in all.")
    map_on: str = Field(
        default="map-brain/main",
        max_length=200,
        description="Deployment that maps the brains, or here: in this process.",
    )


@flow(name="watch-inbox", flow_run_name="watch-inbox")
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
    notes: dict[str, str] = {}
    started = 0
    for arrival in arrivals(inbox.inbox_path, inbox.settle_s, inbox.missing_grace_s):
        if arrival.wait:
            notes[arrival.name] = f"waiting: {arrival.wait}"
            continue
        one = ticket(arrival, parameters)
        earlier = earlier_runs(one)
        if earlier.live or earlier.done:
            notes[arrival.name] = f"{'running' if earlier.live else 'done'}: {earlier.latest}"
        elif earlier.failed >= inbox.max_attempts:
            notes[arrival.name] = f"failed {earlier.failed} times, not started again: {earlier.latest}"
        else:
            notes[arrival.name] = _start(inbox, arrival, one, earlier.failed, parameters)
            started += 1
    return final_state(Summary(str(inbox.inbox_path), started, {}, notes))


def _start(inbox: InboxSettings, arrival: Arrival, one: Ticket, attempt: int, parameters: dict[str, BaseModel]) -> str:
    source = BrainSource(manifest_path=arrival.manifest_path, brain_id=arrival.brain_id, store_path=inbox.store_path)
    if inbox.map_on == "here":
        with tagged(one):
            state = cast("State[Any]", map_brain(source=source, **parameters, return_state=True))
        return f"ran here: {state.name}"
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
    return f"started: {flow_run.name}"
