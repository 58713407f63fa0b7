"""The white surface under a folded pial surface: everywhere as far from it as the cortex is thick."""

import numpy as np
from numpy.typing import NDArray

from cytoarch.phantoms.compiling import kernel
from cytoarch.phantoms.sphere import FACES, Float64, cube_directions, unit

BLOCK = 10
"""Rays are traced in square blocks of about this many, which share their list of near points."""
FLAT_MM = 0.03
"""Pial points within this of the nearest count as its equals: their mean is the foot of a column."""
CORE = 0.15
"""Share of the way to the pial surface inside which no cortex reaches."""


def white_surface(pial_mm: Float64, thickness_mm: Float64) -> tuple[Float64, Float64]:
    """Radius of the white surface (6, n, n), and the vector (6, n, n, 3) from it to the nearest pial points.

    Along every ray from outside, the white surface is the first point as far from the pial surface as the cortex is
    thick: where the ray leaves the union of the balls of that radius around all pial points.
    """
    resolution = pial_mm.shape[1]
    directions = cube_directions(resolution)
    white, column = np.empty_like(pial_mm), np.empty((*pial_mm.shape, 3))
    points = (directions * pial_mm[..., None]).reshape(-1, 3)
    parts = np.array_split(np.arange(resolution), max(1, resolution // BLOCK))
    for face, rows, columns in ((face, rows, columns) for face in range(FACES) for rows in parts for columns in parts):
        block = (face, slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        rays, reach = directions[block].reshape(-1, 3), thickness_mm[block].ravel()
        middle = unit(rays.mean(axis=0))
        spread = float(np.arccos(np.clip((rays @ middle).min(), -1, 1)))
        near = points[_near(points, middle, spread, reach.max())]
        leave, feet = _leave(rays, pial_mm[block].ravel(), reach, near)
        white[block], column[block] = leave.reshape(white[block].shape), feet.reshape(column[block].shape)
    return white, column


@kernel
def _near(points: Float64, middle: Float64, spread: float, reach: float) -> NDArray[np.int64]:
    """Points (m, 3) within `reach` of any ray that is within the angle `spread` of the middle one."""
    near = np.empty(points.shape[0], np.int64)
    count = 0
    for index in range(points.shape[0]):
        x, y, z = points[index, 0], points[index, 1], points[index, 2]
        along = x * middle[0] + y * middle[1] + z * middle[2]
        square = x * x + y * y + z * z
        limit = reach + np.sqrt(square) * spread
        if along > 0 and square - along * along < limit * limit:
            near[count] = index
            count += 1
    return near[:count]


@kernel
def _leave(rays: Float64, start_mm: Float64, reach_mm: Float64, points: Float64) -> tuple[Float64, Float64]:
    """Where rays (m, 3) that start at the pial surface leave the balls around points, and the vectors to their feet."""
    leave, column = np.empty(rays.shape[0]), np.zeros((rays.shape[0], 3))
    low, high, ball = np.empty(len(points)), np.empty(len(points)), np.empty(len(points), np.int64)
    for ray in range(rays.shape[0]):
        hits = _balls_on(rays[ray], reach_mm[ray], points, low, high, ball)
        place, deeper = start_mm[ray], start_mm[ray]
        while True:
            for one in range(hits):
                if high[one] >= place and low[one] < deeper:
                    deeper = low[one]
            if deeper >= place:
                break
            place = deeper
        leave[ray] = max(place, CORE * start_mm[ray])
        total = 0.0
        for one in range(hits):
            if low[one] < place + FLAT_MM:
                weight = min(1.0 - (low[one] - place) / FLAT_MM, 1.0)
                total += weight
                for axis in range(3):
                    column[ray, axis] += weight * points[ball[one], axis]
        for axis in range(3):
            column[ray, axis] = column[ray, axis] / total - leave[ray] * rays[ray, axis]
    return leave, column


@kernel
def _balls_on(ray: Float64, reach: float, points: Float64, low: Float64, high: Float64, ball: NDArray[np.int64]) -> int:
    """Fill in where the ray enters and leaves the balls it meets, and which they are; returns their number."""
    hits = 0
    for index in range(points.shape[0]):
        x, y, z = points[index, 0], points[index, 1], points[index, 2]
        along = x * ray[0] + y * ray[1] + z * ray[2]
        half = reach * reach - (x * x + y * y + z * z - along * along)
        if half > 0 and along > 0:
            half = np.sqrt(half)
            low[hits], high[hits], ball[hits] = along - half, along + half, index
            hits += 1
    return hits
