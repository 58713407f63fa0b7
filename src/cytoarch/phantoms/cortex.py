"""The cortex of one phantom brain: its surfaces as meshes, its areas, and the maps that every pixel is looked up in."""

from functools import lru_cache

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from cytoarch.phantoms.anatomy import CENTRE_MM, HEMISPHERES, PhantomBrain, area_seeds
from cytoarch.phantoms.kernels import Maps, area_at
from cytoarch.phantoms.sphere import Float64, cube_directions, icosphere, look_up
from cytoarch.phantoms.surfaces import Surface, UInt8, mean_curvature

SURFACE_DEPTHS = {"pial": 0.0, "mid": 0.5, "white": 1.0}
SUBDIVISIONS = 6
"""40,962 vertices a hemisphere, about 0.2 mm apart."""

_FINER = 3


@lru_cache(maxsize=8)
def maps_of(brain: PhantomBrain) -> Maps:
    """The maps of a brain, with thickness and curvature measured on its own surfaces."""
    radii = np.stack([_smooth(side.radii_mm) for side in brain.hemispheres])
    fields = [
        np.stack([getattr(side, name) for side in brain.hemispheres]) for name in ("column_mm", "reference", "areal")
    ]
    sheet = np.stack([_sheet(brain, side) for side in range(len(HEMISPHERES))])
    weights = np.stack([side.area_weights for side in brain.hemispheres])
    ends = np.cumsum([profile.thickness for profile in brain.profiles], axis=1)
    return Maps(radii, fields[0], fields[1], fields[2], sheet, weights, area_seeds(), ends)


def _smooth(field: Float64) -> Float64:
    """A cube map on a finer grid, by cubic splines, so that surfaces show no facets at the scale of cells.

    The spline of a face passes through its nodes, so on an edge it is the spline of that edge from either side.
    """
    places = np.linspace(0, field.shape[1] - 1, _FINER * (field.shape[1] - 1) + 1)
    grid = np.stack(np.meshgrid(places, places, indexing="ij"))
    return np.stack(
        [
            np.stack([ndimage.map_coordinates(face[..., c], grid, order=3) for c in range(face.shape[-1])], axis=-1)
            for face in field
        ]
    )


def _sheet(brain: PhantomBrain, side: int) -> Float64:
    """Thickness and mean curvature (6, n, n, 2) of a hemisphere, at the pial foot of the column they belong to."""
    directions, triangles = icosphere(SUBDIVISIONS)
    hemisphere = brain.hemispheres[side]
    middle = directions * look_up(hemisphere.radii_mm, directions).mean(axis=1, keepdims=True)
    column = look_up(hemisphere.column_mm, directions)
    measured = np.stack([np.linalg.norm(column, axis=1), mean_curvature(middle, triangles)], axis=1)
    feet = middle + 0.5 * column
    feet /= np.linalg.norm(feet, axis=1, keepdims=True)
    nodes = cube_directions(brain.resolution)
    distance, nearest = cKDTree(feet).query(nodes.reshape(-1, 3), k=3)
    weight = 1 / (distance + 1e-4)
    blended = (measured[nearest] * weight[..., None]).sum(axis=1) / weight.sum(axis=1, keepdims=True)
    return np.asarray(blended.reshape(*nodes.shape[:-1], 2))


def surfaces(brain: PhantomBrain, depth: float, subdivisions: int = SUBDIVISIONS) -> tuple[Surface, Surface]:
    """The left and right surface at a depth of the cortex: 0 pial, 0.5 mid, 1 white."""
    directions, triangles = icosphere(subdivisions)
    maps = maps_of(brain)
    found = []
    for side, hemisphere in enumerate(brain.hemispheres):
        pial, white = np.moveaxis(look_up(hemisphere.radii_mm, directions), -1, 0)
        own = directions * (pial + depth * (white - pial))[:, None]
        feet = own + depth * look_up(hemisphere.column_mm, directions)
        vertices = own + np.array([CENTRE_MM, 0, 0])
        if side == 0:
            vertices[:, 0] *= -1  # mirroring turns triangles inside out
        ordered = triangles if side else triangles[:, ::-1]
        found.append(Surface(vertices, np.ascontiguousarray(ordered), _areas(maps, side, feet)))
    return found[0], found[1]


def _areas(maps: Maps, side: int, feet: Float64) -> UInt8:
    return np.array([area_at(maps, side, x, y, z) for x, y, z in feet], dtype=np.uint8)


def densities_per_mm3(brain: PhantomBrain) -> Float64:
    """Cells per mm3 (k + 1, 6) by area and layer; row 0, outside cortex, is NaN."""
    outside = np.full((1, 6), np.nan)
    return np.concatenate([outside, [profile.density_per_mm3 for profile in brain.profiles]])


