"""An atlas cut along a section: label images, hemispheres and priors on a grid of the section.

What comes out is automatic: it is as good as the registration, and says so wherever it goes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cytoarch.anatomy.reference.anchorings import Anchoring
from cytoarch.anatomy.reference.volumes import AtlasVolume
from cytoarch.geometry import Grid

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

BAND_CELLS = 1 << 20
"""Cells that are looked up at once."""
TRUNCATE = 4.0
"""Standard deviations after which a prior no longer reaches."""


@dataclass(frozen=True)
class AtlasCut:
    """What an atlas says of the cells of a grid."""

    labels: NDArray[Any]
    """(y, x) ids of the atlas, 0 outside."""
    hemisphere: NDArray[np.uint8]
    """(y, x) 0 outside, 1 left, 2 right."""
    grid: Grid


def atlas_places(anchoring: Anchoring, volume: AtlasVolume, section: Grid, um: Float64) -> Float64:
    """(..., 3) voxels of the atlas, counted from its corner, of places (..., 2) um in the frame of a section.

    `section` is the grid of the section's image; the anchoring was made on all of it, at whatever size.
    """
    edges = np.array(section.extent_um)
    return volume.voxels(anchoring, (np.asarray(um, dtype=np.float64) - np.array(section.corner_um)) / edges)


def atlas_mm(anchoring: Anchoring, volume: AtlasVolume, section: Grid, um: Float64) -> Float64:
    """(..., 3) mm in the space of the atlas of places (..., 2) um in the frame of a section."""
    voxels = Grid((1, 1), 1.0, (0.0, 0.0))  # its corner lies half a cell before its first centre
    from_corner = atlas_places(anchoring, volume, section, um)
    return volume.to_mm(from_corner + voxels.corner_um[0])


def cut_section(anchoring: Anchoring, volume: AtlasVolume, section: Grid, grid: Grid) -> AtlasCut:
    """The labels of an atlas at the centres of a grid's cells, `section` being the grid of the section's image."""
    labels = np.zeros(grid.shape, dtype=volume.labels.dtype)
    sides = np.zeros(grid.shape, dtype=np.uint8)
    y, x = grid.centres_um()
    rows = max(1, BAND_CELLS // len(x))
    for top in range(0, len(y), rows):
        um = np.stack(np.meshgrid(y[top : top + rows], x, indexing="ij"), axis=-1)
        voxels = atlas_places(anchoring, volume, section, um)
        band = volume.at(voxels)
        labels[top : top + rows] = band
        sides[top : top + rows] = np.where(band != 0, volume.hemisphere(voxels), 0)
    return AtlasCut(labels, sides, grid)


def prior_maps(cut: AtlasCut, ids: Sequence[int], uncertainty_um: float) -> Float32:
    """(k + 1, y, x) how likely every cell is none of these ids, or each of them; sums to 1 over the first axis.

    A registration that errs by `uncertainty_um` (standard deviation along an axis) makes a Gaussian of every border.
    """
    sigma = uncertainty_um / cut.grid.cell_um
    members = np.stack([cut.labels == one for one in ids]).astype(np.float32)
    none = 1 - members.sum(axis=0, keepdims=True)
    planes = [ndimage.gaussian_filter(one, sigma, mode="nearest", truncate=TRUNCATE) for one in (*none, *members)]
    priors = np.stack(planes)
    return np.asarray(priors / priors.sum(axis=0, keepdims=True), dtype=np.float32)
