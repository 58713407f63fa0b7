"""What a head makes of a window, piece by piece, and where it is least sure."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from scipy.ndimage import gaussian_filter

from cytoarch.annotations.drawing import DrawnLabels
from cytoarch.brains import LabelClass
from cytoarch.geometry import Grid
from cytoarch.interactive.regions import Window, nearest_first
from cytoarch.interactive.sight import Sight
from cytoarch.interactive.views import Seen, Spot
from cytoarch.learning.sketch import MARGIN, Sketch
from cytoarch.learning.targets import UNLABELLED, targets_on_grid

TILE_CELLS = 256
"""Edge of what is predicted at once, in cells: a view fills in piece by piece."""
BLUR_CELLS = 3.0
"""Where a head is least sure is decided over so many cells around: a single odd cell is no place to draw."""


def predicted(
    sight: Sight, head: Sketch, section_id: str, window: Window, centre: tuple[float, float]
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
