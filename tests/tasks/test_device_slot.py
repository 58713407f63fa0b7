"""Who has the GPU: tasks that share a server ask it; with a temporary server a process is alone."""

import threading
from collections.abc import Iterator

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_ALLOW_EPHEMERAL_MODE, temporary_settings

from cytoarch.errors import StoreError
from tasks.encoders import GPU_LIMIT, Device, device_slot

pytestmark = [pytest.mark.alone, pytest.mark.xdist_group("alone")]


@pytest.fixture
def temporary() -> Iterator[None]:
    """No server is named: Prefect would start one for this process."""
    with temporary_settings({PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: True}, restore_defaults={PREFECT_API_URL}):
        yield


def enters_beside(device: Device) -> bool:
    """Whether a second task gets the device while this one has it; it must get it afterwards."""
    entered, left = threading.Event(), threading.Event()

    def second() -> None:
        with device_slot(device):
            entered.set()
            left.wait(10)

    with device_slot(device):
        thread = threading.Thread(target=second)
        thread.start()
        at_once = entered.wait(0.3)
    left.set()
    thread.join(10)
    assert entered.is_set()
    return at_once


def test_without_a_server_a_gpu_takes_one_task_at_a_time(temporary: None) -> None:
    assert not enters_beside("cuda")


def test_a_task_that_breaks_gives_the_gpu_back(temporary: None) -> None:
    with pytest.raises(ZeroDivisionError), device_slot("cuda"):
        raise ZeroDivisionError
    assert not enters_beside("cuda")


def test_the_processor_is_not_waited_for(temporary: None) -> None:
    assert enters_beside("cpu")


def test_a_server_without_the_limit_is_refused(client: SyncPrefectClient) -> None:
    with pytest.raises(StoreError, match=r"'gpu'.* is not on the Prefect server .* deployments/bootstrap\.py"):
        enters_beside("cuda")


def test_a_server_with_the_limit_is_asked(client: SyncPrefectClient) -> None:
    client.upsert_global_concurrency_limit_by_name(GPU_LIMIT, 1)
    try:
        with device_slot("cuda"):
            assert client.read_global_concurrency_limit_by_name(GPU_LIMIT).active_slots == 1
        assert client.read_global_concurrency_limit_by_name(GPU_LIMIT).active_slots == 0
    finally:
        client.delete_global_concurrency_limit_by_name(GPU_LIMIT)
