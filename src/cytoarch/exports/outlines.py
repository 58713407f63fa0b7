"""Label maps as outlines: polygons with holes whose neighbours share their borders, simplified within a bound."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize, shapes
from scipy.ndimage import distance_transform_edt

from cytoarch.images.label_ids import counted_ids

Shapes = dict[int, "shapely.MultiPolygon"]
"""By label value; 0 has none."""

LARGEST_AREA_ERROR = 0.01
"""Share of its area that no label gains or loses by simplification."""
TRIED = (1.0, 0.75, 0.5, 0.375)
"""Parts of the tolerance, tried from the strongest; if none keeps both bounds, only straight runs are merged."""
SMALL_CELLS = 24
"""Simplification would eat parts that are smaller."""


@dataclass(frozen=True)
class Outlines:
    """The outlines of a label map, in its cells (x, y), zero at the corner of the first one."""

    shapes: Shapes
    cells: dict[int, int]
    """Cells of each label in the map itself."""


def outlines_of(values: NDArray[Any], tolerance_cells: float) -> Outlines:
    """The outlines of every label of a map (y, x); value 0 is ground.

    Labels never overlap, and a border that two labels share stays shared. No corner of an outline moves further than
    the tolerance from the outline that replaces it, and no label's area changes by more than `LARGEST_AREA_ERROR`:
    where simplification by Visvalingam and Whyatt (1993) at the tolerance would do either, less of it is done. Parts
    of fewer than `SMALL_CELLS` cells keep their shape. Cells that touch at a corner only are apart.
    """
    cells = {value: count for value, count in counted_ids(values).items() if value}
    if not cells:
        return Outlines({}, {})
    exact = _traced(values)
    labelled = {value: shapely.simplify(part, 0.0) for value, part in _gathered(*exact).items()}
    if tolerance_cells > 0:
        ground, small = _without_small_parts(values, *exact)
        parts, part_values = _traced(ground)
        for share in TRIED:
            tried = shapely.coverage_simplify(parts, tolerance_cells * share)
            if not shapely.is_valid(tried).all():
                continue
            found = _with_small_parts(_gathered(tried, part_values), small)
            if _keeps_bounds(labelled, found, cells, tolerance_cells):
                return Outlines(found, cells)
    return Outlines(labelled, cells)


def _traced(values: NDArray[Any]) -> "tuple[NDArray[Any], NDArray[np.int64]]":
    """The connected parts of all labels as polygons with a corner at every cell, and the value of each."""
    numbers = np.ascontiguousarray(values, dtype=np.int32)
    found = list(shapes(numbers, mask=numbers > 0, connectivity=4))
    parts = np.array([shapely.geometry.shape(one) for one, _ in found], dtype=object)
    if len(parts):  # neighbours share a border only if both have all its corners
        parts = shapely.transform(shapely.segmentize(parts, 1.0), np.rint)
    return parts, np.array([int(value) for _, value in found], dtype=np.int64)


def _gathered(parts: NDArray[Any], part_values: NDArray[np.int64]) -> Shapes:
    order = np.argsort(part_values, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(part_values[order])) + 1) if len(order) else []
    return {int(part_values[group[0]]): shapely.multipolygons(shapely.get_parts(parts[group])) for group in groups}


def _without_small_parts(
    values: NDArray[Any], parts: NDArray[Any], part_values: NDArray[np.int64]
) -> tuple[NDArray[Any], Shapes]:
    """The map with small parts given to what lies nearest, and these parts by label."""
    is_small = shapely.area(parts) < SMALL_CELLS
    if not is_small.any() or is_small.all():
        return (np.zeros_like(values) if is_small.any() else values), _gathered(parts[is_small], part_values[is_small])
    holes = rasterize(parts[is_small].tolist(), out_shape=values.shape, fill=0, default_value=1).astype(bool)
    nearest = distance_transform_edt(holes, return_distances=False, return_indices=True)
    return values[tuple(nearest)], _gathered(parts[is_small], part_values[is_small])


def _with_small_parts(large: Shapes, small: Shapes) -> Shapes:
    """Large parts with the small ones of all labels cut out, and each label's own small ones beside them."""
    if not small:
        return large
    cut = shapely.union_all(list(small.values()))
    found = {value: shapely.difference(shape, cut) for value, shape in large.items()}
    for value, shape in small.items():
        found[value] = shapely.union(found[value], shape) if value in found else shape
    return {value: shapely.multipolygons(_polygons(shape)) for value, shape in found.items()}


def _polygons(shape: Any) -> "list[shapely.Polygon]":
    """The polygons of a shape, without the points and lines that overlays leave where shapes touch."""
    return [part for part in shapely.get_parts(shape) if part.geom_type == "Polygon"]


def _keeps_bounds(exact: Shapes, found: Shapes, cells: Mapping[int, int], tolerance: float) -> bool:
    if found.keys() != exact.keys():
        return False
    for value, shape in found.items():
        if abs(shape.area - cells[value]) > LARGEST_AREA_ERROR * cells[value]:
            return False
        border = shapely.boundary(shape)
        shapely.prepare(border)
        corners = shapely.points(shapely.get_coordinates(exact[value]))
        if not shapely.dwithin(border, corners, tolerance + 1e-9).all():
            return False
    return True
