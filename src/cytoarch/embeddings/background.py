"""What an encoder sees where there is no tissue: the bare slide, or tissue mirrored at its border.

What lies beside a token decides its embedding where an encoder reaches beyond it. Bare slide is alike in all sections
and unlike any tissue: near the border it decides more than the tissue does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.geometry import Grid
from cytoarch.images.views import mirrored
from cytoarch.tiling import evenly

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
ReadWindow = Callable[[int, int, int, int], Float32]
"""(y, x, height, width) -> (c, height, width), inside the grid"""

REACH_UM = 1000.0
"""So far from the border tissue is mirrored; farther out all has the mean colour of the tissue."""
AT_ONCE_PX = 512
"""Edge of what is filled at once: what is read for it reaches at most twice `REACH_UM` beyond it on every side."""
SAMPLES = 256
"""Cells of the mask whose mean colour is that of the tissue, at most."""


@dataclass(frozen=True)
class Background:
    """Where a section read on `grid` has no tissue, and what is seen there instead."""

    grid: Grid
    tissue: TissueMask
    mean: Float32
    """(c,) of the tissue."""

    @classmethod
    def of(cls, grid: Grid, tissue: TissueMask, read: ReadWindow) -> Self | None:
        """None where there is no tissue, or nothing else; the mean is that of `SAMPLES` cells spread over it."""
        if tissue.mask.all() or not tissue.mask.any():
            return None
        return cls(grid, tissue, _mean(grid, tissue, read))

    def filled(self, pixels: Float32, read: ReadWindow, y: int, x: int) -> Float32:
        """A window (c, h, w) at (y, x) with what is no tissue replaced; it may reach beyond the grid.

        A pixel's value does not depend on the window it is read in.
        """
        height, width = pixels.shape[-2:]
        rows, columns = (mirrored(np.arange(at, at + n), size) for at, n, size in self._axes(y, x, height, width))
        for top in range(0, height, AT_ONCE_PX):
            for left in range(0, width, AT_ONCE_PX):
                down, right = slice(top, top + AT_ONCE_PX), slice(left, left + AT_ONCE_PX)
                self._fill(pixels[:, down, right], read, rows[down], columns[right])
        return pixels

    def _fill(self, pixels: Float32, read: ReadWindow, rows: Int64, columns: Int64) -> None:
        """Replace what is no tissue in pixels (c, h, w), which are those rows and columns of the grid."""
        cells = np.ix_(self._cells[0][rows], self._cells[1][columns])
        outside = ~self.tissue.mask[cells]
        if not outside.any():
            return
        pixels[:, outside] = self.mean[:, None]
        near = outside & self._near[cells]
        if not near.any():
            return
        down, right = np.nonzero(near)
        sources = [
            np.clip(at + shift[cells][near], 0, size - 1)
            for at, shift, size in zip((rows[down], columns[right]), self._shifts, self.grid.shape, strict=True)
        ]
        top, left = (int(one.min()) for one in sources)
        block = read(top, left, int(sources[0].max()) - top + 1, int(sources[1].max()) - left + 1)
        pixels[:, near] = block[:, sources[0] - top, sources[1] - left]

    def _axes(self, y: int, x: int, height: int, width: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        return (y, height, self.grid.shape[0]), (x, width, self.grid.shape[1])

    @cached_property
    def _cells(self) -> tuple[Int64, Int64]:
        """The row and column of the mask that every row and column of the grid lies in."""
        return self.grid.nearest_in(self.tissue.grid)

    @cached_property
    def _nearest(self) -> tuple[NDArray[np.float64], Int64]:
        """How far every cell of the mask is from tissue (um), and which cell of it is the nearest (2, y, x)."""
        far, nearest = distance_transform_edt(~self.tissue.mask, return_indices=True)
        return far * self.tissue.grid.cell_um, nearest

    @cached_property
    def _near(self) -> NDArray[np.bool_]:
        return np.asarray(self._nearest[0] <= REACH_UM)

    @cached_property
    def _shifts(self) -> tuple[Int64, Int64]:
        """How many pixels down and right of a cell of the mask lies what is seen there: as deep in tissue as it is out.

        Where the tissue is thinner than that, it is the tissue nearest to it.
        """
        at = np.indices(self.tissue.mask.shape)
        nearest = self._nearest[1]
        behind = 2 * nearest - at
        shape = np.array(self.tissue.mask.shape)[:, None, None]
        held = ((behind >= 0) & (behind < shape)).all(axis=0)
        held &= self.tissue.mask[tuple(np.clip(behind, 0, shape - 1))]
        shift = np.where(held, behind, nearest) - at
        down, right = np.rint(shift * (self.tissue.grid.cell_um / self.grid.cell_um)).astype(np.int64)
        return down, right


def _mean(grid: Grid, tissue: TissueMask, read: ReadWindow) -> Float32:
    """The mean (c,) of the tissue in `SAMPLES` cells of the mask spread over it."""
    cells = np.argwhere(tissue.mask)
    chosen = cells[evenly(len(cells), SAMPLES)]
    edge = max(1, int(tissue.grid.cell_um / grid.cell_um))
    corners = np.rint(tissue.grid.corners_in(grid)(chosen)).astype(int)
    at = np.clip(corners, 0, np.maximum(np.array(grid.shape) - edge, 0))
    means = [read(int(y), int(x), min(edge, grid.shape[0]), min(edge, grid.shape[1])).mean(axis=(1, 2)) for y, x in at]
    return np.asarray(np.mean(means, axis=0), dtype=np.float32)
