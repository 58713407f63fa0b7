"""The middle of the cortex of a section as lines, and points along them.

Two ways. Where depth is known, the middle is where it is one half, traced between cells. Where it is not (no white
matter was told from grey), it is the skeleton of the cortex, its spurs pruned, ordered from end to end. Points are
equally far apart along a line; a line begins half a spacing from its end, so that a length of l mm holds l / spacing
points.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage
from skimage import measure
from skimage.morphology import skeletonize

from cytoarch.anatomy.ribbons import Float64, Int64, Mask
from cytoarch.geometry import HALF, Grid
from cytoarch.settings import Settings

MIDDLE = 0.5
"""Depth of the middle."""

STEP_CELLS = 0.25
"""Of following a gradient."""
_STILL = 1e-9

MidlineKind = Literal["depth", "skeleton", "surface"]


class MidlineSettings(Settings):
    """Where along the cortex points are taken."""

    line: MidlineKind = Field(
        title="What the middle is",
        default="depth",
        description="depth: where depth is one half; skeleton: of the grey matter, where no white matter is told; "
        "surface: where the section cuts the middle surface of the reconstructed brain.",
    )
    spacing_um: float = Field(
        title="Spacing of points along the cortex (um)",
        default=1000.0,
        ge=10,
        le=100_000,
        description="Between points, along a line (um).",
    )
    patch_um: float = Field(
        title="Patch around a point (um)",
        default=1024.0,
        ge=10,
        le=100_000,
        description="Edge of the patch that holds tissue (um); 4096 in CytoNet.",
    )
    tissue_share: float = Field(
        title="Least tissue in a patch (share)",
        default=0.5,
        ge=0,
        le=1,
        description="Least share of its patch that is tissue, for a point to be kept.",
    )
    farthest_um: float = Field(
        default=2000.0, ge=0, le=20_000, description="Lines of a surface are moved to the middle by at most this (um)."
    )
    shortest_um: float = Field(
        default=1000.0, ge=0, le=100_000, description="Lines and spurs below this are left out (um)."
    )


@dataclass(frozen=True)
class Line:
    """A line along the cortex."""

    places: Float64
    """(n, 2) y, x in cells of the grid; zero is the centre of the first cell."""
    closed: bool

    def length(self) -> float:
        """In cells."""
        return float(np.linalg.norm(np.diff(self.places, axis=0), axis=1).sum())


def depth_field(depth: NDArray[np.float32], cortex: Mask, white: Mask) -> Float64:
    """Depth (y, x) float64 that goes on beyond the sides of the cortex: 1 in white matter, 0 elsewhere.

    So cortex of a single cell has a middle, too.
    """
    return np.where(cortex, depth, np.where(white, 1.0, 0.0)).astype(np.float64)


def depth_lines(depth: NDArray[np.float32], cortex: Mask, white: Mask, shortest: float) -> list[Line]:
    """The lines in the cortex (y, x) where depth is one half, at least `shortest` cells long."""
    field = depth_field(depth, cortex, white)
    parts: list[Float64] = []
    for contour in measure.find_contours(field, MIDDLE):
        parts += _runs(contour, _inside(contour, cortex))
    return [one for one in map(_line, parts) if len(one.places) > 1 and one.length() >= shortest]


def skeleton_lines(cortex: Mask, shortest: float) -> list[Line]:
    """The lines along the skeleton of cortex (y, x), spurs and pieces below `shortest` cells left out.

    Branches that are left meet where the skeleton did: every one is a line of its own (skan).
    """
    from skan import Skeleton, summarize

    bones = skeletonize(cortex)
    while bones.sum() > 1:
        graph = Skeleton(bones)
        table = summarize(graph, separator="_")
        # a spur ends freely on one side and meets others on the other (branch type 1)
        spurs = table.index[(table["branch_type"] == 1) & (table["branch_distance"] < shortest)]
        if not len(spurs):
            break
        neighbours = ndimage.convolve(bones.astype(np.int64), np.ones((3, 3), dtype=np.int64), mode="constant") - 1
        shortest_first = spurs[np.argsort(table.loc[spurs, "branch_distance"])]
        for spur in shortest_first[: max(1, len(spurs) // 2)]:  # the others may be no spurs then
            path = tuple(graph.path_coordinates(int(spur)).astype(np.int64).T)
            bones[path] &= neighbours[path] > 2  # where branches meet, the others go on
        bones = skeletonize(bones)
    if bones.sum() < 2:
        return []
    graph = Skeleton(bones)
    lines = [_line(graph.path_coordinates(path).astype(np.float64)) for path in range(graph.n_paths)]
    return [one for one in lines if one.length() >= shortest]


def smoothed(line: Line, sigma: float) -> Line:
    """A line of cells without its steps: a Gaussian along it, its ends kept."""
    mode = "wrap" if line.closed else "nearest"
    places = ndimage.gaussian_filter1d(line.places, sigma, axis=0, mode=mode)
    if not line.closed:
        places[[0, -1]] = line.places[[0, -1]]
    return Line(places, line.closed)


def points_along(lines: Sequence[Line], spacing: float) -> tuple[Float64, Int64]:
    """Places (n, 2) every `spacing` cells along lines, and the number (n,) of the line each lies on."""
    places: list[Float64] = [np.empty((0, 2))]
    numbers: list[Int64] = [np.empty(0, dtype=np.int64)]
    for number, line in enumerate(lines):
        along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line.places, axis=0), axis=1))])
        at = np.arange(HALF * min(spacing, along[-1]), along[-1], spacing)
        places.append(np.stack([np.interp(at, along, line.places[:, axis]) for axis in (0, 1)], axis=1))
        numbers.append(np.full(len(at), number, dtype=np.int64))
    return np.concatenate(places), np.concatenate(numbers)


def tissue_shares(tissue: Mask, grid: Grid, places_um: Float64, edge_um: float) -> Float64:
    """The share (n,) of tissue in a square around every place (n, 2) um; beyond the mask (y, x) there is none.

    The sums of a square are four values of the summed mask, linear between cells, so that the square need not
    consist of whole cells.
    """
    summed = np.pad(tissue.astype(np.float64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    (low_y, low_x), (high_y, high_x) = (grid.from_corner(places_um + sign * HALF * edge_um).T for sign in (-1.0, 1.0))

    def total(y: Float64, x: Float64) -> Float64:
        return np.asarray(ndimage.map_coordinates(summed, [y, x], order=1, mode="nearest"))

    sums = total(high_y, high_x) - total(low_y, high_x) + total(low_y, low_x) - total(high_y, low_x)
    return np.clip(sums * (grid.cell_um / edge_um) ** 2, 0, 1)


def moved_to_middle(
    places: Float64, depth: NDArray[np.float32], cortex: Mask, white: Mask, limit: float
) -> tuple[Float64, Float64]:
    """Places (n, 2) in cells moved along the gradient of depth to where it is one half, and how far (n,) each went.

    None goes further than `limit` cells, nor out of the cortex; one that lies outside it stays (CytoNet allows 2 mm).
    The gradient is followed by steps of a quarter of a cell (midpoint rule).
    """
    field = depth_field(depth, cortex, white)
    slopes = np.asarray(np.gradient(field))
    found, gone = places.astype(np.float64, copy=True), np.zeros(len(places))
    going = _inside(found, cortex)
    side = np.sign(MIDDLE - value_at(field, found))
    while going.any():
        here = found[going]
        step = np.minimum(STEP_CELLS, limit - gone[going])[:, None]
        half = here + HALF * step * side[going][:, None] * uphill(slopes, here)
        ahead = here + step * side[going][:, None] * uphill(slopes, half)
        value, before = value_at(field, ahead), value_at(field, here)
        crossed = np.sign(MIDDLE - value) != side[going]
        change = np.where(value == before, 1.0, value - before)
        part = np.where(crossed, np.clip((MIDDLE - before) / change, 0, 1), 1.0)
        still = np.linalg.norm(ahead - here, axis=1) < _STILL
        inside = _inside(ahead, cortex) & ~still
        moved = np.where(inside[:, None], here + part[:, None] * (ahead - here), here)
        index = np.flatnonzero(going)
        gone[index] += np.linalg.norm(moved - here, axis=1)
        found[index] = moved
        going[index] = inside & ~crossed & (gone[index] < limit - _STILL)
    return found, gone


def uphill(slopes: Float64, places: Float64) -> Float64:
    """Unit vectors (n, 2) along the gradient (2, y, x) of a field at places (n, 2) in cells, zero where it vanishes."""
    vectors = np.stack([value_at(one, places) for one in slopes], axis=1)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > _STILL, length, np.inf))


def value_at(values: Float64, places: Float64) -> Float64:
    """Values (n,) of a field (y, x) at places (n, 2) in cells, linear between them."""
    return np.asarray(ndimage.map_coordinates(values, places.T, order=1, mode="nearest"))


def _line(places: Float64) -> Line:
    return Line(places, len(places) > 2 and bool(np.array_equal(places[0], places[-1])))


def _inside(places: Float64, mask: Mask) -> Mask:
    """Whether places (n, 2) lie in cells of a mask."""
    cells = np.rint(places).astype(np.int64)
    return np.asarray(mask[tuple(np.clip(cells, 0, np.array(mask.shape) - 1).T)])


def _runs(places: Float64, kept: Mask) -> list[Float64]:
    """The stretches of a line that are kept; a closed one that is kept in part begins where something is missing."""
    if kept.all():
        return [places]
    if np.array_equal(places[0], places[-1]):
        first = int(np.argmin(kept))
        places, kept = np.roll(places[:-1], -first, axis=0), np.roll(kept[:-1], -first)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], kept.astype(np.int8), [0]])))
    return [places[start:stop] for start, stop in edges.reshape(-1, 2)]
