"""Grey and white matter within tissue: grey takes up more of a stain of cell bodies than white does."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

from cytoarch.anatomy.outline import distances, opened
from cytoarch.anatomy.slide import Float32, Mask, Polarity

UInt8 = NDArray[np.uint8]

GREY, WHITE = 1, 2
"""Values of classes; 0 is background."""
SMOOTH_MM = 0.08
"""Smoothing of the stain (sd): cells and their clusters are no matter of their own."""
TWO_KINDS = {"dark": 0.0, "bright": 0.7}
"""Share of the variance that grey and white must explain to be told apart (one Gaussian gives 0.64), by polarity.

Nissl-stained sections reach 0.57-0.81 and show both; nuclei of mice in fluorescence reach 0.50-0.68 and do not."""


def matter(
    stain: Float32, mask: Mask, polarity: Polarity, pixel_size_um: float, molecular_mm: float, smallest_px: float
) -> UInt8:
    """Classes (y, x) uint8: 0 background, 1 grey, 2 white, from the stain (y, x) of the tissue in a mask.

    White is what lies below Otsu's threshold of the smoothed stain. A pale band along the outside that is thinner than
    `molecular_mm` is the molecular layer, which holds few cells and is grey. Islands of either kind below `smallest_px`
    belong to what surrounds them. Where the stain shows no two kinds, as in fluorescence, all is called grey.
    """
    classes = mask.astype(np.uint8)
    if mask.sum() < 16 or float(np.ptp(stain[mask])) < 1e-6:
        return classes
    smooth = within(stain, mask, SMOOTH_MM * 1000 / pixel_size_um)
    values = np.clip(smooth[mask], *np.percentile(smooth[mask], (1, 99)))
    threshold = float(threshold_otsu(values))
    if _explained(values, threshold) < TWO_KINDS[polarity]:
        return classes
    white = mask & (smooth < threshold)
    depth = distances(mask)
    molecular_px = molecular_mm * 1000 / pixel_size_um
    white &= opened(white, molecular_px / 2) | (depth > molecular_px)
    white = _without_islands(white, mask, smallest_px)
    classes[white] = WHITE
    return classes


def _explained(values: NDArray[np.floating], threshold: float) -> float:
    """Share of the variance of values that their two sides of a threshold explain."""
    low, high = values[values < threshold], values[values >= threshold]
    between = len(low) * len(high) * (float(low.mean()) - float(high.mean())) ** 2 / len(values) ** 2
    return between / max(float(values.var()), 1e-12)


def within(values: Float32, mask: Mask, sd_px: float) -> Float32:
    """Values smoothed by what lies in a mask alone (normalised convolution); what is outside has no say."""
    weight = ndimage.gaussian_filter(mask.astype(np.float32), sd_px)
    total = ndimage.gaussian_filter(np.where(mask, values, 0).astype(np.float32), sd_px)
    return np.asarray(total / np.maximum(weight, 1e-6))


def _without_islands(white: Mask, mask: Mask, smallest_px: float) -> Mask:
    for is_white in (True, False):
        labels, count = ndimage.label(white if is_white else mask & ~white)
        areas = np.bincount(labels.ravel(), minlength=count + 1)
        small = areas < smallest_px
        small[0] = False
        white = white & ~small[labels] if is_white else white | small[labels]
    return np.asarray(white)
