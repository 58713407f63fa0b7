"""Class probabilities at points along the cortex, smoothed over them from section to section, and taken back to maps.

A point stands for the cortex around it: its probabilities are the means of the cells near it. They are smoothed over
the graph of all points of a brain (`graph`). What that changes at a point, every cell of cortex near it follows: its
probabilities are multiplied by how much likelier a class became there, and divided by their sum (Bayes' rule, the point
telling what is likely before the cell is looked at). A cell that does not name the class that its point changed to
takes it in first; where it cannot, it stays as it is: the class that its point left would only make room for a third.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from cytoarch.anatomy.depth_maps import DepthMap
from cytoarch.anatomy.points import SectionMidline
from cytoarch.geometry import Grid
from cytoarch.measures.neighbours import hops
from cytoarch.parcellation.graph import LAMBDA, Points, potts, screened_poisson, without_small
from cytoarch.parcellation.sparse import Likeliest, SparseProbabilities, UInt16
from cytoarch.settings import Settings

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Floats = Float32 | Float64
Int64 = NDArray[np.int64]

GRADIENT_CELLS = 3
"""Depth is looked at so many cells around a point to tell where the pial surface lies."""
LEAST = 1e-4
"""Probability of a class that a point does not name: what it may be multiplied by is bounded."""
BLOCK_CELLS = 8
"""Cells of a map find their point together, by so many along an edge."""
DISCOURAGED_HOPS = 3
"""A border between areas costs as many times as much as they are apart in the atlas, up to this."""


class AcrossSettings(Settings):
    """How maps are smoothed along the cortex and from section to section."""

    method: Literal["none", "poisson", "potts"] = Field(
        title="Smooth across sections by",
        default="none",
        description="none; poisson: probabilities of points along the cortex are drawn to those of their neighbours, "
        "also in the next section; potts: few borders between them. Needs trace-cortex and reconstruct-brain.",
    )
    strength: float = Field(
        default=LAMBDA, ge=0, le=10, description="How strongly; strips two points wide survive 2 and are gone at 5."
    )
    smallest_mm2: float = Field(
        title="Smallest piece of an area",
        default=0.0,
        ge=0,
        le=10_000,
        description="Pieces of an area on the cortex below this are given to the area around them, but for the largest "
        "of each (mm2); 0: none.",
    )
    discourage: bool = Field(
        default=False,
        description="Whether borders between areas that never touch on labelled sections cost more (potts).",
    )
    midline: str = Field(
        title="Traced middle",
        examples=["depth-laplace-500um"],
        default="",
        max_length=64,
        description="Name of the traced middle (trace-cortex); blank where there is one.",
    )


@dataclass(frozen=True)
class Nodes:
    """The points of a section that maps are smoothed over."""

    places_um: Float64
    """(n, 2) y, x in the frame of the section."""
    line: Int64
    along_um: Float64
    normals: Float64
    """(n, 2) y, x: unit, from the pial to the white surface; NaN where depth does not say."""
    probabilities: Float32
    """(n, k) of the classes, sums to 1; NaN where no cell around has any."""

    @classmethod
    def of(cls, probabilities: SparseProbabilities, midline: SectionMidline, depth: DepthMap, radius_um: float) -> Self:
        """The points of a middle; a point takes the mean of the cells within a square of twice `radius_um`."""
        return cls(
            midline.places_um,
            midline.line.astype(np.int64),
            midline.along_um,
            _normals(midline.places_um, depth),
            _means(probabilities, midline.places_um, radius_um),
        )

    @property
    def known(self) -> NDArray[np.bool_]:
        """(n,) which points have probabilities."""
        return np.asarray(np.isfinite(self.probabilities).all(axis=1))


def _means(probabilities: SparseProbabilities, places_um: Float64, radius_um: float) -> Float32:
    grid, classes = probabilities.grid, len(probabilities.names) - 1
    result = np.full((len(places_um), classes), np.nan, dtype=np.float32)
    half = max(1, round(radius_um / grid.cell_um))
    for own, (y, x) in zip(result, np.rint(grid.cells(places_um)).astype(int), strict=True):
        top, left = max(0, y - half), max(0, x - half)
        stop, right = min(grid.shape[0], y + half + 1), min(grid.shape[1], x + half + 1)
        if top < stop and left < right:
            found = probabilities.dense(top, left, stop - top, right - left)
            inside = found[0] == 0
            if inside.any():
                own[:] = found[1:, inside].mean(axis=1)
    return result


def _normals(places_um: Float64, depth: DepthMap) -> Float64:
    """Directions in which depth grows (n, 2), by the least squares of depth around each point."""
    reach = np.arange(-GRADIENT_CELLS, GRADIENT_CELLS + 1)
    down, right = (one.ravel() for one in np.meshgrid(reach, reach, indexing="ij"))
    at = np.rint(depth.grid.cells(places_um)).astype(np.int64)
    rows, columns = at[:, :1] + down, at[:, 1:] + right
    inside = (rows >= 0) & (rows < depth.grid.shape[0]) & (columns >= 0) & (columns < depth.grid.shape[1])
    rows, columns = (np.clip(one, 0, n - 1) for one, n in zip((rows, columns), depth.grid.shape, strict=True))
    inside &= depth.cortex[rows, columns]
    weight = inside / np.maximum(inside.sum(axis=1, keepdims=True), 1)
    values = depth.depth[rows, columns] * inside
    offset = np.stack([np.broadcast_to(one, rows.shape) for one in (down, right)]).astype(np.float64)
    centred = offset - (offset * weight).sum(axis=2)[..., None]
    slope = (centred * weight * values).sum(axis=2).T
    length = np.linalg.norm(slope, axis=1, keepdims=True)
    return np.where(length > 0, slope / np.maximum(length, 1e-12), np.nan)


class Violation(NamedTuple):
    """Two classes that meet on the map and on no labelled section."""

    one: int
    other: int
    pairs: int


class Shape(NamedTuple):
    """What can be counted of labels on a graph."""

    borders: int
    """Neighbours of different classes."""
    pieces: int
    """Connected parts of one class."""
    violations: tuple[Violation, ...]
    """None where it is not known which classes touch."""

    def facts(self) -> dict[str, object]:
        """As JSON values."""
        return {"borders": self.borders, "pieces": self.pieces, "violations": [list(one) for one in self.violations]}


class Smoothed(NamedTuple):
    """Probabilities of all points after smoothing, and what became of their shape."""

    probabilities: Floats
    """(n, k)."""
    before: Shape
    after: Shape
    reassigned: int
    """Pieces that were too small."""
    reassigned_mm2: float


def smooth_across(
    probabilities: Floats,
    graph: csr_matrix,
    areas_mm2: Float64,
    settings: AcrossSettings,
    touching: Mapping[tuple[int, int], int],
) -> Smoothed:
    """Smooth the probabilities (n, k) of points over their graph; `touching` says which classes lie side by side.

    Where a point gets another class than its probabilities say (few borders, no small pieces), the probabilities of the
    two are exchanged. `probabilities` are overwritten by what is returned: of a whole brain there is room for one.
    """
    far = hops(touching, probabilities.shape[1])
    first = probabilities.argmax(axis=1)
    labels = first
    if settings.method == "poisson":
        screened_poisson(probabilities, graph, settings.strength, out=probabilities)
        labels = probabilities.argmax(axis=1)
    elif settings.method == "potts":
        cost = np.minimum(far, DISCOURAGED_HOPS) if settings.discourage and touching else None
        labels = potts(probabilities, graph, settings.strength, cost)
    small = without_small(labels, graph, areas_mm2, settings.smallest_mm2)
    _exchange(probabilities, small.labels)
    return Smoothed(
        probabilities,
        shape_of(first, graph, far if touching else None),
        shape_of(small.labels, graph, far if touching else None),
        small.components,
        small.mm2,
    )


def shape_of(labels: Int64, graph: csr_matrix, far: Float64 | None) -> Shape:
    """Borders, pieces and, where it is known how far classes (k, k) lie apart, borders that never are."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = graph.tocoo()
    one, other = labels[edges.row], labels[edges.col]
    same = one == other
    own = coo_matrix((edges.data[same], (edges.row[same], edges.col[same])), shape=graph.shape)
    pieces, _ = connected_components(own, directed=False)
    violations: list[Violation] = []
    if far is not None:
        wrong = (far[one, other] > 1) & (edges.row < edges.col)
        pairs = np.sort(np.stack([one[wrong], other[wrong]], axis=1), axis=1)
        unique, counts = np.unique(pairs, axis=0, return_counts=True)
        violations = [Violation(int(a), int(b), int(n)) for (a, b), n in zip(unique, counts, strict=True)]
    violations.sort(key=lambda violation: -violation.pairs)
    return Shape(int((~same).sum()) // 2, int(pieces), tuple(violations))


def _exchange(probabilities: Floats, labels: Int64) -> None:
    """Make the largest probability (n, k) that of the label, by exchanging it with what was the largest."""
    first = probabilities.argmax(axis=1)
    rows = np.flatnonzero(first != labels)
    old, new = first[rows], labels[rows]
    probabilities[rows, old], probabilities[rows, new] = probabilities[rows, new], probabilities[rows, old]


def joined(
    nodes: Sequence[Nodes], to_brain: Sequence[tuple[Float64, Float64]], places: Sequence[int], sides: Sequence[Int64]
) -> Points:
    """The points of all sections as one: `to_brain` has places (n, 3) mm and normals (n, 3) of each section's.

    `places` are the places of sections in cutting order.
    """
    normals = np.concatenate([one for _, one in to_brain])
    return Points(
        np.concatenate([one for one, _ in to_brain]),
        np.concatenate([np.full(len(one.line), place) for one, place in zip(nodes, places, strict=True)]),
        np.concatenate(list(sides)),
        np.concatenate([one.line for one in nodes]),
        np.concatenate([one.along_um / 1000 for one in nodes]),
        normals,
    )


def broken_pairs(numbers: Sequence[int], doubtful: Collection[int]) -> set[tuple[int, int]]:
    """Neighbours in cutting order that nothing is smoothed across: a section is missing between, or one is doubtful.

    `numbers` are section numbers; the usual step is the commonest.

    >>> sorted(broken_pairs([1, 3, 5, 9, 11], {4}))
    [(2, 3), (3, 4)]
    """
    steps = np.diff(numbers)
    usual = int(np.bincount(steps).argmax()) if len(steps) else 1
    return {(at, at + 1) for at, step in enumerate(steps) if step > usual or at in doubtful or at + 1 in doubtful}


@dataclass(frozen=True)
class Weighted:
    """Probabilities of a section, multiplied by what smoothing across sections changed at the nearest point."""

    probabilities: SparseProbabilities
    places_um: Float64
    """(n, 2)."""
    ratios: Float32
    """(n, k) by which the probability of each class is multiplied."""
    gained: UInt16
    """(n,) the channel of the class that a point changed to; 0 where it kept its own."""
    farthest_um: float
    """Cells farther from all points are left as they are."""

    @property
    def grid(self) -> Grid:
        """Where the cells lie."""
        return self.probabilities.grid

    @property
    def names(self) -> tuple[str, ...]:
        """What the channels mean."""
        return self.probabilities.names

    def read(self, y: int, x: int, height: int, width: int) -> Likeliest:
        """The most likely classes of a window of cells, in their new order."""
        cells = self.probabilities.read(y, x, height, width)
        if not len(self.places_um):
            return cells
        nearest, far = self._nearest(y, x, height, width)
        gained = np.where(far, np.uint16(0), self.gained[nearest])
        more = cells.including(gained, len(self.names) - 1)
        factors = np.where(far, np.float32(1), self._factors[nearest, more.channels.astype(np.int64)])
        kept = _unable(cells, more, factors, gained)
        return Likeliest(*(np.where(kept, *one) for one in zip(cells, more.weighted(factors), strict=True)))

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self.places_um)

    @cached_property
    def _factors(self) -> Float32:
        """(n, k + 1) by channel; what is outside tissue stays."""
        return np.concatenate([np.ones((len(self.ratios), 1), np.float32), self.ratios], axis=1)

    def _nearest(self, y: int, x: int, height: int, width: int) -> tuple[Int64, NDArray[np.bool_]]:
        """The point (h, w) that is nearest to each cell, and whether all are too far; cells decide in blocks.

        Blocks lie on the grid of the whole, so that a cell does not depend on its window.
        """
        top, left = y // BLOCK_CELLS, x // BLOCK_CELLS
        rows, columns = -(-(y + height) // BLOCK_CELLS) - top, -(-(x + width) // BLOCK_CELLS) - left
        blocks = self.grid.grouped(BLOCK_CELLS).window(top, left, rows, columns)
        centres = np.stack(np.meshgrid(*blocks.centres_um(), indexing="ij"), axis=-1)
        distance, nearest = self._tree.query(centres)
        cut = (
            slice(y - top * BLOCK_CELLS, y - top * BLOCK_CELLS + height),
            slice(x - left * BLOCK_CELLS, x - left * BLOCK_CELLS + width),
        )
        parts = (nearest, distance > self.farthest_um)
        whole, far = (np.repeat(np.repeat(one, BLOCK_CELLS, 0), BLOCK_CELLS, 1)[cut] for one in parts)
        return np.asarray(whole, dtype=np.int64), np.asarray(far)


def _unable(cells: Likeliest, more: Likeliest, factors: Float32, gained: UInt16) -> NDArray[np.bool_]:
    """Cells (h, w) that cannot follow a change of class: they have no share of it, or took it in and a third wins."""
    named = ((more.channels == gained) & (more.shares > 0)).any(axis=0)
    place = (more.shares * factors).argmax(axis=0)[None]
    first = np.take_along_axis(more.channels, place, 0)[0]
    added = (more.channels[-1] != cells.channels[-1]) | (more.shares[-1] != cells.shares[-1])
    third = (first != gained) & (first != cells.channels[0])
    return np.asarray((gained > 0) & (~named | (added & third)))


def gained_of(before: Floats, after: Floats) -> UInt16:
    """The channel (n,) of the class that a point changed to; 0 where its likeliest class (n, k) is that of before."""
    first = after.argmax(axis=1)
    return np.where(first == before.argmax(axis=1), 0, first + 1).astype(np.uint16)


def ratios_of(before: Floats, after: Floats) -> Float32:
    """By how much each class became likelier (n, k); what is hardly there is taken for `LEAST`."""
    return np.asarray((after + LEAST) / (before + LEAST), dtype=np.float32)
