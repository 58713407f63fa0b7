"""Encoders, loaded once per process, and the devices they run on."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Literal

from prefect.client.base import ServerType, determine_server_type
from prefect.concurrency._asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency

from cytoarch.embeddings import EmbedSettings
from cytoarch.embeddings.engine import Speed, run_engine
from cytoarch.embeddings.jobs import Float32, Job
from cytoarch.encoders import Encoder, load_encoder
from cytoarch.errors import StoreError
from tasks.progress import engine_reporter

Device = Literal["cpu", "cuda"]
Compute = Callable[[Float32], Sequence[Float32]]

GPU_LIMIT = "gpu"
"""Global concurrency limit that deployments/bootstrap.py creates: one model on a GPU at a time."""

_lock = threading.Lock()
_gpu = threading.Lock()
"""Held while a task has the GPU, where there is no server that knows of the limit."""
_running = threading.Lock()
"""Held while a model is at work: the engine feeds one as fast as it goes, a second beside it would only slow both."""


def encoder_for(settings: EmbedSettings) -> Encoder:
    """The encoder the settings name; tasks that run side by side share one."""
    same_model = {"batch_size": 1, "channels": (), "margin_px": 0}  # whatever these are
    with _lock:
        return _load(settings.model_copy(update=same_model), _stamp(settings))


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


def embed_jobs(
    stage: str, jobs: Sequence[Job], compute: Compute, settings: EmbedSettings, noun: str, per_tile: int
) -> tuple[dict[str, str], Speed]:
    """Run the engine on the device, reporting progress; returns sections that failed with the reason, and the speed."""
    with _running, device_slot(settings.device):
        report = engine_reporter(stage, noun, per_tile)
        return run_engine(jobs, compute, settings.batch_size, report, settings.beside)


def _stamp(settings: EmbedSettings) -> tuple[tuple[str, int, int], ...]:
    """What a model's folder looks like: a long-lived worker does not go on with weights that were replaced."""
    _, _, source = settings.encoder.partition(":")
    folder = Path(source).expanduser()
    if not source or not folder.is_dir():
        return ()
    return tuple((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.iterdir()))


@lru_cache(maxsize=2)
def _load(settings: EmbedSettings, _stamp: tuple[tuple[str, int, int], ...]) -> Encoder:
    if settings.device == "cuda":
        import torch

        if torch.cuda.is_available():  # where it is not, loading says so
            torch.cuda.set_device(own_gpu(torch.cuda.device_count()))
    return load_encoder(settings)


def own_gpu(count: int) -> int:
    """The GPU of this process, of so many: the workers of a Dask cluster take one each, any other process the first."""
    from distributed import get_worker

    try:
        name = get_worker().name
    except ValueError:  # this is no worker
        return 0
    return int(name) % count if str(name).isdigit() else 0
