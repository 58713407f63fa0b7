"""What heads learn from: labelled sections, tokens and crops drawn from them within a stated number of bytes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.annotations.drawing import DrawnLabels
from cytoarch.brains import LabelClass, LabelTable
from cytoarch.embeddings import SectionEmbeddings
from cytoarch.embeddings.stored import Window
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.label_tables import named_alike
from cytoarch.learning.targets import UNLABELLED, LabelPixels, targets_on_grid
from cytoarch.sampling import OnDemand, TokenSource, reading, section_rng
from cytoarch.tiling import partition

Int64 = NDArray[np.int64]

CROP_PX = 512
"""Edge of a training crop in working pixels: one tile of a vision transformer."""
CROP_TOKENS = 32
"""Least edge of a training crop in tokens."""
MAX_CROPS = 256
FEW_CROPS = 64
"""Fewer squares than this are too few to see a border at different places of a square."""
CROP_BYTES = 2 << 30
"""The crops of a training take at most so much: 256 of four layers of a ViT-B fit."""


@dataclass(frozen=True)
class LabelledSection:
    """One section to learn from or to be scored on."""

    section_id: str
    embeddings: SectionEmbeddings
    labels: LabelPixels
    tissue: TissueMask
    table: LabelTable | None = None
    """What the ids in the label image mean, where that is not what they mean to the head."""
    by_group: bool = False
    """Whether the classes of the head are the table's groups."""

    def targets(self, classes: Sequence[LabelClass], cells_per_token: int, window: Window | None = None) -> Int64:
        """Class per output cell (y, x) of a window of tokens, or of all; unlabelled without tissue or embedding.

        Raises SectionError if labels or embeddings are damaged.
        """
        y, x, height, width = window or (0, 0, *self.embeddings.grid)
        cells = self.embeddings.layers[0].grid.window(y, x, height, width).split(cells_per_token)
        tokens = self.embeddings.computed((y, x, height, width))
        computed = np.repeat(np.repeat(tokens, cells_per_token, 0), cells_per_token, 1)
        inside = self.tissue.on_grid(cells) & computed
        if self.table is not None:
            classes = named_alike(classes, self.table, self.by_group)[0]
        if not inside.any() or (isinstance(self.labels, DrawnLabels) and self.labels.is_blank(cells)):
            return np.full(cells.shape, UNLABELLED, dtype=np.int64)
        return np.where(inside, targets_on_grid(self.labels, classes, cells), UNLABELLED)


def token_sources(sections: Sequence[LabelledSection], classes: Sequence[LabelClass]) -> Sequence[TokenSource]:
    """The sections as sources of tokens whose strata are the classes; opened when they are asked for."""

    def source(index: int) -> TokenSource:
        section = sections[index]
        return TokenSource(section.section_id, section.embeddings, lambda window: section.targets(classes, 1, window))

    return OnDemand(len(sections), source)


@dataclass(frozen=True)
class Crops:
    """Equal squares cut from sections: embeddings (n, c, e, e) float16, targets (n, e u, e u) of any signed integer."""

    embeddings: NDArray[np.float16]
    targets: NDArray[Any]
    found: int = 0
    """Squares that hold labels; more than there are crops where not all fit."""

    def facts(self) -> dict[str, int]:
        """What was cut, for the record."""
        return {"crops": len(self.targets), "crops_found": self.found}


class _Place(NamedTuple):
    """A square that holds labels."""

    key: float
    """Decides the order in which squares are taken."""
    section: int
    window: Window


def cut_crops(
    sections: Sequence[LabelledSection],
    card: HeadCard,
    seed: int,
    edge_tokens: int | None = None,
    overlapping: bool = False,
) -> Crops:
    """Squares that hold labels, of one encoder tile or as asked for, padded with unlabelled cells at the border.

    They lie side by side; where these are fewer than `FEW_CROPS` and `overlapping` is set, those half an edge further
    along either axis, and along both, are cut too. At most `MAX_CROPS`, and no more than fit into `CROP_BYTES`. Where
    there are more, the classes take turns, those in few squares first: a rare one is not lost by chance. Raises
    UnreadableSectionError if a section is damaged.
    """
    edge, u = edge_tokens or max(CROP_TOKENS, CROP_PX // card.token_px), card.cells_per_token
    limit = min(MAX_CROPS, max(1, CROP_BYTES // (2 * sum(card.dims) * edge**2 + 2 * (edge * u) ** 2)))
    places, found = _places(sections, card, edge, limit, seed, (0,))
    if overlapping and found < FEW_CROPS:
        places, found = _places(sections, card, edge, limit, seed, (0, edge // 2))
    kept = sorted(_in_turns(places, limit), key=lambda place: (place.section, place.window))
    crops = np.zeros((len(kept), sum(card.dims), edge, edge), dtype=np.float16)
    targets = np.full((len(kept), edge * u, edge * u), UNLABELLED, dtype=np.int16)
    for index, place in enumerate(kept):
        section, (_, _, height, width) = sections[place.section], place.window
        with reading(section.section_id):
            crops[index, :, :height, :width] = section.embeddings.read(*place.window)
            targets[index, : height * u, : width * u] = section.targets(card.classes, u, place.window)
    return Crops(crops, targets, found)


def _places(
    sections: Sequence[LabelledSection], card: HeadCard, edge: int, limit: int, seed: int, shifts: Sequence[int]
) -> tuple[list[list[_Place]], int]:
    """For every class, the rarest first, the first `limit` squares that hold it by their keys; how many hold any."""
    by_class: list[list[_Place]] = [[] for _ in card.classes]
    counts = [0] * len(card.classes)
    found = 0
    for index, section in enumerate(sections):
        with reading(section.section_id):
            for window, key, present in _squares(section, card, edge, seed, shifts):
                found += 1
                for one in present:
                    by_class[one].append(_Place(key, index, window))
                    counts[one] += 1
        by_class = [sorted(places)[:limit] for places in by_class]
    return [by_class[one] for one in np.argsort(counts, kind="stable")], found


def _squares(
    section: LabelledSection, card: HeadCard, edge: int, seed: int, shifts: Sequence[int]
) -> Iterator[tuple[Window, float, list[int]]]:
    """The squares of a section that hold labels: their windows in tokens, keys and classes."""
    rng = section_rng(seed, section.section_id)
    height, width = section.embeddings.grid
    windows = (
        (top + y, left + x, h, w)
        for top, left in product(shifts, repeat=2)
        if top < height and left < width
        for y, x, h, w in partition(height - top, width - left, edge)
    )
    for window in windows:
        key = float(rng.random())
        classes = np.unique(section.targets(card.classes, card.cells_per_token, window))
        if classes[-1] != UNLABELLED:
            yield window, key, [int(one) for one in classes if one != UNLABELLED]


def _in_turns(by_class: list[list[_Place]], limit: int) -> set[_Place]:
    """Up to `limit` places: every class in turn gives its next one that is not taken."""
    waiting = [list(reversed(places)) for places in by_class]
    taken: set[_Place] = set()
    while any(waiting) and len(taken) < limit:
        for places in waiting:
            while places and places[-1] in taken:
                places.pop()
            if places and len(taken) < limit:
                taken.add(places.pop())
    return taken


def whole_crops(crops: Crops) -> Iterator[NDArray[np.float16]]:
    """The embeddings of every crop as tokens (e e, c)."""
    for one in crops.embeddings:
        yield np.moveaxis(one, 0, -1).reshape(-1, len(one))
