"""Streams an image of any size into a sharded multi-resolution pyramid, one whole shard at a time.

The shards of all levels form a tree: a shard of level k is made of the four below it, halved. Walking the tree depth
first writes every level in one pass over the source and holds at most one shard per level in memory. Every shard has
one owner and is written whole, so a crash leaves whole shards, which the journal of the staging folder names.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from cytoarch.digests import canonical_json
from cytoarch.errors import ScanError
from cytoarch.images.ngff import NGFF_VERSION, multiscales
from cytoarch.images.shards import CLEVELS, Codec, encode_shard
from cytoarch.tiling import partition

Array = NDArray[Any]
Reduction = Literal["mean", "mode"]
ReadWindow = Callable[[int, int, int, int], Array]
"""(y, x, height, width) -> (c, height, width) or (height, width)"""

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

    def has(self, key: str) -> bool:
        """Whether the file at `key` is finished."""

    def seal(self, key: str) -> None:
        """Enter the finished file at `key`."""

    def write(self, key: str, *parts: bytes) -> None:
        """Write and enter a whole file."""


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

    @property
    def lead(self) -> tuple[int, ...]:
        """The axes before y, x."""
        return self.shape[:-2]

    def level_shape(self, level: int) -> tuple[int, int]:
        """(y, x) of a level: halved and rounded up, so that no row or column is lost."""
        factor = 2**level
        return -(-self.shape[-2] // factor), -(-self.shape[-1] // factor)

    def scale_um(self, level: int) -> float:
        """Pixel edge of a level (um)."""
        return float(self.pixel_size_um * 2**level)

    def offset_um(self, level: int) -> float:
        """Centre of the first pixel of a level (um)."""
        return float(self.origin_um + (self.scale_um(level) - self.pixel_size_um) / 2)

    def shard_px(self) -> int:
        """Edge of a shard in pixels, the same in every level so that four shards of a level make one above it."""
        if self.shard is not None:
            return self.shard
        longest, chunk = max(self.level_shape(0)), self.chunk_px()
        return chunk * min(SHARD_CHUNKS, -(-longest // chunk))

    def encoded(self, block: Array) -> list[bytes]:
        """The parts of the file of a shard that holds `block`."""
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


def halve_mean(block: Array) -> Array:
    """Every 2 x 2 pixels averaged, integers rounded to nearest; a lone last row or column is averaged with itself.

    (..., y, x) -> (..., ceil(y/2), ceil(x/2)), same dtype.
    """
    block = _evened(block)
    if block.dtype.kind == "f":
        four = block.astype(np.float32)
        return ((_quarter(four, 0) + _quarter(four, 1) + _quarter(four, 2) + _quarter(four, 3)) / 4).astype(block.dtype)
    wide = block.astype(np.uint32 if block.dtype.itemsize > 1 else np.uint16)
    total = _quarter(wide, 0) + _quarter(wide, 1) + _quarter(wide, 2) + _quarter(wide, 3)
    return ((total + 2) >> 2).astype(block.dtype)


def halve_mode(block: Array) -> Array:
    """The most frequent of every 2 x 2 label values; ties go to the first in reading order. Shapes as `halve_mean`."""
    four = np.stack([_quarter(_evened(block), i) for i in range(4)])
    votes = (four[:, None] == four[None]).sum(axis=1)
    return np.asarray(np.take_along_axis(four, votes.argmax(axis=0)[None], axis=0)[0])


def _evened(block: Array) -> Array:
    odd = [(0, 0)] * (block.ndim - 2) + [(0, block.shape[-2] % 2), (0, block.shape[-1] % 2)]
    return np.pad(block, odd, mode="edge") if any(pad for _, pad in odd) else block


def _quarter(block: Array, index: int) -> Array:
    return block[..., index // 2 :: 2, index % 2 :: 2]


def write_pyramid(
    journal: Journal,
    pyramid: Pyramid,
    read: ReadWindow,
    *,
    name: str,
    folder: str = "",
    attributes: Mapping[str, Any] | None = None,
    own_attributes: Mapping[str, Any] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write an NGFF image at `folder` of the journal's path, finished shards of an earlier run adopted.

    `attributes` join the `ome` attributes (`omero`, `image-label`); `own_attributes` are ours, under `cytoarch`.
    `on_progress(done, total)` counts the shards of level 0. Raises ScanError if `read` gives a block of another
    shape or type, or values that are not finite.
    """
    prefix = f"{folder}/" if folder else ""
    axes = "cyx" if pyramid.lead else "yx"
    levels = range(pyramid.levels)
    arrays = [_create_array(journal, f"{prefix}{level}", pyramid, level, axes) for level in levels]
    _Writer(journal, pyramid, read, prefix, arrays, on_progress).run()
    _write_image_group(journal, folder, pyramid, name, axes, attributes, own_attributes)


@dataclass(frozen=True)
class BandTarget:
    """One image of a single level that takes some channels of the bands."""

    folder: str
    name: str
    pyramid: Pyramid
    channels: slice
    own_attributes: Mapping[str, Any]


def write_bands(journal: Journal, targets: Sequence[BandTarget], bands: Iterator[tuple[int, Array]]) -> None:
    """Write images that become known band by band, as `tiling.map_tiles` yields them: (first row, (c, rows, x)).

    All targets have the same (y, x) and one level. Values are cast to each target's type; raises ScanError where
    they are not finite afterwards, and ValueError if the bands do not cover every row once, in order.
    """
    writers = [ShardWriter.create(journal, target) for target in targets]
    height, _ = targets[0].pyramid.level_shape(0)
    due = math.lcm(*(target.pyramid.shard_px() for target in targets))  # rows that are whole shards in every target
    held: list[Array] = []
    top = received = 0
    for row, band in bands:
        if row != received:
            raise ValueError(f"a band starts at row {row} where row {received} is due")
        received += band.shape[1]
        held.append(band)
        while received - top >= due or (received == height and top < height):
            block = np.concatenate(held, axis=1)
            rows = min(due, height - top)
            for writer in writers:
                writer.write_rows(top, block[writer.target.channels, :rows])
            held, top = [block[:, rows:]], top + rows
    if received != height:
        raise ValueError(f"the bands end at row {received} of {height}")
    for writer in writers:
        writer.close()


@dataclass(frozen=True)
class ShardWriter:
    """Writes an image of one level shard by shard, in any order; shards of an earlier run are kept."""

    journal: Journal
    target: BandTarget

    @classmethod
    def create(cls, journal: Journal, target: BandTarget) -> Self:
        """Make the array, or go on with the one an earlier run made."""
        _create_array(journal, f"{target.folder}/0", target.pyramid, 0, "cyx")
        return cls(journal, target)

    def key(self, row: int, column: int) -> str:
        """The key of a shard."""
        return f"{self.target.folder}/0/c/0/{row}/{column}"

    def write(self, row: int, column: int, block: Array) -> None:
        """Write a whole shard (c, y, x) of the image's type."""
        self.journal.write(self.key(row, column), *self.target.pyramid.encoded(block))

    def write_rows(self, top: int, block: Array) -> None:
        """Write the whole shards of some rows (c, y, x) that start at a shard's edge; values are cast.

        Raises ScanError where a value is not finite afterwards.
        """
        with np.errstate(over="ignore"):  # overflow is what the next line looks for
            cast = block.astype(self.target.pyramid.dtype)
        if cast.dtype.kind == "f" and not np.isfinite(cast).all():
            raise ScanError(f"values of {self.target.name} from row {top} on are not finite in {cast.dtype}")
        edge = self.target.pyramid.shard_px()
        for y, x, h, w in partition(cast.shape[1], cast.shape[2], edge):
            self.write((top + y) // edge, x // edge, cast[:, y : y + h, x : x + w])

    def close(self) -> None:
        """Write the image's metadata, once all shards are there."""
        target = self.target
        _write_image_group(self.journal, target.folder, target.pyramid, target.name, "cyx", None, target.own_attributes)


def _write_image_group(
    journal: Journal,
    folder: str,
    pyramid: Pyramid,
    name: str,
    axes: str,
    attributes: Mapping[str, Any] | None,
    own_attributes: Mapping[str, Any] | None,
) -> None:
    levels = range(pyramid.levels)
    ome = {
        "version": NGFF_VERSION,
        "multiscales": [
            multiscales(
                name,
                axes,
                [pyramid.scale_um(level) for level in levels],
                [pyramid.offset_um(level) for level in levels],
                pyramid.reduction,
                [str(level) for level in levels],
            )
        ],
        **(attributes or {}),
    }
    write_group(journal, folder, {"ome": ome, **({"cytoarch": dict(own_attributes)} if own_attributes else {})})


def write_group(journal: Journal, folder: str, attributes: Mapping[str, Any]) -> None:
    """Write the metadata of a Zarr v3 group at `folder` of the journal's path."""
    metadata = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
    journal.write(f"{folder}/zarr.json" if folder else "zarr.json", canonical_json(metadata).encode())


def _create_array(journal: Journal, key: str, pyramid: Pyramid, level: int, axes: str) -> "zarr.Array[Any]":
    height, width = pyramid.level_shape(level)
    shard, chunk = pyramid.shard_px(), pyramid.chunk_px()
    metadata_key = f"{key}/zarr.json"
    path = journal.path / key
    if journal.has(metadata_key):
        return zarr.open_array(path, mode="r+", zarr_format=3, config={"write_empty_chunks": True})
    array = zarr.create_array(
        store=path,
        shape=(*pyramid.lead, height, width),
        dtype=pyramid.dtype,
        chunks=(*pyramid.lead, chunk, chunk),
        shards=(*pyramid.lead, shard, shard),
        # bitshuffle halves the encoding time of noisy 8-bit content; crc32c catches every flipped bit on reading
        compressors=(
            BloscCodec(cname=pyramid.codec, clevel=CLEVELS[pyramid.codec], shuffle="bitshuffle"),
            Crc32cCodec(),
        ),
        fill_value=pyramid.fill,
        dimension_names=list(axes),
        config={"write_empty_chunks": True},  # a shard that is absent is always a fault, never "all background"
    )
    journal.seal(metadata_key)
    return array


@dataclass
class _Writer:
    """One walk over the tree of shards."""

    journal: Journal
    pyramid: Pyramid
    read: ReadWindow
    prefix: str
    arrays: "list[zarr.Array[Any]]"
    on_progress: Callable[[int, int], None] | None
    done: int = 0

    def run(self) -> None:
        top = self.pyramid.levels - 1
        rows, columns = self._grid(top)
        for row in range(rows):
            for column in range(columns):
                self._shard(top, row, column)

    def _grid(self, level: int) -> tuple[int, int]:
        height, width = self.pyramid.level_shape(level)
        return -(-height // self.pyramid.shard_px()), -(-width // self.pyramid.shard_px())

    def _shard(self, level: int, row: int, column: int) -> Array:
        """Write the shard, those below it first, and return its pixels."""
        edge = self.pyramid.shard_px()
        height, width = self.pyramid.level_shape(level)
        y, x = row * edge, column * edge
        h, w = min(edge, height - y), min(edge, width - x)
        key = self._key(level, row, column)
        window = (..., slice(y, y + h), slice(x, x + w))
        if self._finished(level, row, column):
            self._advance(level, row, column)
            return np.asarray(self.arrays[level][window])
        block = self._from_source(y, x, h, w) if level == 0 else self._from_below(level, row, column, h, w)
        self.journal.write(key, *self.pyramid.encoded(block))
        if level == 0:
            self._advance(level, row, column)
        return block

    def _from_source(self, y: int, x: int, h: int, w: int) -> Array:
        block = self.read(y, x, h, w)
        if block.shape != (*self.pyramid.lead, h, w) or block.dtype != self.pyramid.dtype:
            raise ScanError(
                f"the source gave {block.dtype} {block.shape} where {self.pyramid.dtype} "
                f"{(*self.pyramid.lead, h, w)} was announced"
            )
        if block.dtype.kind == "f" and not np.isfinite(block).all():
            raise ScanError(f"values in the window at y={y}, x={x} are not finite (NaN, infinite or overflowing)")
        return block

    def _from_below(self, level: int, row: int, column: int, h: int, w: int) -> Array:
        edge = self.pyramid.shard_px()
        halve = halve_mean if self.pyramid.reduction == "mean" else halve_mode
        block = np.empty((*self.pyramid.lead, h, w), dtype=self.pyramid.dtype)
        for below_row, below_column in self._below(level, row, column):
            half = halve(self._shard(level - 1, below_row, below_column))
            y, x = (below_row % 2) * edge // 2, (below_column % 2) * edge // 2
            block[..., y : y + half.shape[-2], x : x + half.shape[-1]] = half
        return block

    def _key(self, level: int, row: int, column: int) -> str:
        return f"{self.prefix}{level}/c/{'0/' * len(self.pyramid.lead)}{row}/{column}"

    def _below(self, level: int, row: int, column: int) -> list[tuple[int, int]]:
        """The shards of the level below that make up a shard."""
        rows, columns = self._grid(level - 1)
        return [
            (r, c) for r in (2 * row, 2 * row + 1) for c in (2 * column, 2 * column + 1) if r < rows and c < columns
        ]

    def _finished(self, level: int, row: int, column: int) -> bool:
        """Whether an earlier run finished the shard and everything below it."""
        below = self._below(level, row, column) if level else []
        return self.journal.has(self._key(level, row, column)) and all(self._finished(level - 1, *at) for at in below)

    def _advance(self, level: int, row: int, column: int) -> None:
        """Count the shards of level 0 that a finished shard stands for."""
        rows, columns = self._grid(0)
        span = 2**level
        self.done += min(span, rows - row * span) * min(span, columns - column * span)
        if self.on_progress is not None:
            self.on_progress(self.done, rows * columns)
