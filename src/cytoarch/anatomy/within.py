"""Whether a picture lies within tissue, so that no slide is to be seen.

Pale tissue may be as bright as glass, and is taken for the slide where the rim of a picture shows it. Cells tell the
two apart: tissue holds some everywhere, glass none. But a dusty slide holds grains everywhere, too: nothing is asked
of a picture as large as a section, nor where what was found stands free in it, as a section does.
"""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from cytoarch.anatomy.doubts import SECTION_MM
from cytoarch.anatomy.outline import HALF, Outline
from cytoarch.anatomy.slide import Float32, Slide

CLOSE_UM, FARTHEST_UM = 4.0, 8.0
"""Pixel size at which single cells are looked for, and the coarsest at which they can be seen."""
BLOCK_UM = 200.0
"""Edge of the pieces of a slide that are looked at: none of tissue is without a cell."""
FEWEST, MOST = 4, 32
"""So many pieces are needed, so many are looked at."""
EVERYWHERE = 0.75
"""Share of the pieces with cells from which on all of it is tissue: dust and loose cells reach some of a slide."""
STANDING_OUT = 8.0
"""By so many times the noise of a piece (standard deviations) a cell stands out; noise itself never does."""
NORMAL = 1.4826
"""Standard deviation of a normal population over its median absolute deviation."""

Look = Callable[[int, int, int, int], Float32]
"""The pixels (c, h, w) of a window (y, x, height, width) of an overview, so close that cells are seen."""


def is_within_tissue(slide: Slide, found: Outline, look: Look, cell_um: float) -> bool:
    """Whether cells lie everywhere in what looks like the slide of an overview with cells of `cell_um`."""
    rim = slide.scanned & ~ndimage.binary_erosion(slide.scanned)
    stands_free = found.mask.any() and not found.mask[rim].any()
    if stands_free or max(found.mask.shape) * cell_um >= 1000 * SECTION_MM:
        return False
    edge = max(1, round(BLOCK_UM / cell_um))
    bare = slide.bare & ~ndimage.binary_dilation(found.mask)
    down, along = (size // edge for size in bare.shape)
    blocks = bare[: down * edge, : along * edge].reshape(down, edge, along, edge).all(axis=(1, 3))
    places = edge * np.argwhere(blocks)
    if len(places) < FEWEST:
        return False
    chosen = np.unique(np.linspace(0, len(places) - 1, MOST).astype(np.int64))
    held = [_holds_cells(look(y, x, edge, edge), slide, found.dense) for y, x in places[chosen].tolist()]
    return float(np.mean(held)) >= EVERYWHERE


def _holds_cells(pixels: Float32, slide: Slide, dense: float) -> bool:
    """Whether pixels (c, h, w) show something stained as strongly as half of dense tissue, far beyond their noise."""
    stain = slide.sign * pixels.mean(axis=0)
    stain -= np.median(stain)
    noise = max(NORMAL * float(np.median(np.abs(stain))), slide.noise)
    return float(stain.max()) > max(STANDING_OUT * noise, HALF * dense)
