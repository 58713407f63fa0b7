"""What all tasks on one section share: their policy, and how a bad section is told from a broken run."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import task_run
from prefect.states import Completed, Failed

from cytoarch.brains import Section
from cytoarch.embeddings.engine import NO_SPEED, Speed
from cytoarch.embeddings.jobs import Job
from cytoarch.errors import CytoarchError, SectionError
from cytoarch.store.brain_store import Draft
from cytoarch.store.records import Record

SECTION_FAILED = "SectionFailed"
"""Name of the state of a task whose section cannot be processed; the run goes on without it."""

Status = Literal["made", "current", "failed"]


class Outcome(NamedTuple):
    """What a task did for one section."""

    section_id: str
    status: Status
    reason: str = ""


async def is_transient(_task: object, _run: TaskRun, state: "State[Any]") -> bool:
    """Whether a failure may pass by itself: an I/O error, but none of our own and not a full disk."""
    error = await state.aresult(raise_on_failure=False)
    return isinstance(error, OSError) and not isinstance(error, CytoarchError) and error.errno not in (28, 30)


POLICY: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": [5, 30],
    "retry_condition_fn": is_transient,
    "cache_policy": NO_CACHE,  # whether a product is current is asked of the store, which Prefect cannot see
    "persist_result": False,
}


def section_state(section_id: str, work: Callable[[], bool]) -> "State[Any]":
    """Run `work` for a section; it says whether anything was made. A SectionError becomes a named Failed state."""
    try:
        made = work()
    except SectionError as error:
        return Failed(name=SECTION_FAILED, message=str(error))
    status: Status = "made" if made else "current"
    return Completed(name="Made" if made else "Current", message=section_id, data=Outcome(section_id, status))


def group_run_name(verb: str) -> Callable[[], str]:
    """Names a task run after its verb and the sections it works on: `embed s0001 to s0032`."""

    def name() -> str:
        ids = [section.section_id for section in task_run.parameters["sections"]]
        return f"{verb} {ids[0]}" + (f" to {ids[-1]}" if len(ids) > 1 else "")

    return name


class GroupOutcome(NamedTuple):
    """What a task did that embeds several sections in one go."""

    outcomes: tuple[Outcome, ...]
    speed: Speed


def group_state(
    sections: tuple[Section, ...],
    job_of: Callable[[Section], Job],
    compute: Callable[[Sequence[Job]], tuple[dict[str, str], Speed]],
) -> "State[Any]":
    """Make a job of every section and compute those that are not current; sections that fail cost only themselves."""
    outcomes: dict[str, Outcome] = {}
    jobs: list[Job] = []
    for section in sections:
        try:
            job = job_of(section)
        except SectionError as error:
            outcomes[section.section_id] = Outcome(section.section_id, "failed", str(error))
            continue
        jobs.append(job)
        outcomes[section.section_id] = Outcome(section.section_id, "current" if job.committed else "made")
    speed = NO_SPEED
    if not all(job.committed for job in jobs):
        failed, speed = compute(jobs)
        outcomes |= {one: Outcome(one, "failed", reason) for one, reason in failed.items()}
    ordered = tuple(outcomes[section.section_id] for section in sections)
    lost = sum(one.status == "failed" for one in ordered)
    made = any(one.status == "made" for one in ordered)
    name = f"{lost} of {len(ordered)} failed" if lost else "Made" if made else "Current"
    reasons = "; ".join(f"{one.section_id}: {one.reason}" for one in ordered if one.reason)
    return Completed(name=name, message=reasons[:2000] or None, data=GroupOutcome(ordered, speed))


def unfinished(begun: Record | Draft) -> Draft | None:
    """The draft that is left to fill; one that an earlier run sealed is published here."""
    if isinstance(begun, Draft) and begun.sealed is not None:
        begun.commit({})
        return None
    return begun if isinstance(begun, Draft) else None
