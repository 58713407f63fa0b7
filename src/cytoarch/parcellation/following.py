"""Probabilities of a section whose classes follow each other, as layers do from the pial surface inwards."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from cytoarch.anatomy.depth_maps import DepthMap
from cytoarch.geometry import Grid
from cytoarch.images.views import Level, StoredImage, View
from cytoarch.learning.cards import Order
from cytoarch.learning.ordering import COARSE_CELLS, ordered
from cytoarch.parcellation.sparse import CHUNK_CELLS, Likeliest, Readable, Reweighted

if TYPE_CHECKING:
    import zarr

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Following(Reweighted):
    """Probabilities, each multiplied by what the order of the classes says of it."""

    factors: View
    """(k, y, x) on the grid of the probabilities, known on a coarser one."""

    @classmethod
    def of(cls, probabilities: Readable, order: Order, depth: DepthMap | None = None) -> Self:
        """Classes in the order of the label table; `depth` is that of the section, where `order` goes along it.

        Raises SectionError if the probabilities are damaged, ModelError if there are too many classes to follow.
        """
        seen, grid = _coarse(probabilities)
        codes = None if depth is None else depth.codes(grid)
        cortex = None if codes is None else (codes >= 0) & (codes <= 1)
        factors = ordered(seen[1:], seen[0] < seen[1:].sum(axis=0), order, codes, cortex)
        level = Level(_in_memory(factors), grid.cell_um, grid.origin_um[0])
        return cls(probabilities, StoredImage((level,), {}).on(probabilities.grid))

    def read(self, y: int, x: int, height: int, width: int) -> Likeliest:
        """The most likely classes of a window of cells, in their new order."""
        cells = self.probabilities.read(y, x, height, width)
        factors = self.factors.read(y, x, height, width)
        table = np.concatenate([np.ones((1, height, width), np.float32), factors])  # outside tissue stays
        return cells.weighted(np.take_along_axis(table, cells.channels.astype(np.int64), 0))


def _coarse(probabilities: Readable) -> tuple[Float32, Grid]:
    """Probabilities (k + 1, y, x) of every so-many-th cell, and their grid; read a few rows of chunks at once."""
    grid = probabilities.grid
    stride = -(-max(grid.shape) // COARSE_CELLS)
    step = stride * max(1, CHUNK_CELLS // stride)
    rows = []
    for top in range(0, grid.shape[0], step):
        cells = probabilities.read(top, 0, min(step, grid.shape[0] - top), grid.shape[1])
        rows.append(Likeliest(*(one[:, ::stride, ::stride] for one in cells)).dense(len(probabilities.names)))
    seen = np.concatenate(rows, axis=1)
    return seen, Grid(seen.shape[1:], stride * grid.cell_um, grid.origin_um)


def _in_memory(values: Float32) -> "zarr.Array[Any]":
    import zarr

    array = zarr.create_array(zarr.storage.MemoryStore(), shape=values.shape, dtype=values.dtype, chunks=values.shape)
    array[:] = values
    return array
