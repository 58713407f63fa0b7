"""Which voxels a tree fills: balls along its edges, drawn window by window, so that no volume is held."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from cytoarch.neurons.trees import ROOT, Float64, Int64, Tree, Triple

SPACING = 0.35
"""Samples along an edge, in the finest edge of a voxel: no voxel on the way is skipped."""
BALLS_AT_ONCE = 1 << 21
"""Voxels around balls that are looked at together."""
Corner = tuple[int, int, int]


class Touched(NamedTuple):
    """Voxels of a window that balls are near to: one row for each pair of a ball and a voxel."""

    cells: Int64
    """(n, 3) from the window's first voxel."""
    away_um: Float64
    """(n,) from the voxel's centre to the ball's."""
    balls: Int64
    """(n,)."""


@dataclass(frozen=True)
class Tubes:
    """Balls along the edges of a tree, in a volume of voxels with these edges (um)."""

    voxel_um: Triple
    places_um: Float64
    """(n, 3)."""
    radii_um: Float64
    """(n,)."""
    nodes: Int64
    """(n,) the node of the tree that each belongs to."""

    @classmethod
    def of(cls, tree: Tree, voxel_um: Triple, least_um: float = 0.0) -> Self:
        """The tubes of a tree, no thinner than a radius: an edge is as thick as the node farther from the root."""
        child, parent = tree.edges.T
        starts, ends = tree.points_um[child], tree.points_um[parent]
        counts = np.ceil(np.linalg.norm(ends - starts, axis=1) / (SPACING * min(voxel_um))).astype(np.int64)
        counts = np.maximum(1, counts)
        owner = np.repeat(np.arange(len(counts)), counts)
        share = (np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)) / counts[owner]
        along = starts[owner] + share[:, None] * (ends - starts)[owner]
        roots = np.flatnonzero(tree.parents == ROOT)
        nodes = np.concatenate([child[owner], roots])
        places = np.concatenate([along, tree.points_um[roots]])
        return cls(voxel_um, places, np.maximum(tree.radii_um[nodes], least_um), nodes)

    def mask(self, low: Corner, high: Corner) -> NDArray[np.bool_]:
        """The voxels from `low` up to before `high` whose centre lies in a tube, and those that its middle crosses."""
        mask = np.zeros([b - a for a, b in zip(low, high, strict=True)], dtype=bool)
        voxel, first = np.asarray(self.voxel_um), np.asarray(low)
        for cells, away, balls in self.touched(low, high, 0.0):
            own = (np.rint(self.places_um[balls] / voxel).astype(np.int64) - first == cells).all(axis=1)
            mask[tuple(cells[(away <= self.radii_um[balls]) | own].T)] = True
        return mask

    def touched(self, low: Corner, high: Corner, beyond_um: float) -> Iterator[Touched]:
        """The voxels of a window within the balls or so far beyond, a part of the balls after the other."""
        voxel, first, last = np.asarray(self.voxel_um), np.asarray(low), np.asarray(high)
        own = np.rint(self.places_um / voxel).astype(np.int64)
        reach = np.ceil((self.radii_um + beyond_um)[:, None] / voxel).astype(np.int64)
        near = ((own + reach >= first) & (own - reach < last)).all(axis=1)
        for size in np.unique(reach[near], axis=0):
            edges = (np.arange(-one, one + 1) for one in size)
            cube = np.stack(np.meshgrid(*edges, indexing="ij"), axis=-1).reshape(-1, 3)
            chosen = np.flatnonzero(near & (reach == size).all(axis=1))
            for part in np.array_split(chosen, max(1, len(chosen) * len(cube) // BALLS_AT_ONCE)):
                cells = (own[part][:, None] + cube).reshape(-1, 3)
                balls = np.repeat(part, len(cube))
                there = ((cells >= first) & (cells < last)).all(axis=1)
                cells, balls = cells[there], balls[there]
                yield Touched(cells - first, np.linalg.norm(cells * voxel - self.places_um[balls], axis=1), balls)
