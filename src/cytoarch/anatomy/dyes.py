"""Two dyes in one section: eosin beside a stain of nuclei (H&E).

A stain of cell bodies absorbs red and green light alike, the more the more cells there are. Eosin absorbs green and
hardly any red, and most of what differs within a section is eosin: how much stain there is tells no matter then.
A single red or brown dye (neutral red, DAB) absorbs little red, too, but what it absorbs follows the green.
"""

import numpy as np
from scipy import ndimage

from cytoarch.anatomy.outline import distances
from cytoarch.anatomy.slide import Float32, Mask, Slide

INNER_PX = 3.0
"""What lies nearer to the outline is mixed with the slide, and is not asked."""
SMOOTH_PX = 1.5
"""Smoothing (sd): single nuclei say nothing of a place."""
EOSIN = 0.55
"""How much absorbed red grows with absorbed green: 0.1 in eosin alone, 0.7-1.3 in stains of cell bodies."""
ONE_DYE = 0.8
"""Share of what differs in absorbed red that absorbed green explains (r squared): .9 and more where there is one dye,
.2 to .7 in human H&E."""
FEWEST_PX = 64
"""Pixels of tissue below which nothing is said."""


def has_eosin(pixels: Float32, slide: Slide, mask: Mask) -> bool:
    """Whether what differs within the tissue of a mask (y, x) is eosin, in a picture (c, y, x) on a bright slide.

    Never in pictures that have not three channels.
    """
    inner = mask & (distances(mask) > INNER_PX)
    if slide.polarity == "bright" or len(pixels) != 3 or inner.sum() < FEWEST_PX:
        return False
    passed = np.clip(pixels[:2] / np.maximum(slide.level[:2], 1e-6), 1e-3, None)
    red, green = ndimage.gaussian_filter(-np.log(passed), (0, SMOOTH_PX, SMOOTH_PX))[:, inner]
    variances = np.cov(red, green)
    two = variances[0, 1] ** 2 < ONE_DYE * variances[0, 0] * variances[1, 1]
    return bool(two and variances[0, 1] < EOSIN * variances[1, 1])
