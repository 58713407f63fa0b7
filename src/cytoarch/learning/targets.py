"""Label images and scribbles brought to the grid a head predicts on."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cytoarch.brains import LabelClass
from cytoarch.geometry import Grid

Int64 = NDArray[np.int64]


class LabelPixels(Protocol):
    """Label ids by window: a label image of the store, or scribbles."""

    @property
    def grid(self) -> Grid:
        """Where its pixels lie."""

    @property
    def pixel_size_um(self) -> float:
        """Edge of a pixel (um)."""

    def pixels(self, y: slice = ..., x: slice = ...) -> NDArray[Any]:
        """A window (h, w) of unsigned integers, 0 where nothing is labelled. Raises SectionError if it is damaged."""


UNLABELLED = -1
"""Class index of cells that no label, or an equal number of two, falls into."""
TARGET_BYTES = 128 << 20
"""What targets take at once, the band that is given out and all that is read and counted for it together.

One cell may need more: then it is one cell at a time.
"""
_PIXEL_BYTES = 44
"""A label pixel: as it is stored (4), found among the ids (8 for itself, its place, and the id there), its class (4),
its cell and class (8)."""
_VOTE_BYTES = 10
"""A class in a cell: the count (8), and whether it is the largest."""
_CELL_BYTES = 32
"""A cell: its class (8), and indices and counts on the way."""
_BAND_SHARE = 4
"""A band takes one part in so many of the budget; the rest is for the work, and free again once the band is given."""


class IdLookup:
    """Class indices by label ids, read like an array: -1 for 0 and for ids of no class."""

    def __init__(self, classes: Sequence[LabelClass], dtype: type[np.signedinteger[Any]] = np.int64) -> None:
        indices = {0: UNLABELLED} | {one: index for index, each in enumerate(classes) for one in each.ids}
        self._ids = np.array(sorted(indices), dtype=np.int64)
        self._indices = np.array([indices[one] for one in self._ids.tolist()], dtype=dtype)
        self._table = np.full(1 << 16, UNLABELLED, dtype=dtype)
        """The same for ids of 16 bits, which are looked up at once."""
        short = self._ids < len(self._table)
        self._table[self._ids[short]] = self._indices[short]

    def __getitem__(self, ids: ArrayLike) -> NDArray[Any]:
        """The class index (...) of ids (...)."""
        ids = np.asarray(ids)
        if ids.dtype.itemsize <= 2:
            return np.asarray(self._table[ids])
        at = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        return np.where(self._ids[at] == ids, self._indices[at], self._indices.dtype.type(UNLABELLED))


def class_of_id(classes: Sequence[LabelClass]) -> IdLookup:
    """Class index int64 by label id."""
    return IdLookup(classes)


def targets_on_grid(labels: LabelPixels, classes: Sequence[LabelClass], grid: Grid) -> Int64:
    """The class of every cell (y, x) int64 of a grid, wherever that lies on the label image.

    Cells larger than a label pixel take the majority of the labelled pixels whose centres lie in them, however few
    these are, so that a stroke of one pixel is never lost; ties are unlabelled. Smaller cells take the pixel that
    their centre lies in, or the outermost one beyond the label image. Raises SectionError if the labels are damaged.
    """
    return np.concatenate([band for _, band in target_bands(labels, classes, grid)])


def target_bands(
    labels: LabelPixels, classes: Sequence[LabelClass], grid: Grid, budget_bytes: int = TARGET_BYTES
) -> Iterator[tuple[int, Int64]]:
    """The same as bands (first row, (rows, gx) int64), top to bottom, in at most `budget_bytes` at a time."""
    height, width = grid.shape
    lookup = IdLookup(classes, np.int32)
    count = len(classes)
    rows, columns = _cells_at_once(grid.cell_um / labels.pixel_size_um, count, width, budget_bytes)
    find = _majority if grid.cell_um > labels.pixel_size_um else _nearest
    for y in range(0, height, rows):
        band = np.full((min(rows, height - y), width), UNLABELLED, dtype=np.int64)
        for x in range(0, width, columns):
            part = grid.window(y, x, len(band), min(columns, width - x))
            band[:, x : x + columns] = find(labels, lookup, count, part)
        yield y, band


def _cells_at_once(ratio: float, classes: int, width: int, budget_bytes: int) -> tuple[int, int]:
    """Rows of a band, and columns of the part of it that is worked on at once."""
    cell_bytes = _CELL_BYTES + (ratio**2 * _PIXEL_BYTES + classes * _VOTE_BYTES if ratio > 1 else _PIXEL_BYTES)
    band_bytes = budget_bytes // _BAND_SHARE
    cells = max(1, int((budget_bytes - band_bytes) / cell_bytes))
    rows = max(1, min(int(cells**0.5), band_bytes // (8 * width)))
    return rows, max(1, cells // rows)


def _majority(labels: LabelPixels, lookup: IdLookup, count: int, cells: Grid) -> Int64:
    height, width = cells.shape
    at = labels.grid.places_in(cells)
    rows, columns = (slice(*np.searchsorted(one, [0, n]).tolist()) for one, n in zip(at, cells.shape, strict=True))
    # one number says in which cell a pixel lies and what it votes for; 0 is a vote for nothing
    kinds = count + 1
    votes_for = (at[0][rows] * (width * kinds))[:, None] + at[1][columns] * kinds
    votes_for += lookup[labels.pixels(rows, columns)]
    votes_for += 1
    votes = np.bincount(votes_for.ravel(), minlength=height * width * kinds).reshape(height, width, kinds)
    votes[..., 0] = 0
    winners = (votes == votes.max(axis=-1, keepdims=True)).sum(axis=-1)  # all of them, where nobody voted
    return np.asarray(np.where(winners == 1, votes.argmax(axis=-1) - 1, UNLABELLED))


def _nearest(labels: LabelPixels, lookup: IdLookup, _count: int, cells: Grid) -> Int64:
    rows, columns = cells.nearest_in(labels.grid)
    block = labels.pixels(slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    return np.asarray(lookup[block[np.ix_(rows - rows[0], columns - columns[0])]], dtype=np.int64)
