"""Encoders, loaded once per process, and the devices they run on."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Literal

from prefect.concurrency.sync import concurrency

from cytoarch.embeddings import EmbedSettings
from cytoarch.encoders import Encoder, load_encoder

Device = Literal["cpu", "cuda"]

GPU_LIMIT = "gpu"
"""Global concurrency limit that deployments/bootstrap.py creates: one model on a GPU at a time."""

_lock = threading.Lock()


def encoder_for(settings: EmbedSettings) -> Encoder:
    """The encoder the settings name; tasks that run side by side share one."""
    with _lock:
        return _load(settings.model_copy(update={"batch_size": 1, "channels": ()}))  # these load no other model


@contextmanager
def device_slot(device: Device) -> Iterator[None]:
    """Wait for the device: a GPU takes one task at a time, the cores are shared by the workers.

    Raises Prefect's ConcurrencySlotAcquisitionError if the limit was never created on the server.
    """
    if device == "cpu":
        yield
        return
    with concurrency(GPU_LIMIT, strict=True):
        yield


@lru_cache(maxsize=2)
def _load(settings: EmbedSettings) -> Encoder:
    return load_encoder(settings)
