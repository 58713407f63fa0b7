"""Points along the middle of the cortex of a section, with their truth: where patches are centred."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from skimage import measure

from cytoarch.phantoms.damage import TEAR
from cytoarch.phantoms.kernels import GREY
from cytoarch.phantoms.sections import PhantomSection, Window
from cytoarch.phantoms.truth import Truth, truth, truth_at

Float64 = NDArray[np.float64]

GRID_UM = 50.0
"""Pixel size at which the middle of the cortex is traced."""
MID_DEPTH = 0.5


@dataclass(frozen=True)
class MidlinePoints:
    """Points (n) along the middle of the cortex of a section, equally far apart, in order along each line."""

    slide_mm: Float64
    """(n, 2) y, x on the slide."""
    line: NDArray[np.int64]
    """(n,) which line of the section a point lies on; a tear ends a line."""
    truth: Truth
    """The truth of every point, arrays (n,)."""


def midline_points(section: PhantomSection, spacing_mm: float = 1.0) -> MidlinePoints:
    """Points every `spacing_mm` of tissue along the middle of the cortex; none where tissue is torn away.

    The middle is where depth is 0.5, traced on a grid of 50 um. A line begins half a spacing from its end, so that on
    average a length of l mm holds l / spacing points.
    """
    height, width = section.size_px(GRID_UM)
    # traced on the section as it was before it tore: a contour would follow the edges of tears
    whole = truth(_untorn(section), Window(0, 0, height, width), GRID_UM)
    field = np.where(whole.tissue == GREY, whole.depth, whole.tissue > 0).astype(np.float64)
    step_mm = spacing_mm * (1 - section.mounting.shrinkage)
    places = [np.empty((0, 2))]
    lines = [np.empty(0, np.int64)]
    for number, contour in enumerate(measure.find_contours(field, MID_DEPTH)):
        line = (contour + 0.5) * GRID_UM / 1000
        along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
        targets = np.arange(step_mm / 2, along[-1], step_mm)
        places.append(np.stack([np.interp(targets, along, line[:, axis]) for axis in (0, 1)], axis=1))
        lines.append(np.full(len(targets), number))
    points, numbers = np.concatenate(places), np.concatenate(lines)
    found = truth_at(section, points)
    kept = np.flatnonzero((found.tissue == GREY) & (found.damage != TEAR))
    # what lies between two points that follow each other on a line is whole
    breaks = (np.diff(kept) > 1) | (np.diff(numbers[kept]) > 0)
    pieces = np.cumsum(np.concatenate([np.zeros(min(1, len(kept)), np.int64), breaks]))
    return MidlinePoints(points[kept], pieces, found[kept])


def _untorn(section: PhantomSection) -> PhantomSection:
    mounting = section.mounting
    return replace(section, mounting=replace(mounting, tears=mounting.tears[:0]))
