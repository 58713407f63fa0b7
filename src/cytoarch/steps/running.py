"""Steps at work: what is current is asked first, the rest is made, and a bad section costs only itself."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

from cytoarch.brains import Section
from cytoarch.embeddings.engine import NO_SPEED, Report, Speed, grouped, run_engine
from cytoarch.embeddings.jobs import Job
from cytoarch.errors import SectionError
from cytoarch.progress import Progress
from cytoarch.sampling import UnreadableSectionError
from cytoarch.steps.engine_step import EngineStep
from cytoarch.steps.opened import OpenBrain, OpenHome
from cytoarch.steps.step import ChangedInputError, Inputs, MissingInputError, Place, Step, is_current
from cytoarch.store import drafts
from cytoarch.store.drafts import Draft
from cytoarch.store.products import Work
from cytoarch.store.records import Committed

Status = Literal["made", "current", "failed"]


class Outcome(NamedTuple):
    """What became of one section."""

    section_id: str
    status: Status
    reason: str = ""


SectionProgress = Callable[[str], Progress]
"""section id -> what its work calls as it goes on"""


def silent(_done: int, _total: int) -> None:
    """Progress that nobody listens to."""


def make(step: Step[Any], home: OpenHome, on_progress: Progress = silent, threads: int = 1) -> tuple[Committed, bool]:
    """Make a product of a whole brain or study unless it is current; its record, and whether it was made now.

    A section that turns out to be damaged is noted as failed, and the product is made from the others: what was read
    of it is thrown away, and it is no input of what is made.
    """
    while True:
        try:
            return _made(step, Place(home), on_progress, threads)
        except UnreadableSectionError as error:
            if not isinstance(home, OpenBrain) or error.section_id not in {one.section_id for one in home.sections}:
                raise
            home.failed[error.section_id] = error.reason


def make_section(
    steps: Sequence[Step[Any]], brain: OpenBrain, section: Section, on_progress: Progress = silent, threads: int = 1
) -> Outcome:
    """Make the products of one section, one step after the other; the first that fails ends it."""
    made = False
    try:
        for step in steps:
            if step.applies(section):
                made |= _made(step, Place(brain, section), on_progress, threads)[1]
            else:
                made |= drafts.remove(brain.catalogue, step.product(section.section_id))
    except (SectionError, MissingInputError) as error:
        return Outcome(section.section_id, "failed", str(error))
    return Outcome(section.section_id, "made" if made else "current")


def make_sections(
    steps: Sequence[Step[Any]],
    brain: OpenBrain,
    sections: Iterable[Section] | None = None,
    progress_of: SectionProgress = lambda _: silent,
    threads: int = 1,
) -> list[Outcome]:
    """Make the products of some sections, or of all at work, one section after the other.

    A section that fails is named among the outcomes, and is no longer at work afterwards. With several workers, call
    this in each for a part of the sections.
    """
    chosen = tuple(brain.sections if sections is None else sections)
    outcomes = [make_section(steps, brain, one, progress_of(one.section_id), threads) for one in chosen]
    brain.failed |= {one.section_id: one.reason for one in outcomes if one.status == "failed"}
    return outcomes


def due(steps: Sequence[Step[Any]], brain: OpenBrain, sections: Iterable[Section]) -> list[Section]:
    """The sections for which some step has something to make, as far as can be told without reading large files."""
    return [one for one in sections if not all(is_current(step, Place(brain, one)) for step in steps)]


def _made(step: Step[Any], place: Place, on_progress: Progress, threads: int) -> tuple[Committed, bool]:
    """The product of a step. Where an input turned out to be damaged, it is made of what is left."""
    product = step.product(place.section_id)
    inputs = Inputs(step, place, on_progress, threads)
    before: Work | None = None
    while True:
        work = step.work(place)
        try:
            return drafts.ensure(place.home.catalogue, product, work, lambda staging: step.write(inputs, staging))
        except ChangedInputError:
            if work == before:  # what was noted is still an input
                raise
            before = work


# -- steps that the engine computes for several sections together ------------------------------------------------------


class Group(NamedTuple):
    """Sections that are computed together, so that batches go over the borders between them."""

    sections: tuple[str, ...]
    is_current: bool


class EnginePlan(NamedTuple):
    """How the sections at work are computed, and what that takes."""

    groups: tuple[Group, ...]
    failed: dict[str, str]
    """Sections that cannot be computed -> reason."""
    tiles: int
    needed_bytes: int
    """What is not there yet takes at most so much."""


def plan_engine(step: EngineStep[Any], brain: OpenBrain, sections: Iterable[Section]) -> EnginePlan:
    """Put sections together into groups that are computed in one go.

    Which sections share a group does not depend on what is current. Sections that are current are not opened.
    """
    kept: list[Section] = []
    counts: list[int] = []
    current: set[str] = set()
    failed: dict[str, str] = {}
    needed = 0
    for section in sections:
        place = Place(brain, section)
        record = brain.catalogue.record(step.product(section.section_id))
        if record is not None and is_current(step, place):
            current.add(section.section_id)
            counts.append(step.tiles_of(record.facts))
        else:
            try:
                step.work(place)
                tiles, nbytes = step.cost(Inputs(step, place, silent))
            except (SectionError, MissingInputError) as error:
                failed[section.section_id] = str(error)
                continue
            counts.append(tiles)
            needed += nbytes
        kept.append(section)
    groups = tuple(
        Group(ids, current.issuperset(ids))
        for ids in (tuple(kept[one].section_id for one in places) for places in grouped(counts, step.batch_size))
    )
    return EnginePlan(groups, failed, sum(counts), needed)


def make_together(
    step: EngineStep[Any], brain: OpenBrain, section_ids: Sequence[str], report: Report | None = None
) -> tuple[list[Outcome], Speed]:
    """Compute a group of sections. One that is current is not computed again, but its tiles keep their places."""
    outcomes: dict[str, Outcome] = {}
    jobs: list[Job] = []
    for one in section_ids:
        try:
            job = _job(step, Place(brain, brain.rows[one]))
        except (SectionError, MissingInputError) as error:
            outcomes[one] = Outcome(one, "failed", str(error))
            continue
        jobs.append(job)
        outcomes[one] = Outcome(one, "current" if job.committed else "made")
    speed = NO_SPEED
    if not all(job.committed for job in jobs):
        failed, speed = run_engine(jobs, step.compute, step.batch_size, report, step.beside)
        outcomes |= {one: Outcome(one, "failed", reason) for one, reason in failed.items()}
    brain.failed |= {one.section_id: one.reason for one in outcomes.values() if one.status == "failed"}
    return [outcomes[one] for one in section_ids], speed


def _job(step: EngineStep[Any], place: Place) -> Job:
    work = step.work(place)
    begun = drafts.begin(place.home.catalogue, step.product(place.section_id), work)
    inputs = Inputs(step, place, silent)
    if isinstance(begun, Draft) and begun.sealed is not None:
        begun.commit({})
        return step.job(inputs, None, dict)
    if isinstance(begun, Committed):
        return step.job(inputs, None, dict)
    draft = begun
    return step.job(inputs, draft.staging, lambda facts: draft.commit({**facts, **step.said}))
