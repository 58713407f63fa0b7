"""The tiles and strips of TIFF pages, decoded by window or from top to bottom; nothing else is read of a file."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from cytoarch.errors import ScanError
from cytoarch.images.planes import Pixels

_JPEG = 7
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
"""Markers of a JPEG's frame header."""
BAND_BYTES = 32 << 20
"""Strips are handed on in bands of about so many bytes."""


@dataclass(frozen=True)
class Page:
    """Where the tiles or strips of one page lie."""

    offsets: Sequence[int]
    counts: Sequence[int]
    jpeg: dict[str, Any]
    """Tables that JPEG tiles share."""

    @classmethod
    def of(cls, page: "tifffile.TiffPage | tifffile.TiffFrame") -> "Page":
        """The page of a file."""
        jpeg = {"jpegtables": page.jpegtables, "jpegheader": page.keyframe.jpegheader}
        return cls(page.dataoffsets, page.databytecounts, {key: value for key, value in jpeg.items() if value})

    @classmethod
    def within(cls, start: int, nbytes: int, strip_bytes: int) -> "Page":
        """The strips of one plane in a block of several planes, of which the file lists only the first."""
        offsets = range(start, start + nbytes, strip_bytes)
        return cls(offsets, [min(strip_bytes, start + nbytes - offset) for offset in offsets], {})


@dataclass(frozen=True)
class Segments:
    """Pages of one shape, each giving some channels of a plane."""

    handle: int
    """The open file."""
    page: tifffile.TiffPage
    """What all pages have in common."""
    pages: tuple[Page, ...]
    dtype: np.dtype[Any]

    @property
    def separate(self) -> int:
        """Samples that lie in tiles of their own."""
        return int(self.page.shaped[0])

    @property
    def together(self) -> int:
        """Samples that lie side by side in a tile."""
        return int(self.page.shaped[-1])

    @property
    def channels(self) -> int:
        """Channels of the plane."""
        return len(self.pages) * self.separate * self.together

    @property
    def raw_rows(self) -> bool:
        """Whether any row can be found without decoding those before it: strips that are not compressed."""
        page = self.page
        plain = page.compression == 1 and page.predictor == 1 and page.fillorder == 1
        return bool(not page.is_tiled and plain and page.bitspersample == 8 * self.dtype.itemsize)

    def window(self, y: int, x: int, height: int, width: int) -> Pixels:
        """Pixels (c, height, width) of tiles, or of strips that are not compressed."""
        out = np.empty((self.channels, height, width), dtype=self.dtype)
        if self.raw_rows:
            self._fill_rows(out, y, x)
        else:
            self._fill_tiles(out, y, x)
        return out

    def bands(self) -> Iterator[Pixels]:
        """Blocks (c, rows, x) of strips, top to bottom."""
        page = self.page
        height, width = int(page.imagelength), int(page.imagewidth)
        strip = min(int(page.rowsperstrip) or height, height)
        count = -(-height // strip)
        row_bytes = self.channels * width * self.dtype.itemsize
        together = max(1, BAND_BYTES // max(row_bytes * strip, 1))
        for first in range(0, count, together):
            top, stop = first * strip, min((first + together) * strip, height)
            out = np.empty((self.channels, stop - top, width), dtype=self.dtype)
            for number in range(first, min(first + together, count)):
                self._fill_segment(out, number, count, top, 0)
            yield out

    def _fill_tiles(self, out: Pixels, y: int, x: int) -> None:
        edge_y, edge_x = int(self.page.tilelength), int(self.page.tilewidth)
        across, down = -(-int(self.page.imagewidth) // edge_x), -(-int(self.page.imagelength) // edge_y)
        for row in range(y // edge_y, -(-(y + out.shape[1]) // edge_y)):
            for column in range(x // edge_x, -(-(x + out.shape[2]) // edge_x)):
                self._fill_segment(out, row * across + column, across * down, y, x)

    def _fill_segment(self, out: Pixels, number: int, per_plane: int, y: int, x: int) -> None:
        """Decode a tile or strip of every page and put the part of it that lies in the window at (y, x) into `out`."""
        for index, page in enumerate(self.pages):
            for sample in range(self.separate):
                place = sample * per_plane + number
                data = read_exactly(self.handle, page.offsets[place], page.counts[place])
                self._check_jpeg(data, page)
                decoded, (_, _, top, left, _), _ = self.page.decode(data, place, **page.jpeg)
                if decoded is None:
                    raise ScanError(f"tile or strip {place} holds nothing")
                block = decoded[0]  # (y, x, samples)
                _, height, width = out.shape
                y0, x0 = max(top, y), max(left, x)
                y1, x1 = min(top + block.shape[0], y + height), min(left + block.shape[1], x + width)
                first = index * self.separate * self.together + sample * self.together
                target = out[first : first + self.together, y0 - y : y1 - y, x0 - x : x1 - x]
                target[...] = np.moveaxis(block[y0 - top : y1 - top, x0 - left : x1 - left], -1, 0)

    def _check_jpeg(self, data: bytes, page: Page) -> None:
        """Refuse a JPEG that has not the shape of its tile: with as many pixels it would be read in the wrong shape."""
        if self.page.compression != _JPEG or not self.page.is_tiled or "jpegheader" in page.jpeg:
            return
        size = jpeg_size(data)
        if size is not None and size != (self.page.tilelength, self.page.tilewidth):
            raise ScanError(f"a tile holds a JPEG of {size[0]} x {size[1]} pixels; it is damaged, copy the scan again")

    def _fill_rows(self, out: Pixels, y: int, x: int) -> None:
        page = self.page
        height, width = int(page.imagelength), int(page.imagewidth)
        strip = min(int(page.rowsperstrip) or height, height)
        per_plane = -(-height // strip)
        pixel = self.together * self.dtype.itemsize
        stored: np.dtype[Any] = self.dtype.newbyteorder(page.parent.byteorder)
        for index, each in enumerate(self.pages):
            for sample in range(self.separate):
                first = index * self.separate * self.together + sample * self.together
                for row in range(out.shape[1]):
                    number, within = divmod(y + row, strip)
                    at = each.offsets[sample * per_plane + number] + (within * width + x) * pixel
                    line: NDArray[Any] = np.frombuffer(
                        read_exactly(self.handle, at, out.shape[2] * pixel), dtype=stored
                    )
                    out[first : first + self.together, row] = line.reshape(-1, self.together).T


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) that a JPEG's frame header states; None where it has none.

    >>> jpeg_size(bytes.fromhex("ffd8 ffc0 0011 08 0010 0020"))
    (16, 32)
    """
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in _FRAMES:
            return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
        at += 2 + length
    return None


def read_exactly(handle: int, offset: int, count: int) -> bytes:
    """Exactly `count` bytes of an open file, also from several threads. Raises ScanError if the file ends before."""
    data = os.pread(handle, count, offset)
    while len(data) < count:  # a signal, or a network file system, may cut a read short
        more = os.pread(handle, count - len(data), offset + len(data))
        if not more:
            raise ScanError(f"it ends at byte {offset + len(data)} where {count - len(data)} more are needed")
        data += more
    return data
