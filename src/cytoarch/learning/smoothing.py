"""Probabilities smoothed by total variation, and how strongly: as sections ask for that a head has not seen."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cytoarch.learning.application import halo_of
from cytoarch.learning.datasets import LabelledSection
from cytoarch.learning.heads import Head
from cytoarch.learning.targets import UNLABELLED
from cytoarch.measures.overlap import mean_of_defined
from cytoarch.sampling import reading
from cytoarch.tiling import evenly, partition
from cytoarch.variation import denoised

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

WEIGHTS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.25)
"""Strengths that are tried."""
DEFAULT_WEIGHT = 0.05
"""Where no section was held out: a strip two cells wide survives where its class leads by a tenth."""
LARGEST_LOSS = 0.01
"""F1 that no class may surely lose, however much the others gain: thin layers are not sacrificed to large areas."""
MOST_LOSS = 0.05
"""F1 that no class may lose, sure or not: what few sections cannot prove is not harmless for that."""
SURE = 2.0
"""Standard errors of a loss beyond which it is no chance: of many classes some always lose a little on few sections."""
BLOCK_CELLS = 40
"""Edge of the blocks that are left out one by one to tell the standard error, where a class lies in one section only:
wider than what smoothing moves."""
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
    channels = len(head.card.classes) + 1  # outside tissue first
    found: dict[float, list[Int64]] = {weight: [] for weight in WEIGHTS}
    places = list(_windows(head, sections))
    chosen = [places[one] for one in evenly(len(places), WINDOWS)]
    for index, window in chosen:
        section = sections[index]
        with reading(section.section_id):
            probabilities, truth = _predicted(head, section, window)
        for weight, counts in found.items():
            drawn = drawn_channels(smooth_probabilities(probabilities, weight))
            counts.append(cells_by_block(truth, drawn, channels))
    return best_strength(found, [index for index, _ in chosen])


def cells_by_block(truth: Int64, drawn: Int64, channels: int) -> Int64:
    """Cells of a window by block and channel (blocks, 3, k + 1): rightly drawn so, labelled so, drawn so.

    `truth` (y, x) is a class or `UNLABELLED`; `drawn` (y, x) is a channel, 0 outside tissue. Blocks are those with
    labels.

    >>> cells_by_block(np.array([[0, 1, -1]]), np.array([[1, 1, 1]]), 3).tolist()
    [[[0, 1, 0], [0, 1, 1], [0, 2, 0]]]
    """
    rows, columns = (np.arange(edge) // BLOCK_CELLS for edge in truth.shape)
    labelled = truth != UNLABELLED
    held, at = np.unique((rows[:, None] * len(truth[0]) + columns)[labelled], return_inverse=True)
    known, said = truth[labelled] + 1, drawn[labelled]
    right = known == said
    counts = [
        np.bincount(block * channels + channel, minlength=len(held) * channels).reshape(len(held), channels)
        for block, channel in ((at[right], known[right]), (at, known), (at, said))
    ]
    return np.stack(counts, axis=1)


def best_strength(windows: Mapping[float, Sequence[Int64]], sections: Sequence[int]) -> Smoothing | None:
    """The weakest strength within `NEAR` of the highest macro-F1, by `cells_by_block` of windows; 0 is among them.

    `sections` are those that windows are of, by number. Only such strengths are looked at by which no class that is
    found loses more than `MOST_LOSS`, nor surely more than `LARGEST_LOSS`. None where nothing was counted.
    """
    if not sum(map(len, windows[0.0])):
        return None
    found = {strength: np.concatenate(own) for strength, own in windows.items()}
    of = np.repeat(sections, [len(one) for one in windows[0.0]])
    f1 = {strength: _f1(cells.sum(axis=0)) for strength, cells in found.items()}
    scores = {strength: mean_of_defined(own) for strength, own in f1.items()}
    there = f1[0.0] >= FOUND

    def is_harmless(strength: float) -> bool:
        most = np.minimum(MOST_LOSS, LARGEST_LOSS + SURE * _loss_error(found[0.0], found[strength], of))
        return bool((f1[0.0] - f1[strength] <= most)[there].all())

    allowed = [one for one in found if is_harmless(one)]
    best = max(scores[one] for one in allowed)
    return Smoothing(min(one for one in allowed if scores[one] >= best - NEAR), scores)


def _f1(cells: Int64) -> Float64:
    """F1 (..., k) of cells (..., 3, k + 1) without what is outside tissue; NaN of a class neither labelled nor drawn.

    A labelled cell that is drawn as outside is missed by its class, see `map_macro_f1`.
    """
    hits, labelled, drawn = np.moveaxis(cells[..., 1:], -2, 0)
    with np.errstate(invalid="ignore"):
        return np.asarray(2 * hits / (labelled + drawn))


def _loss_error(before: Int64, after: Int64, sections: Int64) -> Float64:
    """The standard error (k,) of the F1 that classes lose from cells (blocks, 3, k + 1) before to after.

    It is the jackknife's: by how much the loss changes where a section is left out (Efron and Stein, 1981). Of a class
    that lies in one section only, it is a block of it.
    """
    numbers = np.unique(sections)
    whole = [np.stack([cells[sections == one].sum(axis=0) for one in numbers]) for cells in (before, after)]
    is_in_several = (whole[0][:, 1, 1:] > 0).sum(axis=0) > 1
    return np.where(is_in_several, _jackknifed(*whole), _jackknifed(before, after))


def _jackknifed(before: Int64, after: Int64) -> Float64:
    """The standard error (k,) of the loss over units (n, 3, k + 1) of cells."""
    sums = before.sum(axis=0), after.sum(axis=0)
    loss = _f1(sums[0]) - _f1(sums[1])
    without = _f1(sums[0] - before) - _f1(sums[1] - after)
    without = np.where(np.isfinite(without), without, loss)
    return np.asarray(np.sqrt((len(before) - 1) * without.var(axis=0)))


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
