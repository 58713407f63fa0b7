"""Label images and scribbles brought to the grid a head predicts on."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cytoarch.brains import LabelClass
from cytoarch.images.views import Level
from cytoarch.tiling import partition

Int64 = NDArray[np.int64]

UNLABELLED = -1
"""Class index of cells that no label, or an equal number of two, falls into."""
_WINDOW_CELLS = 512
TARGET_BYTES = 256 << 20
"""What is counted at once takes at most so much beside the result."""
_PIXEL_BYTES = 48
"""A label pixel as it is read, looked up, placed in a cell and counted."""
_VOTE_BYTES = 18
"""A class of a cell: its votes, twice, and whether it wins."""


def class_of_id(classes: Sequence[LabelClass]) -> Int64:
    """Class index by label id (65536,); -1 for 0 and for ids of no class."""
    lookup = np.full(65536, UNLABELLED, dtype=np.int64)
    for index, one in enumerate(classes):
        lookup[list(one.ids)] = index
    return lookup


def targets_on_grid(labels: Level, classes: Sequence[LabelClass], grid: tuple[int, int], cell_um: float) -> Int64:
    """The class of every cell (y, x) int64 of a grid that shares its corner with the label image.

    Cells larger than a label pixel take the majority of the labelled pixels in them, however few these are, so that a
    stroke of one pixel is never lost; ties are unlabelled. Smaller cells take the pixel they lie in.
    """
    return targets_in_window(labels, classes, (0, 0, *grid), cell_um)


def targets_in_window(
    labels: Level, classes: Sequence[LabelClass], window: tuple[int, int, int, int], cell_um: float
) -> Int64:
    """The part of `targets_on_grid` in a window (y, x, height, width) of its cells; `TARGET_BYTES` are held beside it.

    Raises SectionError if the labels there are damaged.
    """
    lookup = class_of_id(classes)
    top, left, rows, columns = window
    targets = np.full((rows, columns), UNLABELLED, dtype=np.int64)
    if not classes:
        return targets
    for y, x, height, width in partition(rows, columns, _window_cells(cell_um / labels.pixel_size_um, len(classes))):
        part = (top + y, left + x, height, width)
        if cell_um > labels.pixel_size_um:
            cells = _majority(labels, lookup, len(classes), part, cell_um)
        else:
            cells = _nearest(labels, lookup, part, cell_um)
        targets[y : y + height, x : x + width] = cells
    return targets


def _window_cells(ratio: float, classes: int) -> int:
    """Edge of a window whose label pixels, votes and winners stay within `TARGET_BYTES`; one cell at least."""
    cell_bytes = _PIXEL_BYTES * max(1.0, ratio) ** 2 + _VOTE_BYTES * classes
    return max(1, min(_WINDOW_CELLS, int((TARGET_BYTES / cell_bytes) ** 0.5)))


def _majority(labels: Level, lookup: Int64, count: int, window: tuple[int, int, int, int], cell_um: float) -> Int64:
    y, x, height, width = window
    ratio = cell_um / labels.pixel_size_um
    rows, columns = (
        _pixels_in(first, n, ratio, size) for first, n, size in zip((y, x), (height, width), labels.size, strict=True)
    )
    if rows.stop <= rows.start or columns.stop <= columns.start:
        return np.full((height, width), UNLABELLED, dtype=np.int64)
    block = lookup[labels.pixels(slice(rows.start, rows.stop), slice(columns.start, columns.stop))]
    cell_y = np.minimum(((np.arange(rows.start, rows.stop) + 0.5) / ratio).astype(np.int64) - y, height - 1)
    cell_x = np.minimum(((np.arange(columns.start, columns.stop) + 0.5) / ratio).astype(np.int64) - x, width - 1)
    cell = cell_y[:, None] * width + cell_x[None]
    labelled = block >= 0
    votes = np.bincount(cell[labelled] * count + block[labelled], minlength=height * width * count)
    votes = votes.reshape(height, width, count)
    most = votes.max(axis=-1)
    winners = (votes == most[..., None]).sum(axis=-1)
    return np.asarray(np.where((most > 0) & (winners == 1), votes.argmax(axis=-1), UNLABELLED))


def _pixels_in(first: int, count: int, ratio: float, size: int) -> range:
    """The label pixels whose centres lie in cells first..first+count-1."""
    start = int(np.ceil(first * ratio - 0.5))
    stop = int(np.ceil((first + count) * ratio - 0.5))
    return range(min(max(start, 0), size), min(max(stop, 0), size))


def _nearest(labels: Level, lookup: Int64, window: tuple[int, int, int, int], cell_um: float) -> Int64:
    y, x, height, width = window
    ratio = cell_um / labels.pixel_size_um
    rows, columns = (
        np.minimum(((np.arange(first, first + n) + 0.5) * ratio).astype(np.int64), size - 1)
        for first, n, size in zip((y, x), (height, width), labels.size, strict=True)
    )
    block = labels.pixels(slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    return np.asarray(lookup[block[np.ix_(rows - rows[0], columns - columns[0])]])
