"""Where a point of a brain lies: the lookups that truth and rendering share, compiled."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cytoarch.phantoms.anatomy import CENTRE_MM, NUCLEUS_AXES_MM, NUCLEUS_WITHIN
from cytoarch.phantoms.compiling import kernel
from cytoarch.phantoms.sphere import Float64, blend, locate

UInt8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]

BACKGROUND, GREY, WHITE, NUCLEUS = 0, 1, 2, 3
"""Kinds of tissue a point can lie in; the nucleus is grey matter that is no cortex.

Depth in cortex is (pial - distance) / (pial - white) on the ray from the centre: 0 at the pial, 1 at the white surface.
"""


class Maps(NamedTuple):
    """A brain as kernels take it: the cube maps of both hemispheres, stacked."""

    radii_mm: Float64
    column_mm: Float64
    reference: Float64
    areal: Float64
    sheet: Float64
    """(2, 6, n, n, 3) thickness (mm), mean curvature (1 / mm), and size of the white over that of the pial end of a
    column, by where it meets the pial surface."""
    area_weights: Float64
    area_seeds: Float64
    layer_ends: Float64
    """(k, 6) laminar depth at which every layer ends."""
    hull_mm: Float64
    """(2, 3) semi-axes of an ellipsoid around each hemisphere, in its own frame."""


@kernel
def outside(maps: Maps, x: float, y: float, z: float, slack_mm: float) -> bool:
    """Whether no tissue is within `slack_mm` of a position in the brain; a quick look that may miss some."""
    side = 0 if x < 0 else 1
    first, second, third = maps.hull_mm[side, 0], maps.hull_mm[side, 1], maps.hull_mm[side, 2]
    a, b, c = (abs(x) - CENTRE_MM) / first, y / second, z / third
    reach = 1.0 + slack_mm / min(first, second, third)
    return bool(a * a + b * b + c * c > reach * reach)


@kernel
def tissue_at(maps: Maps, x: float, y: float, z: float) -> tuple[int, int, float, float, float]:
    """Side, kind of tissue, and distances (mm) from the centre: of the position, the pial and the white surface."""
    side = 0 if x < 0 else 1
    lateral = abs(x) - CENTRE_MM
    radius = np.sqrt(lateral * lateral + y * y + z * z)
    if radius == 0.0:
        return side, NUCLEUS, radius, 1.0, 1.0
    face, row, column, down, right = locate(lateral, y, z, maps.radii_mm.shape[2])
    pial = blend(maps.radii_mm, side, face, row, column, down, right, 0)
    if radius > pial:
        return side, BACKGROUND, radius, pial, 0.0
    white = blend(maps.radii_mm, side, face, row, column, down, right, 1)
    if radius >= white:
        return side, GREY, radius, pial, white
    a, b, c = lateral / NUCLEUS_AXES_MM[0], y / NUCLEUS_AXES_MM[1], z / NUCLEUS_AXES_MM[2]
    inside = a * a + b * b + c * c < 1.0 and radius < NUCLEUS_WITHIN * white
    return side, (NUCLEUS if inside else WHITE), radius, pial, white


@kernel
def column_at(
    maps: Maps, side: int, x: float, y: float, z: float, depth: float
) -> tuple[float, float, float, float, float, float]:
    """The column through a position in cortex (own frame): its vector, and its foot on the pial surface (own frame)."""
    lateral = abs(x) - CENTRE_MM
    face, row, column, down, right = locate(lateral, y, z, maps.column_mm.shape[2])
    cx = blend(maps.column_mm, side, face, row, column, down, right, 0)
    cy = blend(maps.column_mm, side, face, row, column, down, right, 1)
    cz = blend(maps.column_mm, side, face, row, column, down, right, 2)
    return cx, cy, cz, lateral + depth * cx, y + depth * cy, z + depth * cz


@kernel
def area_at(maps: Maps, side: int, x: float, y: float, z: float) -> int:
    """The area, 1 to k, of the column that meets the pial surface in this direction (own frame)."""
    field = maps.areal
    face, row, column, down, right = locate(x, y, z, field.shape[2])
    a = blend(field, side, face, row, column, down, right, 0)
    b = blend(field, side, face, row, column, down, right, 1)
    c = blend(field, side, face, row, column, down, right, 2)
    best, area = -np.inf, 0
    for index in range(maps.area_seeds.shape[0]):
        score = maps.area_seeds[index, 0] * a + maps.area_seeds[index, 1] * b + maps.area_seeds[index, 2] * c
        score += maps.area_weights[side, index]
        if score > best:
            best, area = score, index + 1
    return area


@kernel
def laminar_depth(maps: Maps, side: int, x: float, y: float, z: float, depth: float) -> float:
    """The share of a column's volume above a depth; (x, y, z) is its foot on the pial surface (own frame).

    Layers keep their share of the volume where the cortex bends: deep ones are thick in crowns, upper ones in fundi
    (Bok 1929; the equivolumetric model of Waehnert et al. 2014).
    """
    field = maps.sheet
    face, row, column, down, right = locate(x, y, z, field.shape[2])
    ratio = blend(field, side, face, row, column, down, right, 2)
    return depth * (2.0 + (ratio - 1.0) * depth) / (1.0 + ratio)


@kernel
def layer_at(maps: Maps, area: int, laminar: float) -> int:
    """The layer, 1 to 6, at this laminar depth of this area."""
    for layer in range(5):
        if laminar < maps.layer_ends[area - 1, layer]:
            return layer + 1
    return 6


@kernel
def describe(maps: Maps, points: Float64, normal: Float64, labels: UInt8, values: Float32) -> None:
    """Fill the truth of positions (m, 3): labels (m, 4) hemisphere, tissue, layer, area; values (m, 8).

    Values are depth, reference x, y, z (mm), angle between column and the section's normal (degrees), thickness (mm),
    curvature (1 / mm) and laminar depth; NaN where they have no meaning.
    """
    for index in range(points.shape[0]):
        x, y, z = points[index, 0], points[index, 1], points[index, 2]
        side, tissue, distance, pial, white = tissue_at(maps, x, y, z)
        values[index] = np.nan
        labels[index] = 0
        if tissue == BACKGROUND:
            continue
        labels[index, 0], labels[index, 1] = side + 1, tissue
        sign = -1.0 if side == 0 else 1.0
        lateral = abs(x) - CENTRE_MM
        field = maps.reference
        face, row, column, down, right = locate(lateral, y, z, field.shape[2])
        ux = blend(field, side, face, row, column, down, right, 0)
        uy = blend(field, side, face, row, column, down, right, 1)
        uz = blend(field, side, face, row, column, down, right, 2)
        stretch = blend(field, side, face, row, column, down, right, 3)
        radius = distance / stretch / np.sqrt(ux * ux + uy * uy + uz * uz)
        values[index, 1] = sign * (radius * ux + CENTRE_MM)
        values[index, 2], values[index, 3] = radius * uy, radius * uz
        if tissue != GREY:
            continue
        depth = (pial - distance) / (pial - white)
        cx, cy, cz, fx, fy, fz = column_at(maps, side, x, y, z, depth)
        area = area_at(maps, side, fx, fy, fz)
        laminar = laminar_depth(maps, side, fx, fy, fz, depth)
        labels[index, 2], labels[index, 3] = layer_at(maps, area, laminar), area
        values[index, 0], values[index, 7] = depth, laminar
        length = np.sqrt(cx * cx + cy * cy + cz * cz)
        cosine = abs(sign * cx * normal[0] + cy * normal[1] + cz * normal[2]) / length
        values[index, 4] = np.degrees(np.arccos(min(cosine, 1.0)))
        field = maps.sheet
        face, row, column, down, right = locate(fx, fy, fz, field.shape[2])
        values[index, 5] = blend(field, side, face, row, column, down, right, 0)
        values[index, 6] = blend(field, side, face, row, column, down, right, 1)
