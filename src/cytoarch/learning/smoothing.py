"""Probabilities smoothed by total variation, and how strongly: as sections ask for that a head has not seen."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cytoarch.learning.application import halo_of
from cytoarch.learning.datasets import LabelledSection
from cytoarch.learning.heads import Head
from cytoarch.learning.targets import UNLABELLED
from cytoarch.measures.overlap import class_scores, confusion_matrix, map_macro_f1
from cytoarch.sampling import reading
from cytoarch.tiling import evenly, partition
from cytoarch.variation import denoised

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

WEIGHTS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.25)
"""Strengths that are tried."""
DEFAULT_WEIGHT = 0.05
"""Where no section was held out: a strip two cells wide survives where its class leads by a tenth."""
LARGEST_LOSS = 0.01
"""F1 that no class may lose, however much the others gain: thin layers are not sacrificed to large areas."""
FOUND = 0.3
"""F1 from which a class counts as found at all; of others there is nothing to lose."""
NEAR = 0.002
"""Macro-F1 that is as good as the best."""
PRESENT = 1e-3
"""A class whose probability varies less over a window is not smoothed there."""
WINDOW_CELLS, HALO_CELLS = 160, 32
"""Edge of what is scored at once, and what is smoothed beyond it."""
WINDOWS = 24
"""Windows that are scored, spread over all that hold labels."""


class Smoothing(NamedTuple):
    """How strongly a head's maps are smoothed, and why."""

    weight: float
    macro_f1: dict[float, float]
    """By strength, over the windows that were scored; 0: as they were before."""

    def facts(self) -> dict[str, Any]:
        """As JSON values."""
        return {"weight": self.weight, "macro_f1": [[one, round(score, 6)] for one, score in self.macro_f1.items()]}


def smooth_probabilities(probabilities: Float32, weight: float) -> Float32:
    """Total-variation denoising of probabilities (k, y, x), renormalised to sum to 1; classes that are absent as is.

    Channels are denoised one by one, which leaves the simplex; dividing by the sum brings the result back.
    """
    if weight == 0:
        return probabilities
    smooth = np.empty(probabilities.shape, dtype=np.float32)
    for own, channel in zip(smooth, probabilities, strict=True):
        own[:] = np.maximum(denoised(channel, weight), 0) if np.ptp(channel) > PRESENT else channel
    return np.asarray(smooth / np.maximum(smooth.sum(axis=0), 1e-6), dtype=np.float32)


def drawn_channels(probabilities: Float32) -> Int64:
    """The channel (y, x) of the likeliest class of probabilities (k + 1, y, x); 0 where outside is likelier than all.

    >>> drawn_channels(np.array([[[0.3, 0.6]], [[0.3, 0.1]], [[0.4, 0.3]]], dtype=np.float32)).tolist()
    [[2, 0]]
    """
    inside = probabilities[0] < probabilities[1:].sum(axis=0)
    return np.where(inside, 1 + probabilities[1:].argmax(axis=0), 0)


def choose_smoothing(head: Head, sections: Sequence[LabelledSection]) -> Smoothing | None:
    """The strength that scores best on sections that a head has not seen; None where these hold no label.

    See `best_strength`. Raises UnreadableSectionError if a section is damaged.
    """
    count = len(head.card.classes)
    found = {weight: np.zeros((count + 1, count + 1), dtype=np.int64) for weight in WEIGHTS}  # outside tissue first
    places = list(_windows(head, sections))
    for index, window in (places[one] for one in evenly(len(places), WINDOWS)):
        section = sections[index]
        with reading(section.section_id):
            probabilities, truth = _predicted(head, section, window)
        labelled = truth != UNLABELLED
        for weight, counts in found.items():
            drawn = drawn_channels(smooth_probabilities(probabilities, weight))
            np.add(counts, confusion_matrix(truth[labelled] + 1, drawn[labelled], count + 1), out=counts)
    return best_strength(found)


def best_strength(found: Mapping[float, Int64]) -> Smoothing | None:
    """The weakest strength within `NEAR` of the highest macro-F1, by its confusion (k + 1, k + 1); 0 is among them.

    Only such are looked at by which no class that is found loses more than `LARGEST_LOSS`: what a few sections say for
    more is as likely chance. None where nothing was counted.
    """
    if not found[0.0].sum():
        return None
    f1 = {weight: class_scores(counts).f1[1:] for weight, counts in found.items()}
    scores = {weight: map_macro_f1(counts) for weight, counts in found.items()}
    found_before = f1[0.0] >= FOUND
    allowed = [one for one in found if (f1[one] - f1[0.0])[found_before].min(initial=0) >= -LARGEST_LOSS]
    best = max(scores[one] for one in allowed)
    return Smoothing(min(one for one in allowed if scores[one] >= best - NEAR), scores)


def _windows(head: Head, sections: Sequence[LabelledSection]) -> Iterator[tuple[int, tuple[int, int, int, int]]]:
    """The windows (in tokens) that hold labels, each with the place of its section."""
    edge = max(1, WINDOW_CELLS // head.card.cells_per_token)
    for index in range(len(sections)):
        section = sections[index]
        with reading(section.section_id):
            for window in partition(*section.embeddings.grid, edge):
                if (section.targets(head.card.classes, 1, window) != UNLABELLED).any():
                    yield index, window


def _predicted(head: Head, section: LabelledSection, window: tuple[int, int, int, int]) -> tuple[Float32, Int64]:
    """Outside tissue and class probabilities (k + 1, y, x) of a window with its halo, and the truth, there unlabelled.

    Tokens further out are seen too, where the head looks at them.
    """
    cells, reach = head.card.cells_per_token, halo_of(head)
    halo = -(-HALO_CELLS // cells)
    y, x, height, width = _widened(window, halo, section.embeddings.grid)
    top, left, h, w = _widened((y, x, height, width), reach, section.embeddings.grid)
    seen = head.probabilities(section.embeddings.read(top, left, h, w)[None])[0]
    rows, columns = (y - top) * cells, (x - left) * cells
    own = seen[:, rows : rows + height * cells, columns : columns + width * cells]
    truth = section.targets(head.card.classes, cells, (y, x, height, width))
    inner = np.zeros(truth.shape, dtype=bool)
    inner[
        (window[0] - y) * cells : (window[0] - y + window[2]) * cells,
        (window[1] - x) * cells : (window[1] - x + window[3]) * cells,
    ] = True
    grid = section.embeddings.layers[0].grid.window(y, x, height, width).split(cells)
    outside = ~section.tissue.on_grid(grid)
    return np.concatenate([outside[None].astype(np.float32), own * ~outside]), np.where(inner, truth, UNLABELLED)


def _widened(window: tuple[int, int, int, int], by: int, grid: tuple[int, int]) -> tuple[int, int, int, int]:
    y, x, height, width = window
    top, left = max(0, y - by), max(0, x - by)
    return top, left, min(grid[0], y + height + by) - top, min(grid[1], x + width + by) - left
