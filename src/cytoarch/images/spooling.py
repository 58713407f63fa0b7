"""Planes that are decoded from top to bottom, made readable by window: kept in memory or spooled to a scratch file."""

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs import Blosc

from cytoarch.errors import ScanError, StoreError
from cytoarch.images.planes import Pixels, Rows, Scan, oriented, without_alpha
from cytoarch.images.segments import read_exactly
from cytoarch.progress import Progress
from cytoarch.store.disk import writing

IN_MEMORY_BYTES = 64 << 20
"""Planes up to this size are kept in memory."""
TILE_PX = 4096
"""Width of a tile of the scratch file: that of a shard, as whose part it is read."""
TILE_BYTES = 8 << 20
"""A tile of the scratch file is about so large; its height follows."""


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
    """Decodes a plane when a window of it is first read: who only asks for its size waits for nothing."""

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
        spool = _Spool.fill(self.rows, self.scratch, self.on_progress)
        self.stack.callback(spool.close)
        return spool.read


def _in_memory(rows: Rows) -> Callable[[int, int, int, int], Pixels]:
    plane: Pixels = np.empty(rows.shape, dtype=rows.dtype)
    for top, band in _checked(rows):
        plane[:, top : top + band.shape[1]] = band
    return lambda y, x, height, width: plane[:, y : y + height, x : x + width]


def _checked(rows: Rows) -> Iterator[tuple[int, Pixels]]:
    """The bands with their first rows. Raises ScanError unless they are together what was announced."""
    c, height, width = rows.shape
    top = 0
    for band in rows.bands():
        if band.dtype != rows.dtype or (band.shape[0], band.shape[2]) != (c, width) or top + band.shape[1] > height:
            raise ScanError(f"decodes to {band.dtype} {band.shape} at row {top} where {rows.shape} was announced")
        yield top, band
        top += band.shape[1]
    if top != height:
        raise ScanError(f"ends at row {top} of {height}; it is truncated or damaged")


@dataclass(frozen=True)
class _Spool:
    """A plane in a scratch file of compressed tiles (c, a few rows, 4,096 columns)."""

    handle: int
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    tile_rows: int
    places: list[tuple[int, int]]
    """(offset, bytes) of every tile, in reading order."""

    @classmethod
    def fill(cls, rows: Rows, scratch: Path, on_progress: Progress | None) -> "_Spool":
        """Decode the plane into a file of no name: whatever happens, it is gone with the process."""
        c, height, width = rows.shape
        nbytes = c * height * width * rows.dtype.itemsize
        with writing(scratch):
            scratch.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=scratch, buffering=0) as file:
                handle = os.dup(file.fileno())
        free = shutil.disk_usage(scratch).free
        if free < nbytes // 8:
            os.close(handle)
            raise StoreError(
                f"{scratch}: {free / 1e9:.1f} GB free; this scan is decoded from top to bottom and needs up to "
                f"{nbytes / 1e9:.1f} GB beside the store on the way. Make room, or save the scan as a tiled TIFF"
            )
        tile_rows = max(16, TILE_BYTES // (c * TILE_PX * rows.dtype.itemsize) // 16 * 16)
        spool = cls(handle, rows.shape, rows.dtype, tile_rows, [])
        try:
            spool._take(rows, scratch, on_progress)
        except BaseException:
            spool.close()
            raise
        return spool

    def _take(self, rows: Rows, scratch: Path, on_progress: Progress | None) -> None:
        c, height, width = self.shape
        row_bytes = c * width * self.dtype.itemsize
        held = np.empty((c, min(self.tile_rows, height), width), dtype=self.dtype)
        filled = at = 0
        for top, band in _checked(rows):
            taken = 0
            while taken < band.shape[1]:
                count = min(band.shape[1] - taken, held.shape[1] - filled)
                held[:, filled : filled + count] = band[:, taken : taken + count]
                filled, taken = filled + count, taken + count
                if filled == held.shape[1] or top + taken == height:
                    with writing(scratch):
                        at = self._append(held[:, :filled], at)
                    filled = 0
            if on_progress is not None:
                on_progress((top + band.shape[1]) * row_bytes, height * row_bytes)

    def _append(self, block: Pixels, at: int) -> int:
        """Write a row of tiles; returns where the next begins."""
        codec = Blosc(cname="lz4", clevel=1, shuffle=Blosc.BITSHUFFLE)
        for left in range(0, block.shape[2], TILE_PX):
            data = codec.encode(np.ascontiguousarray(block[:, :, left : left + TILE_PX]))
            written = 0
            while written < len(data):
                written += os.pwrite(self.handle, memoryview(data)[written:], at + written)
            self.places.append((at, len(data)))
            at += len(data)
        return at

    def read(self, y: int, x: int, height: int, width: int) -> Pixels:
        """The window (c, height, width) at (y, x); may be called from several threads."""
        c, _, full_width = self.shape
        across = -(-full_width // TILE_PX)
        out = np.empty((c, height, width), dtype=self.dtype)
        for row in range(y // self.tile_rows, -(-(y + height) // self.tile_rows)):
            for column in range(x // TILE_PX, -(-(x + width) // TILE_PX)):
                tile = self._tile(row * across + column, min(TILE_PX, full_width - column * TILE_PX))
                top, left = row * self.tile_rows, column * TILE_PX
                y0, x0 = max(top, y), max(left, x)
                y1, x1 = min(top + tile.shape[1], y + height), min(left + tile.shape[2], x + width)
                out[:, y0 - y : y1 - y, x0 - x : x1 - x] = tile[:, y0 - top : y1 - top, x0 - left : x1 - left]
        return out

    def _tile(self, index: int, width: int) -> Pixels:
        offset, count = self.places[index]
        data = Blosc().decode(read_exactly(self.handle, offset, count))
        tile: Pixels = np.frombuffer(data, dtype=self.dtype).reshape(self.shape[0], -1, width)
        return tile

    def close(self) -> None:
        """Give the file's space back."""
        os.close(self.handle)
