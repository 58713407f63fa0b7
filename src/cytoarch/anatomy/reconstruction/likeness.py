"""Overviews made alike: how strongly each place is stained, in units of the section's own tissue."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cytoarch.geometry import Grid, Pair, Transform

Float32 = NDArray[np.float32]
Mask = NDArray[np.bool_]

MOST = 1.6
"""Stain beyond this, in units of the tissue's median, is that of folds and dirt."""
RIM_CELLS = 2
"""Cells around the tissue that belong to its picture: its edge is what is aligned best."""
BLUR_CELLS = 0.7
"""Standard deviation of the blur of coarser planes."""
COARSE_CELLS = 72
"""Cells along the longer edge of the plane on which all turns are tried."""


@dataclass(frozen=True)
class Overview:
    """A section as it is aligned: a grey picture and where it holds tissue."""

    grey: NDArray[np.generic]
    """(y, x) of any range."""
    mask: Mask
    """(y, x)."""
    grid: Grid
    polarity: Literal["dark", "bright"]
    """Of the tissue against the slide."""
    channels: int = 1
    """Of the scan: grey and colour are different stains."""


@dataclass(frozen=True)
class Plane:
    """Values on a grid; zero beyond it."""

    values: Float32
    grid: Grid

    def halved(self, count: int = 2) -> "Plane":
        """Means of `count` x `count` cells; beyond the edge there is zero."""
        grid = self.grid.grouped(count)
        padded = np.zeros((grid.shape[0] * count, grid.shape[1] * count), np.float32)
        padded[: self.values.shape[0], : self.values.shape[1]] = self.values
        blocks = padded.reshape(grid.shape[0], count, grid.shape[1], count)
        return Plane(blocks.mean(axis=(1, 3), dtype=np.float32), grid)

    def smoothed(self, sigma_cells: float) -> "Plane":
        """Blurred by a Gaussian; there is zero around the grid."""
        return Plane(ndimage.gaussian_filter(self.values, sigma_cells, mode="constant"), self.grid)

    def on(self, grid: Grid, way: Transform) -> Float32:
        """The values seen from another grid, whose places (um) a transform leads to this one; linear between cells."""
        cells = grid.transform.then(way).then(self.grid.transform.inverse())
        return np.asarray(
            ndimage.affine_transform(self.values, cells.linear, cells.added, output_shape=grid.shape, order=1)
        )


@dataclass(frozen=True)
class Likeness:
    """A section ready to be aligned. Planes: 0 slide, 1 the tissue's median."""

    section_id: str
    plane: Plane
    tissue: Mask
    """(y, x), on the plane's grid, holes filled."""

    @cached_property
    def centre_um(self) -> Pair:
        """(y, x) of the middle of its tissue."""
        y, x = self.plane.grid.um(np.argwhere(self.tissue).mean(axis=0)).tolist()
        return y, x

    @cached_property
    def radius_um(self) -> float:
        """Root mean square distance of its tissue from the middle."""
        places = self.plane.grid.um(np.argwhere(self.tissue))
        return float(np.sqrt(((places - np.array(self.centre_um)) ** 2).sum(axis=1).mean()))

    @cached_property
    def levels(self) -> tuple[Plane, Plane]:
        """Means of 2 x 2 and of 4 x 4 cells, slightly blurred, the finer first; refinement begins with the last."""
        finer, coarser = (self.plane.halved(count).smoothed(BLUR_CELLS) for count in (2, 4))
        return finer, coarser

    @cached_property
    def coarse(self) -> Plane:
        """A plane of few cells, on which every turn can be tried."""
        count = max(1, math.ceil(max(self.plane.grid.shape) / COARSE_CELLS))
        return self.plane.halved(count).smoothed(BLUR_CELLS)


def likeness(section_id: str, overview: Overview, cell_um: float) -> Likeness | None:
    """A section in cells of `cell_um`, dark or bright stains alike; None where it holds too little tissue to tell.

    The slide becomes 0 and the median of the tissue 1, by the medians of what lies inside and outside the mask.
    """
    grey = np.asarray(overview.grey, dtype=np.float32)
    tissue = ndimage.binary_fill_holes(overview.mask)
    if not tissue.any() or tissue.all():
        return None
    slide = float(np.median(grey[~tissue]))
    sign = 1.0 if overview.polarity == "bright" else -1.0
    strength = float(np.median(sign * (grey[overview.mask] - slide)))
    if strength <= 0:
        return None
    stained = np.clip(sign * (grey - slide) / strength, 0, MOST)
    stained *= ndimage.binary_dilation(tissue, iterations=RIM_CELLS)
    plane = Plane(stained.astype(np.float32), overview.grid)
    if abs(overview.grid.cell_um - cell_um) > 1e-6 * cell_um:
        grid, blur = overview.grid.covered_by(cell_um), cell_um / overview.grid.cell_um
        same = Transform.scaling((1.0, 1.0))
        held = Plane(tissue.astype(np.float32), overview.grid)
        tissue = held.on(grid, same) > 0.5
        plane = Plane(plane.smoothed(max(0.0, blur - 1)).on(grid, same), grid)
    return Likeness(section_id, plane, tissue) if tissue.any() else None
