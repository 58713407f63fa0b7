"""Encoders, loaded once per process."""

import threading
from functools import lru_cache
from pathlib import Path

from cytoarch.embeddings.settings import EmbedSettings
from cytoarch.encoders import Encoder, load_encoder
from cytoarch.encoders.registry import parts_of

_lock = threading.Lock()


def encoder_for(settings: EmbedSettings) -> Encoder:
    """The encoder the settings name; work that runs side by side shares one. Raises ModelError if it cannot be had."""
    same_model = {"batch_size": 1, "channels": (), "margin_px": 0, "background": "as-scanned"}  # whatever these are
    with _lock:
        return _load(settings.model_copy(update=same_model), _stamp(settings))


def _stamp(settings: EmbedSettings) -> tuple[tuple[str, int, int], ...]:
    """What a model's folder looks like: a long-lived worker does not go on with weights that were replaced."""
    sources = [one.partition(":")[2] for one in parts_of(settings.encoder)]
    folders = [Path(source).expanduser() for source in sources if source]
    return tuple(
        (path.name, path.stat().st_size, path.stat().st_mtime_ns)
        for folder in folders
        if folder.is_dir()
        for path in sorted(folder.iterdir())
    )


@lru_cache(maxsize=2)
def _load(settings: EmbedSettings, _stamp: tuple[tuple[str, int, int], ...]) -> Encoder:
    if settings.device == "cuda":
        import torch

        if torch.cuda.is_available():  # where it is not, loading says so
            torch.cuda.set_device(own_gpu(torch.cuda.device_count()))
    return load_encoder(settings)


def own_gpu(count: int) -> int:
    """Which of the machine's GPUs this process uses: workers of a Dask cluster one each, other processes the first."""
    from distributed import get_worker

    try:
        name = get_worker().name
    except ValueError:  # this is no worker
        return 0
    return int(name) % count if str(name).isdigit() else 0
