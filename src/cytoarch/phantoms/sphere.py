"""Maps on the sphere: values by direction, on the six faces of a cube.

The cortex of a phantom hemisphere is star-shaped: every ray from its centre meets the pial surface once and the white
surface once. All anatomy is therefore a map over directions, small enough to keep and quick to look up per pixel.
"""

import numpy as np
from numpy.typing import NDArray

from cytoarch.phantoms.compiling import kernel

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

FACES = 6


def unit(vectors: Float64) -> Float64:
    """Vectors (..., 3) at length 1."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def cube_directions(resolution: int) -> Float64:
    """Unit vectors (6, n, n, 3) float64 of the nodes of a cube map; nodes on an edge are held by both faces."""
    line = np.linspace(-1.0, 1.0, resolution)
    nodes = np.ones((FACES, resolution, resolution, 3))
    for face in range(FACES):
        axis, others = face // 2, [one for one in range(3) if one != face // 2]
        nodes[face, ..., axis] = -1.0 if face % 2 else 1.0
        nodes[face, ..., others[0]] = line[:, None]
        nodes[face, ..., others[1]] = line[None, :]
    return unit(nodes)


@kernel
def locate(x: float, y: float, z: float, resolution: int) -> tuple[int, int, int, float, float]:
    """The cell of a cube map that the direction (x, y, z) falls into: face, row, column, and the place in it [0, 1]."""
    ax, ay, az = abs(x), abs(y), abs(z)
    if ax >= ay and ax >= az:
        face, major, first, second = (0 if x > 0 else 1), ax, y, z
    elif ay >= az:
        face, major, first, second = (2 if y > 0 else 3), ay, x, z
    else:
        face, major, first, second = (4 if z > 0 else 5), az, x, y
    scale = 0.5 * (resolution - 1)
    row_place, column_place = (first / major + 1.0) * scale, (second / major + 1.0) * scale
    row, column = min(int(row_place), resolution - 2), min(int(column_place), resolution - 2)
    return face, row, column, row_place - row, column_place - column


@kernel
def blend(
    field: Float64, side: int, face: int, row: int, column: int, down: float, right: float, channel: int
) -> float:
    """One channel of one of several cube maps (s, 6, n, n, c) at a place that `locate` found, bilinearly."""
    top = field[side, face, row, column, channel] * (1.0 - right) + field[side, face, row, column + 1, channel] * right
    row += 1
    low = field[side, face, row, column, channel] * (1.0 - right) + field[side, face, row, column + 1, channel] * right
    return float(top * (1.0 - down) + low * down)


@kernel
def _look_up(field: Float64, directions: Float64, out: Float64) -> None:
    for index in range(directions.shape[0]):
        x, y, z = directions[index, 0], directions[index, 1], directions[index, 2]
        face, row, column, down, right = locate(x, y, z, field.shape[2])
        for channel in range(field.shape[4]):
            out[index, channel] = blend(field, 0, face, row, column, down, right, channel)


def look_up(field: Float64, directions: Float64) -> Float64:
    """A cube map (6, n, n, c) at directions (..., 3) of any length: (..., c) float64."""
    flat = np.ascontiguousarray(directions.reshape(-1, 3), dtype=np.float64)
    out = np.empty((flat.shape[0], field.shape[3]))
    _look_up(field[None], flat, out)
    return out.reshape(*directions.shape[:-1], field.shape[3])


class Waves:
    """A smooth random field in space: a sum of plane waves of one wavelength, mean 0 and variance 1."""

    COUNT = 24

    def __init__(self, wavelength_mm: float, rng: np.random.Generator) -> None:
        directions = rng.normal(size=(self.COUNT, 3))
        self._vectors = 2 * np.pi / wavelength_mm * directions / np.linalg.norm(directions, axis=1, keepdims=True)
        self._phases = rng.uniform(0, 2 * np.pi, self.COUNT)

    def value(self, points_mm: Float64) -> Float64:
        """The field (...) at points (..., 3) in mm."""
        return np.asarray(np.cos(points_mm @ self._vectors.T + self._phases).sum(axis=-1) * np.sqrt(2 / self.COUNT))

    def gradient(self, points_mm: Float64) -> Float64:
        """The gradient (..., 3) per mm at points (..., 3) in mm."""
        slopes = -np.sin(points_mm @ self._vectors.T + self._phases)
        return np.asarray(slopes @ self._vectors * np.sqrt(2 / self.COUNT))


def icosphere(subdivisions: int) -> tuple[Float64, Int64]:
    """Unit vertices (v, 3) and triangles (t, 3), counter-clockwise from outside, of a subdivided icosahedron.

    >>> vertices, triangles = icosphere(2)
    >>> len(vertices), len(triangles)
    (162, 320)
    """
    golden = (1 + np.sqrt(5)) / 2
    corners = [(-1, golden, 0), (1, golden, 0), (-1, -golden, 0), (1, -golden, 0)]
    vertices = np.array([np.roll(corner, turn) for turn in range(3) for corner in corners], dtype=np.float64)
    vertices /= np.linalg.norm(vertices[0])
    edge = np.sqrt(2 - 2 / np.sqrt(5))  # of an icosahedron in the unit sphere
    near = np.linalg.norm(vertices[:, None] - vertices[None], axis=-1) < 1.1 * edge
    triangles = np.array(
        [(a, b, c) for a in range(12) for b in range(a + 1, 12) for c in range(b + 1, 12)
         if near[a, b] and near[b, c] and near[a, c]]
    )  # fmt: skip
    inward = (
        np.einsum("ij,ij->i", np.cross(*(vertices[triangles[:, k]] for k in (0, 1))), vertices[triangles[:, 2]]) < 0
    )
    triangles[inward] = triangles[inward][:, ::-1]
    for _ in range(subdivisions):
        vertices, triangles = _subdivided(vertices, triangles)
    return vertices, triangles


def _subdivided(vertices: Float64, triangles: Int64) -> tuple[Float64, Int64]:
    """Every triangle split in four at the middles of its edges."""
    edges = np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1)
    unique, inverse = np.unique(edges, axis=0, return_inverse=True)
    middles = vertices[unique].mean(axis=1)
    middles /= np.linalg.norm(middles, axis=1, keepdims=True)
    ab, bc, ca = (inverse.reshape(3, -1) + len(vertices)).astype(np.int64)
    a, b, c = triangles.T
    split = np.concatenate([np.stack(one, axis=1) for one in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
    return np.concatenate([vertices, middles]), split
