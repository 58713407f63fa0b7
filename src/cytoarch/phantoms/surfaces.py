"""Surfaces of the cortex as meshes, and what is measured on them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from cytoarch.phantoms.sphere import Float64, Int64

UInt8 = NDArray[np.uint8]


@dataclass(frozen=True)
class Surface:
    """A closed triangle mesh of one hemisphere."""

    vertices_mm: Float64
    """(v, 3) positions in the brain: x left to right, y posterior to anterior, z inferior to superior."""
    triangles: Int64
    """(t, 3) vertex indices, counter-clockwise seen from outside."""
    area: UInt8
    """(v,) area of every vertex, 1 to k."""


def triangle_areas(vertices: Float64, triangles: Int64) -> Float64:
    """The size (t,) of every triangle, in squared units of the vertices."""
    a, b, c = (vertices[triangles[:, corner]] for corner in range(3))
    return np.asarray(np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2)


def vertex_areas(vertices: Float64, triangles: Int64) -> Float64:
    """A third of the size of the triangles around every vertex (v,)."""
    thirds = np.repeat(triangle_areas(vertices, triangles) / 3, 3)
    return np.bincount(triangles.ravel(), thirds, len(vertices)).astype(np.float64)


def neighbour_mean(triangles: Int64, count: int) -> sparse.csr_matrix:
    """(v, v) the matrix that gives every vertex the mean of itself and its neighbours."""
    i, j = triangles.ravel(), np.roll(triangles, 1, axis=1).ravel()
    ones = np.ones(len(i))
    touching = sparse.csr_matrix((ones, (i, j)), shape=(count, count))
    touching = ((touching + touching.T) > 0).astype(np.float64) + sparse.identity(count)
    return sparse.diags(1 / np.asarray(touching.sum(axis=1)).ravel()) @ touching


def mean_curvature(vertices: Float64, triangles: Int64, rounds: int = 4) -> Float64:
    """Mean curvature (v,) per unit of length, positive where the surface is convex (a gyral crown).

    Half the length of the cotangent Laplacian of the positions (Meyer et al. 2003), averaged over neighbours `rounds`
    times. A sphere of radius r gives 1 / r.
    """
    count = len(vertices)
    weights = sparse.csr_matrix((count, count))
    normals = np.zeros_like(vertices)
    corners = [vertices[triangles[:, corner]] for corner in range(3)]
    face = np.cross(corners[1] - corners[0], corners[2] - corners[0])
    for corner in range(3):
        i, j = triangles[:, (corner + 1) % 3], triangles[:, (corner + 2) % 3]
        u, v = corners[(corner + 1) % 3] - corners[corner], corners[(corner + 2) % 3] - corners[corner]
        cotangent = (u * v).sum(axis=1) / np.linalg.norm(np.cross(u, v), axis=1)
        weights = weights + sparse.csr_matrix((cotangent, (i, j)), shape=(count, count))
        np.add.at(normals, triangles[:, corner], face)
    weights = weights + weights.T
    flow = sparse.diags(np.asarray(weights.sum(axis=1)).ravel()) @ vertices - weights @ vertices
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    curvature = (flow * normals).sum(axis=1) / (4 * vertex_areas(vertices, triangles))
    mean = neighbour_mean(triangles, count)
    for _ in range(rounds):
        curvature = mean @ curvature
    return np.asarray(curvature)


def adjacency(surfaces: tuple[Surface, ...], areas: int) -> NDArray[np.bool_]:
    """(k, k) whether two areas touch on any of the surfaces; symmetric, False on the diagonal."""
    touching = np.zeros((areas, areas), dtype=bool)
    for surface in surfaces:
        ends = surface.area[surface.triangles].astype(np.int64) - 1
        for a, b in ((0, 1), (1, 2), (2, 0)):
            touching[ends[:, a], ends[:, b]] = True
    touching |= touching.T
    np.fill_diagonal(touching, False)
    return touching


def area_sizes_mm2(surfaces: tuple[Surface, ...], areas: int) -> Float64:
    """(h, k) size of every area on every surface, mm2."""
    return np.stack(
        [
            np.bincount(surface.area, vertex_areas(surface.vertices_mm, surface.triangles), areas + 1)[1:]
            for surface in surfaces
        ]
    )
