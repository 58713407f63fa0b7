"""How much larger a section is than its neighbours would have it: sections shrink differently on their slides.

Links tell how sizes follow each other along the series. What changes slowly is the shape of the brain, and is followed
by parabolas through some neighbours over their places (as Savitzky and Golay 1964, who had them evenly spaced); what is
left is how much the section itself shrank.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, eye_array
from scipy.sparse.linalg import spsolve

from cytoarch.geometry import Float64, Pair, Transform

OUTLIER = 0.02
"""Links that disagree with the others about sizes by more (shares of a length) count less and less."""
MOST = 0.1
"""Sections that are larger or smaller by more than this share are not so by shrinkage: nothing is done about them."""
WINDOW = 11
"""Neighbouring sections, with the section itself in their middle, through which a parabola is laid; so many are needed.
It takes a fifth of a section's own size for the brain's shape, at the ends of the series more."""
FARTHEST = 1.5
"""Where so many sections lie along more than so many times the usual length (the lower quartile: one gap makes many
longer), some were lost between them: the brain may have changed in any way there, and their sizes are left alone."""
ROUNDS = 10
RIDGE = 1e-6
"""Added to the equations: the sizes of all sections together are not told."""


class Grown(NamedTuple):
    """What a link tells of two sizes."""

    fixed: int
    moving: int
    larger: float
    """How many times as large the moving one is."""
    weight: float


def own_sizes(along: Float64, links: Sequence[Grown]) -> Float64:
    """How many times as large sections are as their neighbours would have them.

    `along` (sections,) are their places along the cutting axis, in any unit. It is 1 for those without links, where
    there are too few to tell or some were lost, and where nothing so large can be shrinkage.
    """
    found = np.ones(len(along))
    held = np.unique([(one.fixed, one.moving) for one in links])
    if len(held) < WINDOW:
        return found
    sizes = _followed(len(held), np.searchsorted(held, [(one.fixed, one.moving) for one in links]), links)
    own, told = _beside_parabolas(along[held], sizes)
    if not told.any():
        return found
    own -= np.median(own[told])
    found[held] = np.exp(np.where(told & (np.abs(own) <= MOST), own, 0.0))
    return found


def _beside_parabolas(along: Float64, values: Float64) -> tuple[Float64, NDArray[np.bool_]]:
    """How far values lie above the parabolas through their neighbours, and where neighbours lie as near as usual."""
    count = len(along)
    first = np.clip(np.arange(count) - WINDOW // 2, 0, count - WINDOW)
    neighbours = first[:, None] + np.arange(WINDOW)
    lengths = np.ptp(along[neighbours], axis=1)
    told = (lengths > 0) & (lengths <= FARTHEST * np.percentile(lengths, 25))
    away = (along[neighbours] - along[:, None]) / np.where(told, lengths, 1.0)[:, None]
    fitted = [
        np.linalg.lstsq(np.vander(x, 3, increasing=True), values[of], rcond=None)[0][0]
        for x, of in zip(away, neighbours, strict=True)
    ]
    return values - np.array(fitted), told


def _followed(count: int, ends: NDArray[np.int64], links: Sequence[Grown]) -> Float64:
    """Logarithms of sizes (count,) that agree with links best (least squares, Cauchy weights), zero in the mean.

    `ends` (links, 2) are the places of their sections among those that links hold.
    """
    rows = np.arange(len(links)).repeat(2)
    slopes = csr_array((np.tile([-1.0, 1.0], len(links)), (rows, ends.ravel())), shape=(len(links), count))
    told, weight = np.log([one.larger for one in links]), np.array([one.weight for one in links])
    sizes = np.zeros(count)
    for _ in range(ROUNDS):
        weighted = slopes.T.multiply(weight / (1 + ((told - slopes @ sizes) / OUTLIER) ** 2)).tocsr()
        sizes = spsolve((weighted @ slopes).tocsc() + RIDGE * eye_array(count, format="csc"), weighted @ told)
    return np.asarray(sizes - sizes.mean())


def to_usual_size(times: float, centre_um: Pair) -> Transform:
    """The map (y, x) um that makes a section as small about a centre as it is too large."""
    return Transform.of(np.eye(2) / times, (1 - 1 / times) * np.array(centre_um))
