"""The devices that encoders run on."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal

from prefect.client.base import ServerType, determine_server_type
from prefect.concurrency._asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency

from cytoarch.errors import StoreError

Device = Literal["cpu", "cuda"]

GPU_LIMIT = "gpu"
"""Global concurrency limit that deployments/bootstrap.py creates: one model on a GPU at a time."""

_gpu = threading.Lock()
"""Held while a task has the GPU, where there is no server that knows of the limit."""
_running = threading.Lock()


@contextmanager
def device_slot(device: Device) -> Iterator[None]:
    """Wait for the device: a GPU takes one task at a time, the cores are shared by the workers.

    Who shares a GPU is known to the server that they have in common. A temporary server has this process only.

    Raises StoreError if the limit was never created on the server.
    """
    if device == "cpu":
        yield
        return
    if determine_server_type() is ServerType.EPHEMERAL:
        with _gpu:
            yield
        return
    with ExitStack() as slot:
        try:
            slot.enter_context(concurrency(GPU_LIMIT, strict=True))
        except ConcurrencySlotAcquisitionError as error:
            raise StoreError(
                f"the concurrency limit {GPU_LIMIT!r}, by which GPUs are shared, is not on the Prefect server "
                f"({error}); run deployments/bootstrap.py, or `prefect gcl create {GPU_LIMIT} --limit 1` (one a GPU)"
            ) from None
        yield


@contextmanager
def one_model_at_a_time() -> Iterator[None]:
    """Wait until no other model is at work: the engine feeds one as fast as it goes, a second would slow both."""
    with _running:
        yield
