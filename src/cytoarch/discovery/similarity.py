"""How alike areas are by their embeddings, and whether brains agree on it."""

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


def similarity(embeddings: NDArray[np.floating], areas: Int64, count: int) -> Float64:
    """Mean cosine between tokens of every two areas (k, k), of an area with itself without pairs of one token.

    `embeddings` (n, c), `areas` (n,) from 0. NaN where an area has no token, on the diagonal where it has one. Means of
    unit vectors give it in O(n c): the mean over all pairs is the product of the means.

    >>> similarity(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]]), np.array([0, 0, 1]), 2).tolist()
    [[1.0, 0.0], [0.0, nan]]
    """
    units = np.asarray(embeddings, dtype=np.float64)
    units = units / np.maximum(np.linalg.norm(units, axis=1, keepdims=True), 1e-12)
    sums = np.zeros((count, units.shape[1]))
    np.add.at(sums, areas, units)
    sizes = np.bincount(areas, minlength=count).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (sums @ sums.T) / np.outer(sizes, sizes)
        within = ((sums**2).sum(axis=1) - sizes) / (sizes * (sizes - 1))
    np.fill_diagonal(found, within)
    return np.asarray(found)


def agreement(one: Float64, other: Float64) -> tuple[float, int]:
    """Pearson's correlation of two similarity matrices (k, k) over the pairs both have, and how many these are.

    NaN where there are fewer than three pairs.
    """
    upper = np.triu_indices(len(one), 1)
    first, second = one[upper], other[upper]
    known = np.isfinite(first) & np.isfinite(second)
    if known.sum() < 3 or not np.std(first[known]) or not np.std(second[known]):
        return float("nan"), int(known.sum())
    return float(np.corrcoef(first[known], second[known])[0, 1]), int(known.sum())
