"""Small pyramids of many shards, and what lies in their folders."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from cytoarch.images import layout
from cytoarch.images.layout import Pyramid
from cytoarch.images.pyramids import write_pyramid
from cytoarch.store.staging import Staging

Array = NDArray[Any]
SHAPE = (3, 86, 107)
SHARDS = 12


def make_shards_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 16 and shards of 32 pixels: a small image has many."""
    monkeypatch.setattr(layout, "CHUNK_PX", 16)
    monkeypatch.setattr(layout, "SHARD_CHUNKS", 2)


def noise(*shape: int, dtype: str = "uint8", most: int | None = None) -> Array:
    rng = np.random.default_rng(5)
    if np.dtype(dtype).kind == "f":
        return rng.normal(size=shape).astype(dtype)
    return rng.integers(0, most or np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def window(pixels: Array) -> Callable[[int, int, int, int], Array]:
    return lambda y, x, h, w: pixels[..., y : y + h, x : x + w]


def write(staging: Staging, pixels: Array, reduction: Any = "mean", levels: int = 4, **options: Any) -> Pyramid:
    layout = Pyramid(pixels.shape, pixels.dtype, 2.0, reduction, levels=levels)
    write_pyramid(staging, layout, options.pop("read", window(pixels)), name="image", **options)
    return layout


def level(staging: Staging, number: int, folder: str = "") -> Array:
    return np.asarray(zarr.open_array(staging.path / folder / str(number), mode="r", zarr_format=3)[...])


def tree(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def shards(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "zarr.json"]
