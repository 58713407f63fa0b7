"""How steps are operated: one task that runs them for some sections, one for a brain, one for a study."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import task_run
from prefect.states import Completed

from cytoarch.embeddings.engine import NO_SPEED, Speed
from cytoarch.errors import CytoarchError
from cytoarch.steps.engine_step import EngineStep
from cytoarch.steps.opened import join_brain, open_study
from cytoarch.steps.running import Outcome, make, make_sections, make_together
from cytoarch.steps.step import Step
from tasks.encoders import Device, device_slot, one_model_at_a_time
from tasks.progress import engine_reporter, reporter


@dataclass(frozen=True)
class Home:
    """A brain that the flow has open, as its tasks are told of it."""

    store_path: Path
    brain_id: str
    ticket: str
    """Lets other processes join the flow's lock."""


class Ran(NamedTuple):
    """What a task did for its sections."""

    outcomes: tuple[Outcome, ...]
    speed: Speed


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


def _sections_run_name() -> str:
    """Named after the verb and the sections: `embed s0001 to s0032`."""
    parameters = task_run.parameters
    ids = parameters["section_ids"]
    return f"{parameters['title']} {ids[0]}" + (f" to {ids[-1]}" if len(ids) > 1 else "")


@task(name="run-sections", task_run_name=_sections_run_name, **POLICY)
def run_sections(
    home: Home, title: str, steps: tuple[Step[Any], ...], section_ids: tuple[str, ...], threads: int
) -> "State[Any]":
    """Run steps, one after the other, for each of some sections; a bad section costs only itself."""
    with join_brain(home.store_path, home.brain_id, home.ticket) as brain, device_slot(_device(steps)):
        rows = [brain.rows[one] for one in section_ids]
        outcomes = make_sections(steps, brain, rows, lambda one: reporter(title, one), threads)
    return _state(outcomes, NO_SPEED)


@task(name="compute-sections", task_run_name=_sections_run_name, **POLICY)
def compute_sections(
    home: Home, title: str, step: EngineStep[Any], section_ids: tuple[str, ...], noun: str, per_tile: int
) -> "State[Any]":
    """Compute a step for some sections in one go of the engine; a bad section costs only itself."""
    with (
        join_brain(home.store_path, home.brain_id, home.ticket) as brain,
        one_model_at_a_time(),
        device_slot(_device([step])),
    ):
        outcomes, speed = make_together(step, brain, section_ids, engine_reporter(title, noun, per_tile))
    return _state(outcomes, speed)


@task(name="run-brain", task_run_name="{title} {home.brain_id}", **POLICY)
def run_brain(home: Home, title: str, step: Step[Any]) -> bool:
    """Run a step for a whole brain; says whether anything was made."""
    with join_brain(home.store_path, home.brain_id, home.ticket) as brain:
        return make(step, brain, reporter(title, "brain"))[1]


@task(name="run-study", task_run_name="{title} {study}", **POLICY)
def run_study(store_path: Path, study: str, title: str, step: Step[Any]) -> bool:
    """Run a step for a study; says whether anything was made."""
    with open_study(store_path, study) as opened:
        return make(step, opened, reporter(title, "study"))[1]


def _state(outcomes: Sequence[Outcome], speed: Speed) -> "State[Any]":
    """Completed, its name saying how many sections failed, or whether anything was made."""
    lost = sum(one.status == "failed" for one in outcomes)
    made = any(one.status == "made" for one in outcomes)
    name = f"{lost} of {len(outcomes)} failed" if lost else "Made" if made else "Current"
    reasons = "; ".join(f"{one.section_id}: {one.reason}" for one in outcomes if one.reason)
    return Completed(name=name, message=reasons[:2000] or None, data=Ran(tuple(outcomes), speed))


def _device(steps: Sequence[Step[Any]]) -> Device:
    """The device that some of the steps compute on."""
    used = {one.encoder.settings.device for one in steps if hasattr(one, "encoder")}
    return "cuda" if "cuda" in used else "cpu"
