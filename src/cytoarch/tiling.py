"""The one way an image is cut into overlapping tiles and what was computed on them is put together again.

A tile plan is a value. The image is seen mirrored by a margin on every side, so that each of its pixels is well inside
some tile; tiles start at multiples of the step, so that the grid of an encoder's tokens is the same in all of them.
What is computed per tile is weighted by a window, summed in a fixed order, and divided by the sum of the weights;
only a band of tile rows is held in memory.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
) -> Iterator[tuple[int, Float32]]:
    """Blend what `compute` gives for every tile; yields bands (first cell row, (k, rows, gx) float32), top to bottom.

    `channels` is k. Tiles for which `skip(y, x, height, width)` holds are not read: they count as `empty` (k,) with the
    same weights. Tiles are taken in reading order, in batches that do not cross tile rows, so that the result is a pure
    function of the arguments. Raises ValueError if a cell is left without weight or a tile's result has another shape.
    """
    cell, n = plan.cell_px, plan.tile_px // plan.cell_px
    grid_rows, grid_columns = plan.grid
    margin = plan.margin_px // cell
    band_columns = (plan.columns[-1] - plan.columns[0] + plan.tile_px) // cell
    total = np.zeros((channels, n, band_columns), dtype=np.float32)
    weight = np.zeros((n, band_columns), dtype=np.float32)
    background = np.zeros(channels, dtype=np.float32) if empty is None else empty
    done = 0
    for index, y in enumerate(plan.rows):
        wanted = [x for x in plan.columns if skip is None or not skip(y, x, plan.tile_px, plan.tile_px)]
        results = _compute_row(compute, read, plan, y, wanted, batch_size, (channels, n, n))
        for x in plan.columns:
            at = (x - plan.columns[0]) // cell
            tile = next(results) if x in wanted else background[:, None, None]
            total[:, :, at : at + n] += window * tile
            weight[:, at : at + n] += window
            done += 1
            if on_progress is not None:
                on_progress(done, plan.tile_count)
        last = index == len(plan.rows) - 1
        finished = n if last else plan.step_px // cell
        top = index * (plan.step_px // cell) - margin  # grid row of the first row held
        first, stop = max(0, -top), min(finished, grid_rows - top)
        if first < stop:
            kept = (slice(first, stop), slice(margin, margin + grid_columns))
            if not (weight[kept] > 0).all():
                raise ValueError("the tiles leave cells without weight; a smaller step or a larger margin is needed")
            yield top + first, total[(slice(None), *kept)] / weight[kept]
        _roll_up(total, finished)
        _roll_up(weight, finished)


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


def _roll_up(band: Float32, rows: int) -> None:
    """Move the rows of a band up by `rows` and clear those that come free at its lower end."""
    kept = band.shape[-2] - rows
    if kept > 0:
        band[..., :kept, :] = band[..., rows:, :].copy()
    band[..., max(kept, 0) :, :] = 0
