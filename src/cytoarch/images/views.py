"""Images in the store, read at any pixel size: the right pyramid level, brought to exactly the size asked for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import zarr
from numpy.typing import NDArray

from cytoarch.errors import SectionError, StoreError
from cytoarch.geometry import Grid

Array = NDArray[Any]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Level:
    """One level of an image: its pixels, their edge and the centre of the first one (um)."""

    array: "zarr.Array[Any]"
    pixel_size_um: float
    origin_um: float

    @property
    def size(self) -> tuple[int, int]:
        """(y, x)."""
        return int(self.array.shape[-2]), int(self.array.shape[-1])

    @property
    def grid(self) -> Grid:
        """Where its pixels lie."""
        return Grid(self.size, self.pixel_size_um, (self.origin_um, self.origin_um))

    def pixels(self, y: slice = slice(None), x: slice = slice(None)) -> Array:
        """A window (c, h, w) or (h, w). Raises SectionError if what is stored cannot be decoded, or fails its crc."""
        try:
            return np.asarray(self.array[..., y, x])
        except (ValueError, RuntimeError) as error:
            raise SectionError(self._damaged(error)) from None

    def at(self, places_um: NDArray[np.float64]) -> Array:
        """The pixels (n,) of a label image at places (n, 2) y, x um; 0 beyond. Raises SectionError if it is damaged."""
        rows, columns = np.rint(self.grid.cells(places_um)).astype(np.int64).T
        inside = (rows >= 0) & (rows < self.size[0]) & (columns >= 0) & (columns < self.size[1])
        found = np.zeros(len(places_um), dtype=self.array.dtype)
        try:
            found[inside] = self.array.vindex[rows[inside], columns[inside]]
        except (ValueError, RuntimeError) as error:
            raise SectionError(self._damaged(error)) from None
        return found

    def _damaged(self, error: Exception) -> str:
        return (
            f"{self.array.store_path}: pixels cannot be read ({error}): the file is damaged. Delete the record of "
            "what it belongs to and run the step that made it again"
        )


@dataclass(frozen=True)
class StoredImage:
    """An NGFF image of the store, opened for reading; axes (c, y, x) or (y, x)."""

    levels: tuple[Level, ...]
    attributes: dict[str, Any]
    """Our own attributes."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the image in a folder. Raises StoreError if there is none, or if y and x are measured differently."""
        try:
            return cls._opened(path)
        except (FileNotFoundError, LookupError, TypeError, ValueError) as error:
            raise StoreError(f"{path} holds no readable NGFF image ({error})") from None

    @classmethod
    def _opened(cls, path: Path) -> Self:
        group = zarr.open_group(path, mode="r", zarr_format=3)
        attributes = dict(group.attrs)
        ome: Any = attributes.get("ome", {})
        if "multiscales" not in ome:
            raise StoreError(f"{path} is a Zarr group but no NGFF image")
        levels: list[Level] = []
        for dataset in ome["multiscales"][0]["datasets"]:
            scale, translation = (t[t["type"]] for t in dataset["coordinateTransformations"])
            if scale[-2] != scale[-1] or translation[-2] != translation[-1]:
                raise StoreError(
                    f"{path / dataset['path']}: pixels of {scale[-2]} x {scale[-1]} um from {translation[-2]}, "
                    f"{translation[-1]} um; square pixels that start at the same distance along y and x are needed"
                )
            array = zarr.open_array(path / dataset["path"], mode="r", zarr_format=3)
            levels.append(Level(array, float(scale[-1]), float(translation[-1])))
        own: Any = attributes.get("cytoarch", {})
        return cls(tuple(levels), dict(own))

    @property
    def folder(self) -> Path:
        """The folder it lies in."""
        return Path(self.levels[0].array.store.root).parent  # type: ignore[attr-defined]  # a local store

    @property
    def pixel_size_um(self) -> float:
        """Pixel edge of the finest level (um)."""
        return self.levels[0].pixel_size_um

    @property
    def grid(self) -> Grid:
        """Where the pixels of the finest level lie."""
        return self.levels[0].grid

    @property
    def channels(self) -> int:
        """Length of the channel axis, 1 where there is none."""
        return int(self.levels[0].array.shape[0]) if self.levels[0].array.ndim == 3 else 1

    @property
    def extent_um(self) -> tuple[float, float]:
        """(y, x) edge lengths of the image (um)."""
        return self.grid.extent_um

    def level_for(self, pixel_size_um: float) -> Level:
        """The coarsest level that is no coarser than asked for, or the finest there is."""
        fitting = [level for level in self.levels if level.pixel_size_um <= pixel_size_um * 1.0001]
        return fitting[-1] if fitting else self.levels[0]

    def at(self, pixel_size_um: float) -> "View":
        """The image on a grid of exactly `pixel_size_um`, whose first pixel shares its corner with the image's."""
        return self.on(self.grid.covered_by(pixel_size_um))

    def on(self, grid: Grid) -> "View":
        """The image on a grid, wherever that lies."""
        return View(self.level_for(grid.cell_um), grid)


@dataclass(frozen=True)
class View:
    """An image resampled to a grid, read by window; windows may reach beyond the grid and see it mirrored."""

    level: Level
    grid: Grid

    @property
    def pixel_size_um(self) -> float:
        """Edge of a pixel (um)."""
        return self.grid.cell_um

    @property
    def height(self) -> int:
        """Rows."""
        return self.grid.shape[0]

    @property
    def width(self) -> int:
        """Columns."""
        return self.grid.shape[1]

    def read(self, y: int, x: int, height: int, width: int) -> Float32:
        """The window (c, height, width) float32 at (y, x), linearly interpolated from the level below it; a new array.

        A pixel's value does not depend on the window it is read in. Beyond the grid the pixels are mirrored about
        the centre of the outermost ones.
        """
        rows = mirrored(np.arange(y, y + height), self.height)
        columns = mirrored(np.arange(x, x + width), self.width)
        top, left = int(rows.min()), int(columns.min())
        seen = slice(top, int(rows.max()) + 1), slice(left, int(columns.max()) + 1)
        resampling = Resampling.between(self.level.grid, self.grid, *seen)
        block = self.level.pixels(*resampling.window).astype(np.float32)
        block = resampling(block if block.ndim == 3 else block[None])
        if block.shape[-2:] == (height, width) and top == y and left == x:
            return np.ascontiguousarray(block)  # nothing is mirrored
        return np.ascontiguousarray(block[:, rows - top][:, :, columns - left])


@dataclass(frozen=True)
class Resampling:
    """How the cells of one grid are interpolated from those of another."""

    rows: "_Weights"
    columns: "_Weights"

    @classmethod
    def between(cls, below: Grid, seen: Grid, rows: slice, columns: slice) -> Self:
        """From the cells of `below` to some rows and columns of `seen`; beyond it, as it is at its edge."""
        um = zip(seen.centres_um(), (rows, columns), below.origin_um, below.shape, strict=True)
        return cls(*(_Weights.of((centres[own] - first) / below.cell_um, size) for centres, own, first, size in um))

    @property
    def window(self) -> tuple[slice, slice]:
        """The rows and columns of the grid below that are needed."""
        return slice(self.rows.first, self.rows.last + 1), slice(self.columns.first, self.columns.last + 1)

    def __call__(self, block: Float32) -> Float32:
        """(c, y, x) float32 of that window -> (c, y, x) of the grid seen."""
        return _interpolate(_interpolate(block, self.rows, axis=-2), self.columns, axis=-1)


@dataclass(frozen=True)
class _Weights:
    """Between which pixels of a level the pixels of a view lie along an axis."""

    lower: NDArray[np.int64]
    upper: NDArray[np.int64]
    fraction: Float32

    @classmethod
    def of(cls, places: NDArray[np.float64], size: int) -> Self:
        """For places in pixels of a level: the two pixels each lies between, and how far along."""
        positions = np.clip(places, 0, size - 1)
        lower = np.minimum(np.floor(positions + 1e-9).astype(np.int64), max(size - 2, 0))
        upper = np.minimum(lower + 1, size - 1)
        return cls(lower, upper, np.clip(positions - lower, 0, 1).astype(np.float32))

    @property
    def first(self) -> int:
        return int(self.lower.min())

    @property
    def last(self) -> int:
        return int(self.upper.max())


def _interpolate(block: Float32, weights: _Weights, axis: int) -> Float32:
    if (
        not weights.fraction.any()
        and (weights.lower == np.arange(weights.first, weights.first + len(weights.lower))).all()
    ):
        return block[:, : len(weights.lower)] if axis == -2 else block[..., : len(weights.lower)]
    fraction = weights.fraction[:, None] if axis == -2 else weights.fraction
    lower = np.take(block, weights.lower - weights.first, axis=axis)
    upper = np.take(block, weights.upper - weights.first, axis=axis)
    return np.asarray(lower + (upper - lower) * fraction, dtype=np.float32)


def mirrored(indices: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Indices beyond 0..size-1 mirrored back inside, the outermost not repeated.

    >>> mirrored(np.arange(-2, 5), 3).tolist()
    [2, 1, 0, 1, 2, 1, 0]
    """
    if size == 1:
        return np.zeros_like(indices)
    period = 2 * (size - 1)
    folded = np.abs(indices) % period
    return np.where(folded < size, folded, period - folded)


def intensity_range(
    image: StoredImage, low: float = 0.5, high: float = 99.5, max_pixels: int = 4_000_000
) -> list[list[float]]:
    """Per channel the `low` and `high` percentiles of the finest level of at most `max_pixels` pixels.

    Constant channels get a range of one grey value, so that dividing by it is safe.
    """
    level = next((one for one in image.levels if one.size[0] * one.size[1] <= max_pixels), image.levels[-1])
    pixels = level.pixels()
    planes = pixels if pixels.ndim == 3 else pixels[None]
    ranges = []
    for plane in planes:
        bounds = np.percentile(plane, (low, high))
        ranges.append([float(bounds[0]), float(max(bounds[1], bounds[0] + 1.0))])
    return ranges
