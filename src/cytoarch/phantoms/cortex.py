"""The cortex of one phantom brain: its surfaces as meshes, its areas, and the maps that every pixel is looked up in."""

from functools import lru_cache

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from cytoarch.phantoms.anatomy import CENTRE_MM, HEMISPHERES, SEMI_AXES_MM, PhantomBrain, area_seeds
from cytoarch.phantoms.compiling import kernel
from cytoarch.phantoms.kernels import Maps, area_at
from cytoarch.phantoms.sphere import Float64, Int64, cube_directions, icosphere, look_up, unit
from cytoarch.phantoms.surfaces import Surface, UInt8, mean_curvature, neighbour_mean, vertex_areas

SURFACE_DEPTHS = {"pial": 0.0, "mid": 0.5, "white": 1.0}


def subdivisions_of(brain: PhantomBrain) -> int:
    """How fine its meshes are: 40,962 vertices a hemisphere, 0.2 mm apart, or a quarter of that for coarse maps."""
    return 6 if brain.resolution >= 100 else 5


_FINER = 3
"""Nodes of the smooth surface to one of the anatomy's, along an edge."""
_ROUNDS = 3
"""Averages over neighbours: about 0.4 mm along the surface."""


@lru_cache(maxsize=2)
def maps_of(brain: PhantomBrain) -> Maps:
    """The maps of a brain, with thickness and curvature measured on its own surfaces."""
    radii = np.stack([_smooth(side.radii_mm) for side in brain.hemispheres])
    fields = [
        np.stack([getattr(side, name) for side in brain.hemispheres]) for name in ("column_mm", "reference", "areal")
    ]
    sheet = np.stack([_sheet(brain, side) for side in range(len(HEMISPHERES))])
    weights = np.stack([side.area_weights for side in brain.hemispheres])
    ends = np.cumsum([profile.thickness for profile in brain.profiles], axis=1)
    return Maps(radii, fields[0], fields[1], fields[2], sheet, weights, area_seeds(), ends, _hulls(radii))


def _hulls(radii_mm: Float64) -> Float64:
    """Semi-axes (2, 3) of the smallest ellipsoid of the reference's shape around each hemisphere."""
    reach = np.linalg.norm(cube_directions(radii_mm.shape[2]) / np.array(SEMI_AXES_MM), axis=-1)
    scale = (radii_mm[..., 0] * reach).max(axis=(1, 2, 3))
    return np.asarray(scale[:, None] * np.array(SEMI_AXES_MM) * 1.001)


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
    """Thickness, mean curvature and white over pial size (6, n, n, 3), at the pial foot of their column."""
    directions, triangles = icosphere(subdivisions_of(brain))
    hemisphere = brain.hemispheres[side]
    pial, white = np.moveaxis(look_up(hemisphere.radii_mm, directions)[..., None] * directions[:, None], 1, 0)
    column = look_up(hemisphere.column_mm, directions)
    middle = (pial + white) / 2
    measured = np.stack(
        [
            np.linalg.norm(column, axis=1),
            mean_curvature(middle, triangles),
            np.ones(len(column)),
        ],
        axis=1,
    )
    nodes = cube_directions(brain.resolution)
    sheet = _nearby(unit(middle + 0.5 * column), measured, nodes)
    ratio = _spread_ratio(pial, white, white + column, triangles)
    sheet[..., 2] = _nearby(directions, ratio[:, None], nodes)[..., 0]
    return sheet


def _nearby(directions: Float64, values: Float64, nodes: Float64) -> Float64:
    """Values (v, c) known in some directions (v, 3), at the nodes of a cube map: the mean of the three nearest."""
    distance, nearest = cKDTree(directions).query(nodes.reshape(-1, 3), k=3)
    weight = 1 / (distance + 1e-4)
    blended = (values[nearest] * weight[..., None]).sum(axis=1) / weight.sum(axis=1, keepdims=True)
    return np.asarray(blended.reshape(*nodes.shape[:-1], values.shape[1]))


def _spread_ratio(pial: Float64, white: Float64, feet: Float64, triangles: Int64) -> Float64:
    """Size of the white surface over that of the pial surface its columns stand on, at every pial vertex (v,).

    Both are gathered at the pial vertices, the white surface's at the nearest to its feet, and averaged over about
    half a millimetre of the surface.
    """
    _, nearest = cKDTree(pial).query(feet)
    gathered = np.bincount(nearest, vertex_areas(white, triangles), len(pial))
    own = vertex_areas(pial, triangles)
    mean = neighbour_mean(triangles, len(pial))
    for _ in range(_ROUNDS):
        gathered, own = mean @ gathered, mean @ own
    return np.clip(gathered / own, 0.02, 20.0)


def surfaces(brain: PhantomBrain, depth: float) -> tuple[Surface, Surface]:
    """The left and right surface at a depth of the cortex: 0 pial, 0.5 mid, 1 white."""
    directions, triangles = icosphere(subdivisions_of(brain))
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


@kernel
def _areas(maps: Maps, side: int, feet: Float64) -> UInt8:
    areas = np.empty(feet.shape[0], np.uint8)
    for index in range(feet.shape[0]):
        areas[index] = area_at(maps, side, feet[index, 0], feet[index, 1], feet[index, 2])
    return areas


def densities_per_mm3(brain: PhantomBrain) -> Float64:
    """Cells per mm3 (k + 1, 6) by area and layer; row 0, outside cortex, is NaN."""
    outside = np.full((1, 6), np.nan)
    return np.concatenate([outside, [profile.density_per_mm3 for profile in brain.profiles]])
