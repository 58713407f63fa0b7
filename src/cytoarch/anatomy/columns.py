"""The column of cortex at every point of its middle: how thick it is, how it bends, its layers, its stain, its cells.

A column is a traverse (`anatomy.traverses`): the places where it crosses the middles of equal parts of depth. In a
section that cuts the cortex at a slant it is longer than the cortex is thick; where the angle is known, lengths are
those of the cortex.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cytoarch.anatomy.midline import value_at
from cytoarch.anatomy.ribbons import Float64, Int64, Mask

BAND_ROWS = 1024
"""Rows of an image that are held at once."""
FLAT = 1e-9
"""A slope of depth, per cell, that has no direction."""
LEAST_SHARE = 0.05
"""Of a Gaussian that lies in tissue: where less does, no density of cells is told."""

ReadRows = Callable[[int, int], NDArray[np.generic]]
"""The rows (h, w) of an image from a first row on."""


def part_lengths(ways: Float64) -> Float64:
    """The length (n, count) of the part of a column around each of its places (n, count, 2), in the unit of these.

    The first and the last place are the middles of parts: each end reaches as far beyond as half the step beside it.

    >>> part_lengths(np.array([[[0.0, 0.0], [2.0, 0.0], [3.0, 0.0]]])).tolist()
    [[2.0, 1.5, 1.0]]
    """
    steps = np.linalg.norm(np.diff(ways, axis=1), axis=2)
    before = np.concatenate([steps[:, :1], steps], axis=1)
    after = np.concatenate([steps, steps[:, -1:]], axis=1)
    return np.asarray((before + after) / 2)


def slant(cut_angle_deg: Float64) -> Float64:
    """By what (n,) lengths in a section are multiplied to be those of the cortex; 1 where the angle is not known.

    >>> slant(np.array([90.0, 30.0, np.nan])).round(3).tolist()
    [1.0, 0.5, 1.0]
    """
    return np.asarray(np.where(np.isfinite(cut_angle_deg), np.sin(np.radians(cut_angle_deg)), 1.0))


def bending(field: Float64, places: Float64, sigma: float) -> Float64:
    """How the lines of equal depth bend (n,) at places (n, 2) in cells, per cell; positive on crowns of gyri.

    The divergence of the direction towards the pial surface, of depth (y, x) under a Gaussian of `sigma` cells.
    """
    slopes = np.stack(np.gradient(ndimage.gaussian_filter(field, sigma, mode="nearest")))
    steep = np.linalg.norm(slopes, axis=0)
    down, right = slopes / np.where(steep > FLAT, steep, np.inf)
    return -value_at(np.gradient(down, axis=0) + np.gradient(right, axis=1), places)


def along(read: ReadRows, shape: tuple[int, int], places: Float64, order: int) -> Float64:
    """The values (...) of an image (y, x) at places (..., 2) in its pixels; NaN where a place is none.

    Linear between pixels (`order` 1) or that of the nearest (0); beyond the image, as at its edge. The image is read
    from top to bottom, some rows at a time.
    """
    flat = np.clip(places.reshape(-1, 2), 0, np.array(shape) - 1)
    values = np.full(len(flat), np.nan)
    for top in range(0, shape[0], BAND_ROWS):
        here = np.flatnonzero((flat[:, 0] >= top) & (flat[:, 0] < top + BAND_ROWS))
        if not len(here):
            continue
        rows = np.asarray(read(top, min(BAND_ROWS + 1, shape[0] - top)))
        y, x = flat[here].T
        values[here] = ndimage.map_coordinates(rows, [y - top, x], output=np.float64, order=order, mode="nearest")
    return values.reshape(places.shape[:-1])


def layer_lengths(layers: Float64, parts: Float64, ids: Int64) -> Float64:
    """How much (n, k) of each column lies in each layer, from the layer (n, count) and the length of its parts."""
    lengths = [np.where(layers == one, parts, 0.0).sum(axis=1) for one in ids]
    return np.array(lengths, dtype=np.float64).reshape(len(ids), len(parts)).T


def layer_means(values: Float64, layers: Float64, parts: Float64, ids: Int64) -> Float64:
    """The mean (n, k) of values (n, count) within each layer of a column; NaN in columns without it."""
    found = []
    for one in ids:
        weight = np.where((layers == one) & np.isfinite(values), parts, 0.0)
        total = weight.sum(axis=1)
        mean = (weight * np.nan_to_num(values)).sum(axis=1) / np.where(total > 0, total, 1.0)
        found.append(np.where(total > 0, mean, np.nan))
    return np.array(found, dtype=np.float64).reshape(len(ids), len(parts)).T


def cell_density(cells: Float64, tissue: Mask, sigma: float) -> Float64:
    """Cells per grid cell (y, x), of the middles (n, 2) of cells in cells of a grid, under a Gaussian of `sigma`.

    Divided by how much of the Gaussian lies in tissue, so that density does not fall off at its edge; NaN outside.
    """
    at = np.rint(cells).astype(np.int64)
    inside = ((at >= 0) & (at < np.array(tissue.shape))).all(axis=1)
    count = np.zeros(tissue.shape)
    np.add.at(count, tuple(at[inside].T), 1.0)
    seen, there = (
        ndimage.gaussian_filter(one, sigma, mode="constant") for one in (count * tissue, tissue.astype(np.float64))
    )
    return np.asarray(np.where(tissue & (there > LEAST_SHARE), seen / np.maximum(there, LEAST_SHARE), np.nan))
