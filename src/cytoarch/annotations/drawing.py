"""Scribbles as the labels of a section, on the pixels of its scan: computed where they are asked for, never stored."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import shapely
from numpy.typing import NDArray

from cytoarch.annotations.scribbles import Scribble
from cytoarch.brains import Region
from cytoarch.geometry import Grid
from cytoarch.images.outlines import Burned

THINNEST_PX = 1.42
"""A thinner stroke would leave gaps where it runs between the centres of pixels: their diagonal."""


def shape_of(scribble: Scribble) -> Any:
    """What a scribble covers, as a valid shapely geometry in pixels (x, y) of the scan.

    A stroke has round ends; an outline that crosses itself is mended.
    """
    paths = [np.asarray(path, dtype=np.float64)[:, ::-1] for path in scribble.paths_px]
    if scribble.kind == "area":
        area = shapely.Polygon(paths[0], paths[1:])
        return area if area.is_valid else shapely.make_valid(area)
    line = shapely.LineString(paths[0]) if len(paths[0]) > 1 else shapely.Point(paths[0][0])
    return line.buffer(max(scribble.width_px, THINNEST_PX) / 2, quad_segs=4)


@dataclass(frozen=True)
class DrawnLabels:
    """The labels that scribbles give a section, read by window like an image of the store."""

    burned: Burned
    grid: Grid
    """Where the pixels of the section lie."""
    first_px: tuple[int, int]
    """(y, x) of the section's first pixel on its scan."""

    @classmethod
    def of(cls, scribbles: Iterable[Scribble], grid: Grid, region_px: Region | None) -> Self:
        """Those of scribbles on one section; whatever was drawn later covers what was drawn before."""
        kept = list(scribbles)
        first = (0, 0) if region_px is None else (region_px[0], region_px[2])
        return cls(Burned([shape_of(one) for one in kept], [one.label for one in kept]), grid, first)

    @property
    def pixel_size_um(self) -> float:
        """Edge of a pixel (um)."""
        return self.grid.cell_um

    def pixels(self, y: slice = slice(None), x: slice = slice(None)) -> NDArray[Any]:
        """A window (h, w) uint16 or uint32 of label ids; 0 where nothing is drawn."""
        (top, bottom, _), (left, right, _) = (one.indices(n) for one, n in zip((y, x), self.grid.shape, strict=True))
        return self.burned.read(top + self.first_px[0], left + self.first_px[1], bottom - top, right - left)

    def is_blank(self, grid: Grid) -> bool:
        """Whether nothing is drawn near the cells of a grid, as the boxes around the scribbles tell at once."""
        corners = self.grid.from_corner(grid.corners_um) + np.array(self.first_px)
        (top, left), (bottom, right) = corners.min(axis=0), corners.max(axis=0)
        return not self.burned.touches(top, left, bottom, right)
