"""The one way a flow runs a task over the sections of a brain, and what it says at the end."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

from prefect import Flow, Task, get_run_logger
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, as_completed
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from cytoarch.brains import Brain, Section
from cytoarch.embeddings.engine import NO_SPEED, Speed
from cytoarch.errors import CytoarchError
from flows.parameters import BrainSource, RunSettings
from tasks.progress import stage_progress
from tasks.sections import SECTION_FAILED, Outcome


class Summary(NamedTuple):
    """What a flow did for a brain."""

    brain_id: str
    made: int
    """Products made now, over all stages; 0: everything was current."""
    failed: dict[str, str]
    """Sections that could not be processed -> reason."""
    notes: dict[str, str]
    """What a person wants to find again: name -> path, link or figure."""


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
        brains = source.brains()
    except CytoarchError:
        return source.manifest_path.name
    return brains[0].brain_id if len(brains) == 1 else f"{len(brains)}-brains"


def for_each_brain(
    one_brain: "Flow[..., Any]", source: BrainSource, brains: Sequence[Brain], parameters: dict[str, Any]
) -> Summary:
    """Run a flow once for every brain of a manifest, one after the other, and sum up."""
    summaries: list[Summary] = []
    errors: list[CytoarchError] = []
    for brain in brains:
        chosen = source.model_copy(update={"brain_id": brain.brain_id})
        try:
            summaries.append(one_brain(source=chosen, **parameters))
        except CytoarchError as error:  # it costs that brain only; it is raised when the others are done
            get_run_logger().error("brain %s: %s", brain.brain_id, error)
            errors.append(error)
    if errors:
        done = ", ".join(summary.brain_id for summary in summaries) or "none"
        raise CytoarchError("\n".join([*map(str, errors), f"brains that were done: {done}"]))
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

        cluster = {"n_workers": run.workers, "threads_per_worker": 1, "dashboard_address": None}
        with DaskTaskRunner(cluster_kwargs=cluster) as dask_runner:
            yield dask_runner
        return
    runner: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=run.workers)
    with runner:
        yield runner


def run_stage(
    title: str,
    runner: TaskRunner[Any],
    task: "Task[..., State[Any]]",
    sections: Sequence[Section],
    arguments: Callable[[Section], dict[str, Any]],
    is_current: Callable[[Section], bool] = lambda _section: False,
    sizes: Mapping[str, int] | None = None,
) -> list[Outcome]:
    """Run a task for every section; sections that cannot be processed are among the outcomes, other faults raise.

    Sections that are known to be current get no task run. `sizes` (bytes) of the sections' scans let the progress tell
    the rate and the time left.
    """
    current = [section.section_id for section in sections if is_current(section)]
    outcomes = {section_id: Outcome(section_id, "current") for section_id in current}
    with stage_progress(title, len(sections), sizes) as progress:
        for section_id in current:
            progress.finished(section_id)
        due = [section for section in sections if section.section_id not in outcomes]
        futures = {runner.submit(task, arguments(section)): section.section_id for section in due}
        for future, state in _ended(futures):
            section_id = futures[future]
            if state.name == SECTION_FAILED:
                outcomes[section_id] = Outcome(section_id, "failed", state.message or "")
            else:
                outcomes[section_id] = Outcome(*future.result())
            progress.finished(section_id)
    ordered = [outcomes[section.section_id] for section in sections]
    _log_stage(title, ordered)
    return ordered


def run_groups(
    title: str,
    runner: TaskRunner[Any],
    task: "Task[..., State[Any]]",
    groups: Sequence[tuple[Section, ...]],
    arguments: Callable[[tuple[Section, ...]], dict[str, Any]],
) -> tuple[list[Outcome], Speed]:
    """Run a task for every group of sections; returns what became of the sections, and the speed of all together."""
    outcomes: dict[str, Outcome] = {}
    speed = NO_SPEED
    with stage_progress(title, sum(map(len, groups))) as progress:
        futures = {runner.submit(task, arguments(group)): group for group in groups}
        for future, _ in _ended(futures):
            found, its_speed = future.result()
            speed = speed + its_speed
            for outcome in found:
                outcomes[outcome[0]] = Outcome(*outcome)
                progress.finished(outcome[0])
    ordered = [outcomes[section.section_id] for group in groups for section in group]
    _log_stage(title, ordered)
    return ordered, speed


def _ended(futures: Iterable[PrefectFuture[Any]]) -> Iterator[tuple[PrefectFuture[Any], "State[Any]"]]:
    """Futures with their states, as they end."""
    for future in as_completed(list(futures)):
        future.wait()  # from here on the state is the final one, not what the server last heard of
        yield future, future.state


def _log_stage(title: str, outcomes: Sequence[Outcome]) -> None:
    """Say in the run's log what a stage did."""
    logger = get_run_logger()
    counts = {status: sum(outcome.status == status for outcome in outcomes) for status in ("made", "current", "failed")}
    logger.info("%s: %s", title, ", ".join(f"{count} {status}" for status, count in counts.items()))
    for outcome in outcomes:
        if outcome.status == "failed":
            logger.warning("%s: section %s failed: %s", title, outcome.section_id, outcome.reason)


def made_count(outcomes: Sequence[Outcome]) -> int:
    """How many sections something was made for."""
    return sum(outcome.status == "made" for outcome in outcomes)


def failures(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Sections that could not be processed, with the reason."""
    return {outcome.section_id: outcome.reason for outcome in outcomes if outcome.status == "failed"}


def without(sections: Sequence[Section], failed: dict[str, str]) -> tuple[Section, ...]:
    """The sections that did not fail."""
    return tuple(section for section in sections if section.section_id not in failed)


def not_ingested(
    brain: Brain, ready: Sequence[Section], named: Collection[str], skip: Sequence[str] = ()
) -> dict[str, str]:
    """Sections that a table names but that are not in the store -> what to do."""
    missing = set(named) - {one.section_id for one in ready} - set(skip)
    return {one.section_id: "is not ingested; run ingest-brain" for one in brain.kept if one.section_id in missing}


def final_state(summary: Summary, noun: str = "section") -> Summary:
    """The state a flow ends in: Completed, its name saying how many sections failed, or that all was current.

    Typed as the summary in it, since that is what a flow that returns the state gives its caller.
    """
    count = len(summary.failed)
    name = f"{count} {noun}{'s' if count != 1 else ''} failed" if count else "Completed" if summary.made else "Current"
    reasons = "; ".join(f"{one}: {reason}" for one, reason in sorted(summary.failed.items()))
    state: Any = Completed(name=name, message=reasons[:2000] or f"brain {summary.brain_id}", data=summary)
    return cast("Summary", state)
