"""Planes of PNG and JPEG files, which can only be decoded whole."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image

from cytoarch.errors import ScanError
from cytoarch.images.planes import MAX_WHOLE_PIXELS, Pixels, Scan, check_dtype, oriented, without_alpha

_limit_lock = threading.Lock()


@contextmanager
def whole_image(path: Path) -> Iterator[Image.Image]:
    """A PNG or JPEG, opened; its size is checked here against our own limit instead of Pillow's."""
    with _limit_lock:  # Pillow's limit is global, and sections are opened side by side
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(path, formats=("PNG", "JPEG"))
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    with image:
        if image.width * image.height > MAX_WHOLE_PIXELS:
            raise ScanError(
                f"{path}: {image.height} x {image.width} pixels in a format that can only be decoded whole "
                f"(limit {MAX_WHOLE_PIXELS}); save the scan as a tiled TIFF"
            )
        yield image


def open_whole(path: Path) -> Scan:
    """The plane of a PNG or JPEG file. Raises ScanError if it is neither grey nor RGB, with or without alpha."""
    with whole_image(path) as image:
        orientation = int(image.getexif().get(274, 1)) if image.format == "JPEG" else 1
        if image.format == "PNG" and _png_is_16_bit_colour(path):
            pixels = imagecodecs.png_decode(path.read_bytes())  # Pillow would cut 16-bit colour to 8 bit
        elif image.mode in ("L", "LA", "RGB", "RGBA", "I;16"):
            pixels = np.asarray(image)
        elif image.mode == "I;16B":
            pixels = np.asarray(image).astype(np.uint16)
        elif image.mode in ("P", "1", "CMYK", "PA"):
            pixels = np.asarray(image.convert("L" if image.mode == "1" else "RGB"))
        else:
            raise ScanError(f"Pillow mode {image.mode} is not 8- or 16-bit grey or RGB(A)")
    check_dtype(pixels.dtype)
    planes: Pixels = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    scan = Scan(
        shape=(planes.shape[0], planes.shape[1], planes.shape[2]),
        dtype=planes.dtype,
        kind="rgb" if planes.shape[0] >= 3 else "grey",
        stated_pixel_sizes=(),
        remarks=(),
        _read=lambda y, x, height, width: planes[:, y : y + height, x : x + width],
    )
    return oriented(without_alpha(scan) if planes.shape[0] in (2, 4) else scan, orientation)


def _png_is_16_bit_colour(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(26)
    return len(head) == 26 and head[24] == 16 and head[25] in (2, 4, 6)
