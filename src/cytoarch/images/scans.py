"""Any scan read by window: TIFF, BigTIFF, OME-TIFF, PNG and JPEG; grey, RGB(A) or multichannel; 8 or 16 bit.

Nothing a file says about itself is believed before it is checked: sizes and byte counts are bounded before anything
is decoded. The orientation tag is applied; every other correction is left to transforms beside the pixels.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import imagecodecs
import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray
from PIL import Image

from cytoarch.errors import ScanError

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
Kind = Literal["grey", "rgb", "multichannel"]

MAX_PIXELS = 200_000_000_000
"""Largest plane that is believed (a 136,000 x 95,000 scan has 13 thousand million pixels)."""
MAX_WHOLE_PIXELS = 600_000_000
"""Largest plane of a format that can only be decoded whole (PNG, JPEG, TIFF in one strip)."""
MAX_TILE_BYTES = 256 << 20
"""Largest decoded tile or strip that is believed."""
MAX_CHANNELS = 64

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8", ".svs")
WHOLE_SUFFIXES = (".png", ".jpg", ".jpeg")
SUFFIXES = (*TIFF_SUFFIXES, *WHOLE_SUFFIXES)

_UM_PER_UNIT = {"m": 1e6, "cm": 1e4, "mm": 1e3, "um": 1.0, "micron": 1.0, "microns": 1.0, "nm": 1e-3, "inch": 25400.0}
_APERIO_MPP = re.compile(r"\|\s*MPP\s*=\s*([0-9.]+)")


@dataclass(frozen=True)
class StatedPixelSize:
    """A pixel size (um) that a scan states about itself, and where it states it."""

    source: Literal["ome-xml", "vendor", "tiff-tag"]
    value_um: float


@dataclass(frozen=True)
class Scan:
    """An open scan: one plane, in the orientation its tag asks for."""

    shape: tuple[int, int, int]
    """(c, y, x)."""
    dtype: np.dtype[np.uint8] | np.dtype[np.uint16]
    kind: Kind
    stated_pixel_sizes: tuple[StatedPixelSize, ...]
    """In order of trust: OME-XML, vendor, TIFF tag."""
    remarks: tuple[str, ...]
    """What was done to the pixels on the way in, for the record."""
    _read: Callable[[int, int, int, int], NDArray[Any]]

    def read(self, y: int, x: int, height: int, width: int) -> Pixels:
        """The window (c, height, width) that starts at (y, x), which must lie inside the plane."""
        _, h, w = self.shape
        if not (0 <= y <= y + height <= h and 0 <= x <= x + width <= w):
            raise ValueError(f"window {y}:{y + height} {x}:{x + width} leaves the plane of {h} x {w} pixels")
        pixels: Pixels = np.ascontiguousarray(self._read(y, x, height, width))
        return pixels


@contextmanager
def open_scan(
    path: Path, plane_index: int | None = None, region_px: tuple[int, int, int, int] | None = None
) -> Iterator[Scan]:
    """The scan in a file, open for reading by window.

    `plane_index` picks the plane of a stack; `region_px` = (y0, y1, x0, x1) picks a part of the plane. Raises
    ScanError, naming the file, if it is missing, not an image that can be read, or lies about itself; reading a
    window raises the same where its pixels cannot be decoded.
    """
    if not path.is_file():
        raise ScanError(f"{path}: no such file; check the path in the manifest")
    suffix = path.suffix.lower()
    with ExitStack() as stack:
        with _reading(path):
            if suffix in TIFF_SUFFIXES:
                scan = _open_tiff(stack.enter_context(tifffile.TiffFile(path)), plane_index)
            elif suffix in WHOLE_SUFFIXES:
                if plane_index not in (None, 0):
                    raise ScanError(f"plane_index is {plane_index} but the file holds one plane")
                scan = _open_whole(path)
            else:
                raise ScanError(f"{suffix or 'no'} suffix; a scan with one of {', '.join(SUFFIXES)} is needed")
            scan = _cropped(scan, region_px)

        def read(y: int, x: int, height: int, width: int) -> Pixels:
            with _reading(path):
                return scan.read(y, x, height, width)

        yield replace(scan, _read=read)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever decoding raises into a ScanError that names the file."""
    try:
        yield
    except ScanError as error:
        text = str(error)
        raise (error if text.startswith(str(path)) else ScanError(f"{path}: {text}")) from None
    except MemoryError as error:
        raise ScanError(f"{path}: decoding needs more memory than there is ({error})") from None
    except Exception as error:  # decoders meet hostile bytes with any exception; all mean that the file is unreadable
        raise ScanError(f"{path}: cannot be read as an image ({type(error).__name__}: {error})") from error


def read_labels(path: Path) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """The label image (y, x) in an 8- or 16-bit single-channel PNG or TIFF; palette images give their indices.

    Raises ScanError if the file is missing or holds anything else (a label image must not be RGB or JPEG).
    """
    if path.suffix.lower() == ".png" and path.is_file():
        try:
            with _whole_image(path) as image:
                if image.mode in ("P", "L", "1"):
                    return np.asarray(image.convert("L") if image.mode == "1" else image, dtype=np.uint8)
        except (OSError, ValueError, SyntaxError) as error:
            raise ScanError(f"{path}: cannot be read as a label image ({error})") from None
    if path.suffix.lower() not in (".png", *TIFF_SUFFIXES):
        raise ScanError(f"{path}: label images are 8- or 16-bit PNG or TIFF; {path.suffix!r} does not keep ids")
    with open_scan(path) as scan:
        c, h, w = scan.shape
        if c != 1:
            raise ScanError(f"{path}: holds {c} channels; a label image with one channel of ids is needed")
        labels: Pixels = scan.read(0, 0, h, w)[0]
        return labels


def _cropped(scan: Scan, region: tuple[int, int, int, int] | None) -> Scan:
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


# -- TIFF --------------------------------------------------------------------------------------------------------------


def _open_tiff(tiff: tifffile.TiffFile, plane_index: int | None) -> Scan:
    if not tiff.series:
        raise ScanError("holds no image")
    series = tiff.series[0]
    page = series.keyframe
    _check_dtype(series.dtype)
    plane_axes = _plane_axes(series.axes, series.shape, plane_index)
    sizes = dict(zip(series.axes, series.shape, strict=True))
    c_axis = "S" if sizes.get("S", 1) > 1 else "C"
    c, h, w = sizes.get(c_axis, 1), sizes["Y"], sizes["X"]
    _check_size(c, h, w)
    for each in series.pages:
        if each is not None:
            _check_segments(each if isinstance(each, tifffile.TiffPage) else page, each, tiff.filehandle.size)
    array = zarr.open_array(series.aszarr(level=0), mode="r")
    stored_axes = [axis for axis in series.axes if axis in (c_axis, "Y", "X")]

    def read(y: int, x: int, height: int, width: int) -> Pixels:
        window: dict[str, Any] = {
            "Y": slice(y, y + height),
            "X": slice(x, x + width),
            c_axis: slice(None),
            **plane_axes,
        }
        block = np.asarray(array[tuple(window[axis] for axis in series.axes)])
        if c_axis not in stored_axes:
            return block[None]
        return np.moveaxis(block, stored_axes.index(c_axis), 0)

    rgb = c_axis == "S" and c in (3, 4)
    scan = _without_alpha(
        Scan(
            shape=(c, h, w),
            dtype=series.dtype.newbyteorder("="),
            kind="rgb" if rgb else ("grey" if c == 1 else "multichannel"),
            stated_pixel_sizes=tuple(_tiff_pixel_sizes(tiff, page)),
            remarks=(),
            _read=lambda y, x, height, width: read(y, x, height, width).astype(
                series.dtype.newbyteorder("="), copy=False
            ),
        )
    )
    tag = page.tags.get(274)
    return _oriented(scan, int(tag.value) if tag is not None else 1)


def _plane_axes(axes: str, shape: tuple[int, ...], plane_index: int | None) -> dict[str, int]:
    """The index along every axis that is neither channel nor plane; `plane_index` counts through them in order."""
    others = [(axis, size) for axis, size in zip(axes, shape, strict=True) if axis not in "CSYX"]
    if "Y" not in axes or "X" not in axes:
        raise ScanError(f"holds axes {axes}; an image with Y and X is needed")
    if "S" in axes and "C" in axes and dict(zip(axes, shape, strict=True))["S"] > 1:
        others += [("C", shape[axes.index("C")])]
    planes = int(np.prod([size for _, size in others], dtype=np.int64))
    if plane_index is None and planes > 1:
        raise ScanError(f"is a stack of {planes} planes (axes {axes}, {shape}); say which in column plane_index")
    index = plane_index or 0
    if index >= planes:
        raise ScanError(f"plane_index is {index} but the file holds {planes} plane(s), counted from 0")
    picks = np.unravel_index(index, [size for _, size in others]) if others else ()
    return {axis: int(pick) for (axis, _), pick in zip(others, picks, strict=True)}


def _check_segments(page: tifffile.TiffPage, frame: tifffile.TiffPage | tifffile.TiffFrame, file_bytes: int) -> None:
    """Refuse tiles or strips that are absent, lie beyond the end of the file, or would decode to too much."""
    counts, offsets = frame.databytecounts, frame.dataoffsets
    if not counts or 0 in counts:
        raise ScanError("some tiles or strips are missing from the file; it is truncated or was never finished")
    if max(o + n for o, n in zip(offsets, counts, strict=True)) > file_bytes or sum(counts) > file_bytes:
        raise ScanError(f"its tiles or strips reach beyond its end at {file_bytes} bytes; it is truncated or damaged")
    height, width = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    rows = min(height or page.imagelength, page.imagelength) if not page.is_tiled else height
    decoded = rows * width * page.samplesperpixel * page.dtype.itemsize if page.dtype is not None else 0
    if decoded > MAX_TILE_BYTES and rows * width > MAX_WHOLE_PIXELS // 8 and page.compression != 1:
        raise ScanError(f"a tile or strip decodes to {decoded} bytes; save the scan as a tiled TIFF")


def _tiff_pixel_sizes(tiff: tifffile.TiffFile, page: tifffile.TiffPage) -> Iterator[StatedPixelSize]:
    if tiff.is_ome and tiff.ome_metadata:
        size = ome_pixel_size_um(tiff.ome_metadata)
        if size is not None:
            yield StatedPixelSize("ome-xml", size)
    match = _APERIO_MPP.search(page.description or "")
    if match:
        yield StatedPixelSize("vendor", float(match.group(1)))
    tags = [page.tags.get(number) for number in (282, 283, 296)]
    if tags[0] is None or tags[1] is None:
        return
    unit = {2: "inch", 3: "cm"}.get(int(tags[2].value) if tags[2] is not None else 2, "")
    if tiff.is_imagej and tiff.imagej_metadata:
        unit = str(tiff.imagej_metadata.get("unit", "")).replace("\\u00B5", "u").replace("\u00b5", "u")
    (nx, dx), (ny, dy) = tags[0].value, tags[1].value
    if unit.lower() not in _UM_PER_UNIT or not (nx and dx and ny and dy):
        return
    x_um, y_um = (_UM_PER_UNIT[unit.lower()] * d / n for n, d in ((nx, dx), (ny, dy)))
    if abs(x_um - y_um) > 0.01 * x_um:
        raise ScanError(f"its pixels are not square ({y_um:g} x {x_um:g} um by its TIFF tags); resample it")
    yield StatedPixelSize("tiff-tag", x_um)


def ome_pixel_size_um(ome_xml: str) -> float | None:
    """The pixel size (um) of the first image in an OME-XML text, or None where it states none.

    >>> ome_pixel_size_um('<OME><Image><Pixels PhysicalSizeX="500" PhysicalSizeXUnit="nm"/></Image></OME>')
    0.5
    """
    try:
        # expat refuses entity bombs and reads no external entities; a test tries both
        root = ET.fromstring(ome_xml)  # noqa: S314 - see above
    except ET.ParseError:
        return None
    pixels = next((element for element in root.iter() if element.tag.rsplit("}", 1)[-1] == "Pixels"), None)
    if pixels is None or "PhysicalSizeX" not in pixels.attrib:
        return None
    unit = pixels.get("PhysicalSizeXUnit", "\u00b5m").replace("\u00b5", "u").replace("\u03bc", "u")
    x_um = float(pixels.attrib["PhysicalSizeX"]) * _UM_PER_UNIT.get(unit, float("nan"))
    y_um = float(pixels.get("PhysicalSizeY", pixels.attrib["PhysicalSizeX"])) * _UM_PER_UNIT.get(unit, float("nan"))
    if abs(x_um - y_um) > 0.01 * x_um:
        raise ScanError(f"its pixels are not square ({y_um:g} x {x_um:g} um by its OME-XML); resample it")
    return x_um if x_um > 0 else None


# -- PNG and JPEG ------------------------------------------------------------------------------------------------------


@contextmanager
def _whole_image(path: Path) -> Iterator[Image.Image]:
    """A PNG or JPEG, opened; its size is checked here against our own limit instead of Pillow's."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            Image.MAX_IMAGE_PIXELS = limit
            if image.width * image.height > MAX_WHOLE_PIXELS:
                raise ScanError(
                    f"{path}: {image.height} x {image.width} pixels in a format that can only be decoded whole "
                    f"(limit {MAX_WHOLE_PIXELS}); save the scan as a tiled TIFF"
                )
            yield image
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _open_whole(path: Path) -> Scan:
    with _whole_image(path) as image:
        orientation = int(image.getexif().get(274, 1)) if image.format == "JPEG" else 1
        if image.format == "PNG" and _png_is_16_bit_colour(path):
            pixels = imagecodecs.png_decode(path.read_bytes())  # Pillow would cut 16-bit colour to 8 bit
        elif image.mode in ("L", "RGB", "RGBA", "I;16"):
            pixels = np.asarray(image)
        elif image.mode == "I;16B":
            pixels = np.asarray(image).astype(np.uint16)
        elif image.mode in ("P", "1", "LA", "CMYK", "PA"):
            pixels = np.asarray(image.convert("L" if image.mode in ("1", "LA") else "RGB"))
        else:
            raise ScanError(f"Pillow mode {image.mode} is not 8- or 16-bit grey or RGB(A)")
    _check_dtype(pixels.dtype)
    planes: Pixels = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    scan = Scan(
        shape=(planes.shape[0], planes.shape[1], planes.shape[2]),
        dtype=planes.dtype,
        kind="rgb" if planes.shape[0] >= 3 else "grey",
        stated_pixel_sizes=(),
        remarks=(),
        _read=lambda y, x, height, width: planes[:, y : y + height, x : x + width],
    )
    return _oriented(_without_alpha(scan), orientation)


def _png_is_16_bit_colour(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(26)
    return len(head) == 26 and head[24] == 16 and head[25] in (2, 4, 6)


# -- what all formats share --------------------------------------------------------------------------------------------


def _check_dtype(dtype: np.dtype[np.generic]) -> None:
    if dtype.newbyteorder("=") not in (np.dtype(np.uint8), np.dtype(np.uint16)):
        raise ScanError(f"its pixels are {dtype}; 8- or 16-bit unsigned pixels are needed")


def _check_size(c: int, h: int, w: int) -> None:
    if h < 1 or w < 1 or h * w > MAX_PIXELS or not 1 <= c <= MAX_CHANNELS:
        raise ScanError(f"it claims {c} channels of {h} x {w} pixels; at most {MAX_CHANNELS} of {MAX_PIXELS} in all")


def _without_alpha(scan: Scan) -> Scan:
    """The colour channels of an RGBA scan: transparency is no stain."""
    if scan.kind != "rgb" or scan.shape[0] != 4:
        return scan
    return replace(
        scan,
        shape=(3, *scan.shape[1:]),
        remarks=(*scan.remarks, "alpha channel left out"),
        _read=lambda y, x, height, width: scan.read(y, x, height, width)[:3],
    )


def _oriented(scan: Scan, orientation: int) -> Scan:
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
