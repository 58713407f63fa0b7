"""The one way a flow runs steps over the sections of a brain, and what it says at the end."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from prefect import Flow, get_run_logger
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture, as_completed
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from cytoarch.brains import Brain, Section, brain_ids
from cytoarch.embeddings.engine import NO_SPEED, Speed
from cytoarch.errors import CytoarchError, StoreError
from cytoarch.steps.engine_step import EngineStep
from cytoarch.steps.opened import OpenBrain, OpenStudy, open_brain
from cytoarch.steps.running import EnginePlan, Outcome, due
from cytoarch.steps.sections import SECTION, cores_each, ready_sections
from cytoarch.steps.step import Place, Step, is_current
from cytoarch.store.durations import Duration, note_duration
from flows.parameters import BrainSource, RunSettings
from tasks.leases import brain_lease
from tasks.progress import StageProgress, say_stage, spend, spoken_s, stage_progress
from tasks.steps import Home, Ran, compute_sections, run_brain, run_sections, run_study


@dataclass(frozen=True)
class Summary:
    """What a flow did for a brain."""

    brain_id: str
    made: int
    """Products made now, over all stages; 0: everything was current."""
    failed: dict[str, str]
    """Sections that could not be processed -> reason."""
    notes: dict[str, str]
    """What a person wants to find again: name -> path, link or figure."""


@dataclass(frozen=True)
class Embedded(Summary):
    """What embedding a brain gave."""

    embedding: str
    """The name under which the store holds the embeddings."""


@dataclass(frozen=True)
class Traced(Summary):
    """What tracing the cortex of a brain gave."""

    midline: str
    """The name under which the store holds its middle."""


@dataclass(frozen=True)
class Parcellated(Summary):
    """What mapping a brain with a head gave."""

    parcellation: str
    """The name under which the store holds the maps."""


@dataclass(frozen=True)
class Clustered(Summary):
    """What clustering a brain gave."""

    clusters: str
    """The name under which the store holds the clusters."""


def run_name(verb: str) -> Callable[[], str]:
    """Names a flow run after its verb and brain: `map-B07`."""

    def name() -> str:
        parameters = flow_run.parameters
        source = parameters.get("source")
        if isinstance(source, BrainSource):
            return f"{verb}-{source.brain_id or _brain_in(source)}"
        return f"{verb}-{parameters['brain'].brain_id}"

    return name


def _brain_in(source: BrainSource) -> str:
    """The brain of a manifest that holds one, or how many it holds; a manifest at fault is reported by the flow."""
    try:
        ids = brain_ids(source.manifest_path)
    except CytoarchError:
        return source.manifest_path.name
    return ids[0] if len(ids) == 1 else f"{len(ids)}-brains"


def for_each_brain(
    one_brain: "Flow[..., Any]", source: BrainSource, brains: Sequence[Brain], parameters: dict[str, Any]
) -> Summary:
    """Run a flow once for every brain of a manifest, one after the other, and sum up; a bad brain costs only itself."""
    summaries: list[Summary] = []
    errors: dict[str, Exception] = {}
    for brain in brains:
        chosen = source.model_copy(update={"brain_id": brain.brain_id})
        try:
            summaries.append(one_brain(source=chosen, **parameters))
        except Exception as error:  # noqa: BLE001 - it is raised when the others are done
            get_run_logger().error("brain %s: %s", brain.brain_id, error)
            errors[brain.brain_id] = error
    if errors:
        done = ", ".join(summary.brain_id for summary in summaries) or "none"
        told = [
            str(error) if isinstance(error, CytoarchError) else f"brain {one}: {error!r}"
            for one, error in errors.items()
        ]
        text = "\n".join([*told, f"brains that were done: {done}"])
        broken = [error for error in errors.values() if not isinstance(error, CytoarchError)]
        if broken:  # not the user's to mend: told with its traceback
            raise RuntimeError(text) from broken[0]
        raise CytoarchError(text)
    return final_state(
        Summary(
            brain_id=", ".join(brain.brain_id for brain in brains),
            made=sum(summary.made for summary in summaries),
            failed={f"{s.brain_id}/{one}": reason for s in summaries for one, reason in s.failed.items()},
            notes={f"{s.brain_id} {name}": value for s in summaries for name, value in s.notes.items()},
        )
    )


@contextmanager
def workers(run: RunSettings) -> Iterator[TaskRunner[Any]]:
    """The task runner the settings ask for, open for the stages of a flow."""
    if run.runner == "dask":
        from prefect_dask import DaskTaskRunner

        own = {"n_workers": run.workers, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
        choice: dict[str, Any] = {"address": run.scheduler} if run.scheduler else {"cluster_kwargs": own}
        with DaskTaskRunner(**choice) as dask_runner:
            yield dask_runner
        return
    runner: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=run.workers)
    with runner:
        yield runner


def run_steps(
    title: str,
    runner: TaskRunner[Any],
    brain: OpenBrain,
    steps: Sequence[Step[Any]],
    run: RunSettings,
    sections: Sequence[Section] | None = None,
    sizes_of: Callable[[Sequence[Section]], Mapping[str, int]] | None = None,
    check: Callable[[Sequence[Section]], None] = lambda _: None,
) -> int:
    """Run steps for all sections at work, or for those given; returns how many sections something was made for.

    What is current is asked here, once; the others are run in chunks. Sections that cannot be processed are noted in
    the open brain, any other fault is raised. What `sizes_of` says (bytes of the scans) lets the progress tell rate and
    time left. What `check` raises about the sections that have something to make is raised before the first is begun.
    """
    chosen = brain.sections if sections is None else tuple(sections)
    left = due(steps, brain, chosen)
    if left:
        check(left)
    wanted = [one.section_id for one in left]
    with stage_progress(title, len(chosen), sizes_of(left) if sizes_of and left else None) as progress:
        progress.finished(*{one.section_id for one in chosen}.difference(wanted))
        home = home_of(brain)
        parameters = {"home": home, "title": title, "steps": tuple(steps), "threads": cores_each(run.workers)}
        futures = [
            runner.submit(run_sections, {"section_ids": chunk, **parameters}) for chunk in chunks(wanted, run.workers)
        ]
        outcomes, _ = _collected(futures, brain, steps, progress)
    made = _note_sections(title, brain, steps, outcomes, progress.seconds)
    _log_stage(title, len(chosen) - len(wanted), outcomes, progress.seconds)
    return made


def compute_step(
    title: str,
    runner: TaskRunner[Any],
    brain: OpenBrain,
    step: EngineStep[Any],
    plan: EnginePlan,
    noun: str,
    per_tile: int,
) -> tuple[int, Speed]:
    """Compute a step of the engine as planned; returns for how many sections something was made, and the speed."""
    brain.failed |= plan.failed
    current = [one for group in plan.groups if group.is_current for one in group.sections]
    with stage_progress(title, sum(len(group.sections) for group in plan.groups)) as progress:
        progress.finished(*current)
        parameters = {"title": title, "step": step, "noun": noun, "per_tile": per_tile}
        futures = [
            runner.submit(compute_sections, {"home": home_of(brain), "section_ids": group.sections, **parameters})
            for group in plan.groups
            if not group.is_current
        ]
        outcomes, speed = _collected(futures, brain, [step], progress)
    made = _note_sections(title, brain, [step], outcomes, progress.seconds)
    failed = [Outcome(one, "failed", why) for one, why in plan.failed.items()]
    _log_stage(title, len(current), [*outcomes, *failed], progress.seconds)
    return made, speed


def run_whole(title: str, brain: OpenBrain, step: Step[Any]) -> int:
    """Run a step of the whole brain; returns 1 if it was made, 0 if it was current.

    A section that turns out to be damaged is left out and noted in the open brain as failed.
    """
    if is_current(step, Place(brain)):
        _log(f"{title}: current")
        return 0
    before = set(brain.failed)
    with stage_progress(title, 1) as progress:
        made = run_brain(home_of(brain), title, step)
        progress.finished("brain")
    _note_stage(title, brain, [step.step], int(made), progress.seconds)
    _log(f"{title}: {'made' if made else 'current'} in {spoken_s(progress.seconds)}")
    for section_id in brain.failed.keys() - before:
        _warn(title, section_id, brain.failed[section_id])
    return int(made)


def run_in_study(title: str, study: OpenStudy, step: Step[Any]) -> int:
    """Run a step of a study; returns 1 if it was made, 0 if it was current."""
    if is_current(step, Place(study)):
        return 0
    with stage_progress(title, 1) as progress:
        made = run_study(study.store.root, study.study, title, step)
        progress.finished("study")
    study.catalogue.refresh(step.product())
    return int(made)


@contextmanager
def held_brain(store_path: Path, brain: str | Brain) -> Iterator[OpenBrain]:
    """A brain open for writing, with its lease where several hosts share the store; see `open_brain`."""
    brain_id = brain if isinstance(brain, str) else brain.brain_id
    with brain_lease(store_path, brain_id), open_brain(store_path, brain) as opened:
        yield opened


def home_of(brain: OpenBrain) -> Home:
    """An open brain, as its tasks are told of it."""
    return Home(brain.store.root, brain.brain_id, brain.ticket)


@contextmanager
def skipping(brain: OpenBrain, skip: Collection[str]) -> Iterator[None]:
    """Leave sections out while a flow is at work; raises StoreError, naming them, if some are not in the brain."""
    unknown = sorted(set(skip) - set(brain.rows))
    if unknown:
        known = ", ".join(list(brain.rows)[:8]) + (", ..." if len(brain.rows) > 8 else "")
        raise StoreError(f"{brain.name} has no sections {', '.join(unknown)} to skip; there are {known}")
    before = brain.skipped
    brain.skipped = before | frozenset(skip)
    try:
        yield
    finally:
        brain.skipped = before


MOST_SECTIONS = 64
"""Sections that one task works on at most: a task costs Prefect about as much as 20 small sections cost us."""


def chunks(section_ids: Sequence[str], workers: int) -> list[tuple[str, ...]]:
    """Sections in the chunks that a task works on each: some for every worker, so that none waits long for another.

    >>> [len(chunk) for chunk in chunks([str(one) for one in range(20)], workers=2)]
    [3, 3, 3, 3, 3, 3, 2]
    """
    size = max(1, min(MOST_SECTIONS, -(-len(section_ids) // (4 * workers))))
    return [tuple(section_ids[first : first + size]) for first in range(0, len(section_ids), size)]


def _collected(
    futures: Sequence[PrefectFuture[Any]], brain: OpenBrain, steps: Sequence[Step[Any]], progress: StageProgress
) -> tuple[list[Outcome], Speed]:
    """What tasks did for their sections, as they end; what they committed and what failed is noted in the brain."""
    outcomes: list[Outcome] = []
    speed = NO_SPEED
    for future in _ended(futures):
        ran: Ran = future.result()
        speed = speed + ran.speed
        for outcome in ran.outcomes:
            if outcome.status == "failed":
                brain.failed[outcome.section_id] = outcome.reason
            for step in steps if outcome.status != "current" else ():
                brain.catalogue.refresh(step.product(outcome.section_id))  # it may be the work of another process
            outcomes.append(outcome)
            progress.finished(outcome.section_id)
    return outcomes, speed


def _ended(futures: Sequence[PrefectFuture[Any]]) -> Iterator[PrefectFuture[Any]]:
    """Futures as they end."""
    for future in as_completed(list(futures)):
        future.wait()  # from here on the state is the final one, not what the server last heard of
        yield future


def _note_sections(
    title: str, brain: OpenBrain, steps: Sequence[Step[Any]], outcomes: Sequence[Outcome], seconds: float
) -> int:
    """Remember how long a stage took; returns for how many sections something was made."""
    made = [one.section_id for one in outcomes if one.status == "made"]
    _note_stage(title, brain, [one.step for one in steps], len(made), seconds, megapixels(brain, made))
    return len(made)


def _note_stage(
    title: str, brain: OpenBrain, steps: Sequence[str], made: int, seconds: float, mpx: float = 0.0
) -> None:
    """Remember how long a stage took, where something was made: what other brains will cost is told from it."""
    if made:
        spend(title, seconds)
        note_duration(brain.store.root, Duration(brain.brain_id, tuple(steps), made, seconds, mpx))


def megapixels(brain: OpenBrain, section_ids: Sequence[str]) -> float:
    """The size of the scans of sections that are in the store, in all."""
    records = (brain.catalogue.record(SECTION.product(one)) for one in section_ids)
    pixels: int = sum(math.prod(one.facts["shape"][-2:]) for one in records if one is not None)
    return pixels / 1e6


def _log_stage(title: str, current: int, outcomes: Sequence[Outcome], seconds: float) -> None:
    """Say in the run's log what a stage did, and how long it took."""
    counts = {status: sum(outcome.status == status for outcome in outcomes) for status in ("made", "current", "failed")}
    counts["current"] += current
    told = ", ".join(f"{count} {status}" for status, count in counts.items() if count or status == "made")
    _log(f"{title}: {told} in {spoken_s(seconds)}")
    for outcome in outcomes:
        if outcome.status == "failed":
            _warn(title, outcome.section_id, outcome.reason)


def _log(text: str) -> None:
    """Log what a stage did, where it ran and in the flow that called that."""
    get_run_logger().info(text)
    context = FlowRunContext.get()
    say_stage(text, context is not None and context.flow_run is not None and bool(context.flow_run.parent_task_run_id))


def _warn(title: str, section_id: str, reason: str) -> None:
    get_run_logger().warning("%s: section %s failed: %s", title, section_id, reason)


def not_ingested(brain: OpenBrain, named: Collection[str]) -> dict[str, str]:
    """Sections that a table names but that are not in the store -> what to do."""
    ready = {one.section_id for one in ready_sections(brain)}
    missing = [one.section_id for one in brain.sections if one.section_id in named and one.section_id not in ready]
    return dict.fromkeys(missing, "is not ingested; run ingest-brain")


S = TypeVar("S", bound=Summary)


def final_state(summary: S, noun: str = "section", of: str = "brain") -> S:
    """The state a flow ends in: Completed, its name saying how many sections failed, or that all was current.

    Typed as the summary in it, since that is what a flow that returns the state gives its caller.
    """
    count = len(summary.failed)
    name = f"{count} {noun}{'s' if count != 1 else ''} failed" if count else "Completed" if summary.made else "Current"
    reasons = "; ".join(f"{one}: {reason}" for one, reason in sorted(summary.failed.items()))
    state: Any = Completed(name=name, message=reasons[:2000] or f"{of} {summary.brain_id}", data=summary)
    return cast("S", state)
