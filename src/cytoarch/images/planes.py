"""One plane of a scan, open for reading by window, whatever format it came in."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cytoarch.errors import CytoarchError, ScanError

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
Kind = Literal["grey", "rgb", "multichannel"]

MAX_PIXELS = 200_000_000_000
"""Largest plane that is believed (a 136,000 x 95,000 scan has 13 thousand million pixels)."""
MAX_TILE_BYTES = 256 << 20
"""Largest decoded tile or strip that is believed."""
MAX_CHANNELS = 64
CHECKED_BYTES = 8 << 20
"""Pixels are looked at in bands of about so many bytes: what is worked out for each takes little beside them."""


@dataclass(frozen=True)
class StatedPixelSize:
    """A pixel size (um) that a scan states about itself, and where it states it."""

    source: Literal["ome-xml", "ngff", "vendor", "tiff-tag"]
    value_um: float


@dataclass(frozen=True)
class Scan:
    """An open scan: one plane, in the orientation its tag asks for."""

    shape: tuple[int, int, int]
    """(c, y, x)."""
    dtype: np.dtype[Any]
    """uint8 or uint16; of a label image uint32, too."""
    kind: Kind
    stated_pixel_sizes: tuple[StatedPixelSize, ...]
    """In order of trust: OME-XML or NGFF, vendor, TIFF tag."""
    remarks: tuple[str, ...]
    """What was done to the pixels on the way in, for the record."""
    _read: Callable[[int, int, int, int], NDArray[Any]]
    colours: tuple[str, ...] = ()
    """Of a label image, in which colour (#rrggbb) its palette shows each number; none where it has no palette."""

    def read(self, y: int, x: int, height: int, width: int) -> Pixels:
        """The window (c, height, width) that starts at (y, x), which must lie inside the plane."""
        _, h, w = self.shape
        if not (0 <= y <= y + height <= h and 0 <= x <= x + width <= w):
            raise ValueError(f"window {y}:{y + height} {x}:{x + width} leaves the plane of {h} x {w} pixels")
        pixels: Pixels = np.ascontiguousarray(self._read(y, x, height, width))
        return pixels


@dataclass(frozen=True)
class Rows:
    """A plane of a format that is decoded from top to bottom (strips, PNG, JPEG), as it is stored."""

    shape: tuple[int, int, int]
    """(c, y, x), alpha channel included."""
    dtype: np.dtype[Any]
    kind: Kind
    alpha: bool
    """Whether the last channel is transparency."""
    orientation: int
    """TIFF/EXIF orientation tag, 1 where there is none."""
    stated_pixel_sizes: tuple[StatedPixelSize, ...]
    remarks: tuple[str, ...]
    bands: Callable[[], Iterator[Pixels]]
    """Starts decoding: successive blocks (c, some rows, x), top to bottom, together exactly the plane."""


def cropped(scan: Scan, region: tuple[int, int, int, int] | None) -> Scan:
    """The part (y0, y1, x0, x1) of a scan, or all of it."""
    if region is None:
        return scan
    y0, y1, x0, x1 = region
    c, h, w = scan.shape
    if y1 > h or x1 > w:
        raise ScanError(f"region_px {y0}:{y1} {x0}:{x1} leaves the plane of {h} x {w} pixels")
    return replace(
        scan,
        shape=(c, y1 - y0, x1 - x0),
        remarks=(*scan.remarks, f"region {y0}:{y1} {x0}:{x1} of a slide"),
        _read=lambda y, x, height, width: scan.read(y + y0, x + x0, height, width),
    )


@contextmanager
def reading(path: Path, what: str = "an image") -> Iterator[None]:
    """Turn whatever decoding raises into a ScanError that names the file or store."""
    try:
        yield
    except ScanError as error:
        text = str(error)
        raise (error if text.startswith(str(path)) else ScanError(f"{path}: {text}")) from None
    except CytoarchError:  # of the store, not of the scan
        raise
    except MemoryError as error:
        raise ScanError(
            f"{path}: reading it needs more memory than a section may take ({error}); raise memory_gb, or save the "
            "scan as a tiled TIFF"
        ) from None
    except Exception as error:  # decoders meet hostile bytes with any exception; all mean that the file is unreadable
        raise ScanError(
            f"{path}: cannot be read as {what} ({type(error).__name__}: {error}); it is damaged or of another "
            "format: copy it again, or save it as a tiled TIFF"
        ) from error


def check_dtype(dtype: np.dtype[np.generic]) -> None:
    """Raise ScanError unless pixels are 8- or 16-bit unsigned."""
    if not is_plain(dtype):
        raise ScanError(f"its pixels are {dtype}; 8- or 16-bit unsigned pixels are needed, save it so")


def is_plain(dtype: np.dtype[np.generic]) -> bool:
    """Whether pixels are 8- or 16-bit unsigned, as they are kept."""
    return dtype.newbyteorder("=") in (np.dtype(np.uint8), np.dtype(np.uint16))


def is_countable(dtype: np.dtype[np.generic]) -> bool:
    """Whether pixels could be whole numbers: integers or floats of any width."""
    return dtype.kind in "uif"


def narrowed(scan: Scan, dtype: np.dtype[Any], remedy: str) -> Scan:
    """A scan whose whole numbers are stored in a wider type, or as floats, with the same numbers in `dtype`.

    No number is changed: reading raises ScanError, with the `remedy`, where one is negative, broken or too large.
    """
    top = int(np.iinfo(dtype).max)

    def read(y: int, x: int, height: int, width: int) -> NDArray[Any]:
        stored = scan.read(y, x, height, width)
        low, high = float(stored.min()), float(stored.max())  # NaN where one is NaN
        is_whole = stored.dtype.kind != "f" or all(np.array_equal(np.rint(band), band) for band in _bands(stored))
        if not (low >= 0 and high <= top and is_whole):
            raise ScanError(
                f"its pixels are {scan.dtype} from {low:g} to {high:g}{'' if is_whole else ', not all whole'}; whole "
                f"numbers from 0 to {top} are needed: {remedy}"
            )
        return stored.astype(dtype)

    is_same = scan.dtype == dtype
    remarks = () if is_same else (f"whole numbers stored as {scan.dtype} are kept as {dtype}",)
    return replace(scan, dtype=dtype, remarks=(*scan.remarks, *remarks), _read=read)


def _bands(pixels: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Rows of (c, y, x), some at a time."""
    rows = max(1, CHECKED_BYTES // max(1, pixels[:, :1].nbytes))
    for first in range(0, pixels.shape[1], rows):
        yield pixels[:, first : first + rows]


def check_size(c: int, h: int, w: int) -> None:
    """Raise ScanError if a plane is empty or larger than is believed."""
    if h < 1 or w < 1 or h * w > MAX_PIXELS or not 1 <= c <= MAX_CHANNELS:
        raise ScanError(f"it claims {c} channels of {h} x {w} pixels; at most {MAX_CHANNELS} of {MAX_PIXELS} in all")


def without_alpha(scan: Scan) -> Scan:
    """The scan without its last channel, which is transparency and no stain."""
    c, height, width = scan.shape
    return replace(
        scan,
        shape=(c - 1, height, width),
        remarks=(*scan.remarks, "alpha channel left out"),
        _read=lambda y, x, h, w: scan.read(y, x, h, w)[:-1],
    )


def oriented(scan: Scan, orientation: int) -> Scan:
    """The scan as its TIFF/EXIF orientation tag (1-8) asks for it to be shown."""
    if orientation == 1:
        return scan
    if orientation not in range(2, 9):
        raise ScanError(f"its orientation tag is {orientation}; 1 to 8 are defined")
    transposed = orientation >= 5
    flip_y, flip_x = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    c, stored_h, stored_w = scan.shape
    h, w = (stored_w, stored_h) if transposed else (stored_h, stored_w)

    def read(y: int, x: int, height: int, width: int) -> Pixels:
        y0 = h - y - height if flip_y else y
        x0 = w - x - width if flip_x else x
        block = scan.read(x0, y0, width, height) if transposed else scan.read(y0, x0, height, width)
        block = block.transpose(0, 2, 1) if transposed else block
        return block[:, :: -1 if flip_y else 1, :: -1 if flip_x else 1]

    return replace(scan, shape=(c, h, w), remarks=(*scan.remarks, f"orientation tag {orientation} applied"), _read=read)
