"""Small pictures of sections for the list."""

import numpy as np
from qtpy.QtGui import QImage, QPixmap

from cytoarch.images.views import StoredImage
from cytoarch.napari.layers import pixels_of

THUMBNAIL_PX = 72


def thumbnail(image: StoredImage) -> QPixmap:
    """A small picture of a section, from the coarsest level that is large enough."""
    levels, rgb = pixels_of(image)
    fitting = [one for one in levels if max(one.shape[:2]) >= THUMBNAIL_PX]
    pixels = np.asarray(fitting[-1] if fitting else levels[0])
    step = max(1, max(pixels.shape[:2]) // THUMBNAIL_PX)
    pixels = pixels[::step, ::step]
    if pixels.dtype != np.uint8:
        top = max(float(pixels.max()), 1.0)
        pixels = (pixels / top * 255).astype(np.uint8)
    pixels = np.ascontiguousarray(pixels if rgb else np.repeat(pixels[..., None], 3, axis=-1))
    height, width = pixels.shape[:2]
    return QPixmap.fromImage(QImage(pixels.data, width, height, 3 * width, QImage.Format.Format_RGB888).copy())
