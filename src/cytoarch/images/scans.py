"""Any scan read by window, with bounded memory: 8- or 16-bit, grey, RGB(A) or multichannel.

Tiled TIFFs, CZI and OME-Zarr are read tile by tile; what can only be decoded from top to bottom (PNG, JPEG, compressed
strips) is decoded once, large ones into a scratch file. Nothing a file says about itself is believed before it is
checked: sizes and byte counts are bounded before anything is decoded. The orientation tag is applied; every other
correction is left to transforms beside the pixels.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import tifffile

from cytoarch.errors import ScanError
from cytoarch.images.czi import open_czi
from cytoarch.images.decoded import open_jp2, open_rows
from cytoarch.images.label_ids import png_colours, png_numbers, without_erased
from cytoarch.images.ome_zarr import is_ome_zarr, open_ome_zarr
from cytoarch.images.pixel_size import without_print_densities
from cytoarch.images.planes import Pixels, Scan, cropped, reading
from cytoarch.images.spooling import readable
from cytoarch.images.store_folders import store_files
from cytoarch.images.tiff import open_tiff
from cytoarch.progress import Progress

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8", ".svs")
UNTESTED_SUFFIXES = (".ndpi", ".scn", ".bif", ".svslide")
"""TIFFs of other scanners: they take the path of SVS, but no file of such a scanner has been read yet."""
ROW_SUFFIXES = (".png", ".jpg", ".jpeg")
JP2_SUFFIXES = (".jp2", ".j2k")
FOLDER_SUFFIXES = (".zarr",)
DRAWN_SUFFIXES = (".geojson",)
"""Labels that are drawn as outlines instead of pixels."""
LABEL_SUFFIXES = (".png", *TIFF_SUFFIXES, *DRAWN_SUFFIXES)
"""What labels can be read from."""
SUFFIXES = (*TIFF_SUFFIXES, *UNTESTED_SUFFIXES, *ROW_SUFFIXES, *JP2_SUFFIXES, ".czi", *FOLDER_SUFFIXES)


@dataclass(frozen=True)
class Spooling:
    """Where a scan that must be decoded from top to bottom is kept while it is read, and who hears of the progress."""

    scratch: Path = field(default_factory=lambda: Path(tempfile.gettempdir()))
    on_progress: Progress | None = None


@contextmanager
def open_scan(
    path: Path,
    plane_index: int | None = None,
    region_px: tuple[int, int, int, int] | None = None,
    as_numbers: bool = False,
    spooling: Spooling | None = None,
) -> Iterator[Scan]:
    """The scan in a file or OME-Zarr folder, open for reading by window.

    `plane_index` picks the plane of a stack; `region_px` = (y0, y1, x0, x1) picks a part of the plane;
    `as_numbers` leaves palette indices and inverted greys of a TIFF as they are stored. Print densities are not given
    as pixel sizes. Raises ScanError, naming the file, if it is missing, not an image that can be read, or lies about
    itself; reading a window raises the same where its pixels cannot be decoded.
    """
    check_is_scan(path)
    with ExitStack() as stack:
        with reading(path):
            scan = _opened(path, plane_index, as_numbers, spooling or Spooling(), stack)
            scan = without_print_densities(cropped(scan, region_px))

        def read(y: int, x: int, height: int, width: int) -> Pixels:
            with reading(path):
                return scan.read(y, x, height, width)

        yield replace(scan, _read=read)


def is_scan(path: Path) -> bool:
    """Whether there is a file, or a folder of OME-Zarr, whose suffix is one that can be read; or an image in such."""
    suffix = path.suffix.lower()
    if suffix in FOLDER_SUFFIXES or suffix not in SUFFIXES:
        return is_store(path)
    return path.is_file()


def is_store(path: Path) -> bool:
    """Whether a path is a folder of OME-Zarr: by its suffix, or as one of the images in a folder of that suffix."""
    if path.suffix.lower() in FOLDER_SUFFIXES:
        return path.is_dir()
    return any(folder.suffix.lower() in FOLDER_SUFFIXES for folder in path.parents) and is_ome_zarr(path)


def check_is_scan(path: Path) -> None:
    """Raise ScanError unless `is_scan`, saying what is wrong."""
    suffix = path.suffix.lower()
    if not path.exists():
        raise ScanError(f"{path}: no such file; check the path in the manifest")
    if suffix not in SUFFIXES and not is_store(path):
        raise ScanError(f"{path}: {suffix or 'no'} suffix; a scan with one of {', '.join(SUFFIXES)} is needed")
    if not is_scan(path):
        needed = "a folder, as OME-Zarr is," if suffix in FOLDER_SUFFIXES else "a file"
        raise ScanError(f"{path}: {needed} is needed where the path ends in {suffix}")


def scan_files(path: Path) -> list[Path]:
    """The files a scan consists of, sorted. Raises ScanError if a folder holds links that lead out of it."""
    return sorted(store_files(path)) if is_store(path) else [path]


def _opened(path: Path, plane_index: int | None, as_numbers: bool, spooling: Spooling, stack: ExitStack) -> Scan:
    suffix = path.suffix.lower()
    if suffix in (*TIFF_SUFFIXES, *UNTESTED_SUFFIXES):
        tiff = stack.enter_context(tifffile.TiffFile(path, _multifile=False))  # whatever it names, one file is read
        scan = open_tiff(tiff, plane_index, spooling.scratch, stack, as_numbers, spooling.on_progress)
        if suffix in UNTESTED_SUFFIXES:
            scan = replace(scan, remarks=(*scan.remarks, f"{suffix} files are read like SVS; this has not been tested"))
        return scan
    if suffix == ".czi":
        return open_czi(path, stack, plane_index)
    if is_store(path):
        return open_ome_zarr(path, plane_index)
    if plane_index not in (None, 0):
        raise ScanError(f"plane_index is {plane_index} but the file holds one plane")
    rows = open_jp2(path) if suffix in JP2_SUFFIXES else open_rows(path)
    return readable(rows, spooling.scratch, stack, spooling.on_progress)


@contextmanager
def open_labels(path: Path, spooling: Spooling | None = None) -> Iterator[Scan]:
    """The label image (1, y, x) in an 8- or 16-bit single-channel PNG or TIFF, open for reading by window.

    Palette images give their numbers, pixels that are fully transparent are 0. Raises ScanError if the file is missing
    or holds anything else (a label image must not be RGB or JPEG); reading a window raises it too where a palette of
    greys leaves open what the ids are.
    """
    if path.suffix.lower() not in (".png", *TIFF_SUFFIXES):
        raise ScanError(f"{path}: label images are 8- or 16-bit PNG or TIFF; {path.suffix!r} does not keep ids")
    check_is_scan(path)
    spooling = spooling or Spooling()
    with ExitStack() as stack:
        with reading(path):
            if path.suffix.lower() == ".png":
                scan = _png_labels(path, spooling, stack)
            else:
                scan = stack.enter_context(open_scan(path, as_numbers=True, spooling=spooling))
        if scan.shape[0] != 1:
            raise ScanError(f"{path}: holds {scan.shape[0]} channels; a label image with one channel of ids is needed")

        def read(y: int, x: int, height: int, width: int) -> Pixels:
            with reading(path):
                return scan.read(y, x, height, width)

        yield replace(scan, _read=read)


def _png_labels(path: Path, spooling: Spooling, stack: ExitStack) -> Scan:
    rows = png_numbers(path) or open_rows(path)
    scan = readable(replace(rows, alpha=False), spooling.scratch, stack, spooling.on_progress)
    scan = replace(scan, colours=png_colours(path))
    return without_erased(scan) if rows.alpha and scan.shape[0] == 2 else scan


def read_labels(path: Path) -> Pixels:
    """The whole label image (y, x) in a file, of moderate size."""
    with open_labels(path) as scan:
        _, height, width = scan.shape
        labels: Pixels = scan.read(0, 0, height, width)[0]
        return labels
