"""Sections of arrays, as the store holds them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cytoarch.images.layout import Pyramid
from cytoarch.images.pyramids import write_pyramid
from cytoarch.pretraining.sections import StoredSections
from cytoarch.store.staging import Staging


def stored_sections(folder: Path, sections: Sequence[np.ndarray], pixel_size_um: float) -> StoredSections:
    """Sections (h, w) uint8, or (3, h, w) in colour, written with pixels of this size."""
    paths = []
    for number, pixels in enumerate(sections):
        staging = Staging(folder / str(number)).open()
        colour = pixels.ndim == 3
        write_pyramid(
            staging,
            Pyramid(pixels.shape, pixels.dtype, pixel_size_um, "mean", levels=2),
            lambda y, x, h, w, pixels=pixels: pixels[..., y : y + h, x : x + w],
            name="section",
            attributes={"cytoarch": {"kind": "rgb" if colour else "grey"}},
        )
        paths.append(staging.path)
    return StoredSections(tuple(paths), pixel_size_um)
