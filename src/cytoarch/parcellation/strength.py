"""How strongly maps are smoothed across sections: as labelled sections ask for that the head has not seen."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cytoarch.brains import LabelClass
from cytoarch.learning.smoothing import WINDOW_CELLS, WINDOWS, Smoothing, best_strength, cells_by_block
from cytoarch.learning.targets import UNLABELLED, LabelPixels, targets_on_grid
from cytoarch.parcellation.drawing import draw_window
from cytoarch.parcellation.sparse import SparseProbabilities
from cytoarch.parcellation.weighted import Changes, Weighted
from cytoarch.sampling import reading
from cytoarch.tiling import evenly, partition

Int64 = NDArray[np.int64]

STRENGTHS = (0.0, 0.5, 1.0, 2.0, 3.0)
"""That are tried; what is two points wide is gone at 5."""


class Unseen(NamedTuple):
    """A labelled section that a head has not learned from."""

    probabilities: SparseProbabilities
    labels: LabelPixels


Place = tuple[str, tuple[int, int, int, int]]
"""A section, and a window (y, x, height, width) of its cells."""


def choose_strength(
    sections: Mapping[str, Unseen],
    classes: Sequence[LabelClass],
    changes_by: Callable[[float], Mapping[str, Changes]],
    farthest_um: float,
    weight: float,
) -> Smoothing | None:
    """The strength that scores best on sections that a head has not seen; None where these hold no label.

    `changes_by` gives what a strength changes at the points of these sections; it is not asked about 0, which changes
    nothing. Cells follow points up to `farthest_um`, and maps are drawn on the grid of their probabilities, smoothed by
    total variation of `weight`: the order of layers and a coarser level, by which maps may be kept, are left out. See
    `best_strength`. Raises UnreadableSectionError if a section is damaged.
    """
    places = list(_labelled(sections, classes))
    chosen = [places[one] for one in evenly(len(places), WINDOWS)]
    truths = [_truth(sections, classes, one) for one in chosen]
    found: dict[float, list[Int64]] = {strength: [] for strength in STRENGTHS}
    for strength, counts in found.items():
        changes = changes_by(strength) if strength else {}
        for (section_id, window), truth in zip(chosen, truths, strict=True):
            alone = sections[section_id].probabilities
            with reading(section_id):
                followed = Weighted(alone, changes.get(section_id, Changes.none()), farthest_um)
                drawn = draw_window(followed, alone.grid, window, weight).channels.astype(np.int64)
            counts.append(cells_by_block(truth, drawn, len(classes) + 1))  # outside tissue first
        del changes  # before the next are made: there is room for those of one strength
    numbers = list(sections)
    return best_strength(found, [numbers.index(section_id) for section_id, _ in chosen])


def _labelled(sections: Mapping[str, Unseen], classes: Sequence[LabelClass]) -> Iterator[Place]:
    """The windows that hold labels, section by section."""
    for section_id, section in sections.items():
        for window in partition(*section.probabilities.grid.shape, WINDOW_CELLS):
            if (_truth(sections, classes, (section_id, window)) != UNLABELLED).any():
                yield section_id, window


def _truth(sections: Mapping[str, Unseen], classes: Sequence[LabelClass], place: Place) -> Int64:
    """The class (y, x) of every cell of a window, see `targets`."""
    section_id, window = place
    section = sections[section_id]
    with reading(section_id):
        return targets_on_grid(section.labels, classes, section.probabilities.grid.window(*window))
