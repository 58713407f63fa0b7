"""Runs whose worker is gone are ended, with the tasks and subflows that they left; others are left alone."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from prefect import flow, task
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.states import Cancelling, Completed, Running

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = pytest.mark.xdist_group("more flows")


@pytest.fixture(scope="module")
def settling() -> Iterator[ModuleType]:
    """The script, imported from its folder as it is started there."""
    sys.path.insert(0, str(ROOT / "deployments"))
    try:
        yield importlib.import_module("settling")
    finally:
        sys.path.remove(str(ROOT / "deployments"))


@task
def maps_a_section() -> None:
    """Never run."""


@flow
def maps() -> None:
    """Never run."""


def test_live_runs_of_the_pools_end_and_nothing_else(settling: ModuleType, client: SyncPrefectClient) -> None:
    client.create_work_pool(WorkPoolCreate(name="cytoarch", type="process"))
    flow_id = client.create_flow(maps)
    deployment = client.create_deployment(flow_id, "settled", work_pool_name="cytoarch")
    states = {
        "at work": Running(), "cancelled by somebody": Cancelling(), "done": Completed(name="2 sections failed"),
    }  # fmt: skip
    runs = {}
    for name, state in states.items():
        runs[name] = client.create_flow_run_from_deployment(deployment, name=name)
        client.set_flow_run_state(runs[name].id, Running(), force=True)
        client.set_flow_run_state(runs[name].id, state, force=True)
    types = [client.read_flow_run(run.id).state_type for run in runs.values()]
    assert types == [StateType.RUNNING, StateType.CANCELLING, StateType.COMPLETED]
    alone = client.create_flow_run(maps, state=Running())
    left = client.create_task_run(maps_a_section, flow_run_id=runs["at work"].id, dynamic_key="0", state=Running())
    try:
        assert settling.settle(client) == 2
        found = {name: client.read_flow_run(run.id).state for name, run in runs.items()}
        assert {name: state.type for name, state in found.items() if state} == {
            "at work": StateType.CRASHED, "cancelled by somebody": StateType.CANCELLED, "done": StateType.COMPLETED,
        }  # fmt: skip
        assert found["at work"] is not None
        assert "it goes on where it stopped" in str(found["at work"].message)
        assert client.read_task_run(left.id).state_type is StateType.CRASHED
        assert client.read_flow_run(alone.id).state_type is StateType.RUNNING, "no worker of ours started it"
        assert settling.settle(client) == 0
    finally:
        client.delete_deployment(deployment)
        client.delete_work_pool("cytoarch")
