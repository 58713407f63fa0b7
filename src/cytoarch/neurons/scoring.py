"""How far traced trees and segmented voxels lie from known ones.

ESA, DSA and PDS are those of Peng et al. 2010 (V3D), as Vaa3D computes them: both trees are sampled about once a unit,
and every sample asks for the nearest piece of the other tree. Distances are in voxels, or in whatever unit is given, so
that anisotropic data are compared in um.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cytoarch.measures.boundaries import BoundaryDistances
from cytoarch.neurons.trees import Float64, Tree, Triple

DIFFERENT = 2.0
"""Units from which a place of one tree counts as absent from the other (Vaa3D)."""
PIECE = 4.0
"""Segments are cut into pieces no longer than this before they are searched: it bounds what each search looks at."""
AT_ONCE = 4096
"""Samples that are searched together."""
NAN = float("nan")


@dataclass(frozen=True)
class TreeScore:
    """How a traced tree differs from the known one; all are 0 for equal trees.

    A tree without edges has no length to sample. If both are so, nothing is defined: all are NaN. If one is, all of
    the other is different: `pds` is 1, recall or precision 0, and distances are NaN, since there is nothing to measure
    to; `missing` says so, that it is counted where scores are averaged.
    """

    esa: float
    """Entire structure average: mean distance, both ways."""
    dsa: float
    """Different structure average: the same over places that are different; 0 if none is."""
    pds: float
    """Percentage of different structure, as a share of 1."""
    precision: float
    """Share of the traced length that lies within `DIFFERENT` of the known tree."""
    recall: float
    """Share of the known length that lies within `DIFFERENT` of the traced tree."""
    missing: bool
    """Whether one of the trees has no edge and the other has."""

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 where both are 0, NaN where they are undefined."""
        if np.isnan(self.precision) and np.isnan(self.recall):
            return NAN
        both = np.nan_to_num(self.precision), np.nan_to_num(self.recall)
        return float(2 * both[0] * both[1] / sum(both)) if sum(both) else 0.0

    def as_facts(self) -> dict[str, float]:
        """The figures by name."""
        names = ("esa", "dsa", "pds", "precision", "recall", "f1")
        return {name: round(float(getattr(self, name)), 6) for name in names}


def score_trees(traced: Tree, known: Tree, unit_um: Triple) -> TreeScore:
    """How a traced tree differs from the known one, in units of so many um along (z, y, x).

    With the edges of a voxel as units distances are in voxels; with the same number thrice they are in that many um.
    """
    if traced.is_empty or known.is_empty:
        both = traced.is_empty and known.is_empty
        precision = NAN if traced.is_empty else 0.0
        return TreeScore(NAN, NAN, NAN if both else 1.0, precision, NAN if known.is_empty else 0.0, not both)
    there = _directed(traced, known, unit_um)
    back = _directed(known, traced, unit_um)
    means = [float(one.mean()) for one in (there, back)]
    far = [one[one >= DIFFERENT] for one in (there, back)]
    far_means = [float(one.mean()) for one in far if len(one)]
    shares = [len(one) / len(all_) for one, all_ in zip(far, (there, back), strict=True)]
    return TreeScore(
        esa=sum(means) / 2,
        dsa=sum(far_means) / len(far_means) if far_means else 0.0,
        pds=sum(shares) / 2,
        precision=1 - shares[0],
        recall=1 - shares[1],
        missing=False,
    )


def samples(tree: Tree, unit_um: Triple) -> Float64:
    """(n, 3) places along every edge, both its ends among them: int(1.5 + length) of them, in units.

    A node where edges meet is sampled once for each, as Vaa3D does.
    """
    points = tree.in_units(unit_um)
    child, parent = tree.edges.T
    starts, ends = points[child], points[parent]
    counts = (1.5 + np.linalg.norm(ends - starts, axis=1)).astype(np.int64)
    edge = np.repeat(np.arange(len(counts)), counts)
    step = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts)
    share = step / np.maximum(counts[edge] - 1, 1)
    return np.asarray(starts[edge] + share[:, None] * (ends - starts)[edge])


def distances(places: Float64, starts: Float64, ends: Float64) -> Float64:
    """(n,) distance from every place (n, 3) to the nearest of the segments (m, 3) to (m, 3), m at least 1."""
    starts, ends = _pieces(starts, ends)
    middles = starts + (ends - starts) * 0.5
    reach = float(np.linalg.norm(ends - starts, axis=1).max()) * 0.5
    tree = cKDTree(middles)
    found = np.empty(len(places))
    for first in range(0, len(places), AT_ONCE):
        part = places[first : first + AT_ONCE]
        nearest = tree.query(part)[1]
        bound = _to_segment(part, starts[nearest], ends[nearest])
        # whatever is nearer than the first guess has its middle no farther than this
        around = tree.query_ball_point(part, bound + reach + 1e-9)
        counts = np.fromiter(map(len, around), dtype=np.int64, count=len(part))
        owner = np.repeat(np.arange(len(part)), counts)
        other = np.concatenate([np.asarray(one, dtype=np.int64) for one in around])
        every = _to_segment(part[owner], starts[other], ends[other])
        np.minimum.at(bound, owner, every)
        found[first : first + AT_ONCE] = bound
    return found


def _directed(one: Tree, other: Tree, unit_um: Triple) -> Float64:
    points = other.in_units(unit_um)
    child, parent = other.edges.T
    return distances(samples(one, unit_um), points[child], points[parent])


def _pieces(starts: Float64, ends: Float64) -> tuple[Float64, Float64]:
    """The segments, cut into pieces of equal length no longer than `PIECE`."""
    counts = np.maximum(1, np.ceil(np.linalg.norm(ends - starts, axis=1) / PIECE)).astype(np.int64)
    owner = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    step = ((ends - starts) / counts[:, None])[owner]
    first = starts[owner] + number[:, None] * step
    return first, first + step


def _to_segment(places: Float64, starts: Float64, ends: Float64) -> Float64:
    along = ends - starts
    length2 = np.maximum((along**2).sum(axis=1), 1e-300)
    share = np.clip(((places - starts) * along).sum(axis=1) / length2, 0, 1)
    return np.asarray(np.linalg.norm(places - starts - share[:, None] * along, axis=1))


# -- voxels ------------------------------------------------------------------------------------------------------------

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class VoxelScore:
    """How segmented voxels differ from known ones.

    Nothing segmented and nothing known: all NaN. One of them empty: F1 is 0 and the distance NaN; `missing` says so.
    """

    precision: float
    recall: float
    f1: float
    """Dice."""
    hd95_um: float
    """95th percentile of the distances between surfaces, pooled over both directions (as medpy)."""
    missing: bool

    def as_facts(self) -> dict[str, float]:
        """The figures by name."""
        return {name: round(float(getattr(self, name)), 6) for name in ("precision", "recall", "f1", "hd95_um")}


def score_voxels(found: Mask, known: Mask, voxel_um: Triple) -> VoxelScore:
    """How segmented voxels (z, y, x) differ from known ones of the same shape."""
    if found.shape != known.shape:
        raise ValueError(f"masks of {found.shape} and {known.shape} voxels cannot be compared; one shape is needed")
    hits, ours, theirs = int((found & known).sum()), int(found.sum()), int(known.sum())
    if not ours or not theirs:
        f1 = NAN if ours == theirs else 0.0
        return VoxelScore(0.0 if ours else NAN, 0.0 if theirs else NAN, f1, NAN, ours != theirs)
    f1 = 2 * hits / (ours + theirs)
    far = BoundaryDistances.between(found, known, voxel_um)
    return VoxelScore(hits / ours, hits / theirs, f1, far.hd95_um, missing=False)
