"""Encoders, loaded once per process."""

import threading
from functools import lru_cache

from cytoarch.embeddings import EmbedSettings
from cytoarch.encoders import Encoder, load_encoder

_lock = threading.Lock()


def encoder_for(settings: EmbedSettings) -> Encoder:
    """The encoder the settings name; tasks that run side by side share one."""
    with _lock:
        return _load(settings)


@lru_cache(maxsize=2)
def _load(settings: EmbedSettings) -> Encoder:
    return load_encoder(settings)
