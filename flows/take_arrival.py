"""What an event says has come: a brain that arrived, or labels of one; a run is started for it, once."""

from pathlib import Path
from typing import Annotated, Literal

from prefect import flow
from prefect.runtime import flow_run
from pydantic import Field

from cytoarch.errors import ManifestError, StoreError
from cytoarch.paths import ID_PATTERN
from flows.parameters import MapSettings, RunSettings
from flows.stages import Summary
from flows.watch_inbox import InboxSettings, looked_at, seen
from tasks.cancelling import HOOKS
from tasks.inbox import Looked, arrival_of, publish_inbox, with_labels


def _run_name() -> str:
    """`take-B08`, or what the manifest is called in its folder where the event names no brain."""
    given = flow_run.parameters
    return f"take-{given.get('brain_id') or '/'.join(Path(given['manifest_path']).parts[-2:])}"


@flow(name="take-arrival", flow_run_name=_run_name, **HOOKS)
def take_arrival(
    manifest_path: Path,
    brain_id: Annotated[str | None, Field(pattern=ID_PATTERN)] = None,
    what: Literal["arrived", "annotated"] = "arrived",
    inbox: InboxSettings = InboxSettings(),
    settings: MapSettings = MapSettings(),
    run: RunSettings = RunSettings(),
) -> Summary:
    """Start map-brain for the brain that an event names, unless a run for the same content was started before.

    The events are `brain.arrived` and `brain.annotated`; whoever emits one says that everything is there, so nothing is
    waited for. A run that the inbox has started for the same manifest and settings counts, and the other way round.

    Args:
        manifest_path: The manifest that the event names.
        brain_id: The brain that the event names; blank: all of the manifest.
        what: arrived: a new brain; annotated: its labels have come or changed, so that it is trained on and scored.
        inbox: The store, and where the run is started; the inbox itself is not looked into.
        settings: How the brain is mapped, stage by stage.
        run: How the work is spread.

    """
    if not manifest_path.is_file():
        raise ManifestError(str(manifest_path), ["is not there; the event must name a manifest that this machine sees"])
    found = [one for one in arrival_of(manifest_path, inbox.inbox_path) if brain_id in (None, one.brain_id)]
    if not found:
        raise StoreError(f"{manifest_path} names no brain {brain_id!r}")
    looked: list[Looked] = []
    for one in found:
        chosen = with_labels(one) if what == "annotated" and not one.faults else one
        looked.append(looked_at(inbox, chosen, {"settings": settings, "run": run}))
    publish_inbox(looked)
    return seen(str(manifest_path), looked)
