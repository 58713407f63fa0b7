"""The layout of a pyramid: which shard of which level holds what, decided before any pixel is read."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, Self, get_args

import numpy as np

from cytoarch.geometry import Grid
from cytoarch.images.shards import Array, Codec, encode_shard

Reduction = Literal["mean", "mode"]

CHUNK_PX = 512
"""Edge of a chunk of an image with few channels."""
CHUNK_BYTES = 4 << 20
"""Chunks of images with many channels (embeddings, probabilities) are made smaller until they fit into this."""
SHARD_CHUNKS = 8
"""A shard is at most this many chunks along an edge: 4,096 pixels, 48 MiB of RGB."""
SMALLEST_LEVEL_PX = 256
"""Levels are added until the longer edge is no longer than this."""


class Journal(Protocol):
    """What the writer needs of a staging folder."""

    path: Path
    scratch: Path
    """A folder for what the work needs on the way."""

    def has(self, key: str) -> bool:
        """Whether the file at `key` is finished."""

    def seal(self, key: str) -> None:
        """Note that the file at `key` is finished."""

    def write(self, key: str, parts: bytes | Iterable[bytes]) -> None:
        """Write a whole file, part by part, and note that it is finished."""


@dataclass(frozen=True)
class Pyramid:
    """The layout of a pyramid: what is written where, decided before any pixel is read."""

    shape: tuple[int, ...]
    """(c, y, x) or (y, x) of level 0."""
    dtype: np.dtype[Any]
    pixel_size_um: float
    reduction: Reduction
    fill: int | float = 0
    levels: int = 1
    origin_um: float = 0.0
    """Centre of the first pixel of level 0, along y and x."""
    chunk: int | None = None
    """Edge of a chunk in pixels; None: by `CHUNK_PX` and `CHUNK_BYTES`."""
    shard: int | None = None
    """Edge of a shard in pixels, a multiple of the chunk; None: `SHARD_CHUNKS` chunks."""
    codec: Codec = "zstd"
    """lz4 is four times as fast as zstd on floats, which neither makes much smaller."""

    def __post_init__(self) -> None:
        if self.reduction not in get_args(Reduction):
            raise ValueError(f"a pyramid is halved by {' or '.join(get_args(Reduction))}, not by {self.reduction!r}")

    @classmethod
    def on(
        cls, grid: Grid, dtype: np.dtype[Any], reduction: Reduction, lead: tuple[int, ...] = (), **rest: Any
    ) -> Self:
        """The layout of an image (*lead, y, x) on a grid; `rest` are further fields.

        Raises ValueError where the grid does not start at the same distance along y and x.
        """
        if grid.origin_um[0] != grid.origin_um[1]:
            raise ValueError(
                f"images start at the same distance along y and x; this grid starts at {grid.origin_um} um"
            )
        shape = (*lead, *grid.shape)
        return cls(shape, dtype, grid.cell_um, reduction, origin_um=grid.origin_um[0], **rest)

    @property
    def lead(self) -> tuple[int, ...]:
        """The axes before y, x."""
        return self.shape[:-2]

    def level_shape(self, level: int) -> tuple[int, int]:
        """(y, x) of a level: halved and rounded up, so that no row or column is lost."""
        return self.grid(level).shape

    def grid(self, level: int = 0) -> Grid:
        """Where the pixels of a level lie."""
        finest = Grid((self.shape[-2], self.shape[-1]), self.pixel_size_um, (self.origin_um, self.origin_um))
        return finest.grouped(2**level)

    def scale_um(self, level: int) -> float:
        """Pixel edge of a level (um)."""
        return float(self.grid(level).cell_um)

    def offset_um(self, level: int) -> float:
        """Centre of the first pixel of a level (um)."""
        return float(self.grid(level).origin_um[0])

    @property
    def nbytes(self) -> int:
        """Bytes of the pixels of level 0."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def shard_grid(self, level: int) -> tuple[int, int]:
        """(rows, columns) of the shards of a level."""
        height, width = self.level_shape(level)
        return -(-height // self.shard_px()), -(-width // self.shard_px())

    def shard_window(self, level: int, row: int, column: int) -> tuple[int, int, int, int]:
        """(y, x, height, width) of the pixels of a shard, clipped at the edge of the level."""
        edge = self.shard_px()
        height, width = self.level_shape(level)
        y, x = row * edge, column * edge
        return y, x, min(edge, height - y), min(edge, width - x)

    def shard_px(self) -> int:
        """Edge of a shard in pixels, the same in every level so that four shards of a level make one above it."""
        if self.shard is not None:
            return self.shard
        longest, chunk = max(self.level_shape(0)), self.chunk_px()
        return chunk * min(SHARD_CHUNKS, -(-longest // chunk))

    def encoded(self, block: Array) -> Iterator[bytes]:
        """The parts of the file of a shard that holds `block`, compressed as they are asked for."""
        shard, chunk = ((*self.lead, edge, edge) for edge in (self.shard_px(), self.chunk_px()))
        return encode_shard(block, shard, chunk, self.codec, self.fill)

    def chunk_px(self) -> int:
        """Edge of a chunk in pixels; all channels are in it."""
        if self.chunk is not None:
            return self.chunk
        edge = CHUNK_PX
        while edge > 16 and edge**2 * int(np.prod(self.lead)) * self.dtype.itemsize > CHUNK_BYTES:
            edge //= 2
        return edge


def level_count(height: int, width: int) -> int:
    """How many levels an image of this size gets.

    >>> level_count(200, 256), level_count(600, 600), level_count(95000, 136000)
    (1, 3, 11)
    """
    levels = 1
    while max(-(-height // 2 ** (levels - 1)), -(-width // 2 ** (levels - 1))) > SMALLEST_LEVEL_PX:
        levels += 1
    return levels
