"""Maps on which layers follow each other in the order of the label table, and whether held-out sections ask for it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cytoarch.errors import ModelError
from cytoarch.learning.application import predict_bands
from cytoarch.learning.bands import Bands
from cytoarch.learning.cards import Order
from cytoarch.learning.columns import along_depth
from cytoarch.learning.datasets import LabelledSection
from cytoarch.learning.heads import Head
from cytoarch.learning.targets import UNLABELLED
from cytoarch.measures.overlap import confusion_matrix, macro_f1
from cytoarch.sampling import reading
from cytoarch.tiling import evenly

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Mask = NDArray[np.bool_]

COARSE_CELLS = 192
"""Longest edge of the grid that bands are fitted on, and that depth is followed on: layers are wider than its cells."""
LENIENCY = 0.02
"""What is left to a class where its band is not: bands are straighter than cortex."""
LEAST_GAIN = 0.01
"""Macro-F1 by which ordered maps must be better on sections that a head has not seen."""
MOST_SECTIONS = 16
"""Sections that decide it, evenly chosen."""
TRIED = "layers"
"""Target whose classes follow each other; of others the order of the table means nothing."""
MOST_CLASSES = 32
"""More do not lie one below the other."""
LEAST_CELLS = 50
"""A section with fewer cells of tissue is left as it is."""


def check_followed(order: Order, classes: int) -> None:
    """Raise ModelError if so many classes cannot follow each other."""
    if order != "none" and classes > MOST_CLASSES:
        raise ModelError(
            f"order {order!r} is for layers that lie one below the other; the model has {classes} classes and at most "
            f"{MOST_CLASSES} are followed. Map with --smooth.order none"
        )


def ordered(
    probabilities: Float32, inside: Mask, order: Order, depth: Float32 | None = None, cortex: Mask | None = None
) -> Float32:
    """By what probabilities (k, y, x) are to be multiplied so that classes follow each other; 1 where nothing is known.

    Args:
        probabilities: Of the classes, in order from the pial surface inwards.
        inside: (y, x) tissue.
        order: bands, or depth, which needs the next two.
        depth: (y, x) 0 to 1 in the cortex.
        cortex: (y, x) where depth has a meaning.

    Raises ModelError if there are more than `MOST_CLASSES`.

    """
    check_followed(order, len(probabilities))
    nothing = np.ones(probabilities.shape, dtype=np.float32)
    if order == "none" or len(probabilities) < 2 or inside.sum() < LEAST_CELLS:
        return nothing
    if order == "bands":
        return Bands.fit(probabilities, inside).shares(inside.shape) + np.float32(LENIENCY)
    if depth is None or cortex is None:
        raise ValueError("order 'depth' needs depth and cortex")
    shares = along_depth(probabilities, depth, cortex & inside)
    return np.where(cortex & inside, shares + np.float32(LENIENCY), nothing)


class Ordering(NamedTuple):
    """Whether the maps of a head are drawn in order, and why."""

    order: Order
    plain: float
    """Macro-F1 of sections that it had not seen, cell by cell, and"""
    bands: float
    """as ordered bands."""

    def facts(self) -> dict[str, Any]:
        """As JSON values."""
        return {"order": self.order, "macro_f1": {"none": round(self.plain, 6), "bands": round(self.bands, 6)}}


class Trial(NamedTuple):
    """What ordered bands and single cells give on sections that a head has not seen: confusions (k, k)."""

    plain: Int64
    bands: Int64

    @classmethod
    def of(cls, head: Head, sections: Sequence[LabelledSection]) -> "Trial":
        """Counted on a coarse grid of some of the sections; nothing where the target is not `TRIED`.

        Raises UnreadableSectionError if one is damaged.
        """
        count = len(head.card.classes)
        found = cls(np.zeros((count, count), dtype=np.int64), np.zeros((count, count), dtype=np.int64))
        if head.card.target != TRIED or count > MOST_CLASSES:
            return found
        for index in evenly(len(sections), MOST_SECTIONS).tolist():
            section = sections[index]
            with reading(section.section_id):
                probabilities, truth, inside = _coarse(head, section)
            known = truth != UNLABELLED
            if not known.any():
                continue
            drawn = probabilities * ordered(probabilities, inside, "bands")
            for counts, one in ((found.plain, probabilities), (found.bands, drawn)):
                np.add(counts, confusion_matrix(truth[known], one.argmax(axis=0)[known], count), out=counts)
        return found

    def joined(self, other: "Trial") -> "Trial":
        """Both together."""
        return Trial(self.plain + other.plain, self.bands + other.bands)

    def chosen(self) -> Ordering | None:
        """Bands where they are better by `LEAST_GAIN`; None: nothing was counted."""
        if not self.plain.sum():
            return None
        plain, bands = macro_f1(self.plain), macro_f1(self.bands)
        return Ordering("bands" if bands - plain >= LEAST_GAIN else "none", plain, bands)


def _coarse(head: Head, section: LabelledSection) -> tuple[Float32, Int64, Mask]:
    """Probabilities (k, y, x), truth (y, x) and tissue (y, x) of every so-many-th cell of a section."""
    u = head.card.cells_per_token
    stride = -(-max(section.embeddings.grid) * u // COARSE_CELLS)
    parts = []
    for row, band in predict_bands(head, section.embeddings):
        parts.append(band[:, -row % stride :: stride, ::stride].copy())
    truth = section.targets(head.card.classes, u)[::stride, ::stride]
    tokens = section.embeddings.inside(section.tissue)
    inside = np.repeat(np.repeat(tokens, u, 0), u, 1)[::stride, ::stride]
    return np.concatenate(parts, axis=1), truth, inside
