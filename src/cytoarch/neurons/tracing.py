"""Trees from segmented voxels: thinned to lines, joined across gaps, freed of circles and spurs, with radii in um.

Thinning is that of Lee et al. 1994 (scikit-image), in blocks with a halo, so that memory is that of one block whatever
the size of the volume. What is left is sparse: a graph of voxels that touch.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree
from scipy.spatial import cKDTree
from skimage.morphology import skeletonize

from cytoarch.neurons.trees import DENDRITE, EMPTY, ROOT, SOMA, Float64, Int64, Tree, Triple

Mask = NDArray[np.bool_]
ReadMask = Callable[[tuple[int, int, int], tuple[int, int, int]], Mask]
"""(first voxel, voxel after the last) -> voxels that belong to neurons."""

BLOCK = 256
"""Edge of the blocks that are thinned one by one, in voxels."""
HALO = 24
"""Voxels around a block that are thinned with it: radii up to as many voxels are true."""
TOUCHING = 1.75
"""Voxels, in steps of a voxel, that touch at a face, an edge or a corner."""


@dataclass(frozen=True)
class TraceRules:
    """What a trace is made of."""

    gap_um: float = 8.0
    """Gaps no longer than this, from surface to surface, are closed; 0: none."""
    spur_um: float = 4.0
    """Side branches shorter than this, or than the neurite is thick, are none; to pieces as short no gap is closed."""
    piece_um: float = 10.0
    """Pieces shorter than this that nothing joins are noise."""


def trace(read: ReadMask, shape: tuple[int, int, int], voxel_um: Triple, rules: TraceRules) -> Tree:
    """The tree of a segmented volume (z, y, x), rooted where it is thickest; pieces apart have roots of their own."""
    cells, radii = skeleton(read, shape, voxel_um)
    if not len(cells):
        return EMPTY
    points = cells * np.asarray(voxel_um)
    graph = _touching(cells, points)
    if rules.gap_um:  # specks of noise are no stepping stones
        lines = _without_pieces(graph + graph.T, points, rules.spur_um)
        points, radii, graph = points[lines], radii[lines], graph[lines][:, lines]
        graph = _joined_across_gaps(points, radii, graph, rules.gap_um)
    graph = minimum_spanning_tree(graph)
    graph = graph + graph.T
    kept = _without_spurs(graph, points, radii, rules.spur_um)
    graph = graph[kept][:, kept]
    long = _without_pieces(graph, points[kept], rules.piece_um)
    return _rooted(graph[long][:, long], points[kept][long], radii[kept][long])


def trace_mask(mask: Mask, voxel_um: Triple, rules: TraceRules) -> Tree:
    """The tree of a mask (z, y, x) that is in memory."""
    return trace(lambda lo, hi: mask[lo[0] : hi[0], lo[1] : hi[1], lo[2] : hi[2]], mask.shape, voxel_um, rules)


def skeleton(read: ReadMask, shape: tuple[int, int, int], voxel_um: Triple) -> tuple[Int64, Float64]:
    """Voxels (n, 3) of the lines that a volume thins to, in reading order of blocks, and the radius (um) at each."""
    cells: list[Int64] = [np.zeros((0, 3), dtype=np.int64)]
    radii: list[Float64] = [np.zeros(0)]
    for low, high in blocks(shape):
        first = tuple(max(0, at - HALO) for at in low)
        last = tuple(min(size, at + HALO) for at, size in zip(high, shape, strict=True))
        mask = read(first, last)  # type: ignore[arg-type]  # three axes
        if not mask.any():
            continue
        found, thick = _thinned(mask, voxel_um)
        found += np.asarray(first)
        own = ((found >= low) & (found < high)).all(axis=1)
        cells.append(found[own])
        radii.append(thick[own])
    return np.concatenate(cells), np.concatenate(radii)


def _thinned(mask: Mask, voxel_um: Triple) -> tuple[Int64, Float64]:
    """Voxels (n, 3) of the lines in a block that holds some, and the distance (um) from each to what is outside."""
    box = [(int(at.min()), int(at.max()) + 1) for at in np.nonzero(mask)]
    within = np.pad(mask[tuple(slice(*edge) for edge in box)], 1)
    lines = np.argwhere(skeletonize(within))
    away = distance_transform_edt(within, sampling=voxel_um)
    places = lines - 1 + np.array([edge[0] for edge in box])
    return np.asarray(places, dtype=np.int64), np.asarray(away[tuple(lines.T)])


def blocks(shape: tuple[int, int, int]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """First voxel and voxel after the last of the blocks that cover a volume once."""
    for low in product(*(range(0, size, BLOCK) for size in shape)):
        yield low, tuple(min(size, at + BLOCK) for at, size in zip(low, shape, strict=True))


def _touching(cells: Int64, points: Float64) -> csr_matrix:
    """The graph of voxels that touch, weighted by their distance in um; each pair once."""
    pairs = cKDTree(cells).query_pairs(TOUCHING, output_type="ndarray")
    return _graph(pairs, np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1), len(cells))


def _graph(pairs: Int64, weights: Float64, count: int) -> csr_matrix:
    return coo_matrix((weights, (pairs[:, 0], pairs[:, 1])), shape=(count, count)).tocsr()


def _joined_across_gaps(points: Float64, radii: Float64, graph: csr_matrix, gap_um: float) -> csr_matrix:
    """The graph with links from the ends of each piece to the nearest voxel of others, across gaps that are not longer.

    A gap is measured from surface to surface: lines end about a radius before the neurite does.

    The spanning tree that follows keeps the shortest of them.
    """
    piece = connected_components(graph, directed=False)[1]
    degree = np.diff((graph + graph.T).tocsr().indptr)
    ends = np.flatnonzero(degree <= 1)
    tree = cKDTree(points)
    pairs: list[tuple[int, int]] = []
    for end, around in zip(ends, tree.query_ball_point(points[ends], gap_um + 2 * radii[ends]), strict=True):
        others = np.array([one for one in around if piece[one] != piece[end]], dtype=np.int64)
        away = np.linalg.norm(points[others] - points[end], axis=1) - radii[others] - radii[end]
        others, away = others[away <= gap_um], away[away <= gap_um]
        for other in np.unique(piece[others]):
            here = piece[others] == other
            pairs.append((int(end), int(others[here][away[here].argmin()])))
    if not pairs:
        return graph
    chosen = np.unique(np.sort(np.array(pairs), axis=1), axis=0)
    weights = np.linalg.norm(points[chosen[:, 0]] - points[chosen[:, 1]], axis=1)
    # longer than any path along voxels: a gap is only crossed where nothing else leads
    return graph + _graph(chosen, weights + float(gap_um) + 1e3, len(points))


def _without_spurs(graph: csr_matrix, points: Float64, radii: Float64, spur_um: float) -> Int64:
    """The nodes that are on no side branch shorter than the rule or than the neurite it leaves is thick.

    Branches are taken shortest first, and what is left is looked at again: two spurs of one end do not both go.
    """
    neighbours = [set(graph.indices[a:b].tolist()) for a, b in zip(graph.indptr[:-1], graph.indptr[1:], strict=True)]
    alive = np.ones(len(points), dtype=bool)
    while True:
        spurs = []
        for end in np.flatnonzero(alive):
            if len(neighbours[end]) == 1:
                path, length = _to_fork(int(end), neighbours, points)
                if path is not None and length < max(spur_um, float(radii[path[-1]])):
                    spurs.append((length, path))
        forks: set[int] = set()
        for _, path in sorted(spurs):
            if path[-1] in forks:  # one branch of a fork at a time
                continue
            forks.add(path[-1])
            for node in path[:-1]:
                alive[node] = False
                for other in neighbours[node]:
                    neighbours[other].discard(node)
                neighbours[node] = set()
        if not forks:
            return np.flatnonzero(alive)


def _to_fork(end: int, neighbours: list[set[int]], points: Float64) -> tuple[list[int] | None, float]:
    """The way from an end to the first fork, that included, and its length; None where it meets none."""
    path, before, length = [end], ROOT, 0.0
    while True:
        onward = [one for one in neighbours[path[-1]] if one != before]
        if len(onward) != 1:
            return (path, length) if len(onward) > 1 else (None, length)
        before = path[-1]
        path.append(onward[0])
        length += float(np.linalg.norm(points[path[-1]] - points[before]))


def _without_pieces(graph: csr_matrix, points: Float64, piece_um: float) -> Int64:
    """The nodes of the pieces that are long enough, and of none that is one node."""
    if not len(points):
        return np.zeros(0, dtype=np.int64)
    count, piece = connected_components(graph, directed=False)
    upper = graph.tocoo()
    length = np.bincount(
        piece[upper.row], weights=np.linalg.norm(points[upper.row] - points[upper.col], axis=1) * 0.5, minlength=count
    )
    return np.flatnonzero((length[piece] >= piece_um) & (length[piece] > 0))


def _rooted(graph: csr_matrix, points: Float64, radii: Float64) -> Tree:
    """The graph, which has no circles, as a tree: every piece hangs from its thickest node."""
    count, piece = connected_components(graph, directed=False)
    parents = np.full(len(points), ROOT, dtype=np.int64)
    kinds = np.full(len(points), DENDRITE, dtype=np.int64)
    for number in range(count):
        nodes = np.flatnonzero(piece == number)
        root = int(nodes[radii[nodes].argmax()])
        order, before = breadth_first_order(graph, root, directed=False)
        parents[order[1:]] = before[order[1:]]
        kinds[root] = SOMA
    return Tree.of(points, radii, parents, kinds)
