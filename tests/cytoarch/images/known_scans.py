"""Pixels for scans, and what reading a scan gives: shared by the tests of every format."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from cytoarch.errors import ScanError
from cytoarch.images.planes import Scan
from cytoarch.images.scans import open_scan

Array = NDArray[Any]
H, W = 75, 101


def noise(*shape: int, dtype: str = "uint8", seed: int = 7, low: int = 0) -> Array:
    """Every value of a type from `low` on."""
    return np.random.default_rng(seed).integers(low, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def smooth(channels: int, height: int = H, width: int = W) -> Array:
    """What JPEG keeps to within a few grey values: (y, x) or (y, x, c) uint8."""
    y, x = np.mgrid[:height, :width]
    planes = np.stack([60 + 40 * c + 50 * np.sin((y + c) / 20) * np.cos(x / 25) for c in range(channels)], axis=-1)
    return planes.astype(np.uint8)[..., 0] if channels == 1 else planes.astype(np.uint8)


def channel_first(pixels: Array) -> Array:
    """(y, x) or (y, x, c) -> (c, y, x)."""
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def read_whole(scan: Scan) -> Array:
    """All pixels of a plane, which are checked to be as announced."""
    pixels = scan.read(0, 0, *scan.shape[1:])
    assert pixels.shape == scan.shape
    assert pixels.dtype == scan.dtype
    assert pixels.dtype.isnative
    return pixels


def whole(path: Path, **options: Any) -> Array:
    """All pixels of a file."""
    with open_scan(path, **options) as scan:
        return read_whole(scan)


def opened(path: Path, **options: Any) -> Scan:
    """What a file says of itself; its pixels cannot be read any more."""
    with open_scan(path, **options) as scan:
        return scan


def refusal_of(path: Path, read: Callable[[], object]) -> str:
    """The text of the one error with which reading a file is refused."""
    with pytest.raises(ScanError) as caught:
        read()
    assert str(path) in str(caught.value)
    return str(caught.value)


def refusal(path: Path, **options: Any) -> str:
    """The text of the one error with which a file is refused, when it is opened or read."""
    return refusal_of(path, lambda: whole(path, **options))


def read_or_refused(path: Path) -> Array | None:
    """The pixels, or None where the file is refused with the one error that names it."""
    try:
        return whole(path)
    except ScanError as error:
        text = str(error)
    assert str(path) in text
    return None


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_rows(numbers: Array, bits: int) -> bytes:
    """The rows of an unfiltered PNG of 1, 2, 4 or 8 bits."""
    per_byte = 8 // bits
    padded = np.pad(numbers, ((0, 0), (0, -numbers.shape[1] % per_byte))).reshape(len(numbers), -1, per_byte)
    shifts = np.arange(per_byte)[::-1] * bits
    packed = (padded.astype(np.uint8) << shifts.astype(np.uint8)).sum(axis=-1, dtype=np.uint8)
    return b"".join(b"\0" + row.tobytes() for row in packed)


def png(width: int, height: int, bits: int, colour: int, rows: bytes, *chunks: bytes, interlace: int = 0) -> bytes:
    """A PNG made by hand, to have what no writer here writes; `chunks` lie before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace)
    body = (png_chunk(b"IHDR", header), *chunks, png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def tiff(path: Path, pixels: Array, **options: Any) -> Path:
    """A TIFF as tifffile writes it."""
    tifffile.imwrite(path, pixels, **{"metadata": None, **options})
    return path


FILES: dict[str, Callable[[Path], Path]] = {
    "tiled": lambda folder: tiff(
        folder / "a.tif", noise(H, W, 3), photometric="rgb", tile=(32, 48), compression="zlib"
    ),
    "striped": lambda folder: tiff(folder / "a.tif", noise(H, W, dtype="uint16"), rowsperstrip=7),
    "jpeg": lambda folder: tiff(folder / "a.tif", smooth(3), photometric="rgb", tile=(32, 48), compression="jpeg"),
    "turned": lambda folder: tiff(
        folder / "a.tif", noise(H, W, 3), photometric="rgb", tile=(32, 48), extratags=[(274, "H", 1, 6, True)]
    ),
    "planar": lambda folder: tiff(folder / "a.tif", noise(3, H, W), photometric="rgb", planarconfig="separate"),
    "png": lambda folder: (Image.fromarray(noise(H, W, 4)).save(folder / "a.png"), folder / "a.png")[1],
}
"""A scan of every way of reading, written into a folder."""
