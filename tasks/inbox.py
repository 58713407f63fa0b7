"""What has arrived in an inbox, and what Prefect knows of earlier runs for it."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from prefect import get_run_logger
from prefect import tags as run_tags
from prefect.artifacts import create_table_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from pydantic import BaseModel

from cytoarch.brains import LABEL_TABLE_FILE, Brain, stated_brains
from cytoarch.digests import canonical_json, content_digest, hash_file
from cytoarch.errors import ManifestError
from cytoarch.paths import confined
from cytoarch.store.looks import Looks

MAP_FLOW = "map-brain"
NEEDS_A_PERSON = ("unreadable", "failed", "waiting")


class Arrival(NamedTuple):
    """A brain in a manifest that has arrived."""

    name: str
    manifest_path: Path
    brain_id: str
    brain_digest: str
    wait: str
    """Why it is not started yet; empty: it can be."""
    missing: tuple[str, ...] = ()
    """Files it names that are not there; when they come, it is something new to map."""
    faults: tuple[str, ...] = ()
    """All that is wrong with the manifest."""


Status = Literal["started", "running", "done", "waiting", "unreadable", "failed"]


class Looked(NamedTuple):
    """What a look found of one manifest or brain."""

    name: str
    status: Status
    told: tuple[str, ...]
    """The run, what it waits for, or every fault."""


class Ticket(NamedTuple):
    """What tells runs for the same thing: brain, content of its manifest, parameters."""

    digest: str
    tags: tuple[str, ...]


class Earlier(NamedTuple):
    """Runs that were started for a ticket before."""

    live: int
    done: int
    failed: int
    latest: str


def arrivals(inbox: Path, settle_s: float, missing_grace_s: float) -> list[Arrival]:
    """The brains of every manifest in an inbox, each with what it still waits for.

    What has not stood still for `settle_s` may be half copied. This look is remembered in the inbox, so that the next
    can tell, whatever the files are dated.
    """
    found: list[Arrival] = []
    looks = Looks(inbox)
    for path in _manifests(inbox):
        name = path.relative_to(inbox).as_posix()
        moving = _moves(looks, path, settle_s)
        if moving:
            found.append(Arrival(name, path, "", "", moving))
            continue
        try:
            brains = stated_brains(path)
        except ManifestError as error:
            found.append(Arrival(name, path, "", "", "cannot be read", faults=tuple(error.faults)))
            continue
        for brain in brains:
            missing = _missing(brain, path)
            wait = _waits_for(looks, brain, path, missing, settle_s, missing_grace_s)
            found.append(Arrival(f"{name}: {brain.brain_id}", path, brain.brain_id, brain.digest, wait, missing))
    looks.keep()
    return found


def arrival_of(manifest_path: Path, inbox: Path) -> list[Arrival]:
    """The brains of one manifest, taken as whole, under the names that a look into the inbox gives them."""
    name = (
        manifest_path.resolve().relative_to(inbox.resolve()).as_posix()
        if manifest_path.resolve().is_relative_to(inbox.resolve())
        else str(manifest_path)
    )
    try:
        brains = stated_brains(manifest_path)
    except ManifestError as error:
        return [Arrival(name, manifest_path, "", "", "cannot be read", faults=tuple(error.faults))]
    return [
        Arrival(
            f"{name}: {brain.brain_id}", manifest_path, brain.brain_id, brain.digest, "", _missing(brain, manifest_path)
        )
        for brain in brains
    ]


def with_labels(arrival: Arrival) -> Arrival:
    """An arrival that is another one when the content of its label images is: they may be drawn on in place."""
    (brain,) = stated_brains(arrival.manifest_path, brain_id=arrival.brain_id)
    folder = arrival.manifest_path.parent
    paths = {one.section_id: confined(one.labels, folder) for one in brain.kept if one.labels}
    digests = {f"labels/{one}": hash_file(path).sha256 for one, path in paths.items() if path.is_file()}
    return arrival._replace(brain_digest=content_digest({"manifest": arrival.brain_digest, **digests}))


def ticket(arrival: Arrival, settings: Mapping[str, BaseModel]) -> Ticket:
    """The ticket of a brain that has arrived, under the given settings."""
    plain = {name: value.model_dump(mode="json") for name, value in settings.items()}
    place = str(arrival.manifest_path.resolve())
    identity = canonical_json([place, arrival.brain_id, arrival.brain_digest, list(arrival.missing), plain])
    digest = hashlib.sha256(identity.encode()).hexdigest()[:32]
    return Ticket(digest, (f"brain:{arrival.brain_id}", f"inbox:{digest}"))


def earlier_runs(one: Ticket) -> Earlier:
    """What Prefect knows of runs for a ticket."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[MAP_FLOW])),  # its subflows carry the tag as well
            flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[one.tags[-1]])),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        )
    types = [run.state_type for run in runs]
    failed = sum(kind in (StateType.FAILED, StateType.CRASHED) for kind in types)
    done = sum(kind in (StateType.COMPLETED, StateType.CANCELLED) for kind in types)  # cancelled: a person's will
    return Earlier(len(types) - failed - done, done, failed, runs[0].name if runs else "")


def counted_statuses(looked: Sequence[Looked]) -> str:
    """How many there are of each status, what needs a person first.

    >>> counted_statuses([Looked("a", "waiting", ("",)), Looked("b", "done", ("",)), Looked("c", "waiting", ("",))])
    '2 waiting, 1 done'
    >>> counted_statuses([])
    'Empty'
    """
    counts = Counter(one.status for one in looked)
    order: tuple[Status, ...] = ("unreadable", "failed", "started", "running", "waiting", "done")
    return ", ".join(f"{counts[status]} {status}" for status in order if counts[status]) or "Empty"


def publish_inbox(looked: Sequence[Looked]) -> None:
    """The table of a look, a row for every fault; what needs a person is a warning in the log as well."""
    logger = get_run_logger()
    for one in looked:
        for text in one.told if one.status in NEEDS_A_PERSON else ():
            logger.warning("%s is %s: %s", one.name, one.status, text)
    rows = [{"found": one.name, "status": one.status, "what": text} for one in looked for text in one.told]
    create_table_artifact(rows, key="inbox", description=f"Inbox: {counted_statuses(looked)}")


@contextmanager
def tagged(one: Ticket) -> Iterator[None]:
    """Runs started inside carry the ticket."""
    with run_tags(*one.tags):
        yield


def _manifests(inbox: Path) -> list[Path]:
    """The tables that may be manifests; hidden ones are what a Mac or a copy under way leaves."""
    found = (path for path in (*inbox.glob("*.csv"), *inbox.glob("*/*.csv")) if path.name != LABEL_TABLE_FILE)
    return sorted(path for path in found if not any(part[0] == "." for part in path.relative_to(inbox).parts))


def _files(brain: Brain, manifest_path: Path) -> list[Path]:
    return [confined(path, manifest_path.parent) for s in brain.kept for path in (s.path, s.labels) if path]


def _missing(brain: Brain, manifest_path: Path) -> tuple[str, ...]:
    return tuple(path.name for path in _files(brain, manifest_path) if not path.exists())


def _waits_for(
    looks: Looks, brain: Brain, manifest_path: Path, missing: tuple[str, ...], settle_s: float, missing_grace_s: float
) -> str:
    present = [path for path in _files(brain, manifest_path) if path.exists()]
    moving = [f"{path.name} {text}" for path in present if (text := _moves(looks, path, settle_s))]
    if missing and looks.still_s(manifest_path) < missing_grace_s:
        return f"{len(missing)} scan(s) not there yet, {missing[0]} first"
    return moving[0] if moving else ""


def _moves(looks: Looks, path: Path, settle_s: float) -> str:
    """Why a file may still be written, or nothing."""
    if looks.still_s(path) >= settle_s:
        return ""
    if not looks.is_ahead(path):
        return f"changed less than {settle_s:g} s ago"
    if looks.remembers:
        return f"is dated in the future: waits until it has stood still for {settle_s:g} s"
    return "is dated in the future, and looks cannot be compared as the inbox cannot be written to; correct its date"
