"""Class probabilities smoothed over a graph of points: along the cortex, and from section to section."""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix, diags
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

Float64 = NDArray[np.float64]
Floats = NDArray[np.float32] | Float64
Int64 = NDArray[np.int64]

LENGTH_MM = 1.0
"""Distance at which the weight of an edge has fallen to exp(-1/2)."""
FARTHEST_MM = 2.0
"""Points of neighbouring sections are joined up to this distance."""
LEAST_COSINE = 0.5
"""Of the angle between the normals of points that are joined: 60 degrees."""
LAMBDA = 2.0
"""A strip two nodes wide survives it; from 5 on it is erased."""


class Points(NamedTuple):
    """Points that a graph is made of."""

    places_mm: Float64
    """(n, 3)."""
    section: Int64
    """(n,) place of its section in cutting order, ascending."""
    hemisphere: Int64
    """(n,)."""
    line: Int64
    """(n,) line of its section."""
    along_mm: Float64
    """(n,) place on that line."""
    normals: Float64 | None = None
    """(n, 3) unit normals of the cortex; None: unknown, banks of a sulcus are then told apart by distance alone."""


def point_graph(
    points: Points, spacing_mm: float, broken: Collection[tuple[int, int]] = (), nearest: int = 2
) -> csr_matrix:
    """A symmetric graph (n, n): neighbours along each line, and the nearest points of adjacent sections.

    Weights fall off with distance. Sections are adjacent where their places differ by one and the pair is not in
    `broken`: across a missing or flagged section nothing is smoothed. Points of two sections are joined within a
    hemisphere only, up to `FARTHEST_MM`, and where both normals are known only if these differ by less than 60 degrees,
    so that the banks of a sulcus stay apart. Raises ValueError if points do not come section by section.
    """
    if (np.diff(points.section) < 0).any():
        raise ValueError("points of a graph come in an order other than that of their sections: sort them by section")
    last = int(points.section.max(initial=-1))
    ends = np.searchsorted(points.section, np.arange(last + 2)).tolist()
    sides = np.unique(points.hemisphere)
    pairs = [np.zeros((0, 2), dtype=np.int64)]
    for low in range(last):
        if (low, low + 1) not in broken:
            one, other = slice(ends[low], ends[low + 1]), slice(ends[low + 1], ends[low + 2])
            pairs += [_across(points, one, other, side, nearest) for side in sides]
    across = np.concatenate(pairs)
    if points.normals is not None:
        turned = (points.normals[across[:, 0]] * points.normals[across[:, 1]]).sum(axis=1) <= LEAST_COSINE
        across = across[~turned]  # unknown normals are NaN, which turn away from nothing
    edges = np.concatenate([_along(points, spacing_mm), across])
    far = np.linalg.norm(points.places_mm[edges[:, 0]] - points.places_mm[edges[:, 1]], axis=1)
    weights = np.exp(-(far**2) / (2 * LENGTH_MM**2))
    return symmetric(edges, weights, len(points.section))


def symmetric(edges: Int64, weights: Float64, count: int) -> csr_matrix:
    """The graph (n, n) of edges (m, 2), each in both directions once."""
    unique, first = np.unique(np.sort(edges, axis=1), axis=0, return_index=True)
    rows, columns = unique.T
    values = weights[first]
    both = (np.concatenate([values, values]), (np.concatenate([rows, columns]), np.concatenate([columns, rows])))
    return coo_matrix(both, shape=(count, count)).tocsr()


def _along(points: Points, spacing_mm: float) -> Int64:
    """Neighbours on the same line, no further apart than one and a half spacings."""
    order = np.lexsort((points.along_mm, points.line, points.section))
    one, other = order[:-1], order[1:]
    same = (points.section[one] == points.section[other]) & (points.line[one] == points.line[other])
    near = points.along_mm[other] - points.along_mm[one] <= 1.5 * spacing_mm
    pairs: Int64 = np.stack([one, other], axis=1)[same & near]
    return pairs


def _across(points: Points, one: slice, other: slice, side: int, nearest: int) -> Int64:
    """The nearest points of the next section, for every point of one; both given by where their points stand."""
    here, there = (own.start + np.flatnonzero(points.hemisphere[own] == side) for own in (one, other))
    if not len(here) or not len(there):
        return np.zeros((0, 2), dtype=np.int64)
    count = min(nearest, len(there))
    far, found = cKDTree(points.places_mm[there]).query(points.places_mm[here], k=count)
    far, found = far.reshape(-1, count), found.reshape(-1, count)
    kept = far <= FARTHEST_MM
    return np.stack([np.repeat(here, count).reshape(-1, count)[kept], there[found[kept]]], axis=1)


def screened_poisson(
    probabilities: Floats,
    graph: csr_matrix,
    lam: float = LAMBDA,
    confidence: Float64 | None = None,
    out: Floats | None = None,
) -> Floats:
    """Probabilities (n, k) smoothed by (D + lam L) X = D P, with L the graph's Laplacian and D the confidence (n,).

    Rows stay on the simplex, no class grows beyond its largest value; `lam` of 0 leaves all as it is, a large one takes
    the mean of every component. Solved in double precision class by class into `out`, which may be `probabilities`.
    """
    trust = np.ones(len(probabilities)) if confidence is None else confidence
    laplacian = diags(np.asarray(graph.sum(axis=1)).ravel()) - graph
    factors = splu((diags(trust) + lam * laplacian).tocsc())
    result = np.empty_like(probabilities) if out is None else out
    for one in range(probabilities.shape[1]):
        result[:, one] = factors.solve(trust * probabilities[:, one])
    return result


def potts(probabilities: Floats, graph: csr_matrix, lam: float = 1.0, cost: Float64 | None = None) -> Int64:
    """Labels (n,) of low energy: -log p of each node's label, and `lam` times weight times cost of every edge.

    `cost` (k, k) is 0 on its diagonal; by default 1 for any two different labels. Found by iterated conditional modes
    (Besag, 1986), node by node from the most probable labels until nothing changes: the energy never rises.
    """
    unary = -np.log(np.maximum(probabilities, 1e-9))
    between = 1 - np.eye(probabilities.shape[1]) if cost is None else cost
    labels = np.asarray(unary.argmin(axis=1), dtype=np.int64)
    changed = True
    while changed:
        changed = False
        for node in range(len(labels)):
            part = slice(graph.indptr[node], graph.indptr[node + 1])
            weights, around = graph.data[part], labels[graph.indices[part]]
            energies = unary[node] + lam * (weights[:, None] * between[around]).sum(axis=0)
            best = int(energies.argmin())
            if energies[best] < energies[labels[node]] - 1e-12:
                labels[node], changed = best, True
    return labels


def potts_energy(
    labels: Int64, probabilities: Floats, graph: csr_matrix, lam: float = 1.0, cost: Float64 | None = None
) -> float:
    """The energy that `potts` lowers."""
    between = 1 - np.eye(probabilities.shape[1]) if cost is None else cost
    edges = graph.tocoo()
    upper = edges.row < edges.col
    pairs = between[labels[edges.row[upper]], labels[edges.col[upper]]]
    own = -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-9)).sum()
    return float(own + lam * (edges.data[upper] * pairs).sum())


def propagated(labels: Int64, graph: csr_matrix, classes: int) -> Float64:
    """Probabilities (n, k) of nodes without a label (-1) from those that have one: the harmonic solution.

    They are how likely a random walk meets each label first (Zhu et al., 2003). Nodes that no label can be reached from
    are NaN.
    """
    known = labels >= 0
    result = np.full((len(labels), classes), np.nan)
    result[known] = np.eye(classes)[labels[known]]
    _, component = connected_components(graph, directed=False)
    free = np.flatnonzero(~known & np.isin(component, np.unique(component[known])))
    if len(free):
        laplacian = (diags(np.asarray(graph.sum(axis=1)).ravel()) - graph).tocsr()
        at = np.flatnonzero(known)
        given = -laplacian[free][:, at] @ result[at]
        result[free] = splu(laplacian[free][:, free].tocsc()).solve(np.asarray(given))
    return result


class Reassigned(NamedTuple):
    """What became of small components."""

    labels: Int64
    """(n,)."""
    components: int
    """That were reassigned."""
    mm2: float
    """Their area."""


def without_small(labels: Int64, graph: csr_matrix, areas_mm2: Float64, smallest_mm2: float) -> Reassigned:
    """Labels (n,) in which every component of a label covers at least `smallest_mm2`, or is its label's largest.

    A smaller one takes the label that it shares the heaviest border with, the smallest first; one that borders on
    nothing stays. No label is made or lost. `areas_mm2` (n,) is what each node stands for.
    """
    found, count, area = labels.copy(), 0, 0.0
    while smallest_mm2 > 0:
        component, sizes = _components(found, graph, areas_mm2)
        order = np.argsort(sizes, kind="stable")
        label = found[np.unique(component, return_index=True)[1]]
        largest = dict(zip(label[order].tolist(), order.tolist(), strict=True))
        small = sizes < smallest_mm2
        small[list(largest.values())] = False
        pieces, given = _given(component, small, order, found, graph)
        if not len(pieces):
            break
        label[pieces] = given
        found = label[component]
        count, area = count + len(pieces), area + float(sizes[pieces].sum())
    return Reassigned(found, count, area)


def _given(
    component: Int64, small: NDArray[np.bool_], order: Int64, labels: Int64, graph: csr_matrix
) -> tuple[Int64, Int64]:
    """The small pieces that touch none that comes before them in `order`, and the label that each is given to."""
    edges = graph.tocoo()
    here, there = component[edges.row], component[edges.col]
    outer = (here != there) & small[here] & (edges.data > 0)
    here, there, weights, taken = here[outer], there[outer], edges.data[outer], labels[edges.col[outer]]
    rank = np.full(len(order), len(order))
    rank[order] = np.arange(len(order))
    waits = np.zeros(len(order), dtype=bool)
    waits[here[small[there] & (rank[there] < rank[here])]] = True
    free = ~waits[here]
    borders, at = np.unique(np.stack([here[free], taken[free]], axis=1), axis=0, return_inverse=True)
    heavy = np.bincount(at.ravel(), weights=weights[free], minlength=len(borders))
    best = np.lexsort((borders[:, 1], -heavy, borders[:, 0]))
    pieces, first = np.unique(borders[best, 0], return_index=True)
    return pieces, borders[best[first], 1]


def _components(labels: Int64, graph: csr_matrix, areas_mm2: Float64) -> tuple[Int64, Float64]:
    """The component (n,) of its own label that every node lies in, and the area of each."""
    edges = graph.tocoo()
    same = labels[edges.row] == labels[edges.col]
    own = coo_matrix((edges.data[same], (edges.row[same], edges.col[same])), shape=graph.shape)
    count, component = connected_components(own, directed=False)
    sizes = np.bincount(component, weights=areas_mm2, minlength=count)
    return np.asarray(component, dtype=np.int64), np.asarray(sizes, dtype=np.float64)
