"""What all tasks on one section share: their policy, and how a bad section is told from a broken run."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Completed, Failed

from cytoarch.errors import CytoarchError, SectionError

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
