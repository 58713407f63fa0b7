"""What a head makes of a window, piece by piece, and where it is least sure.

Near a stroke its class is likelier than the head alone would say: a person who draws there knows the place, and layers
go on from where they were seen. Where nothing is drawn, as on another section, the head decides alone.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

from cytoarch.annotations.drawing import DrawnLabels
from cytoarch.brains import LabelClass
from cytoarch.geometry import Grid
from cytoarch.interactive.regions import Layout, Window, nearest_first
from cytoarch.interactive.sight import Sight
from cytoarch.interactive.views import Seen, Spot
from cytoarch.learning.sketch import MARGIN, Sketch
from cytoarch.learning.targets import UNLABELLED, targets_on_grid

TILE_CELLS = 256
"""Edge of what is predicted at once, in cells: a view fills in piece by piece."""
BLUR_CELLS = 3.0
"""Where a head is least sure is decided over so many cells around: a single odd cell is no place to draw."""
NEAR_UM, NEAR_WEIGHT = 300.0, 3.0
"""Logarithm of how much likelier a class is on its strokes, and how far from them it is 1/e of that: see
benchmarks/README.md."""


def near_strokes(
    layout: Layout, drawn: DrawnLabels, classes: Sequence[LabelClass], window: Window, cells_per_token: int
) -> NDArray[np.float32] | None:
    """How near (k, y, x) the cells of a window of tokens lie to strokes of each class: 1 on one, to 0 far away.

    None: no stroke is near.
    """
    reach = math.ceil(4 * NEAR_UM / layout.tokens.cell_um)
    y, x, height, width = window
    around = layout.clipped((y - reach, x - reach, height + 2 * reach, width + 2 * reach))
    cells = layout.tokens.window(*around).split(cells_per_token)
    if drawn.is_blank(cells):
        return None
    targets, u = targets_on_grid(drawn, classes, cells), cells_per_token
    top, left = (y - around[0]) * u, (x - around[1]) * u
    found = np.zeros((len(classes), height * u, width * u), dtype=np.float32)
    for one in np.unique(targets[targets != UNLABELLED]).tolist():
        far_um = distance_transform_edt(targets != one) * cells.cell_um
        found[one] = np.exp(-far_um[top : top + height * u, left : left + width * u] / NEAR_UM)
    return found


def predicted(
    sight: Sight, head: Sketch, drawn: DrawnLabels, section_id: str, window: Window, centre: tuple[float, float]
) -> Iterator[Seen]:
    """What a head makes of a window of tokens where it is embedded, nearest to a place (y, x) in tokens first."""
    layout, u = sight.blocks.layout(section_id), head.card.cells_per_token
    ids = np.array([one.ids[0] for one in head.card.classes], dtype=np.uint16)
    for part in nearest_first(window, max(1, TILE_CELLS // u), centre):
        read = sight.read(section_id, part)
        if read is None or not read[1].any():
            continue
        cells = layout.tokens.window(*part).split(u)
        known = np.repeat(np.repeat(read[1], u, 0), u, 1) & layout.tissue.on_grid(cells)
        labels, confidence = np.zeros(known.shape, dtype=np.uint16), np.zeros(known.shape, dtype=np.float32)
        if known.any():
            found = head.seen(read[0], known, MARGIN)
            near = near_strokes(layout, drawn, head.card.classes, part, u)
            if near is not None:
                found *= np.exp(NEAR_WEIGHT * near[:, known].T)
                found /= found.sum(axis=1, keepdims=True)
            two = np.partition(found, found.shape[1] - 2, axis=1)[:, -2:]
            labels[known], confidence[known] = ids[found.argmax(axis=1)], two[:, 1] - two[:, 0]
        yield Seen(section_id, cells, labels, confidence, (part[0] * u, part[1] * u))


def least_sure(
    parts: Iterable[tuple[DrawnLabels, Seen]], classes: Sequence[LabelClass], image_of: Callable[[str], Grid]
) -> Spot | None:
    """The place at which a head is least sure among what it has seen and where nothing is drawn; None: nowhere."""
    best: tuple[float, Spot] | None = None
    for drawn, seen in parts:
        known = seen.labels > 0
        free = known & (targets_on_grid(drawn, classes, seen.grid) == UNLABELLED)
        if not free.any():
            continue
        weight = gaussian_filter(known.astype(np.float32), BLUR_CELLS)
        sure = gaussian_filter(seen.confidence, BLUR_CELLS) / np.maximum(weight, 1e-6)
        y, x = np.unravel_index(np.where(free, sure, np.inf).argmin(), sure.shape)
        place = image_of(seen.section_id).from_corner(seen.grid.um(np.array([y, x])))
        if best is None or float(sure[y, x]) < best[0]:
            best = float(sure[y, x]), Spot(seen.section_id, float(place[0]), float(place[1]))
    return best[1] if best else None
