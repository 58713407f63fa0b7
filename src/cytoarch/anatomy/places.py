"""Where in the tissue a place lies, from the tissue mask alone: how far from the outside, how far from white matter.

No cortex need be traced for it, and it takes no time. Three smooth numbers say more to a head that learns from few
strokes than depth spread over channels does: what lies between two strokes is told by both.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from cytoarch.anatomy.matter import WHITE
from cytoarch.anatomy.tissue import TissueMask
from cytoarch.geometry import Grid

Float32 = NDArray[np.float32]

PLACE_CHANNELS = 3
FARTHEST_MM = 3.0
"""Distances beyond this, about the thickest cortex, are all the same."""


@dataclass(frozen=True)
class TissuePlaces:
    """Distances in a section, to join its embeddings."""

    values: Float32
    """(3, y, x): share of the way from outside to white matter, 0 to 1; mm to the outside; mm to white matter."""
    grid: Grid

    @classmethod
    def of(cls, tissue: TissueMask) -> Self:
        """Those of a section's tissue. Without white matter the share is 0, and that is as far as can be.

        The edge of the image is not the outside: tissue goes on beyond it.
        """
        cell_mm = tissue.grid.cell_um / 1000
        outside = _distance(tissue.classes == 0, cell_mm)
        white = _distance(tissue.classes == WHITE, cell_mm)
        way = outside + white
        share = np.divide(outside, way, out=np.zeros_like(way), where=way > 0)
        if not (tissue.classes == WHITE).any():
            share[:] = 0
        return cls(np.stack([share, *(np.minimum(one, FARTHEST_MM) for one in (outside, white))]), tissue.grid)

    def channels(self, grid: Grid) -> Float32:
        """(3, y, x) float32 at the centres of a grid's cells, interpolated; beyond the mask as at its edge."""
        y, x = (self.grid.cells(np.stack([one, one], axis=-1))[:, axis] for axis, one in enumerate(grid.centres_um()))
        return _along(_along(self.values, y, 1), x, 2).astype(np.float32)


def _along(values: NDArray[np.floating], at: NDArray[np.float64], axis: int) -> NDArray[np.floating]:
    """Values (3, y, x) at places along an axis, linearly interpolated; at the edge beyond it."""
    last = values.shape[axis] - 1
    inside = np.clip(at, 0, last)
    lower = np.minimum(inside.astype(np.int64), max(last - 1, 0))
    part = (inside - lower).reshape([-1 if one == axis else 1 for one in range(values.ndim)])
    below, above = np.take(values, lower, axis), np.take(values, np.minimum(lower + 1, last), axis)
    return np.asarray(below + (above - below) * part)


def _distance(mask: NDArray[np.bool_], cell_mm: float) -> Float32:
    """Mm (y, x) to the nearest cell of a mask; twice the farthest where there is none."""
    if not mask.any():
        return np.full(mask.shape, 2 * FARTHEST_MM, dtype=np.float32)
    return np.asarray(distance_transform_edt(~mask) * cell_mm, dtype=np.float32)
