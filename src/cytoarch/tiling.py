"""The one way an image is cut into overlapping tiles and what was computed on them is put together again.

A tile plan is a value. The image is seen mirrored by a margin on every side, so that each of its pixels is well inside
some tile; tiles start at multiples of the step, so that the grid of an encoder's tokens is the same in all of them.
What is computed per tile is weighted by a window, summed in a fixed order, and divided by the sum of the weights;
only a band of tile rows is held in memory.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cytoarch.geometry import centres
from cytoarch.progress import Progress

Float32 = NDArray[np.float32]
WindowKind = Literal["radial", "gauss", "hann", "core"]

FLOOR = 1e-6
"""Least weight inside a window that does not vanish, so that every pixel keeps a positive weight sum."""


@dataclass(frozen=True)
class TilePlan:
    """How an image of height x width pixels is covered by square tiles.

    `cell_px` is the edge of an output cell: tile, step and margin are multiples of it, so that tiles agree on the
    output grid. The margin is mirrored image around the true one.
    """

    height: int
    width: int
    tile_px: int
    step_px: int
    margin_px: int
    cell_px: int

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1 or self.cell_px < 1:
            raise ValueError(f"an image of {self.height} x {self.width} px in cells of {self.cell_px} px has no tiles")
        for name in ("tile_px", "step_px", "margin_px"):
            if getattr(self, name) % self.cell_px:
                raise ValueError(f"{name} {getattr(self, name)} is no multiple of the output cell of {self.cell_px} px")
        if not 0 < self.step_px <= self.tile_px:
            raise ValueError(f"step_px {self.step_px} must lie between 1 and tile_px {self.tile_px}")

    @property
    def grid(self) -> tuple[int, int]:
        """(y, x) cells of the output: the image divided by the cell, rounded up so that no pixel is lost."""
        return -(-self.height // self.cell_px), -(-self.width // self.cell_px)

    def starts(self, size: int) -> range:
        """First pixels of the tiles along an axis of `size` pixels, in image coordinates (the first is -margin)."""
        covered = -(-size // self.cell_px) * self.cell_px + 2 * self.margin_px
        count = 1 + max(0, -(-(covered - self.tile_px) // self.step_px))
        return range(-self.margin_px, -self.margin_px + count * self.step_px, self.step_px)

    @property
    def rows(self) -> range:
        """First pixel rows of the tiles."""
        return self.starts(self.height)

    @property
    def columns(self) -> range:
        """First pixel columns of the tiles."""
        return self.starts(self.width)

    def columns_over(self, first: int, stop: int) -> range:
        """First pixel columns of the tiles that reach into the cells `first` to `stop` - 1 of every row.

        >>> [list(TilePlan(64, 64, 16, 8, 8, 4).columns_over(*strip)) for strip in ((0, 16), (8, 10))]
        [[-8, 0, 8, 16, 24, 32, 40, 48, 56], [24, 32]]
        """
        left, right = first * self.cell_px, stop * self.cell_px
        reaching = [at for at, x in enumerate(self.columns) if left < x + self.tile_px and x < right]
        return self.columns[reaching[0] : reaching[-1] + 1]

    @property
    def tile_count(self) -> int:
        """Number of tiles."""
        return len(self.rows) * len(self.columns)


def blending_window(kind: WindowKind, tile_px: int, cell_px: int = 1, halo_px: int = 0) -> Float32:
    """Weights (n, n) float32 of a tile's n = tile/cell output cells, largest at the centre.

    radial: raised cosine that reaches zero on the inscribed circle, with a small floor. gauss: sigma = tile/8.
    hann: separable. core: 1 inside, 0 within `halo_px` of the border, for operators whose reach is `halo_px`.
    """
    centre = centres(-1, 1, tile_px // cell_px)  # from the middle of the tile, in halves of its edge
    if kind == "core":
        inside = (np.abs(centre) * tile_px < tile_px - 2 * halo_px).astype(np.float32)
        return np.asarray(np.outer(inside, inside), dtype=np.float32)
    if kind == "radial":
        weights = _raised_cosine(np.hypot(centre[:, None], centre[None]))
    elif kind == "gauss":
        bell = np.exp(-8 * centre**2)
        weights = np.outer(bell, bell)
    else:
        hann = _raised_cosine(centre)
        weights = np.outer(hann, hann)
    return np.asarray(np.maximum(weights, FLOOR), dtype=np.float32)


def _raised_cosine(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    return (1 + np.cos(np.pi * np.minimum(distance, 1))) / 2


def partition(height: int, width: int, edge: int) -> Iterator[tuple[int, int, int, int]]:
    """Windows (y, x, height, width) that cover an image once, in reading order; the last of a row may be narrower.

    >>> list(partition(3, 5, 4))
    [(0, 0, 3, 4), (0, 4, 3, 1)]
    """
    for y in range(0, height, edge):
        for x in range(0, width, edge):
            yield y, x, min(edge, height - y), min(edge, width - x)


ReadTile = Callable[[int, int, int, int], Float32]
"""(y, x, height, width) -> (c, height, width); the window may reach beyond the image"""
ComputeTiles = Callable[[Float32], Float32]
"""(b, c, T, T) -> (b, k, T/cell, T/cell)"""


def evenly(count: int, most: int) -> NDArray[np.int64]:
    """At most so many of `count` places, evenly apart, the first and the last among them; none of none.

    >>> evenly(9, 3).tolist(), evenly(2, 3).tolist(), evenly(0, 3).tolist()
    ([0, 4, 8], [0, 1], [])
    """
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def map_tiles(
    compute: ComputeTiles,
    read: ReadTile,
    plan: TilePlan,
    window: Float32,
    channels: int,
    *,
    batch_size: int = 1,
    skip: Callable[[int, int, int, int], bool] | None = None,
    empty: Float32 | None = None,
    on_progress: Progress | None = None,
    strip: tuple[int, int] | None = None,
) -> Iterator[tuple[int, Float32]]:
    """Blend what `compute` gives for every tile; yields bands (first cell row, (k, rows, gx) float32), top to bottom.

    `channels` is k. Tiles for which `skip(y, x, height, width)` holds are not read: they count as `empty` (k,) with the
    same weights. Tiles are taken in reading order, in batches that do not cross tile rows, so that the result is a pure
    function of the arguments. With `strip` (first, stop) only these columns of cells are yielded, blended from the same
    tiles: where there are many channels a whole band is too much to hold. Raises ValueError if a cell is left without
    weight or a tile's result has another shape.
    """
    cell, n = plan.cell_px, plan.tile_px // plan.cell_px
    grid_rows, grid_columns = plan.grid
    margin = plan.margin_px // cell
    first_column, stop_column = strip or (0, grid_columns)
    columns = plan.columns if strip is None else plan.columns_over(*strip)
    band = _Band.empty(channels, n, (columns[-1] - columns[0] + plan.tile_px) // cell)
    own = slice(first_column - columns[0] // cell, stop_column - columns[0] // cell)
    background = np.zeros((channels, n, n), dtype=np.float32)
    if empty is not None:
        background += empty[:, None, None]
    done = 0
    for index, y in enumerate(plan.rows):
        wanted = [x for x in columns if skip is None or not skip(y, x, plan.tile_px, plan.tile_px)]
        results = _compute_row(compute, read, plan, y, wanted, batch_size, (channels, n, n))
        for x in columns:
            tile = next(results) if x in wanted else background
            band.add(np.ascontiguousarray(tile, dtype=np.float32), window, (x - columns[0]) // cell)
            done += 1
            if on_progress is not None:
                on_progress(done, len(plan.rows) * len(columns))
        last = index == len(plan.rows) - 1
        finished = n if last else plan.step_px // cell
        top = index * (plan.step_px // cell) - margin  # grid row of the first row held
        first, stop = max(0, -top), min(finished, grid_rows - top)
        if first < stop:
            yield top + first, band.blended(first, stop, own)
        band.roll_up(finished)


@dataclass
class _Band:
    """The rows of cells that tiles of the row at work reach, as a ring: rolled up by moving its first row."""

    total: Float32
    """(k, n, columns)."""
    weight: Float32
    """(n, columns)."""
    first: int = 0
    """Where the first row is held."""

    @classmethod
    def empty(cls, channels: int, rows: int, columns: int) -> "_Band":
        """Before the first tile."""
        total, weight = np.zeros((channels, rows, columns), np.float32), np.zeros((rows, columns), np.float32)
        return cls(total, weight)

    def add(self, tile: Float32, window: Float32, x: int) -> None:
        """Add a tile (k, n, n), weighted, from column x on."""
        _add_kernel()(self.total, self.weight, tile, window, self.first, x)

    def blended(self, first: int, stop: int, columns: slice) -> Float32:
        """Rows `first` to `stop` - 1 of the band (k, rows, columns), each cell divided by its weight."""
        held = (np.arange(first, stop) + self.first) % len(self.weight)
        cut = int(np.argmin(held)) if held[0] > held[-1] else len(held)
        parts = [slice(int(one[0]), int(one[-1]) + 1) for one in (held[:cut], held[cut:]) if len(one)]
        if not all((self.weight[rows, columns] > 0).all() for rows in parts):
            raise ValueError("the tiles leave cells without weight; a smaller step or a larger margin is needed")
        result = np.empty((len(self.total), stop - first, columns.stop - columns.start), dtype=np.float32)
        done = 0
        for rows in parts:
            height = rows.stop - rows.start
            np.divide(self.total[:, rows, columns], self.weight[rows, columns], out=result[:, done : done + height])
            done += height
        return result

    def roll_up(self, rows: int) -> None:
        """Leave the first rows behind; those that come free at the lower end are empty."""
        held = (np.arange(rows) + self.first) % len(self.weight)
        self.total[:, held] = 0
        self.weight[held] = 0
        self.first = (self.first + rows) % len(self.weight)


@cache
def _add_kernel() -> Callable[[Float32, Float32, Float32, Float32, int, int], None]:
    """Compiled when it is first needed; without fast-math, so that strips give the same bits."""
    import numba

    compiled: Callable[[Float32, Float32, Float32, Float32, int, int], None] = numba.njit(nogil=True)(_add)
    return compiled


def _add(
    total: Float32, weight: Float32, tile: Float32, window: Float32, first: int, left: int
) -> None:  # pragma: no cover - compiled
    """Add a weighted tile to a ring of rows, and its weights."""
    channels, n, _ = tile.shape
    for y in range(n):
        row = (first + y) % n
        sums, weights = weight[row, left : left + n], window[y]
        for x in range(n):
            sums[x] += weights[x]
    for channel in range(channels):
        for y in range(n):
            row = (first + y) % n
            sums, weights, values = total[channel, row, left : left + n], window[y], tile[channel, y]
            for x in range(n):
                sums[x] += weights[x] * values[x]


def _compute_row(
    compute: ComputeTiles,
    read: ReadTile,
    plan: TilePlan,
    y: int,
    columns: list[int],
    batch_size: int,
    shape: tuple[int, int, int],
) -> Iterator[Float32]:
    for first in range(0, len(columns), batch_size):
        batch = columns[first : first + batch_size]
        tiles = np.stack([read(y, x, plan.tile_px, plan.tile_px) for x in batch])
        results = compute(tiles)
        if results.shape != (len(batch), *shape):
            raise ValueError(f"computing {tiles.shape} gave {results.shape}; {(len(batch), *shape)} is needed")
        yield from results
