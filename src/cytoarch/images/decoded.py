"""Planes of PNG and JPEG files, decoded from top to bottom in bands, and of JPEG 2000 files, decoded whole.

libvips gives the rows of a PNG or JPEG in order and keeps some of them, so the memory it takes grows with the width
of a plane, never with its height. Pixels are those that are stored: no profile, gamma or density is applied. Neither
format is asked for a pixel size: programs write 72 dpi into both without knowing.
"""

import logging
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cytoarch.errors import ScanError
from cytoarch.images.label_ids import is_palette_of_greys
from cytoarch.images.planes import Pixels, Rows, check_dtype, check_size
from cytoarch.tiling import partition

BAND_BYTES = 32 << 20
"""Bands are as many rows as fit into this, and at most `BAND_ROWS`. Two of them and libvips' own 1,300 rows or so are
in memory at a time: 200 MiB for rows of 20,000 RGB pixels, however many there are, and 600 MiB for rows of 100,000."""
BAND_ROWS = 512
FETCH_ROWS = 32
"""Rows libvips is asked for at a time: its own buffers stay small beside a band."""
MAX_WHOLE_PIXELS = 200_000_000
"""Largest interlaced PNG or progressive JPEG: both are held whole while they are decoded, the first in up to 8 bytes
per pixel (16-bit RGBA), the second in 6 (three coefficients of 2 bytes), so this is at most 1.6 GB."""
MAX_JP2_SAMPLES = 200_000_000
"""Largest JPEG 2000 plane in samples (c * y * x): OpenJPEG takes 5 to 7.4 bytes for each (measured: 48 million took 246
and 354 MB, 192 million 1 GB), so this is at most 1.5 GB."""

_LOADERS = {b"\x89PNG\r\n\x1a\n": "pngload_source", b"\xff\xd8\xff": "jpegload_source"}
"""libvips loaders by the first bytes of a file: none of its many others is ever asked."""
_DTYPES: dict[str, np.dtype[Any]] = {"uchar": np.dtype(np.uint8), "ushort": np.dtype(np.uint16)}
_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
_SOC_SIZ, _EOC = b"\xff\x4f\xff\x51", b"\xff\xd9"
_BOX_COUNT = 1000
"""More boxes than this no JPEG 2000 file has before its pixels."""


def open_rows(path: Path) -> Rows:
    """The plane of a PNG or JPEG file: 8- or 16-bit grey or RGB, with or without alpha; palettes become what they show.

    The format is told by the first bytes, not the suffix. The EXIF orientation of a JPEG is reported, not applied.
    Only headers are read here. Raises ScanError if the file is neither format, CMYK or of another depth, too large,
    or too large for an interlaced PNG or progressive JPEG; the bands raise it where data are truncated or corrupt.
    """
    with _vips_image(path) as image:
        bands, height, width, pixel = image.bands, image.height, image.width, image.format
        whole = _number(image, "interlaced", 0) == 1
        is_jpeg = image.get("vips-loader").startswith("jpeg")
        orientation = _number(image, "orientation", 1) if is_jpeg else 1
        space = image.interpretation
    if space == "cmyk" or bands not in (1, 2, 3, 4):
        raise ScanError(f"{path}: holds {bands} channels ({space}); save it as grey or RGB")
    if pixel not in _DTYPES:
        raise ScanError(f"{path}: its pixels are {pixel}; 8- or 16-bit unsigned pixels are needed")
    check_size(bands, height, width)
    if whole and height * width > MAX_WHOLE_PIXELS:
        raise ScanError(
            f"{path}: an interlaced PNG or progressive JPEG of {height} x {width} pixels, which can only be decoded "
            f"whole (limit {MAX_WHOLE_PIXELS} pixels); save it without interlacing or as a tiled TIFF"
        )
    stored, dtype = (bands, height, width), _DTYPES[pixel]
    is_grey = bands <= 2 or is_palette_of_greys(path)  # of which libvips gives the grey three times
    kept = slice(0, bands, 3) if is_grey and bands > 2 else slice(bands)
    return Rows(
        shape=(len(range(bands)[kept]), height, width),
        dtype=dtype,
        kind="grey" if is_grey else "rgb",
        alpha=bands in (2, 4),
        orientation=orientation,
        stated_pixel_sizes=(),
        remarks=(),
        bands=lambda: (band[kept] for band in _vips_bands(path, stored, dtype)),
    )


def _number(image: Any, name: str, otherwise: int) -> int:
    return int(image.get(name)) if image.get_typeof(name) else otherwise


@contextmanager
def _vips_image(path: Path) -> Iterator[Any]:
    """The file as a libvips image whose rows can be asked for once, in order."""
    import pyvips

    logging.getLogger("pyvips").setLevel(logging.ERROR)  # a warning of libvips is raised below, or does not matter
    pyvips.cache_set_max(0)
    pyvips.concurrency_set(1)  # with more threads libvips keeps more rows in memory
    with path.open("rb") as file:
        head = file.read(8)
        loader = next((name for signature, name in _LOADERS.items() if head.startswith(signature)), None)
        if loader is None:
            raise ScanError(f"{path}: is neither a PNG nor a JPEG by its first bytes ({head.hex() or 'it is empty'})")
        # given a path, libvips maps a JPEG into memory: resident pages would grow with the file
        source = pyvips.SourceCustom()
        source.on_read(lambda count: _bytes_of(file, count))
        source.on_seek(file.seek)
        file.seek(0)
        # libjpeg only warns of bytes it cannot decode and goes on in grey; libpng's warnings are about profiles
        fail_on = "warning" if loader == "jpegload_source" else "error"
        with _decoding(path):
            image = pyvips.Operation.call(loader, source, access="sequential", fail_on=fail_on)
        yield image


def _bytes_of(file: BinaryIO, count: int) -> bytes | None:
    """The next bytes, or None at the end and where reading fails: libvips takes both for a truncated file."""
    try:
        return file.read(count) or None
    except OSError:
        return None


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Turn what libvips raises into a ScanError that names the file, or a MemoryError."""
    import pyvips

    try:
        yield
    except pyvips.Error as error:
        reason = "; ".join(str(error.detail or error.message).split("\n")).strip("; ")
        if "out of memory" in reason or "Insufficient memory" in reason:
            raise MemoryError(reason) from None
        raise ScanError(f"{path}: its pixels cannot be decoded, it is truncated or damaged ({reason})") from None


def _vips_bands(path: Path, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Iterator[Pixels]:
    """Successive bands (c, rows, x) of a PNG or JPEG, each in memory of its own."""
    import pyvips

    c, height, width = shape
    with _vips_image(path) as image:
        region = pyvips.Region.new(image)
        for top, _, count, _ in partition(height, 1, _band_rows(shape, dtype)):
            band: Pixels = np.empty((c, count, width), dtype=dtype)
            for y, _, some, _ in partition(count, 1, FETCH_ROWS):
                with _decoding(path):
                    pixels = region.fetch(0, top + y, width, some)
                band[:, y : y + some] = np.frombuffer(pixels, dtype).reshape(some, width, c).transpose(2, 0, 1)
            yield band


def _band_rows(shape: tuple[int, int, int], dtype: np.dtype[Any]) -> int:
    c, _, width = shape
    return max(1, min(BAND_ROWS, BAND_BYTES // (c * width * dtype.itemsize)))


def open_jp2(path: Path) -> Rows:
    """The plane of a JPEG 2000 file (.jp2, .j2k): 8- or 16-bit unsigned grey, RGB or channels.

    It can only be decoded whole. A last channel that the file declares to be opacity is alpha; three channels are
    RGB. Raises ScanError if the file is none, is truncated, has a palette, another colour space, subsampled or signed
    channels, or more than `MAX_JP2_SAMPLES`; the bands raise it where data are corrupt.
    """
    with path.open("rb") as file:
        alpha, start, stop = _jp2_codestream(path, file)
        shape, dtype = _jp2_size(path, file, start)
        file.seek(stop - 2)
        if file.read(2) != _EOC:  # OpenJPEG would decode what there is and leave the rest grey
            raise ScanError(f"{path}: its pixels do not end as JPEG 2000 does; it is truncated or damaged")
    c, h, w = shape
    if c * h * w > MAX_JP2_SAMPLES:
        raise ScanError(
            f"{path}: a JPEG 2000 file of {c} channels of {h} x {w} pixels, which can only be decoded whole "
            f"(limit {MAX_JP2_SAMPLES} values); save it as a tiled TIFF"
        )
    colours = c - 1 if alpha else c
    return Rows(
        shape=shape,
        dtype=dtype,
        kind="grey" if colours == 1 else "rgb" if colours == 3 else "multichannel",
        alpha=alpha,
        orientation=1,
        stated_pixel_sizes=(),
        remarks=(),
        bands=lambda: _jp2_bands(path, shape, dtype),
    )


def _jp2_bands(path: Path, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Iterator[Pixels]:
    import imagecodecs

    c, height, width = shape
    try:
        pixels: NDArray[Any] = imagecodecs.jpeg2k_decode(path.read_bytes())
    except imagecodecs.Jpeg2kError as error:
        raise ScanError(f"{path}: its pixels cannot be decoded, it is damaged ({error})") from None
    pixels = pixels[..., None] if c == 1 else pixels
    if pixels.shape != (height, width, c) or pixels.dtype != dtype:
        raise ScanError(
            f"{path}: decodes to {pixels.dtype} {pixels.shape} where {dtype} {(height, width, c)} is stated"
        )
    for top, _, count, _ in partition(height, 1, _band_rows(shape, dtype)):
        yield np.ascontiguousarray(pixels[top : top + count].transpose(2, 0, 1))


def _jp2_size(path: Path, file: BinaryIO, start: int) -> tuple[tuple[int, int, int], np.dtype[Any]]:
    """The shape (c, y, x) and type of a codestream that begins at byte `start`."""
    file.seek(start)
    head = file.read(42)
    if len(head) < 42 or not head.startswith(_SOC_SIZ):
        raise ScanError(f"{path}: holds no JPEG 2000 codestream")
    x1, y1, x0, y0 = struct.unpack(">4I", head[8:24])
    c = int.from_bytes(head[40:42], "big")
    check_size(c, y1 - y0, x1 - x0)
    parts = file.read(3 * c)
    if len(parts) < 3 * c or len({bytes(parts[at : at + 3]) for at in range(0, 3 * c, 3)}) != 1:
        raise ScanError(f"{path}: its channels differ in depth or sampling; save it with channels that are alike")
    bits, dx, dy = (parts[0] & 0x7F) + 1, parts[1], parts[2]
    if parts[0] & 0x80 or bits > 16 or (dx, dy) != (1, 1):
        raise ScanError(
            f"{path}: its pixels have {bits} {'signed' if parts[0] & 0x80 else 'unsigned'} bits, one every {dy} x {dx};"
            " 8- or 16-bit unsigned pixels, not subsampled, are needed"
        )
    dtype: np.dtype[Any] = np.dtype(np.uint8 if bits <= 8 else np.uint16)
    check_dtype(dtype)
    return (c, y1 - y0, x1 - x0), dtype


def _jp2_codestream(path: Path, file: BinaryIO) -> tuple[bool, int, int]:
    """Whether the last channel is opacity, and where the codestream begins and ends."""
    end = path.stat().st_size
    if file.read(4) == _SOC_SIZ:
        return False, 0, end
    file.seek(0)
    if file.read(12) != _JP2_SIGNATURE:
        raise ScanError(
            f"{path}: is no JPEG 2000 file by its first bytes; it is damaged or of another format, copy it again"
        )
    alpha, at = False, 12
    for _ in range(_BOX_COUNT):
        kind, start, stop = _box(path, file, at, end)
        if kind == b"jp2c":
            return alpha, start, stop
        if kind == b"pclr":
            raise ScanError(f"{path}: has a palette; save it as RGB")
        if kind == b"colr":
            _check_colours(path, file, start)
        alpha = _ends_with_opacity(file, start, stop) if kind == b"cdef" else alpha
        at = start if kind == b"jp2h" else stop  # boxes inside the header box are walked like any other
    raise ScanError(f"{path}: holds more than {_BOX_COUNT} boxes before its pixels; it is damaged")


def _box(path: Path, file: BinaryIO, at: int, end: int) -> tuple[bytes, int, int]:
    """The kind of the box at a byte, and where its content begins and ends."""
    file.seek(at)
    head = file.read(16)
    size, start = int.from_bytes(head[:4], "big"), at + 8
    if size == 1:
        size, start = int.from_bytes(head[8:16], "big"), at + 16
    stop = end if size == 0 else at + size
    if len(head) < 8 or not start <= stop <= end:
        raise ScanError(f"{path}: its boxes reach beyond its end at {end} bytes; it is truncated or damaged")
    return head[4:8], start, stop


def _check_colours(path: Path, file: BinaryIO, start: int) -> None:
    file.seek(start)
    method, _, _, space = struct.unpack(">BBBI", file.read(7).ljust(7, b"\0"))
    if method == 1 and space not in (16, 17):
        raise ScanError(f"{path}: its colour space is number {space}; 16 (RGB) or 17 (grey) is needed, save it so")


def _ends_with_opacity(file: BinaryIO, start: int, stop: int) -> bool:
    """Whether a channel definition box calls the last channel opacity."""
    file.seek(start)
    content = file.read(min(stop - start, 2 + 6 * 64))
    rows = [struct.unpack(">3H", content[at : at + 6]) for at in range(2, len(content) - 5, 6)]
    return bool(rows) and max(rows)[1] in (1, 2)
