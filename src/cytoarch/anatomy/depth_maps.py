"""Depth of a section where it lies: written beside its other products, and offered to heads as a further input."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from cytoarch.anatomy.depth import Depth, DepthSettings, Float32, measure_depth
from cytoarch.anatomy.matter import WHITE
from cytoarch.anatomy.ribbons import NoCortexError, Ribbon
from cytoarch.geometry import Grid
from cytoarch.images.layout import Journal, Pyramid
from cytoarch.images.ngff import image_label
from cytoarch.images.pyramids import write_group, write_pyramid
from cytoarch.images.views import StoredImage

UInt8 = NDArray[np.uint8]
DepthInput = Literal["none", "laplace", "equidistant", "equivolumetric"]
"""What heads are told of depth."""

KNOTS = 9
"""Depths at which a channel has its peak: 0, 1/8, ... 1, about one a layer and one for every border."""
DEPTH_CHANNELS = KNOTS + 1
"""Channels that heads get: one for every knot, and one for white matter."""
OUTSIDE, CORTEX, WHITE_MATTER = 0, 1, 2
"""Values of the label `ribbon` of a depth map."""


@dataclass(frozen=True)
class DepthMap:
    """Depth on a grid of a section."""

    depth: Float32
    """(y, x), 0 at the pial to 1 at the white surface; 1 in white matter, 0 elsewhere outside the cortex."""
    ribbon: UInt8
    """(y, x) 0 neither, 1 cortex, 2 white matter."""
    grid: Grid

    @classmethod
    def measure(cls, classes: NDArray[np.uint8], grid: Grid, settings: DepthSettings) -> tuple[Self, str]:
        """The depth in tissue classes (y, x) on their grid, and why there is none; a blank where there is some."""
        white = classes == WHITE
        try:
            found = measure_depth(Ribbon.of(classes, grid.cell_um, sides=settings.sides), settings.kind)
        except NoCortexError as error:
            nowhere = np.zeros(classes.shape, dtype=bool)
            found, reason = Depth(np.zeros(classes.shape, dtype=np.float32), nowhere), str(error)
        else:
            reason = ""
        ribbon = np.where(found.cortex, CORTEX, np.where(white, WHITE_MATTER, OUTSIDE)).astype(np.uint8)
        return cls(np.where(white, np.float32(1), found.depth), ribbon, grid), reason

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the map of a committed product. Raises SectionError if it is damaged."""
        level = StoredImage.open(path).levels[0]
        ribbon = StoredImage.open(path / "labels" / "ribbon").levels[0]
        return cls(level.pixels(), ribbon.pixels(), level.grid)

    def write(self, journal: Journal) -> None:
        """Write the depth as an image (y, x) float32, with what it lies in as its label `ribbon`."""
        depth, ribbon = self.depth, self.ribbon
        image, label = Pyramid.on(self.grid, depth.dtype, "mean"), Pyramid.on(self.grid, ribbon.dtype, "mode")
        write_pyramid(journal, image, lambda y, x, h, w: depth[y : y + h, x : x + w], name="depth")
        write_group(journal, "labels", {"ome": {"version": "0.5", "labels": ["ribbon"]}})
        names = {CORTEX: "cortex", WHITE_MATTER: "white matter"}
        colours = {CORTEX: (230, 120, 60), WHITE_MATTER: (200, 200, 200)}
        write_pyramid(
            journal,
            label,
            lambda y, x, h, w: ribbon[y : y + h, x : x + w],
            name="ribbon",
            folder="labels/ribbon",
            attributes={"image-label": image_label(names, colours)},
        )

    @property
    def cortex(self) -> NDArray[np.bool_]:
        """(y, x) where depth has a meaning."""
        return np.asarray(self.ribbon == CORTEX)

    # -- as an input of heads

    @property
    def dim(self) -> int:
        """Channels it adds to an embedding."""
        return DEPTH_CHANNELS

    def codes(self, grid: Grid) -> Float32:
        """One number a cell (y, x) of a grid, at its centre: depth in cortex, 2 in white matter, -1 elsewhere.

        Beyond the map as at its edge.
        """
        at = np.ix_(*grid.nearest_in(self.grid))
        ribbon = self.ribbon[at]
        return np.where(ribbon == CORTEX, self.depth[at], np.where(ribbon == WHITE_MATTER, 2, -1)).astype(np.float32)

    def channels(self, grid: Grid) -> Float32:
        """The channels (c, y, x) that join an embedding on a grid of tokens."""
        return np.moveaxis(depth_channels(self.codes(grid)), -1, 0)


def depth_channels(codes: Float32) -> Float32:
    """What heads are told of depth (..., c), from its codes (...): a linear head can draw layers from it.

    Depth is spread over channels that each peak at a knot and fall to zero at the next; one more is 1 in white matter.

    >>> depth_channels(np.array([0.0625, 2.0, -1.0], np.float32))[:, [0, 1, 8, 9]].tolist()
    [[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
    """
    inside = (codes >= 0) & (codes <= 1)
    away = np.abs((KNOTS - 1) * codes[..., None] - np.arange(KNOTS, dtype=np.float32))
    peaks = np.where(inside[..., None], np.maximum(0, 1 - away), 0)
    return np.concatenate([peaks, (codes > 1)[..., None]], axis=-1).astype(np.float32)
