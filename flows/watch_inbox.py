"""Finds manifests of new brains in an inbox folder and starts a run for each."""

from pathlib import Path
from typing import Any, Literal, cast

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.deployments import run_deployment
from pydantic import BaseModel, ConfigDict, Field

from cytoarch.discovery.clusters import ClusterSettings
from cytoarch.embeddings import EmbedSettings
from cytoarch.errors import StoreError
from cytoarch.parcellation.inference import ParcellateSettings
from cytoarch.parcellation.smoothing import SmoothSettings
from flows.map_brain import map_brain
from flows.parameters import DEFAULT_STORE, BrainSource, RunSettings
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
    embed: EmbedSettings = EmbedSettings(),
    head: Literal["probe", "decoder"] = "probe",
    parcellate: ParcellateSettings = ParcellateSettings(),
    smooth: SmoothSettings = SmoothSettings(),
    cluster: ClusterSettings = ClusterSettings(),
    run: RunSettings = RunSettings(),
) -> Summary:
    """Start map-brain for every brain whose manifest has newly arrived; at most one live run per brain and content.

    Args:
        inbox: Where brains arrive and when they are started.
        embed: The encoder and how it sees the sections.
        head: probe or decoder.
        parcellate: How tiles overlap and which level the maps are drawn on.
        smooth: How strongly maps are smoothed.
        cluster: How many clusters, from how many tokens.
        run: How the work is spread.

    """
    if not inbox.inbox_path.is_dir():
        raise StoreError(f"the inbox {inbox.inbox_path} does not exist; make the folder or set inbox_path")
    settings: dict[str, BaseModel | str] = {
        "embed": embed,
        "head": head,
        "parcellate": parcellate,
        "smooth": smooth,
        "cluster": cluster,
        "run": run,
    }
    notes: dict[str, str] = {}
    started = 0
    for arrival in arrivals(inbox.inbox_path, inbox.settle_s, inbox.missing_grace_s):
        if arrival.wait:
            notes[arrival.name] = f"waiting: {arrival.wait}"
            continue
        one = ticket(arrival, settings)
        earlier = earlier_runs(one)
        if earlier.live or earlier.done:
            notes[arrival.name] = f"{'running' if earlier.live else 'done'}: {earlier.latest}"
        elif earlier.failed >= inbox.max_attempts:
            notes[arrival.name] = f"failed {earlier.failed} times, not started again: {earlier.latest}"
        else:
            notes[arrival.name] = _start(inbox, arrival, one, earlier.failed, settings)
            started += 1
    return final_state(Summary(str(inbox.inbox_path), started, {}, notes))


def _start(
    inbox: InboxSettings, arrival: Arrival, one: Ticket, attempt: int, settings: dict[str, BaseModel | str]
) -> str:
    source = BrainSource(manifest_path=arrival.manifest_path, brain_id=arrival.brain_id, store_path=inbox.store_path)
    if inbox.map_on == "here":
        with tagged(one):
            state = cast("State[Any]", map_brain(source=source, **settings, return_state=True))
        return f"ran here: {state.name}"
    plain = {
        name: value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        for name, value in settings.items()
    }
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
