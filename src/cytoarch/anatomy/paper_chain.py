"""The chain that CytoNet's authors describe for stains of cell bodies, kept beside the default to compare with.

Source: supplement of the CytoNet paper, "tissue segmentation" at 64 um per pixel. What it leaves open is decided here:
the histogram is that of the enhanced image, and the level set starts from Otsu's threshold of the tissue.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.exposure import equalize_adapthist
from skimage.filters import threshold_otsu
from skimage.morphology import remove_small_holes, remove_small_objects
from skimage.segmentation import morphological_chan_vese

from cytoarch.anatomy.matter import GREY, WHITE, UInt8
from cytoarch.anatomy.slide import Float32, Mask

WINDOW = 5
"""Edge of the filters for minimum, maximum and mean (pixels of 64 um)."""
CLAHE_PX = 250
BINS = 256
ROUNDS = 100
"""Iterations of the level set."""


def paper_classes(grey: Float32, bright: bool, smallest_px: float) -> tuple[UInt8, float]:
    """Classes (y, x) uint8 of a grey overview (y, x), and the threshold that tissue was found with (of 0 to 1)."""
    low, high = float(grey.min()), float(grey.max())
    scaled = (grey - low) / (high - low)
    enhanced = equalize_adapthist(_cleaned(1 - scaled if bright else scaled), kernel_size=CLAHE_PX)
    enhanced = _cleaned(ndimage.gaussian_filter(enhanced, 1.0))
    threshold = least_between(enhanced)
    mask = enhanced < threshold
    if smallest_px > 1:
        mask = remove_small_objects(mask, max_size=int(smallest_px))
        mask = remove_small_holes(mask, max_size=int(smallest_px))
    return _matter(enhanced, np.asarray(mask)), threshold


def _cleaned(plane: NDArray[np.floating]) -> NDArray[np.floating]:
    """Minimum, maximum and mean in turn: what is brighter and smaller than the window is gone."""
    least = ndimage.minimum_filter(plane, WINDOW)
    return np.asarray(ndimage.uniform_filter(ndimage.maximum_filter(least, WINDOW), WINDOW))


def least_between(values: NDArray[np.floating]) -> float:
    """The minimum of the smoothed histogram that lies nearest to Otsu's threshold; that threshold if there is none."""
    otsu = float(threshold_otsu(values))
    counts, edges = np.histogram(values, bins=BINS)
    smooth = ndimage.uniform_filter1d(ndimage.median_filter(counts.astype(np.float64), 3), 5)
    middles = (edges[1:] + edges[:-1]) / 2
    falls, rises = np.diff(smooth)[:-1] < 0, np.diff(smooth)[1:] > 0
    minima = middles[1:-1][falls & rises]
    return float(minima[np.abs(minima - otsu).argmin()]) if len(minima) else otsu


def _matter(enhanced: NDArray[np.floating], mask: Mask) -> UInt8:
    """Grey and white by a morphological level set (Chan and Vese; Marquez-Neila et al. 2014).

    The level set knows no mask: what is outside is filled with the mean of grey matter, as if it were grey.
    """
    classes = mask.astype(np.uint8) * np.uint8(GREY)
    inside = enhanced[mask]
    if len(inside) < 16 or float(np.ptp(inside)) < 1e-6:
        return classes
    otsu = float(threshold_otsu(inside))
    filled = np.where(mask, enhanced, float(inside[inside <= otsu].mean()))
    white = morphological_chan_vese(
        filled, num_iter=ROUNDS, init_level_set=(filled > otsu).astype(np.int8), smoothing=1
    )
    classes[mask & (white > 0)] = WHITE
    return classes
