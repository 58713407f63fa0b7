"""A window of a label map drawn from sparse probabilities: smoothed class by class, the most likely one kept.

Only classes that occur in the window are smoothed, and each only as far around as smoothing reaches from its cells;
whatever the number of classes, one of them is held at a time. What belongs to classes that cells do not name joins no
class, and counts where probabilities are divided by their sum.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from cytoarch.geometry import Grid
from cytoarch.images.halving import halve_mean
from cytoarch.images.views import Resampling
from cytoarch.learning.smoothing import PRESENT
from cytoarch.parcellation.sparse import WHOLE, Likeliest, Readable, UInt16
from cytoarch.variation import REACH_CELLS, denoised

Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]

CONFIDENCE = ("in tissue", "probability of the class shown", "lead over the next class", "entropy")
"""Channels of a confidence map, in 1/255. Averages of the others over cells are to be divided by that of the first."""
FULL = 255


class Drawn(NamedTuple):
    """A window of a label map."""

    channels: UInt16
    """(y, x): the most likely class once smoothed; 0: outside tissue, as likely as all classes together or more."""
    confidence: UInt8
    """(4, y, x), see `CONFIDENCE`; entropy is in units of that of chance, all are 0 outside tissue."""


class _Running(NamedTuple):
    """What is known of the cells of a window after some of the classes."""

    channel: UInt16
    best: Float32
    second: Float32
    total: Float32
    entropy: Float32
    """Sum of p log p, before probabilities are divided by their sum."""

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> Self:
        """Before the first class."""
        return cls(np.zeros(shape, dtype=np.uint16), *(np.zeros(shape, dtype=np.float32) for _ in range(4)))


def source_window(grid: Grid, target: Grid, window: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """The cells (y, x, height, width) of `grid` that decide a window of `target` beside what smoothing reaches."""
    unit = 2 ** _halvings(grid, target)
    rows, columns = _resampling(grid, target, window).window
    y, x = rows.start * unit, columns.start * unit
    return y, x, min(rows.stop * unit, grid.shape[0]) - y, min(columns.stop * unit, grid.shape[1]) - x


def draw_window(probabilities: Readable, target: Grid, window: tuple[int, int, int, int], weight: float) -> Drawn:
    """Draw a window (y, x, height, width) of a label map on the grid `target`, smoothed as strongly as asked for.

    The result does not depend on the window, but where a class is nowhere likelier than `PRESENT`. Cells are averaged
    by two as long as the map is coarser, and interpolated between. Raises SectionError if what is stored is damaged.
    """
    y, x, height, width = source_window(probabilities.grid, target, window)
    (rows, columns) = probabilities.grid.shape
    reach = REACH_CELLS if weight else 0
    top, left = max(0, y - reach), max(0, x - reach)
    stop, right = min(rows, y + height + reach), min(columns, x + width + reach)
    cells = probabilities.read(top, left, stop - top, right - left)
    inner = slice(y - top, y - top + height), slice(x - left, x - left + width)
    resampling, halvings = _resampling(probabilities.grid, target, window), _halvings(probabilities.grid, target)

    def shown(plane: Float32) -> Float32:
        own = plane[inner]
        for _ in range(halvings):
            own = halve_mean(own)
        return np.ascontiguousarray(resampling(own[None])[0])

    outside = np.zeros(window[2:], dtype=np.float32)
    found = _Running.empty(window[2:])
    boxes = _boxes(cells, len(probabilities.names))
    for channel in np.flatnonzero(boxes[:, 1] > 0):
        plane = shown(_smoothed(cells, int(channel), boxes[channel], weight))
        if channel:
            _kernels().update(plane, np.uint16(channel), *found)
        else:
            outside = plane
    named = cells.shares.sum(axis=0, dtype=np.uint32).astype(np.float32) / np.float32(WHOLE)
    rest = shown(np.maximum(1 - named, 0))
    return _finished(found, outside, rest, len(probabilities.names) - 1)


def _halvings(grid: Grid, target: Grid) -> int:
    """How many times cells are averaged by two before they are interpolated: the map's cells are no finer than that."""
    return max(0, int(np.floor(np.log2(target.cell_um / grid.cell_um) + 1e-4)))


def _resampling(grid: Grid, target: Grid, window: tuple[int, int, int, int]) -> Resampling:
    y, x, height, width = window
    below = grid.grouped(2 ** _halvings(grid, target))
    return Resampling.between(below, target, slice(y, y + height), slice(x, x + width))


def _smoothed(cells: Likeliest, channel: int, box: NDArray[np.int64], weight: float) -> Float32:
    """The probability (y, x) of a class, smoothed around the cells that name it; elsewhere it is zero."""
    _, height, width = cells.shares.shape
    plane = np.zeros((height, width), dtype=np.float32)
    _kernels().scatter(cells.channels, cells.shares, np.uint16(channel), plane)
    varies = box[1] - box[0] > PRESENT * WHOLE
    if weight == 0 or not varies:
        return plane
    top, left = max(0, int(box[2]) - REACH_CELLS), max(0, int(box[4]) - REACH_CELLS)
    part = slice(top, int(box[3]) + 1 + REACH_CELLS), slice(left, int(box[5]) + 1 + REACH_CELLS)
    plane[part] = np.maximum(denoised(plane[part], weight), 0)
    return plane


def _boxes(cells: Likeliest, channels: int) -> NDArray[np.int64]:
    """By channel (k + 1, 6): least and largest share, first and last row, first and last column of cells that name it.

    A channel that not every cell names has a least share of 0.
    """
    _, height, width = cells.shares.shape
    boxes = np.empty((channels, 6), dtype=np.int64)
    boxes[:] = WHOLE, 0, height, -1, width, -1
    named = np.zeros(channels, dtype=np.int64)
    _kernels().bound(cells.channels, cells.shares, boxes, named)
    boxes[named < height * width, 0] = 0
    return boxes


def _finished(found: _Running, outside: Float32, rest: Float32, classes: int) -> Drawn:
    """Labels and confidence from what was summed up."""
    inside = (outside < found.total + rest) & (found.best > 0)
    total = np.maximum(found.total + rest, 1e-6)
    plogp = found.entropy + np.where(rest > 0, rest * np.log(np.maximum(rest, 1e-9)), 0)
    entropy = (np.log(total) - plogp / total) / np.log(max(classes, 2))
    confidence = np.stack([np.ones_like(total), found.best / total, (found.best - found.second) / total, entropy])
    scaled = np.rint(np.clip(confidence, 0, 1) * FULL).astype(np.uint8)
    return Drawn(found.channel * inside, scaled * inside)


class _Kernels(NamedTuple):
    """Compiled loops over cells."""

    scatter: Callable[..., None]
    bound: Callable[..., None]
    update: Callable[..., None]


@cache
def _kernels() -> _Kernels:
    """Compiled when they are first needed."""
    import numba

    compiled: list[Any] = [numba.njit(nogil=True)(one) for one in (_scatter, _bound, _update)]
    return _Kernels(*compiled)


def _scatter(channels: UInt16, shares: UInt16, channel: np.uint16, plane: Float32) -> None:  # pragma: no cover
    """The share of one class in every cell."""
    count, height, width = channels.shape
    for one in range(count):
        for y in range(height):
            for x in range(width):
                if channels[one, y, x] == channel and shares[one, y, x]:
                    plane[y, x] = np.float32(shares[one, y, x]) / np.float32(WHOLE)


def _bound(
    channels: UInt16, shares: UInt16, boxes: NDArray[np.int64], named: NDArray[np.int64]
) -> None:  # pragma: no cover - compiled
    """Where each class lies, and between which shares."""
    count, height, width = channels.shape
    for one in range(count):
        for y in range(height):
            for x in range(width):
                share = np.int64(shares[one, y, x])
                if share:
                    at = channels[one, y, x]
                    named[at] += 1
                    boxes[at, 0] = min(boxes[at, 0], share)
                    boxes[at, 1] = max(boxes[at, 1], share)
                    boxes[at, 2] = min(boxes[at, 2], y)
                    boxes[at, 3] = max(boxes[at, 3], y)
                    boxes[at, 4] = min(boxes[at, 4], x)
                    boxes[at, 5] = max(boxes[at, 5], x)


def _update(
    plane: Float32,
    one: np.uint16,
    channel: UInt16,
    best: Float32,
    second: Float32,
    total: Float32,
    entropy: Float32,
) -> None:  # pragma: no cover - compiled
    """Take in the probabilities of one more class."""
    height, width = plane.shape
    for y in range(height):
        for x in range(width):
            value = plane[y, x]
            if value <= 0:
                continue
            total[y, x] += value
            entropy[y, x] += value * np.log(value)
            if value > best[y, x]:
                second[y, x] = best[y, x]
                best[y, x] = value
                channel[y, x] = one
            elif value > second[y, x]:
                second[y, x] = value
