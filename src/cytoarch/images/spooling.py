"""Planes that are decoded from top to bottom, made readable by window: kept in memory or spooled to a scratch file."""

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.abc.buffer import Buffer
from zarr.buffer import cpu
from zarr.codecs import BloscCodec
from zarr.storage import MemoryStore

from cytoarch.errors import ScanError, StoreError
from cytoarch.images.planes import Pixels, Rows, Scan, oriented, without_alpha
from cytoarch.images.segments import read_exactly
from cytoarch.progress import Progress
from cytoarch.store.disk import writing

IN_MEMORY_BYTES = 64 << 20
"""Planes up to this size are kept in memory."""
TILE_PX = 4096
"""Width of a chunk of the scratch array: that of a shard, as whose part it is read."""
TILE_BYTES = 8 << 20
"""A chunk of the scratch array is about so large; its height follows."""


def readable(rows: Rows, scratch: Path, stack: ExitStack, on_progress: Progress | None = None) -> Scan:
    """The plane as a scan that is read by window, oriented, without its alpha channel.

    It is decoded once, when the first window is read; a large one into a file in `scratch`, which is gone when `stack`
    ends. Reading raises ScanError if the plane does not decode to what it announced, StoreError if there is no room.
    """
    source = _Deferred(rows, scratch, stack, on_progress)
    scan = Scan(rows.shape, rows.dtype, rows.kind, rows.stated_pixel_sizes, rows.remarks, source.read)
    return oriented(without_alpha(scan) if rows.alpha else scan, rows.orientation)


@dataclass
class _Deferred:
    """A plane that is decoded when its first window is read: asking for its size alone costs nothing."""

    rows: Rows
    scratch: Path
    stack: ExitStack
    on_progress: Progress | None
    lock: threading.Lock = field(default_factory=threading.Lock)
    reader: Callable[[int, int, int, int], Pixels] | None = None

    def read(self, y: int, x: int, height: int, width: int) -> Pixels:
        """The window at (y, x); may be called from several threads."""
        with self.lock:
            if self.reader is None:
                self.reader = self._decode()
        return self.reader(y, x, height, width)

    def _decode(self) -> Callable[[int, int, int, int], Pixels]:
        if int(np.prod(self.rows.shape)) * self.rows.dtype.itemsize <= IN_MEMORY_BYTES:
            return _in_memory(self.rows)
        array = _spooled(self.rows, self.scratch, self.stack, self.on_progress)
        return lambda y, x, height, width: np.asarray(array[:, y : y + height, x : x + width])


def _in_memory(rows: Rows) -> Callable[[int, int, int, int], Pixels]:
    plane: Pixels = np.empty(rows.shape, dtype=rows.dtype)
    for top, band in _checked(rows):
        plane[:, top : top + band.shape[1]] = band
    return lambda y, x, height, width: plane[:, y : y + height, x : x + width]


def _checked(rows: Rows) -> Iterator[tuple[int, Pixels]]:
    """Each band and its first row. Raises ScanError unless the bands together are the plane that was announced."""
    c, height, width = rows.shape
    top = 0
    for band in rows.bands():
        if band.dtype != rows.dtype or (band.shape[0], band.shape[2]) != (c, width) or top + band.shape[1] > height:
            raise ScanError(f"decodes to {band.dtype} {band.shape} at row {top} where {rows.shape} was announced")
        yield top, band
        top += band.shape[1]
    if top != height:
        raise ScanError(f"ends at row {top} of {height}; it is truncated or damaged")


def _spooled(rows: Rows, scratch: Path, stack: ExitStack, on_progress: Progress | None) -> "zarr.Array[Any]":
    """The plane as a Zarr array (c, y, x) in a file of no name, which is gone with `stack` or with the process."""
    c, height, width = rows.shape
    nbytes = c * height * width * rows.dtype.itemsize
    with ExitStack() as opened:
        file = _NamelessFile(scratch)
        opened.callback(file.close)
        free = shutil.disk_usage(scratch).free
        if free < nbytes // 8:
            raise StoreError(
                f"{scratch}: {free / 1e9:.1f} GB free; this scan is decoded from top to bottom and needs up to "
                f"{nbytes / 1e9:.1f} GB beside the store on the way. Make room, or save the scan as a tiled TIFF"
            )
        with writing(scratch):
            array = zarr.create_array(
                MemoryStore(file),
                shape=rows.shape,
                dtype=rows.dtype,
                chunks=(c, min(height, _tile_rows(rows)), min(width, TILE_PX)),
                compressors=BloscCodec(cname="lz4", clevel=1, shuffle="bitshuffle"),
                config={"write_empty_chunks": True},  # to look for empty ones takes longer than to encode
            )
        _fill(array, rows, scratch, on_progress)
        stack.push(opened.pop_all())
    return array


def _tile_rows(rows: Rows) -> int:
    return max(16, TILE_BYTES // (rows.shape[0] * TILE_PX * rows.dtype.itemsize) // 16 * 16)


def _fill(array: "zarr.Array[Any]", rows: Rows, scratch: Path, on_progress: Progress | None) -> None:
    """Write the bands, each row of chunks once and whole."""
    c, height, width = rows.shape
    row_bytes = c * width * rows.dtype.itemsize
    held = np.empty((c, array.chunks[1], width), dtype=rows.dtype)
    filled = 0
    for top, band in _checked(rows):
        taken = 0
        while taken < band.shape[1]:
            count = min(band.shape[1] - taken, held.shape[1] - filled)
            held[:, filled : filled + count] = band[:, taken : taken + count]
            filled, taken = filled + count, taken + count
            if filled == held.shape[1] or top + taken == height:
                with writing(scratch):
                    array[:, top + taken - filled : top + taken] = held[:, :filled]
                filled = 0
        if on_progress is not None:
            on_progress((top + band.shape[1]) * row_bytes, height * row_bytes)


class _NamelessFile(MutableMapping[str, Buffer]):
    """What a Zarr store holds, in a file without a name: whatever happens, its space is free when the process ends."""

    def __init__(self, folder: Path) -> None:
        self._places: dict[str, tuple[int, int]] = {}
        self._end = 0
        self._lock = threading.Lock()
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
                self._handle = os.dup(file.fileno())

    def __getitem__(self, key: str) -> Buffer:
        return cpu.Buffer.from_bytes(read_exactly(self._handle, *self._places[key]))

    def __setitem__(self, key: str, value: Buffer) -> None:
        left = memoryview(value.to_bytes())
        with self._lock:
            at, self._end = self._end, self._end + len(left)
        place = at, len(left)
        while left:
            written = os.pwrite(self._handle, left, at)
            left, at = left[written:], at + written
        self._places[key] = place

    def __delitem__(self, key: str) -> None:
        del self._places[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def close(self) -> None:
        """Give the file's space back."""
        os.close(self._handle)
