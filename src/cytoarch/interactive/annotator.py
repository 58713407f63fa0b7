"""A person as code: looks where the map is most wrong, and draws a stroke along the middle of what should be there."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import skeletonize

from cytoarch.geometry import Grid
from cytoarch.phantoms.scribbles import longest_path

SMALLEST_PX = 12
"""Pieces of fewer pixels are too small to be seen as wrong, let alone to be drawn in."""


class Drawn(NamedTuple):
    """A stroke that the annotator would draw."""

    label: int
    path_px: NDArray[np.float64]
    """(n, 2) y, x in pixels of the truth, zero at the corner of the first one."""


class Annotator:
    """Draws from a truth that nobody else sees; the same truth, maps and seed give the same strokes."""

    def __init__(self, truth: NDArray[np.integer], seed: int, length_px: tuple[float, float] = (20.0, 60.0)) -> None:
        self.truth, self.length_px = truth, length_px
        self._rng = np.random.default_rng(seed)
        self.labels: Sequence[int] = [int(one) for one in np.unique(truth) if one]

    def strokes(self, found: NDArray[np.integer] | None, per_class: int = 1) -> list[Drawn]:
        """A round of strokes, class by class: in the largest pieces that a map (y, x) on the truth's pixels has wrong.

        Without a map, in the largest pieces there are. A class that is right everywhere, or nowhere large enough, gets
        no stroke.
        """
        if found is not None and found.shape != self.truth.shape:
            raise ValueError(f"the map has {found.shape} pixels, the truth {self.truth.shape}")
        drawn: list[Drawn] = []
        for label in self.labels:
            wrong = self.truth == label if found is None else (self.truth == label) & (found != label)
            drawn += [Drawn(label, path) for path in self._paths(wrong, per_class)]
        return drawn

    def _paths(self, wrong: NDArray[np.bool_], count: int) -> list[NDArray[np.float64]]:
        """Paths along the middle of the `count` largest pieces; of fewer pieces several are drawn in the same one."""
        pieces, _ = ndimage.label(wrong, np.ones((3, 3)))
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        largest = [int(one) for one in np.argsort(-sizes, kind="stable")[:count] if sizes[one] >= SMALLEST_PX]
        paths: list[NDArray[np.float64]] = []
        for place in range(count if largest else 0):
            box = ndimage.find_objects(pieces)[largest[place % len(largest)] - 1]
            piece = np.pad(pieces[box] == largest[place % len(largest)], 1)
            way = longest_path(np.argwhere(skeletonize(piece)))
            length = round(float(self._rng.uniform(*self.length_px)))
            start = int(self._rng.integers(max(0, len(way) - length) + 1))
            cells = way[start : start + length] - 1 + np.array([box[0].start, box[1].start])
            # centres of pixels, counted from the corner of the first one
            paths.append(Grid.at_corner((1, 1), 1.0, (0.0, 0.0)).um(cells))
        return paths
