"""Class probabilities at points along the cortex, smoothed over them from section to section.

A point stands for the cortex around it: its probabilities are the means of the cells near it. They are smoothed over
the graph of all points of a brain (`graph`); the cells near a point follow what that changes (`weighted`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csr_matrix

from cytoarch.anatomy.depth_maps import DepthMap
from cytoarch.anatomy.points import SectionMidline
from cytoarch.measures.neighbours import hops
from cytoarch.parcellation.graph import LAMBDA, Points, potts, screened_poisson, without_small
from cytoarch.parcellation.sparse import SparseProbabilities
from cytoarch.settings import Settings

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Floats = Float32 | Float64
Int64 = NDArray[np.int64]

GRADIENT_CELLS = 3
"""Depth is looked at so many cells around a point to tell where the pial surface lies."""
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
    strength: float | None = Field(
        default=None,
        ge=0,
        le=10,
        description="How strongly; strips two points wide survive 2 and are gone at 5. Blank: what serves best on "
        "labelled sections that the model has not seen, or 2 where there are none.",
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
    two are exchanged. `probabilities` are overwritten by what is returned: of a whole brain there is room for one. A
    strength that is not stated is `LAMBDA`.
    """
    far = hops(touching, probabilities.shape[1])
    strength = LAMBDA if settings.strength is None else settings.strength
    first = probabilities.argmax(axis=1)
    labels = first
    if settings.method == "poisson":
        screened_poisson(probabilities, graph, strength, out=probabilities)
        labels = probabilities.argmax(axis=1)
    elif settings.method == "potts":
        cost = np.minimum(far, DISCOURAGED_HOPS) if settings.discourage and touching else None
        labels = potts(probabilities, graph, strength, cost)
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
