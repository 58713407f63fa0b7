"""Patches whose areas are known cell by cell, and an atlas of them that other brains make."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cytoarch.pretraining.augmentation import Draws, changed, places_px
from cytoarch.pretraining.cells import CellMaps
from cytoarch.pretraining.patches import PatchPoints, Windows, cut
from cytoarch.pretraining.unet import AreaBatch

NEIGHBOURS = 24
"""Labelled points of other brains that the atlas takes the areas of a place from."""

NOBODY = -1
"""A brain that has no point."""

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Priors = Callable[[Int64, Int64], Float32]
"""Probabilities (n, t, k) of the classes of cells (n, t) of brains (n,)."""


@dataclass(frozen=True)
class BrainsAtlas:
    """How likely every area is at a place: its share among the nearest labelled points of other brains."""

    points: PatchPoints
    """All with a label."""
    classes: int
    neighbours: int = NEIGHBOURS

    def at(self, brain: Int64, places_mm: NDArray[np.floating]) -> Float32:
        """Probabilities (n, k) of places (n, 3) in brains (n,), of which none tells of itself."""
        told = np.zeros((len(brain), self.classes), dtype=np.float32)
        each = np.eye(self.classes, dtype=np.float32)
        for one in np.unique(brain).tolist():
            tree, labels = self._others.get(one, self._others[NOBODY])
            nearest = np.arange(1, min(self.neighbours, len(labels)) + 1)
            told[brain == one] = each[labels[tree.query(places_mm[brain == one], k=nearest)[1]]].mean(axis=1)
        return told

    @cached_property
    def _others(self) -> dict[int, tuple[cKDTree, Int64]]:
        """Places and labels of all points but those of a brain."""
        found = {}
        for one in (NOBODY, *np.unique(self.points.brain).tolist()):
            others = self.points[np.flatnonzero(self.points.brain != one)]
            found[one] = (cKDTree(others.position_mm), others.label)
        return found


@dataclass(frozen=True)
class AreaPatches:
    """Patches around points with the areas of their cells, and an atlas laid over them."""

    pixels: Windows
    points: PatchPoints
    cells: CellMaps
    patch_px: int
    priors: Priors | None = None

    def batch(self, chosen: Int64, draws: Draws) -> AreaBatch:
        """The patches of some points (n,), as drawn."""
        points, device = self.points[chosen], self.pixels.device
        grid = self.patch_px // self.cells.cell_px
        every = np.broadcast_to(np.arange(grid * grid), (len(points), grid * grid))
        cells = self.cells.at(points.section, places_px(points.centre_px, draws, self.patch_px, grid, every))
        areas = self.cells.area[cells].astype(np.int64).reshape(-1, grid, grid)
        priors = None
        if self.priors is not None:
            told = np.moveaxis(self.priors(points.brain, cells), -1, 1).reshape(len(points), -1, grid, grid)
            priors = torch.from_numpy(told).to(device)
        return AreaBatch(
            changed(cut(self.pixels, points, draws, self.patch_px), draws),
            torch.from_numpy(points.position_mm).to(device), torch.from_numpy(points.label).to(device),
            torch.from_numpy(areas).to(device), priors,
        )  # fmt: skip


def atlas_of(atlas: BrainsAtlas, cells: CellMaps) -> Priors:
    """The probabilities of cells (n, t) of brains (n,) by an atlas: (n, t, k)."""

    def priors(brain: Int64, chosen: Int64) -> Float32:
        whose = np.repeat(brain, chosen.shape[1])
        return atlas.at(whose, cells.position_mm[chosen.ravel()]).reshape(*chosen.shape, -1)

    return priors
