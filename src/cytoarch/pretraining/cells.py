"""What is known of the cells of a coarse grid over many sections: their area, and their place in a brain."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class CellMaps:
    """The cells of a coarse grid over every section; sections one after the other."""

    first: Int64
    """(s,) where each section begins."""
    shape: Int64
    """(s, 2) cells."""
    cell_px: int
    position_mm: NDArray[np.float32]
    """(cells, 3)"""
    area: NDArray[Any]
    """(cells,) classes."""

    def at(self, section: Int64, places: Float64) -> Int64:
        """Cells (n, ...) of places (n, ..., 2) in pixels of sections (n,); the nearest if one is past the section."""
        cell = np.floor(places / self.cell_px).astype(np.int64)
        more = (slice(None), *[None] * (cell.ndim - 2))
        rows, columns = (np.clip(cell[..., axis], 0, self.shape[section, axis][more] - 1) for axis in (0, 1))
        return np.asarray(self.first[section][more] + rows * self.shape[section, 1][more] + columns)


def laid_out(shapes: list[tuple[int, int]]) -> tuple[Int64, Int64]:
    """Where each section begins (s,) and its shape (s, 2), of sections of so many cells one after the other.

    >>> [one.tolist() for one in laid_out([(2, 3), (1, 4)])]
    [[0, 6], [[2, 3], [1, 4]]]
    """
    shape = np.array(shapes, dtype=np.int64).reshape(-1, 2)
    return np.concatenate([[0], np.cumsum(shape.prod(axis=1))])[:-1], shape
