"""Which classes lie beside each other, and how many borders away from the truth an error is."""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import shortest_path

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]
Pairs = Mapping[tuple[int, int], int]
"""(class, class) -> how many pairs of neighbouring cells they meet in; the smaller index first."""


LEAST_SHARE = 0.03
"""Classes that share fewer of their contacts are no neighbours: thin layers have holes on a coarse grid."""


def touching(classes: Int64) -> dict[tuple[int, int], int]:
    """How often each two classes meet side by side in an image (y, x); -1 is none and meets nobody.

    >>> touching(np.array([[0, 0, 2], [1, 1, -1]]))
    {(0, 1): 2, (0, 2): 1}
    """
    found: dict[tuple[int, int], int] = {}
    for one, other in ((classes[1:], classes[:-1]), (classes[:, 1:], classes[:, :-1])):
        meets = (one != other) & (one >= 0) & (other >= 0)
        pairs = np.sort(np.stack([one[meets], other[meets]], axis=1), axis=1)
        unique, counts = np.unique(pairs, axis=0, return_counts=True)
        for (low, high), count in zip(unique.tolist(), counts.tolist(), strict=True):
            found[low, high] = found.get((low, high), 0) + count
    return dict(sorted(found.items()))


def together(images: Iterable[Pairs]) -> dict[tuple[int, int], int]:
    """How often each two classes meet in several images."""
    found: dict[tuple[int, int], int] = {}
    for pairs in images:
        for pair, count in pairs.items():
            found[pair] = found.get(pair, 0) + count
    return dict(sorted(found.items()))


def adjacent(pairs: Pairs) -> dict[tuple[int, int], int]:
    """Those pairs that meet by more than chance: at least `LEAST_SHARE` of what the one that meets less meets in all.

    >>> adjacent({(0, 1): 60, (1, 2): 50, (0, 2): 1})
    {(0, 1): 60, (1, 2): 50}
    """
    met: dict[int, int] = {}
    for (low, high), count in pairs.items():
        met[low], met[high] = met.get(low, 0) + count, met.get(high, 0) + count
    return {pair: count for pair, count in pairs.items() if count >= LEAST_SHARE * min(met[one] for one in pair)}


def hops(pairs: Pairs, classes: int) -> Float64:
    """Borders to cross from every class to every other (k, k); infinite where there is no way.

    >>> hops({(0, 1): 9, (1, 2): 4}, 4)[0].tolist()
    [0.0, 1.0, 2.0, inf]
    """
    if not pairs:
        return np.where(np.eye(classes, dtype=bool), 0.0, np.inf)
    rows, columns = np.array(list(pairs)).T
    graph = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(classes, classes)).tocsr()
    return np.asarray(shortest_path(graph, directed=False, unweighted=True))


def errors_by_hops(confusion: Int64, distances: Float64) -> dict[int | None, int]:
    """Wrong cells of a confusion matrix (k, k) by how many borders they are off; None: there is no way at all.

    >>> errors_by_hops(np.array([[5, 2, 1], [0, 7, 0], [0, 0, 3]]), hops({(0, 1): 9, (1, 2): 4}, 3))
    {1: 2, 2: 1}
    """
    found: dict[int | None, int] = {}
    for row, column in zip(*np.nonzero(confusion), strict=True):
        if row != column:
            far = distances[row, column]
            key = int(far) if np.isfinite(far) else None
            found[key] = found.get(key, 0) + int(confusion[row, column])
    return dict(sorted(found.items(), key=lambda pair: (pair[0] is None, pair[0])))


def within_one(errors: Mapping[int | None, int]) -> float:
    """The share of errors by hops that are no more than one border off; NaN where there is no error.

    >>> within_one({1: 3, 2: 1})
    0.75
    """
    total = sum(errors.values())
    return errors.get(1, 0) / total if total else float("nan")
