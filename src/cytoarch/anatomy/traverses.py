"""Traverses: the ways from the pial to the white side of the cortex, through points of its middle."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from cytoarch.anatomy.columns import part_lengths
from cytoarch.anatomy.midline import uphill, value_at
from cytoarch.anatomy.ribbons import Float64, Int64
from cytoarch.geometry import HALF, centres

STEP_CELLS = 0.5
"""Of following the gradient of depth."""
REACHED = 0.02
"""A traverse that comes this near to a side has reached it: depth is known at centres of cells only."""
SMOOTHED_POINTS = 4.0
"""Sigma along a line, in points, over which its bend is told."""


def traverses(places: Float64, field: Float64, count: int, limit: float) -> Float64:
    """Where traverses through places (n, 2) cross `count` depths (n, count, 2), all in cells; NaN where one breaks off.

    `field` (y, x) is depth, 0 outside and 1 in white matter (`midline.depth_field`). The depths are the middles of
    equal parts of 0 to 1. The gradient is followed both ways by the midpoint rule, at most `limit` cells.
    """
    slopes = np.asarray(np.gradient(field))
    up, down = (_followed(places, field, slopes, side, limit) for side in (-1.0, 1.0))
    ways = np.concatenate([up[0][::-1], down[0][1:]])
    depths = np.concatenate([up[1][::-1], down[1][1:]])
    wanted = centres(0.0, 1.0, count)
    found = np.full((len(places), count, 2), np.nan)
    for one in range(len(places)):
        known = np.maximum.accumulate(depths[:, one])
        if known[0] <= wanted[0] + REACHED and known[-1] >= wanted[-1] - REACHED:
            found[one] = np.stack([np.interp(wanted, known, ways[:, one, axis]) for axis in (0, 1)], axis=1)
    return found


def _followed(places: Float64, field: Float64, slopes: Float64, side: float, limit: float) -> tuple[Float64, Float64]:
    """The ways (steps, n, 2) from places towards one side, and depth (steps, n) along them; who is there stays."""
    here = places.astype(np.float64, copy=True)
    ways, depths = [here.copy()], [value_at(field, here)]
    for _ in range(int(np.ceil(limit / STEP_CELLS))):
        going = (depths[-1] > 0) & (depths[-1] < 1)
        if not going.any():
            break
        step = STEP_CELLS * side
        half = here[going] + HALF * step * uphill(slopes, here[going])
        here[going] += step * uphill(slopes, half)
        value = value_at(field, here)
        back = side * (value - depths[-1]) <= 0  # a ridge between two banks: no way on
        here[back], value[back] = ways[-1][back], depths[-1][back]
        ways.append(here.copy())
        depths.append(value)
        if not (going & ~back).any():
            break
    return np.stack(ways), np.stack(depths)


def profiles_along(pixels: NDArray[np.float32], ways: Float64) -> Float64:
    """The values (n, count) of an image (y, x) at the places of traverses (n, count, 2) in its cells; NaN stays."""
    flat = ways.reshape(-1, 2)
    known = np.isfinite(flat).all(axis=1)
    values = np.full(len(flat), np.nan)
    values[known] = value_at(pixels.astype(np.float64), flat[known])
    return values.reshape(ways.shape[:2])


def area_shares(ways: Float64, line: Int64, sigma: float = SMOOTHED_POINTS) -> Float64:
    """The share (n, count) of the area of its column above each place of traverses (n, count, 2), 0 to 1; NaN stays.

    Where cortex bends, layers keep their volume, not their depth (Bok, 1929): columns are as wide as their neighbours
    on the line are apart, places smoothed along it by a Gaussian of `sigma` points. Straight columns side by side give
    the middles of equal parts; `line` (n,) says which line each stands on.
    """
    shares = np.full(ways.shape[:2], np.nan)
    whole = np.isfinite(ways).all(axis=(1, 2))
    for one in np.unique(line):
        own = np.flatnonzero((line == one) & whole)
        if len(own) < 3:
            continue
        along = gaussian_filter1d(ways[own], sigma, axis=0, mode="nearest")
        area = np.linalg.norm(np.gradient(along, axis=0), axis=2) * part_lengths(along)
        shares[own] = (np.cumsum(area, axis=1) - HALF * area) / area.sum(axis=1, keepdims=True)
    return shares


def by_area(profiles: Float64, shares: Float64) -> Float64:
    """Profiles (n, count) at the middles of equal parts of their columns' area, of which `shares` (n, count) lie above.

    >>> by_area(np.array([[1.0, 2.0, 3.0]]), np.array([[0.1, 0.5, 0.9]])).round(3).tolist()
    [[1.167, 2.0, 2.833]]
    """
    wanted = centres(0.0, 1.0, profiles.shape[1])
    rows = zip(profiles, shares, strict=True)
    return np.array([np.interp(wanted, at, own) if np.isfinite(at).all() else at for own, at in rows]).reshape(
        shares.shape
    )


def curvatures(places: Float64, line: Int64, sigma: float = SMOOTHED_POINTS) -> Float64:
    """How strongly lines bend (n,) at points (n, 2) in their order, in turns of one radian a cell; 0 where straight.

    `line` (n,) says which line a point lies on. Places are smoothed along each by a Gaussian of `sigma` points; a bend
    to the other side has the other sign.
    """
    found = np.zeros(len(places))
    for one in np.unique(line):
        own = np.flatnonzero(line == one)
        if len(own) < 3:
            continue
        along = gaussian_filter1d(places[own], sigma, axis=0, mode="nearest")
        ahead = np.gradient(along, axis=0)
        turning = np.gradient(ahead, axis=0)
        crossed = ahead[:, 0] * turning[:, 1] - ahead[:, 1] * turning[:, 0]
        found[own] = crossed / np.maximum((ahead**2).sum(axis=1), 1e-9) ** 1.5
    return found
