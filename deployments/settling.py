"""Ends runs whose process is gone with the worker of this machine; `serve.py` asks for it at its start and end.

Left alone they would read Running for six minutes, and the inbox would wait for them.
"""

import sys
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled, Crashed, State, StateType

OURS = ["cytoarch", "orchestration"]
"""The pools whose workers `serve.py` starts and stops; those of others go on."""
LIVE = [StateType.RUNNING, StateType.CANCELLING, StateType.PENDING]
MESSAGE = "Its worker was stopped while it ran. Run it again: it goes on where it stopped."
_PAGE = 200


def main() -> int:
    """Settle the runs of the server that PREFECT_API_URL names."""
    if not PREFECT_API_URL.value():
        print("PREFECT_API_URL is not set; name the server whose runs are to be settled", file=sys.stderr)
        return 2
    with get_client(sync_client=True) as client:
        count = settle(client)
    if count:
        print(f"{count} runs whose worker is gone were ended: crashed, or cancelled where somebody had asked for it")
    return 0


def settle(client: SyncPrefectClient) -> int:
    """End all live runs of the work pool and the tasks that they left; returns how many runs."""
    count = 0
    live = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=LIVE)))
    pool = WorkPoolFilter(name=WorkPoolFilterName(any_=OURS))
    while runs := client.read_flow_runs(flow_run_filter=live, work_pool_filter=pool, limit=_PAGE):
        for run in runs:
            asked = run.state_type is StateType.CANCELLING
            end: State[Any] = Cancelled(message="Its worker is gone.") if asked else Crashed(message=MESSAGE)
            _settle_tasks(client, run.id, end)
            client.set_flow_run_state(run.id, end, force=True)
            count += 1
    return count


def _settle_tasks(client: SyncPrefectClient, flow_run_id: UUID, end: "State[Any]") -> None:
    """End the tasks and subflows of a run that is gone."""
    of_run = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    live = TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=LIVE)))
    while tasks := client.read_task_runs(flow_run_filter=of_run, task_run_filter=live, limit=_PAGE):
        for task in tasks:
            child = task.state.state_details.child_flow_run_id if task.state is not None else None
            if child is not None:
                _settle_tasks(client, child, end)
                client.set_flow_run_state(child, end, force=True)
            client.set_task_run_state(task.id, end, force=True)


if __name__ == "__main__":
    sys.exit(main())
