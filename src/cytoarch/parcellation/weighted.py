"""Maps that follow the points of the cortex: the cells near a point take on what smoothing across sections changed.

The probabilities of a cell are multiplied by how much likelier a class became at its point, and divided by their sum
(Bayes' rule, the point telling what is likely before the cell is looked at). A cell that does not name the class that
its point changed to takes it in first; where it cannot, it stays as it is: the class that its point left would only
make room for a third.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cytoarch.parcellation.graph import Floats
from cytoarch.parcellation.sparse import Likeliest, Reweighted, UInt16

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

LEAST = 1e-4
"""Probability of a class that a point does not name: what it may be multiplied by is bounded."""
BLOCK_CELLS = 8
"""Cells of a map find their point together, by so many along an edge."""


class Changes(NamedTuple):
    """What smoothing changed at the points of a section."""

    places_um: Float64
    """(n, 2)."""
    ratios: Float32
    """(n, k) by how much each class became likelier; what is hardly there is taken for `LEAST`."""
    gained: UInt16
    """(n,) the channel of the class that a point changed to; 0 where it kept its own."""

    @classmethod
    def between(cls, places_um: Float64, before: Floats, after: Floats) -> Self:
        """From the probabilities (n, k) of points before and after smoothing."""
        first = after.argmax(axis=1)
        gained = np.where(first == before.argmax(axis=1), 0, first + 1).astype(np.uint16)
        return cls(places_um, np.asarray((after + LEAST) / (before + LEAST), dtype=np.float32), gained)

    @classmethod
    def none(cls) -> Self:
        """Of a section without points."""
        return cls(np.empty((0, 2)), np.empty((0, 0), np.float32), np.empty(0, np.uint16))


@dataclass(frozen=True)
class Weighted(Reweighted):
    """Probabilities of a section, multiplied by what smoothing across sections changed at the nearest point."""

    changes: Changes
    farthest_um: float
    """Cells farther from all points are left as they are."""

    def read(self, y: int, x: int, height: int, width: int) -> Likeliest:
        """The most likely classes of a window of cells, in their new order."""
        cells = self.probabilities.read(y, x, height, width)
        if not len(self.changes.places_um):
            return cells
        nearest, far = self._nearest(y, x, height, width)
        gained = np.where(far, np.uint16(0), self.changes.gained[nearest])
        more = cells.including(gained, len(self.names) - 1)
        factors = np.where(far, np.float32(1), self._factors[nearest, more.channels.astype(np.int64)])
        kept = _unable(cells, more, factors, gained)
        return Likeliest(*(np.where(kept, *one) for one in zip(cells, more.weighted(factors), strict=True)))

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self.changes.places_um)

    @cached_property
    def _factors(self) -> Float32:
        """(n, k + 1) by channel; what is outside tissue stays."""
        ratios = self.changes.ratios
        return np.concatenate([np.ones((len(ratios), 1), np.float32), ratios], axis=1)

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
