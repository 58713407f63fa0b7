"""What the numbers in label files mean, where programs that only care for the picture have changed them.

Optimisers and converters keep what an image shows, not the numbers it is made of: they replace greys by palette
indices and fewer bits, and erasers make pixels transparent and leave their number. Ids are read only where one reading
is possible.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cytoarch.errors import ScanError
from cytoarch.images.planes import Pixels, Rows, Scan

Greys = NDArray[np.int64]
"""The grey that each entry of a palette shows, -1 for one that shows nothing."""


def counted_ids(ids: NDArray[Any]) -> dict[int, int]:
    """How many pixels of a label image, or a window of one, carry each id, 0 among them.

    >>> counted_ids(np.array([[7, 0], [7, 576073704]], dtype=np.uint32))
    {0: 1, 7: 2, 576073704: 1}
    """
    if ids.dtype.itemsize <= 2:
        counts = np.bincount(ids.ravel())
        used = np.flatnonzero(counts)
        counts = counts[used]
    else:
        used, counts = np.unique(ids, return_counts=True)
    return dict(zip(used.tolist(), counts.tolist(), strict=True))


MAX_PALETTE_PIXELS = 600_000_000
"""Palette images are decoded whole, a byte a pixel: libvips would give their colours instead of their indices."""
ERASED = "what is fully transparent is read as unlabelled"
_PNG = b"\x89PNG\r\n\x1a\n"
_PALETTE = 3


@dataclass(frozen=True)
class PngHeader:
    """Size, depth and colour type of a PNG."""

    height: int
    width: int
    bits: int
    colour: int

    @classmethod
    def of(cls, path: Path) -> "PngHeader | None":
        """What the header of a PNG states; None if the file is no PNG."""
        with path.open("rb") as file:
            head = file.read(26)  # signature, then the header with depth and colour type
        if len(head) < 26 or not head.startswith(_PNG):
            return None
        width, height = (int.from_bytes(head[at : at + 4], "big") for at in (16, 20))
        return cls(height, width, head[24], head[25])


def png_numbers(path: Path) -> Rows | None:
    """The ids in a PNG with a palette, or of 1, 2 or 4 bits, which are the numbers stored; None for another PNG.

    Numbers that are fully transparent become 0, with a remark. Raises ScanError if the file is no PNG or has more
    pixels than `MAX_PALETTE_PIXELS`; the bands raise it where a palette of greys leaves two readings.
    """
    header = PngHeader.of(path)
    if header is None:
        raise ScanError("is no PNG by its first bytes; a PNG or TIFF of ids is needed, JPEG does not keep them")
    if not (header.colour == _PALETTE or header.bits < 8):
        return None
    height, width = header.height, header.width
    if width * height > MAX_PALETTE_PIXELS:
        raise ScanError(
            f"a label image of {height} x {width} pixels with a palette or few bits (limit {MAX_PALETTE_PIXELS}); save "
            "it as an 8-bit grey PNG or TIFF of ids"
        )
    with _opened(path) as image:
        transparent = _transparent_numbers(image)
        greys = _palette_greys(image, transparent)

    def bands() -> Iterator[Pixels]:
        with _opened(path) as image:
            numbers = np.asarray(image).astype(np.uint8)
        if header.colour != _PALETTE and header.bits > 1:  # Pillow spreads greys of few bits over 0 to 255
            numbers //= np.uint8(255 // (2**header.bits - 1))
        if greys is not None:
            check_greys(numbers, greys)
        ids = np.arange(256, dtype=np.uint8)
        ids[transparent] = 0
        yield ids[numbers][None]

    remarks = (ERASED,) if any(transparent) else ()
    return Rows((1, height, width), np.dtype(np.uint8), "grey", False, 1, (), remarks, bands)


def png_colours(path: Path) -> tuple[str, ...]:
    """The colours (#rrggbb) in which the palette of a PNG shows its numbers; none if it has no palette or is no PNG."""
    header = PngHeader.of(path)
    if header is None or header.colour != _PALETTE:
        return ()
    with _opened(path) as image:
        return colours_of(np.asarray(image.getpalette("RGB"), dtype=np.int64).reshape(-1, 3))


def colours_of(palette: NDArray[np.int64]) -> tuple[str, ...]:
    """The colours (#rrggbb) of a palette (n, 3) of 0 to 255."""
    return tuple(f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in palette.tolist())


def is_palette_of_greys(path: Path) -> bool:
    """Whether a file is a PNG with a palette of nothing but greys, as optimisers make of grey scans."""
    header = PngHeader.of(path)
    if header is None or header.colour != _PALETTE:
        return False
    with _opened(path) as image:
        return _palette_greys(image, _transparent_numbers(image)) is not None


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """A PNG as Pillow opens it, of a size that was checked before."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with Image.open(path) as image:
            yield image
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _transparent_numbers(image: Image.Image) -> list[int]:
    """The numbers that the file declares fully transparent."""
    stated = image.info.get("transparency")
    if isinstance(stated, bytes):  # the opacity of every entry of the palette
        return [number for number, opacity in enumerate(stated) if opacity == 0]
    if stated is None:
        return []
    return [min(int(stated), 1) if image.mode == "1" else int(stated)]


def _palette_greys(image: Image.Image, transparent: Sequence[int]) -> Greys | None:
    """The grey of every entry of a palette of nothing but greys, -1 for transparent ones; None for any other image."""
    if image.mode != "P":
        return None
    return greys_of(np.asarray(image.getpalette("RGB"), dtype=np.int64).reshape(-1, 3), transparent)


def greys_of(palette: NDArray[np.int64], transparent: Sequence[int] = ()) -> Greys | None:
    """The greys (n,) of a palette (n, 3) of nothing but greys, -1 for transparent entries; None if it has colours."""
    opaque = np.ones(len(palette), dtype=bool)
    opaque[[number for number in transparent if number < len(palette)]] = False
    if not (palette[opaque] == palette[opaque][:, :1]).all():
        return None
    return np.where(opaque, palette[:, 0], -1)


def check_greys(numbers: NDArray[Any], greys: Greys) -> None:
    """Raise ScanError if a number is shown as a grey of another value: either may be the id."""
    used = np.flatnonzero(np.bincount(numbers.ravel(), minlength=len(greys))[: len(greys)])
    doubtful = [int(number) for number in used if greys[number] not in (number, -1)]
    if doubtful:
        first = doubtful[0]
        raise ScanError(
            f"its palette of greys shows number {first} as grey {greys[first]}, and either may be the id: optimisers "
            "replace greys by their place in a palette; save it as a grey PNG or TIFF of ids without a palette"
        )


def with_checked_greys(scan: Scan, greys: Greys | None) -> Scan:
    """The scan of numbers with a palette; reading raises ScanError where `check_greys` does."""
    if greys is None:
        return scan

    def read(y: int, x: int, height: int, width: int) -> Pixels:
        numbers = scan.read(y, x, height, width)
        check_greys(numbers, greys)
        return numbers

    return replace(scan, _read=read)


def without_erased(scan: Scan, multiplied: bool = False) -> Scan:
    """The ids of a scan of two channels, ids and opacity: 0 where a pixel is fully transparent, with a remark.

    Where the ids were `multiplied` with the opacity, reading raises ScanError if a pixel is half transparent.
    """
    _, height, width = scan.shape
    opaque = int(np.iinfo(scan.dtype).max)

    def read(y: int, x: int, h: int, w: int) -> NDArray[Any]:
        ids, opacity = scan.read(y, x, h, w)
        if multiplied and ((opacity != 0) & (opacity != opaque)).any():
            raise ScanError(
                "its ids were multiplied with their opacity, and some pixels are half transparent: their ids are lost; "
                "make every pixel opaque or erase it, or save the ids without opacity"
            )
        return np.where(opacity == 0, 0, ids).astype(scan.dtype, copy=False)[None]

    return replace(scan, shape=(1, height, width), remarks=(*scan.remarks, ERASED), _read=read)
