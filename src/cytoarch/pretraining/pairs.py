"""What the Siamese task learns from: pairs of points of one hemisphere, how far apart they lie along the cortex, where.

Points are snapped to the nearest vertex of their hemisphere on the middle surface of the cortex; distances are along
it, places those of the vertex on the inflated surface, right hemispheres mirrored onto left ones (Spitzer et al. 2018).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from cytoarch.anatomy.surfaces import Geodesics, Mesh, inflated
from cytoarch.pretraining.patches import Batch, PatchBatches, PatchPoints
from cytoarch.pretraining.sending import sent
from cytoarch.pretraining.siamese import MIRROR, SiameseLoss, draw_pairs

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
LEFT, RIGHT = 0, 1


@dataclass(frozen=True)
class SurfacePairs:
    """Pairs of points, of one brain and hemisphere each."""

    index: Int64
    """(m, 2) points."""
    distance_mm: Float64
    """(m,) along the surface; NaN between pieces of it that do not meet."""
    place_mm: Float64
    """(n, 3) of every point on the inflated surface."""

    @classmethod
    def of(cls, points: PatchPoints, surfaces: Mapping[int, Mesh], seed: int) -> Self:
        """Pairs of points, by the middle surface of each brain. Raises ValueError for a hemisphere of one point."""
        side = np.where(points.position_mm[:, 0] < 0, LEFT, RIGHT)
        index = draw_pairs(2 * points.brain + side, seed)
        vertex, place = np.full(len(points), -1), np.zeros((len(points), 3))
        distance = np.full(len(index), np.nan)
        for brain, mesh in surfaces.items():
            flat = inflated(mesh)
            of_brain = points.brain == brain
            for one in (LEFT, RIGHT):
                own = np.flatnonzero(of_brain & (side == one))
                if len(own):
                    vertex[own] = _nearest(mesh, points.position_mm[own], one)
                    place[own] = flat[vertex[own]] * (MIRROR if one == RIGHT else (1.0, 1.0, 1.0))
            mine = np.flatnonzero(of_brain[index[:, 0]])
            distance[mine] = _along(Geodesics(mesh), vertex[index[mine]])
        return cls(index, distance, place)


def _nearest(mesh: Mesh, places_mm: Float64, side: int) -> Int64:
    """The vertex (n,) nearest to each place (n, 3), of its side of the brain where that has any."""
    right = mesh.vertices_mm[:, 0] >= 0
    own = np.flatnonzero(right if side == RIGHT else ~right)
    vertices = own if len(own) else np.arange(len(right))
    return np.asarray(vertices[cKDTree(mesh.vertices_mm[vertices]).query(places_mm)[1]], dtype=np.int64)


def _along(geodesics: Geodesics, ends: Int64) -> Float64:
    """Distances (m,) between vertices (m, 2), the mean of both ways; each vertex is a source once."""
    found = np.zeros(ends.shape)
    for way in (0, 1):
        order = np.argsort(ends[:, way], kind="stable")
        for rows in _runs(ends[order, way]):
            pairs = order[rows]
            found[pairs, way] = geodesics.from_vertex(int(ends[pairs[0], way]))[ends[pairs, 1 - way]]
    return np.asarray(found.mean(axis=1))


def _runs(values: Int64) -> Iterator[slice]:
    """Where equal values stand together."""
    edges = np.flatnonzero(np.diff(values, prepend=values[:1] - 1, append=values[-1:] + 1))
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        yield slice(start, stop)


@dataclass(frozen=True)
class PairBatch(Batch):
    """A batch of pairs: all first patches, then all second."""

    distance_mm: Tensor
    """(n,)"""
    place_mm: Tensor
    """(2, n, 3) on the inflated surface."""


@dataclass(frozen=True)
class PairBatches:
    """Batches of pairs by the number of their step, in an order of their own each round."""

    patches: PatchBatches
    """What cuts the patches; its points are those of the pairs."""
    pairs: SurfacePairs

    def __call__(self, step: int) -> PairBatch:
        """The batch of a step: half as many pairs as patches."""
        size = self.patches.batch_size // 2
        rounds, place = divmod(step, max(1, len(self.pairs.index) // size))
        order = np.random.default_rng([self.patches.seed, 7, rounds]).permutation(len(self.pairs.index))
        chosen = np.resize(order, max(size, len(order)))[place * size : (place + 1) * size]
        ends = self.pairs.index[chosen]
        batch = self.patches.of(ends.T.ravel(), step)
        device = batch.pixels.device
        return PairBatch(
            batch.pixels, batch.positions_mm, batch.labels,
            sent(self.pairs.distance_mm[chosen].astype(np.float32), device),
            sent(self.pairs.place_mm[ends.T].astype(np.float32), device),
        )  # fmt: skip


@dataclass(frozen=True)
class Siamese:
    """Distances and places of pairs are to be told (Spitzer et al. 2018)."""

    loss: SiameseLoss
    views: int = 1

    def __call__(self, outputs: tuple[Tensor, Tensor], batch: PairBatch) -> Tensor:
        """The loss of embeddings (2 n, 32) and coordinates (2 n, 3)."""
        (one, other), (here, there) = (part.float().chunk(2) for part in outputs)
        return self.loss((one, here), (other, there), batch.distance_mm, batch.place_mm)

    def targets(self, batch: PairBatch) -> Tensor:
        """The other of the pair."""
        count = len(batch.distance_mm)
        return torch.eye(2 * count, device=batch.pixels.device).roll(count, dims=1)
