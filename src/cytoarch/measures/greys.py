"""Which grey values of a volume are shown as black and as white."""

import numpy as np
from numpy.typing import NDArray

BRIGHT = 0.99
"""Share of the voxels above the background that are no brighter than white."""


def grey_range(histogram: NDArray[np.int64]) -> tuple[int, int]:
    """(black, white): the median of a volume, and what few of the voxels brighter than it exceed; counts by grey value.

    In a volume whose background was set to 0 the median is 0, and white is told by what is left. White is above black
    even where all voxels are equal.

    >>> grey_range(np.array([90, 0, 0, 8, 0, 2]))
    (0, 5)
    """
    below = np.cumsum(histogram)
    if not len(below) or below[-1] == 0:
        raise ValueError("no voxel was counted; a volume has some")
    black = int(np.searchsorted(below, below[-1] / 2))
    above = below[-1] - below[black]
    white = int(np.searchsorted(below, below[black] + BRIGHT * above)) if above else black + 1
    return black, max(white, black + 1)
