"""How far from its place every wrong class is: the segmentation error of Spitzer et al. 2018 (err_seg).

A cell that is told as class c costs its distance to the nearest cell that is c in truth; one that is right costs
nothing. The publication leaves open whether the mean is over all cells or over wrong ones, and its unit; all are given.
Where a class is told that truth does not have at all, its cells cost the diagonal of the image.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Int64 = NDArray[np.int64]
UNLABELLED = -1


class Misplacement(NamedTuple):
    """The error of a map."""

    mean: float
    """Over labelled cells, in the unit of `spacing`; NaN if there is none."""
    mean_of_wrong: float
    """Over wrong cells; 0 if there is none."""
    yasnoff: float
    """100 sqrt(sum of squared distances) / number of cells (Yasnoff, Mui and Bacus 1977)."""
    cells: int
    wrong: int
    absent: int
    """Cells told as a class that truth does not have."""


def misplacement(truth: Int64, told: Int64, spacing: float = 1.0) -> Misplacement:
    """The error of told classes (...) against the truth (...) of the same shape; `UNLABELLED` truth is left out.

    `spacing` is the edge of a cell. Raises ValueError for shapes that differ.

    >>> [round(one, 6) for one in misplacement(np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 1, 0]))[:3]]
    [0.666667, 2.0, 52.704628]
    """
    if truth.shape != told.shape:
        raise ValueError(f"a truth of {truth.shape} and a map of {told.shape} cannot be compared; needed: one shape")
    known = truth != UNLABELLED
    wrong = known & (truth != told)
    cost = np.zeros(truth.shape)
    absent = 0
    for one in np.unique(told[wrong]).tolist():
        here, there = wrong & (told == one), truth == one
        if there.any():
            cost[here] = ndimage.distance_transform_edt(~there, sampling=spacing)[here]
        else:
            cost[here] = spacing * float(np.linalg.norm(truth.shape))
            absent += int(here.sum())
    cells, count = int(known.sum()), int(wrong.sum())
    if not cells:
        return Misplacement(np.nan, 0.0, np.nan, 0, 0, 0)
    total = float(cost.sum())
    yasnoff = 100 * float(np.sqrt((cost**2).sum())) / cells
    return Misplacement(total / cells, total / max(1, count), yasnoff, cells, count, absent)
