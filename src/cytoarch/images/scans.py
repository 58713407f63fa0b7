"""Any scan read by window: TIFF, BigTIFF, OME-TIFF, PNG and JPEG; grey, RGB(A) or multichannel; 8 or 16 bit.

Nothing a file says about itself is believed before it is checked: sizes and byte counts are bounded before anything
is decoded. The orientation tag is applied; every other correction is left to transforms beside the pixels.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from cytoarch.errors import ScanError
from cytoarch.images.planes import Pixels, Scan, cropped
from cytoarch.images.tiff import open_tiff
from cytoarch.images.whole import open_whole, whole_image

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8", ".svs")
WHOLE_SUFFIXES = (".png", ".jpg", ".jpeg")
SUFFIXES = (*TIFF_SUFFIXES, *WHOLE_SUFFIXES)


@contextmanager
def open_scan(
    path: Path,
    plane_index: int | None = None,
    region_px: tuple[int, int, int, int] | None = None,
    as_numbers: bool = False,
) -> Iterator[Scan]:
    """The scan in a file, open for reading by window.

    `plane_index` picks the plane of a stack; `region_px` = (y0, y1, x0, x1) picks a part of the plane;
    `as_numbers` leaves palette indices and inverted greys of a TIFF as they are stored. Raises
    ScanError, naming the file, if it is missing, not an image that can be read, or lies about itself; reading a
    window raises the same where its pixels cannot be decoded.
    """
    if not path.is_file():
        raise ScanError(f"{path}: no such file; check the path in the manifest")
    suffix = path.suffix.lower()
    with ExitStack() as stack:
        with _reading(path):
            if suffix in TIFF_SUFFIXES:
                scan = open_tiff(stack.enter_context(tifffile.TiffFile(path)), plane_index, as_numbers)
            elif suffix in WHOLE_SUFFIXES:
                if plane_index not in (None, 0):
                    raise ScanError(f"plane_index is {plane_index} but the file holds one plane")
                scan = open_whole(path)
            else:
                raise ScanError(f"{suffix or 'no'} suffix; a scan with one of {', '.join(SUFFIXES)} is needed")
            scan = cropped(scan, region_px)

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
            with whole_image(path) as image:
                if image.mode in ("P", "L", "1"):
                    return np.asarray(image).astype(np.uint8)
        except (OSError, ValueError, SyntaxError) as error:
            raise ScanError(f"{path}: cannot be read as a label image ({error})") from None
    if path.suffix.lower() not in (".png", *TIFF_SUFFIXES):
        raise ScanError(f"{path}: label images are 8- or 16-bit PNG or TIFF; {path.suffix!r} does not keep ids")
    with open_scan(path, as_numbers=True) as scan:
        c, h, w = scan.shape
        if c != 1:
            raise ScanError(f"{path}: holds {c} channels; a label image with one channel of ids is needed")
        labels: Pixels = scan.read(0, 0, h, w)[0]
        return labels
