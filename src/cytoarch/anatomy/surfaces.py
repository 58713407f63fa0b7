"""The middle of the cortex as a surface in 3D: from a field of depth to a clean, even mesh, and back to sections.

Marching cubes where depth is one half (Lewiner et al. 2003), small pieces dropped, holes and doubled faces mended
(trimesh), triangles made even (Botsch and Kobbelt 2004, gpytoolbox). A section cuts the mesh in polylines. Distances
along the surface come from the heat method (Crane, Weischedel and Wardetzky 2013, potpourri3d).
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cytoarch.anatomy.midline import MIDDLE
from cytoarch.anatomy.ribbons import Float64, Int64, Mask
from cytoarch.errors import CytoarchError
from cytoarch.geometry import Transform
from cytoarch.settings import Settings

FLAT = 1e-9
INFLATING = 100
"""Rounds of blowing up a surface; more change little but the shape of its poles."""


class SurfaceSettings(Settings):
    """How the middle of the cortex is made a surface."""

    voxel_um: float = Field(
        default=300.0, ge=10, le=5000, description="Edge of the voxels that depth is measured on (um)."
    )
    edge_mm: float = Field(default=0.3, gt=0, le=10, description="Edges of triangles (mm); CytoNet takes 0.3.")
    rounds: int = Field(default=8, ge=0, le=50, description="Rounds of evening out triangles; 0: none.")
    smallest_share: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Pieces with less of the surface than this share of the largest are dropped.",
    )


@dataclass(frozen=True)
class Mesh:
    """Triangles in the brain."""

    vertices_mm: Float64
    """(v, 3) x, y, z."""
    triangles: Int64
    """(t, 3) vertices."""

    @classmethod
    def of(cls, vertices: NDArray[Any], triangles: NDArray[Any]) -> Self:
        """From arrays of any number type."""
        return cls(np.asarray(vertices, dtype=np.float64), np.asarray(triangles, dtype=np.int64))

    @property
    def area_mm2(self) -> float:
        """Its size."""
        return float(np.linalg.norm(self.crosses, axis=1).sum() / 2)

    @property
    def crosses(self) -> Float64:
        """(t, 3) normals of the triangles, twice as long as they are large."""
        a, b, c = (self.vertices_mm[self.triangles[:, corner]] for corner in range(3))
        return np.asarray(np.cross(b - a, c - a))

    def edges_mm(self) -> Float64:
        """(e,) the length of every edge of every triangle."""
        corners = self.vertices_mm[self.triangles]
        return np.asarray(np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).ravel())


def midsurface(
    depth: NDArray[np.float32], cortex: Mask, white: Mask, to_mm: Transform, settings: SurfaceSettings
) -> Mesh:
    """The surface where depth (z, y, x) is one half, in the brain; `to_mm` maps cells (z, y, x) to mm (x, y, z).

    Raises CytoarchError if there is none.
    """
    from skimage.measure import marching_cubes

    field = np.where(cortex, depth, np.where(white, np.float32(1), np.float32(0)))
    if not cortex.any() or not (field.min() < MIDDLE < field.max()):
        raise CytoarchError("the volume holds no cortex whose depth passes one half; check tissue classes and depth")
    vertices, triangles, _, _ = marching_cubes(np.pad(field, 1), MIDDLE)
    cells = vertices.astype(np.float64) - 1
    # where white matter meets the outside there is no cortex between them, and no middle
    at = tuple(np.clip(np.rint(cells).astype(np.int64), 0, np.array(cortex.shape) - 1).T)
    kept = cortex[at][triangles].any(axis=1)
    if not kept.any():
        raise CytoarchError("depth passes one half nowhere within the cortex of the volume; check tissue classes")
    return evened(cleaned(Mesh.of(to_mm(cells), triangles[kept]), settings.smallest_share), settings)


def cleaned(mesh: Mesh, smallest_share: float) -> Mesh:
    """The mesh without doubled or empty faces and without pieces much smaller than the largest."""
    import trimesh

    held = trimesh.Trimesh(mesh.vertices_mm, mesh.triangles, process=True, validate=True)
    pieces = trimesh.graph.connected_component_labels(held.face_adjacency, len(held.faces))
    areas = np.bincount(pieces, held.area_faces)
    held.update_faces((areas >= smallest_share * areas.max())[pieces])
    held.remove_unreferenced_vertices()
    return Mesh.of(held.vertices, held.faces)


def evened(mesh: Mesh, settings: SurfaceSettings) -> Mesh:
    """The mesh with triangles of nearly the same edge, on the same surface.

    Raises CytoarchError if gpytoolbox is not installed and rounds are asked for.
    """
    if not settings.rounds:
        return mesh
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it imports a name that scipy has moved
            from gpytoolbox import remesh_botsch
    except ImportError:
        raise CytoarchError(
            "evening out triangles takes gpytoolbox, which is not installed: pip install 'cytoarch[surfaces]', or set "
            "rounds to 0"
        ) from None
    vertices, triangles = remesh_botsch(
        mesh.vertices_mm, mesh.triangles.astype(np.int32), i=settings.rounds, h=settings.edge_mm, project=True
    )
    return Mesh.of(vertices, triangles)


def cut(mesh: Mesh, to_brain: Transform) -> list[Float64]:
    """The polylines (n, 2) y, x um that a section cuts out of the mesh, in its own frame.

    `to_brain` maps (y, x) um of the section to (x, y, z) mm. A closed line ends where it begins.
    """
    import trimesh

    normal = _normal(to_brain)
    held = trimesh.Trimesh(mesh.vertices_mm, mesh.triangles, process=False)
    found = held.section(plane_normal=normal, plane_origin=to_brain.added)
    if found is None:
        return []
    back = to_brain.inverse()
    return [back(np.asarray(line)) for line in found.discrete]


def cut_angles(mesh: Mesh, to_brain: Transform, places_um: Float64) -> Float64:
    """The angle (n,) in degrees between the surface's normal and that of a section, at the points of the mesh nearest.

    90 where the cortex was cut straight across, 0 where the section runs along its surface.
    """
    from scipy.spatial import cKDTree

    normals, crosses = np.zeros_like(mesh.vertices_mm), mesh.crosses
    for corner in range(3):
        np.add.at(normals, mesh.triangles[:, corner], crosses)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), FLAT)
    _, nearest = cKDTree(mesh.vertices_mm).query(to_brain(places_um))
    cosine = np.abs(normals[nearest] @ _normal(to_brain))
    return np.asarray(np.degrees(np.arccos(np.clip(cosine, 0, 1))))


def inflated(mesh: Mesh, rounds: int = INFLATING) -> Float64:
    """The vertices (v, 3) of a mesh blown up until its folds are gone, each hemisphere about its own centre.

    Every round moves vertices to the mean of their neighbours and themselves and scales them to the area they had.
    Hemispheres are the vertices on either side of x = 0.
    """
    from scipy.sparse import coo_array, diags_array

    count = len(mesh.vertices_mm)
    i, j = mesh.triangles.ravel(), np.roll(mesh.triangles, 1, axis=1).ravel()
    joined = coo_array((np.ones(len(i)), (i, j)), shape=(count, count)).tocsr()
    joined = ((joined + joined.T + diags_array(np.ones(count))) > 0).astype(np.float64)
    mean = diags_array(1 / np.asarray(joined.sum(axis=1)).ravel()) @ joined
    right = mesh.vertices_mm[:, 0] >= 0
    vertices, area = mesh.vertices_mm.copy(), mesh.area_mm2
    for _ in range(rounds):
        vertices = mean @ vertices
        vertices *= np.sqrt(area / max(Mesh(vertices, mesh.triangles).area_mm2, FLAT))
    for side in (right, ~right):
        if side.any():
            vertices[side] -= vertices[side].mean(axis=0)
    return np.asarray(vertices, dtype=np.float64)


def _normal(to_brain: Transform) -> Float64:
    """The unit normal of a section in its brain."""
    linear = to_brain.linear
    across = np.cross(linear[:, 0], linear[:, 1]) if linear.shape == (3, 2) else np.zeros(3)
    length = np.linalg.norm(across)
    if length < FLAT**2:
        raise CytoarchError(
            "a section without a place along the cutting axis has no plane in the brain: state positions"
        )
    return np.asarray(across / length)


class Geodesics:
    """Distances along a mesh, prepared once and asked for many vertices."""

    def __init__(self, mesh: Mesh) -> None:
        import potpourri3d
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        self._solver = potpourri3d.MeshHeatMethodDistanceSolver(mesh.vertices_mm, mesh.triangles)
        count = len(mesh.vertices_mm)
        i, j = mesh.triangles.ravel(), np.roll(mesh.triangles, 1, axis=1).ravel()
        self._piece = connected_components(coo_array((np.ones(len(i)), (i, j)), shape=(count, count)), directed=False)[
            1
        ]

    def from_vertex(self, vertex: int) -> Float64:
        """(v,) mm along the surface from a vertex to every other; NaN on other pieces."""
        distance = np.asarray(self._solver.compute_distance(vertex), dtype=np.float64)
        distance = np.maximum(distance - distance[vertex], 0.0)
        return np.where(self._piece == self._piece[vertex], distance, np.nan)

    def between(self, vertices: Sequence[int]) -> Float64:
        """(n, n) mm between vertices, the mean of both ways: the heat method is slightly lopsided."""
        chosen = np.asarray(vertices, dtype=np.int64)
        rows = np.stack([self.from_vertex(int(one))[chosen] for one in chosen])
        return np.asarray((rows + rows.T) / 2)
