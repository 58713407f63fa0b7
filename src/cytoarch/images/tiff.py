"""Planes of TIFF files: tiled or in strips, BigTIFF, OME-TIFF, ImageJ, pyramidal, SVS."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile

from cytoarch.errors import ScanError
from cytoarch.images.label_ids import colours_of, greys_of, with_checked_greys, without_erased
from cytoarch.images.ome_xml import UM_PER_UNIT, names_other_files, ome_pixel_size_um
from cytoarch.images.pixel_size import may_be_pixel_size
from cytoarch.images.planes import (
    MAX_TILE_BYTES,
    Kind,
    Rows,
    Scan,
    StatedPixelSize,
    check_dtype,
    check_size,
    is_countable,
    is_plain,
    narrowed,
    oriented,
    without_alpha,
)
from cytoarch.images.segments import Page, Segments
from cytoarch.images.spooling import readable
from cytoarch.images.tiff_series import pick_series, plane_axes
from cytoarch.progress import Progress

_APERIO_MPP = re.compile(r"\|\s*MPP\s*=\s*([0-9.]+)")
_JPEG = (6, 7, 33003, 33004, 33005, 34712)
"""Compressions whose decoder gives RGB, whatever the photometric tag says: JPEG and JPEG 2000."""
_KEEPING_IDS = (1, 2, 3, 4, 5, 8, 32773, 32946, 34925, 34926, 34933, 50000)
"""Compressions that change no number, whatever their settings: none, CCITT, LZW, deflate, PackBits, LZMA, Zstandard,
PNG. JPEG changes all; JPEG 2000, JPEG XL, JPEG XR, WebP and LERC may or may not, and no tag says so."""
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_ASSOCIATED = 1
"""Opacity with which the other samples were multiplied."""
_ALPHA = (_ASSOCIATED, 2)
_BILEVEL = (2, 3, 4)
"""CCITT compressions, of black and white."""
_TILE_TAGS = (322, 323, 324, 325)
_GREYS = "save it as 16 bit (Fiji: Image > Type > 16-bit, which spreads what is shown over all greys)"
_IDS = "a label image holds the ids of its label table, save it so"
"""What to do about pixels that are no whole numbers."""


def open_tiff(
    tiff: tifffile.TiffFile,
    plane_index: int | None,
    scratch: Path,
    stack: ExitStack,
    as_numbers: bool = False,
    on_progress: Progress | None = None,
) -> Scan:
    """The plane of an open TIFF file; `as_numbers` gives pixel values as stored, as label images need them.

    Tiles, and strips that are not compressed, are read by window; compressed strips are decoded once, large ones into a
    file in `scratch`. Raises ScanError if the file holds no such plane, or pixels that are neither grey nor RGB.
    """
    if not tiff.series:
        raise ScanError("holds no image; it is damaged or was never finished, copy it again")
    if tiff.is_ome and tiff.ome_metadata and names_other_files(tiff.ome_metadata):
        raise ScanError("is one of several files that make an image together (OME-XML); save the scan as one file")
    series, plane_index, remarks = pick_series(tiff.series, plane_index, as_numbers)
    page = series.keyframe
    if not is_countable(series.dtype):
        check_dtype(series.dtype)
    picked = plane_axes(series.axes, series.shape, plane_index, as_numbers)
    sizes = dict(zip(series.axes, series.shape, strict=True))
    c_axis = "S" if sizes.get("S", 1) > 1 else "C"
    shape = sizes.get(c_axis, 1), sizes["Y"], sizes["X"]
    check_size(*shape)
    pages = _pages(series, picked, c_axis)
    for each in pages:
        _check_segments(page, each, tiff.filehandle.size)
    dtype = series.dtype.newbyteorder("=")
    segments = Segments(tiff.filehandle.fileno(), page, tuple(pages), dtype)
    if segments.channels != shape[0]:
        raise ScanError(
            f"holds {segments.channels} samples a pixel where its axes {series.axes} {series.shape} say {shape[0]}"
        )
    kind, sizes_um = _kind(page, c_axis, shape[0]), tuple(_pixel_sizes(tiff, series))
    if page.is_tiled or segments.raw_rows:
        scan = Scan(shape, dtype, kind, sizes_um, remarks, segments.window)
    else:
        rows = Rows(
            shape,
            dtype,
            kind,
            alpha=False,
            orientation=1,
            stated_pixel_sizes=sizes_um,
            remarks=remarks,
            bands=segments.bands,
        )
        scan = readable(rows, scratch, stack, on_progress)
    if not is_plain(dtype):
        scan = narrowed(scan, np.dtype(np.uint32 if as_numbers else np.uint16), _IDS if as_numbers else _GREYS)
    scan = _as_stored(scan, page, c_axis) if as_numbers else _as_it_looks(scan, page, c_axis)
    tag = page.tags.get(274)
    return oriented(scan, int(tag.value) if tag is not None else 1)


def _pages(series: tifffile.TiffPageSeries, picked: dict[str, int], c_axis: str) -> list[Page]:
    """The pages of a plane, one for each channel that has pages of its own.

    Raises ScanError where pages do not stand for whole planes, as in volumes of one page.
    """
    page = series.keyframe
    inner = len(page.shape)
    outer = dict(zip(series.axes[:-inner], series.shape[:-inner], strict=True))
    planes = int(np.prod([*outer.values()], dtype=np.int64))
    one_block = len(series.pages) < planes and series.dataoffset is not None  # ImageJ: a page stands for all
    if not series.axes.endswith(page.axes) or page.imagedepth != 1 or not (one_block or len(series.pages) == planes):
        raise ScanError(
            f"its axes {series.axes} {series.shape} do not lie in pages {page.axes} {page.shape}; save it as a "
            "tiled TIFF with a page for every plane"
        )
    channels = outer[c_axis] if c_axis in outer and c_axis not in picked else 1
    places = [[picked.get(axis, channel) for axis in outer] for channel in range(channels)]
    numbers = [int(np.ravel_multi_index(place, tuple(outer.values()))) if place else 0 for place in places]
    if one_block:
        plane_bytes = int(np.prod(page.shape, dtype=np.int64)) * series.dtype.itemsize
        strip_bytes = (
            min(page.rowsperstrip, page.imagelength) * page.imagewidth * page.shaped[-1] * series.dtype.itemsize
        )
        return [Page.within(series.dataoffset + number * plane_bytes, plane_bytes, strip_bytes) for number in numbers]
    found = [series.pages[number] for number in numbers]
    if any(each is None for each in found):
        raise ScanError("some of its pages are missing or in other files; save the scan as one file")
    return [Page.of(each) for each in found]


def _kind(page: tifffile.TiffPage, c_axis: str, c: int) -> Kind:
    photometric, compression = int(page.photometric), int(page.compression)
    coloured = photometric == _RGB or (photometric == _YCBCR and compression in _JPEG)
    if c_axis == "S" and c in (3, 4) and coloured:
        return "rgb"
    return "grey" if c == 1 else "multichannel"


def _as_stored(scan: Scan, page: tifffile.TiffPage, c_axis: str) -> Scan:
    """The scan with the numbers that are stored, 0 where they were erased.

    Raises ScanError for compressions that change numbers, or may have.
    """
    if page.compression not in _KEEPING_IDS:
        raise ScanError(
            f"is compressed by {page.compression.name}, which does not keep ids, or not with every setting; save it as "
            "a TIFF or PNG without loss (LZW, deflate)"
        )
    if scan.shape[0] == 2 and _has_alpha(page, c_axis):
        return without_erased(scan, multiplied=_ASSOCIATED in map(int, page.extrasamples))
    if page.colormap is None or int(page.photometric) != _PALETTE:
        return scan
    palette = page.colormap.T.astype(np.int64)  # 16 bits a colour; 8-bit numbers are shown by the upper byte
    scan = replace(scan, colours=colours_of(palette >> 8))
    return with_checked_greys(scan, greys_of(palette >> 8 if len(palette) <= 256 else palette))


def _has_alpha(page: tifffile.TiffPage, c_axis: str) -> bool:
    """Whether a sample of each pixel is its opacity."""
    return c_axis == "S" and any(int(sample) in _ALPHA for sample in page.extrasamples)


def _as_it_looks(scan: Scan, page: tifffile.TiffPage, c_axis: str) -> Scan:
    """The scan with numbers that mean brightness. Raises ScanError for palettes, CMYK, Lab and raw YCbCr."""
    photometric = int(page.photometric)
    grey_or_rgb = photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB) or scan.kind == "rgb"
    if not grey_or_rgb:
        raise ScanError(f"its pixels are {page.photometric.name}; grey or RGB is needed, save the scan so")
    if (scan.shape[0] > 1 and _has_alpha(page, c_axis)) or (scan.kind == "rgb" and scan.shape[0] == 4):
        scan = without_alpha(scan)
        scan = replace(scan, kind="grey" if scan.shape[0] == 1 else scan.kind)
    if photometric == _WHITE_IS_ZERO:
        stored, top = scan, int(np.iinfo(scan.dtype).max)
        scan = replace(
            stored,
            remarks=(*stored.remarks, "zero meant white: inverted"),
            _read=lambda y, x, height, width: np.subtract(top, stored.read(y, x, height, width), dtype=stored.dtype),
        )
    return scan


def _check_segments(page: tifffile.TiffPage, frame: Page, file_bytes: int) -> None:
    """Refuse tiles or strips that are absent, lie beyond the end of the file, or would decode to too much."""
    counts, offsets = frame.counts, frame.offsets
    if not counts or len(counts) != len(offsets) or len(counts) < _segment_count(page) or 0 in counts:
        raise ScanError("some tiles or strips are missing from the file; it is truncated or was never finished")
    if max(o + n for o, n in zip(offsets, counts, strict=True)) > file_bytes or sum(counts) > file_bytes:
        raise ScanError(f"its tiles or strips reach beyond its end at {file_bytes} bytes; it is truncated or damaged")
    if page.compression in _BILEVEL or (not page.is_tiled and any(number in page.tags for number in _TILE_TAGS)):
        raise ScanError(
            f"its compression ({page.compression.name}) or tile size does not go with 8- or 16-bit pixels; its tags "
            "lie, or it is damaged: save it as a tiled TIFF"
        )
    item_bytes = page.dtype.itemsize if page.dtype is not None else 1
    if page.is_tiled:
        decoded = page.tilelength * page.tilewidth * page.samplesperpixel * item_bytes
        if decoded > MAX_TILE_BYTES:
            raise ScanError(f"its tiles decode to {decoded} bytes each; save it with tiles of at most 4096 pixels")
    elif page.compression != 1:
        rows = min(page.rowsperstrip or page.imagelength, page.imagelength)
        if rows * page.imagewidth * page.samplesperpixel * item_bytes > MAX_TILE_BYTES:
            raise ScanError("its strips are too large to be decoded one by one; save the scan as a tiled TIFF")
    pixels = page.imagelength * page.imagewidth * page.samplesperpixel * item_bytes
    if page.compression == 1 and sum(counts) < pixels * page.bitspersample // (8 * item_bytes):
        raise ScanError(f"it claims {pixels} bytes of pixels and holds {sum(counts)}; it is truncated or damaged")


def _segment_count(page: tifffile.TiffPage) -> int:
    """How many tiles or strips a page is made of."""
    separate, height, width = int(page.shaped[0]), int(page.imagelength), int(page.imagewidth)
    if page.is_tiled:
        return separate * -(-height // int(page.tilelength)) * -(-width // int(page.tilewidth))
    return separate * -(-height // min(int(page.rowsperstrip) or height, height))


def _pixel_sizes(tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> Iterator[StatedPixelSize]:
    page = series.keyframe
    if tiff.is_ome and tiff.ome_metadata:
        number = next(at for at, one in enumerate(tiff.series) if series in one.levels)
        shape = int(page.imagelength), int(page.imagewidth)
        size = ome_pixel_size_um(tiff.ome_metadata, shape, (number, len(tiff.series)))
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
    if unit.lower() not in UM_PER_UNIT or not (nx and dx and ny and dy):
        return
    x_um, y_um = (UM_PER_UNIT[unit.lower()] * d / n for n, d in ((nx, dx), (ny, dy)))
    if abs(x_um - y_um) > 0.01 * x_um and any(map(may_be_pixel_size, (x_um, y_um))):
        raise ScanError(f"its pixels are not square ({y_um:g} x {x_um:g} um by its TIFF tags); resample it")
    yield StatedPixelSize("tiff-tag", x_um)
