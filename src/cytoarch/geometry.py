"""Grids and transforms as values: the only place that knows that a cell's centre lies half a cell from its edge.

The frame of a section is (y, x) um, zero at the centre of the first pixel of its image in the store, as NGFF counts.
The grids of its products share the outer corner of that pixel, so that their first cells have other centres.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Pair = tuple[float, float]
Flip = Literal["none", "horizontal", "vertical"]

HALF = 0.5
"""From the edge of a cell to its centre, in cells."""
TOLERANCE = 1e-6
"""A place so near to an edge, in cells, lies on it: sizes such as 0.1 um are no exact numbers."""


@dataclass(frozen=True)
class Grid:
    """Square cells, each named by its row and column, at a stated place in the frame of a section."""

    shape: tuple[int, int]
    """(y, x) cells."""
    cell_um: float
    """Edge of a cell."""
    origin_um: Pair
    """(y, x) of the centre of the first cell."""

    def __post_init__(self) -> None:
        if min(self.shape) < 1:
            raise ValueError(f"a grid of {self.shape[0]} x {self.shape[1]} cells has none; at least 1 x 1 is needed")
        if not (math.isfinite(self.cell_um) and self.cell_um > 0):
            raise ValueError(f"cells of {self.cell_um} um have no place; a positive size is needed")

    @classmethod
    def at_corner(cls, shape: tuple[int, int], cell_um: float, corner_um: Pair) -> Self:
        """The grid whose first cell has its outer corner at a place (y, x) um.

        >>> Grid.at_corner((2, 3), 16.0, (-2.0, -2.0)).origin_um
        (6.0, 6.0)
        """
        return cls(shape, cell_um, (corner_um[0] + HALF * cell_um, corner_um[1] + HALF * cell_um))

    @property
    def corner_um(self) -> Pair:
        """(y, x) of the outer corner of the first cell."""
        return self.origin_um[0] - HALF * self.cell_um, self.origin_um[1] - HALF * self.cell_um

    @property
    def extent_um(self) -> Pair:
        """(y, x) edge lengths of the whole."""
        return self.shape[0] * self.cell_um, self.shape[1] * self.cell_um

    @property
    def corners_um(self) -> Float64:
        """(4, 2) (y, x) of the outer corners of the whole.

        >>> Grid((2, 3), 16.0, (8.0, 8.0)).corners_um.tolist()
        [[0.0, 0.0], [32.0, 0.0], [0.0, 48.0], [32.0, 48.0]]
        """
        (top, left), (height, width) = self.corner_um, self.extent_um
        return np.array([[top, left], [top + height, left], [top, left + width], [top + height, left + width]])

    @property
    def centre_um(self) -> Pair:
        """(y, x) of the middle of the whole."""
        (top, left), (height, width) = self.corner_um, self.extent_um
        return top + HALF * height, left + HALF * width

    @property
    def transform(self) -> "Transform":
        """From cells (y, x), zero at the centre of the first one, to um."""
        return Transform.scaling((self.cell_um, self.cell_um)).then(Transform.shift(self.origin_um))

    def um(self, cells: NDArray[Any]) -> Float64:
        """(..., 2) um of places (..., 2) in cells, zero at the centre of the first one.

        >>> Grid((4, 4), 10.0, (3.0, 3.0)).um(np.array([0.0, 2.5])).tolist()
        [3.0, 28.0]
        """
        return np.asarray(np.asarray(cells, dtype=np.float64) * self.cell_um + np.array(self.origin_um))

    def cells(self, um: NDArray[Any]) -> Float64:
        """(..., 2) in cells, zero at the centre of the first one, of places (..., 2) um; the inverse of `um`."""
        return np.asarray((np.asarray(um, dtype=np.float64) - np.array(self.origin_um)) / self.cell_um)

    def from_corner(self, um: NDArray[Any]) -> Float64:
        """(..., 2) in cells, zero at the corner of the first one, of places (..., 2) um.

        >>> Grid((4, 4), 10.0, (3.0, 3.0)).from_corner(np.array([3.0, 8.0])).tolist()
        [0.5, 1.0]
        """
        return np.asarray((np.asarray(um, dtype=np.float64) - np.array(self.corner_um)) / self.cell_um)

    def holds(self, um: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether places (..., 2) um lie in the grid, its edge included."""
        places = self.from_corner(um)
        return np.asarray(((places >= -TOLERANCE) & (places <= np.array(self.shape) + TOLERANCE)).all(axis=-1))

    def centres_um(self) -> tuple[Float64, Float64]:
        """The y of every row's centre and the x of every column's (um)."""
        y, x = (
            at + np.arange(n, dtype=np.float64) * self.cell_um for at, n in zip(self.origin_um, self.shape, strict=True)
        )
        return y, x

    # -- other grids at the same corner

    def covered_by(self, cell_um: float) -> Self:
        """The grid of cells of another size that starts at the same corner and leaves nothing uncovered.

        >>> Grid((3, 5), 2.0, (0.0, 0.0)).covered_by(4.0)
        Grid(shape=(2, 3), cell_um=4.0, origin_um=(1.0, 1.0))
        """
        height, width = (max(1, math.ceil(edge / cell_um - TOLERANCE)) for edge in self.extent_um)
        return self._at_same_corner((height, width), cell_um)

    def grouped(self, count: int) -> Self:
        """The grid whose cells are `count` x `count` of these; what is left over at the far edges gets cells, too.

        >>> Grid((3, 5), 2.0, (0.0, 0.0)).grouped(2)
        Grid(shape=(2, 3), cell_um=4.0, origin_um=(1.0, 1.0))
        """
        shape = -(-self.shape[0] // count), -(-self.shape[1] // count)
        return self._at_same_corner(shape, self.cell_um * count)

    def split(self, count: int) -> Self:
        """The grid in which every cell is cut into `count` x `count`.

        >>> Grid((2, 3), 4.0, (1.0, 1.0)).split(4)
        Grid(shape=(8, 12), cell_um=1.0, origin_um=(-0.5, -0.5))
        """
        shape = self.shape[0] * count, self.shape[1] * count
        return self._at_same_corner(shape, self.cell_um / count)

    def _at_same_corner(self, shape: tuple[int, int], cell_um: float) -> Self:
        y, x = self.origin_um  # moved, not computed from the corner: cells of the same size keep their place to the bit
        moved = HALF * (cell_um - self.cell_um)
        return type(self)(shape, cell_um, (y + moved, x + moved))

    def window(self, y: int, x: int, height: int, width: int) -> Self:
        """The grid of some of these cells; a window may reach beyond the whole.

        >>> Grid((9, 9), 2.0, (0.0, 0.0)).window(-1, 3, 2, 4)
        Grid(shape=(2, 4), cell_um=2.0, origin_um=(-2.0, 6.0))
        """
        top, left = self.um(np.array([y, x])).tolist()
        return type(self)((height, width), self.cell_um, (top, left))

    # -- two grids

    def places_in(self, other: "Grid") -> tuple[Int64, Int64]:
        """The rows and columns of another grid that the centres of these rows and columns lie in.

        Beyond the other grid they are negative or its size and more. A centre on an edge lies in the later cell.

        >>> [one.tolist() for one in Grid((3, 2), 2.0, (1.0, 7.0)).places_in(Grid((2, 2), 3.0, (1.5, 1.5)))]
        [[0, 1, 1], [2, 3]]
        """
        rows, columns = (
            np.floor((centres - corner) / other.cell_um + TOLERANCE).astype(np.int64)
            for centres, corner in zip(self.centres_um(), other.corner_um, strict=True)
        )
        return rows, columns

    def nearest_in(self, other: "Grid") -> tuple[Int64, Int64]:
        """The same, with the outermost row or column where a centre lies beyond the other grid."""
        rows, columns = (np.clip(at, 0, n - 1) for at, n in zip(self.places_in(other), other.shape, strict=True))
        return rows, columns

    def corners_in(self, other: "Grid") -> "Transform":
        """From places (y, x) in cells of this grid to those of another, both zero at the corner of the first cell.

        >>> Grid((4, 4), 8.0, (6.0, 6.0)).corners_in(Grid((16, 16), 2.0, (0.0, 0.0)))(np.array([1.0, 0.5])).tolist()
        [5.5, 3.5]
        """
        factor = self.cell_um / other.cell_um
        first = other.from_corner(np.array(self.corner_um)).tolist()
        return Transform.scaling((factor, factor)).then(Transform.shift((first[0], first[1])))

    def overlap(self, other: "Grid") -> tuple[slice, slice]:
        """The rows and columns of this grid that another one covers, wholly or in part; empty where they lie apart.

        >>> Grid((9, 9), 2.0, (1.0, 1.0)).overlap(Grid((2, 1), 3.0, (4.5, -9.0)))
        (slice(1, 5, None), slice(0, 0, None))
        """
        first = self.from_corner(np.array(other.corner_um))
        last = self.from_corner(np.array(other.corner_um) + np.array(other.extent_um))
        rows, columns = (
            slice(*np.clip([math.floor(start + TOLERANCE), math.ceil(stop - TOLERANCE)], 0, n).tolist())
            for start, stop, n in zip(first, last, self.shape, strict=True)
        )
        return rows, columns


def centres(start: float, stop: float, count: int) -> Float64:
    """The centres (count,) of so many equal parts of a length.

    >>> centres(-1, 1, 4).tolist()
    [-0.75, -0.25, 0.25, 0.75]
    """
    return start + (np.arange(count, dtype=np.float64) + HALF) * ((stop - start) / count)


def first_around(centre: float, count: int) -> int:
    """The first of `count` cells in a row whose middle lies nearest to a place, which counts in cells from a corner.

    >>> first_around(10.0, 4), first_around(10.5, 4), first_around(10.0, 5)
    (8, 9, 8)
    """
    return math.floor(centre - HALF * count + HALF)


@dataclass(frozen=True)
class Transform:
    """An affine map from places (..., n) to places (..., m)."""

    matrix: tuple[tuple[float, ...], ...]
    """m rows of n factors and what is added."""

    @classmethod
    def of(cls, linear: NDArray[Any], added: NDArray[Any]) -> Self:
        """The map linear @ place + added; linear (m, n), added (m,)."""
        rows = np.column_stack([linear, added]).astype(np.float64).tolist()
        return cls(tuple(tuple(row) for row in rows))

    @classmethod
    def scaling(cls, factors: tuple[float, ...]) -> Self:
        """The map that multiplies every axis by a factor of its own."""
        return cls.of(np.diag(factors), np.zeros(len(factors)))

    @classmethod
    def shift(cls, added: tuple[float, ...]) -> Self:
        """The map that adds the same to every place."""
        return cls.of(np.eye(len(added)), np.array(added))

    @classmethod
    def orientation(cls, flip: Flip, rotation_degrees: float) -> Self:
        """The map of (y, x), y downwards, about zero: mirrored as stated, then turned counter-clockwise as one sees it.

        >>> Transform.orientation("none", 90)(np.array([0.0, 1.0])).round(9).tolist()  # the right becomes the top
        [-1.0, 0.0]
        """
        cos, sin = math.cos(math.radians(rotation_degrees)), math.sin(math.radians(rotation_degrees))
        mirror = np.diag([-1.0 if flip == "vertical" else 1.0, -1.0 if flip == "horizontal" else 1.0])
        return cls.of(np.array([[cos, -sin], [sin, cos]]) @ mirror, np.zeros(2))

    @property
    def linear(self) -> Float64:
        """(m, n)."""
        return np.array(self.matrix)[:, :-1]

    @property
    def added(self) -> Float64:
        """(m,)."""
        return np.array(self.matrix)[:, -1]

    def __call__(self, places: NDArray[Any]) -> Float64:
        """Places (..., n) float, mapped: (..., m)."""
        return np.asarray(np.asarray(places, dtype=np.float64) @ self.linear.T + self.added)

    def then(self, following: "Transform") -> "Transform":
        """The map that does this one first and the following one after it.

        >>> Transform.shift((1.0, 2.0)).then(Transform.scaling((10.0, 10.0)))(np.zeros(2)).tolist()
        [10.0, 20.0]
        """
        return Transform.of(following.linear @ self.linear, following(self.added))

    def inverse(self) -> "Transform":
        """The way back. From more axes than there were (a section in its brain), it is that of the nearest such place.

        Raises ValueError where places are mapped onto each other, which has no way back.
        """
        if np.linalg.matrix_rank(self.linear) < self.linear.shape[1]:
            raise ValueError(f"{self.matrix} maps different places to one: it has no inverse")
        back = np.linalg.pinv(self.linear)
        return Transform.of(back, -back @ self.added)


def scan_to_section(image: Grid, region_px: tuple[int, int, int, int] | None) -> Transform:
    """From pixels (y, x) of a scan, zero at the centre of the first one, to um in the frame of a section cut from it.

    `image` is the finest level of the section; `region_px` (y0, y1, x0, x1) its place on the scan, None: all of it.
    """
    first = (0, 0) if region_px is None else (region_px[0], region_px[2])
    return Transform.shift((-first[0], -first[1])).then(image.transform)


def scan_corner_to_section(image: Grid, region_px: tuple[int, int, int, int] | None) -> Transform:
    """The same from pixels (y, x) that count from the corner of the scan's first one, as QuPath's do.

    >>> scan_corner_to_section(Grid((4, 4), 2.0, (0.0, 0.0)), None)(np.array([0.5, 1.0])).tolist()
    [0.0, 1.0]
    """
    return Transform.shift((-HALF, -HALF)).then(scan_to_section(image, region_px))


def section_to_brain(image: Grid, flip: Flip, rotation_degrees: float, position_um: float | None) -> Transform:
    """From (y, x) um in the frame of a section to mm in a stack of sections that lie centre on centre.

    The result is (x, y, z), z the place along the cutting axis; where that is not stated it is (x, y).
    """
    centred = Transform.shift((-image.centre_um[0], -image.centre_um[1]))
    upright = centred.then(Transform.orientation(flip, rotation_degrees)).then(Transform.scaling((1e-3, 1e-3)))
    y_x_to_x_y = np.array([[0.0, 1.0], [1.0, 0.0]])
    if position_um is None:
        return upright.then(Transform.of(y_x_to_x_y, np.zeros(2)))
    return upright.then(Transform.of(np.vstack([y_x_to_x_y, np.zeros(2)]), np.array([0.0, 0.0, position_um / 1000])))
