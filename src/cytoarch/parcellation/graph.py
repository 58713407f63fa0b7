"""Class probabilities smoothed over a graph of points: along the cortex, and from section to section."""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix, diags, identity
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

Float64 = NDArray[np.float64]
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
    """(n,) place of its section in cutting order."""
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
    so that the banks of a sulcus stay apart.
    """
    pairs = [np.zeros((0, 2), dtype=np.int64)]
    for low in range(int(points.section.max(initial=-1))):
        if (low, low + 1) not in broken:
            pairs += [_across(points, low, side, nearest) for side in np.unique(points.hemisphere)]
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


def _across(points: Points, low: int, side: int, nearest: int) -> Int64:
    """The nearest points of the next section, for every point of one."""
    here, there = (np.flatnonzero((points.section == at) & (points.hemisphere == side)) for at in (low, low + 1))
    if not len(here) or not len(there):
        return np.zeros((0, 2), dtype=np.int64)
    count = min(nearest, len(there))
    far, found = cKDTree(points.places_mm[there]).query(points.places_mm[here], k=count)
    far, found = far.reshape(-1, count), found.reshape(-1, count)
    kept = far <= FARTHEST_MM
    return np.stack([np.repeat(here, count).reshape(-1, count)[kept], there[found[kept]]], axis=1)


def screened_poisson(
    probabilities: Float64, graph: csr_matrix, lam: float = LAMBDA, confidence: Float64 | None = None
) -> Float64:
    """Probabilities (n, k) smoothed by (D + lam L) X = D P, with L the graph's Laplacian and D the confidence (n,).

    Rows stay on the simplex, no class grows beyond its largest value; `lam` of 0 leaves all as it is, a large one takes
    the mean of every component.
    """
    count = len(probabilities)
    trust = identity(count, format="csr") if confidence is None else diags(confidence)
    laplacian = diags(np.asarray(graph.sum(axis=1)).ravel()) - graph
    return np.asarray(splu((trust + lam * laplacian).tocsc()).solve(np.asarray(trust @ probabilities)))


def potts(probabilities: Float64, graph: csr_matrix, lam: float = 1.0, cost: Float64 | None = None) -> Int64:
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
    labels: Int64, probabilities: Float64, graph: csr_matrix, lam: float = 1.0, cost: Float64 | None = None
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
    stuck: set[int] = set()
    while True:
        component, sizes = _components(found, graph, areas_mm2)
        largest = {int(found[np.argmax(component == one)]): one for one in np.argsort(sizes, kind="stable")}
        small = [
            int(one)
            for one in np.argsort(sizes, kind="stable")
            if sizes[one] < smallest_mm2 and one not in largest.values()
        ]
        chosen = next((one for one in small if int(np.argmax(component == one)) not in stuck), None)
        if chosen is None:
            return Reassigned(found, count, area)
        inside = np.flatnonzero(component == chosen)
        border = graph[inside].tocoo()
        outer = component[border.col] != chosen
        weights = np.bincount(found[border.col[outer]], weights=border.data[outer], minlength=int(found.max()) + 1)
        if not weights.any():
            stuck.add(int(inside[0]))
            continue
        found[inside] = int(weights.argmax())
        count, area = count + 1, area + float(sizes[chosen])


def _components(labels: Int64, graph: csr_matrix, areas_mm2: Float64) -> tuple[Int64, Float64]:
    """The component (n,) of its own label that every node lies in, and the area of each."""
    edges = graph.tocoo()
    same = labels[edges.row] == labels[edges.col]
    own = coo_matrix((edges.data[same], (edges.row[same], edges.col[same])), shape=graph.shape)
    count, component = connected_components(own, directed=False)
    sizes = np.bincount(component, weights=areas_mm2, minlength=count)
    return np.asarray(component, dtype=np.int64), np.asarray(sizes, dtype=np.float64)
