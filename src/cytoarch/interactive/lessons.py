"""What a person's strokes teach: squares around them, with embeddings and the classes that were drawn."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from cytoarch.annotations.drawing import DrawnLabels
from cytoarch.annotations.scribbles import RUBBER, Scribble
from cytoarch.brains import LabelClass, Section
from cytoarch.interactive.regions import Layout, Window
from cytoarch.interactive.views import token_px
from cytoarch.learning.sketch import SketchFit
from cytoarch.learning.targets import UNLABELLED, targets_on_grid

Int64 = NDArray[np.int64]

SQUARE_TOKENS = 32
"""Edge of a square around strokes."""


class SessionSettings(BaseModel):
    """How a session learns: fast enough to be waited for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fit: SketchFit = Field(default=SketchFit(), description="How the head learns from the strokes.")
    most_squares: int = Field(
        default=256, ge=1, le=4096, description="Squares around strokes that are learned from at most, the last first."
    )
    with_places: bool = Field(
        default=True, description="Tell the head how far from the outside and from white matter a place lies."
    )


class Lesson(NamedTuple):
    """A square of a section in which something is drawn."""

    section_id: str
    window: Window
    targets: Int64
    """(y, x) the class of every cell, `UNLABELLED` where nothing is drawn."""


def squares(layout: Layout, section: Section, scribbles: Sequence[Scribble]) -> list[Window]:
    """The squares, side by side, that the scribbles on a section touch, those drawn last first."""
    y0, _, x0, _ = section.region_px or (0, 0, 0, 0)
    edge_px = token_px(layout) * SQUARE_TOKENS
    rows, columns = layout.tokens.shape
    found: dict[Window, None] = {}
    for one in (one for one in reversed(scribbles) if one.label != RUBBER):
        path = (np.array(one.paths_px[0]) - np.array([y0, x0])) / edge_px
        reach = one.width_px / edge_px
        low = np.floor((path - reach).min(axis=0)).astype(int)
        high = np.floor((path + reach).max(axis=0)).astype(int)
        for y in range(max(0, low[0]), min(high[0], (rows - 1) // SQUARE_TOKENS) + 1):
            for x in range(max(0, low[1]), min(high[1], (columns - 1) // SQUARE_TOKENS) + 1):
                found[y * SQUARE_TOKENS, x * SQUARE_TOKENS, SQUARE_TOKENS, SQUARE_TOKENS] = None
    return list(found)


def targets_of(
    layout: Layout, labels: DrawnLabels, classes: Sequence[LabelClass], window: Window, cells_per_token: int
) -> tuple[Int64, int]:
    """The class of every cell (y, x) of a window of tokens, within tissue; and how many are drawn on beside tissue."""
    cells = layout.tokens.window(*window).split(cells_per_token)
    if labels.is_blank(cells):
        return np.full(cells.shape, UNLABELLED), 0
    drawn = targets_on_grid(labels, classes, cells)
    found = np.where(layout.tissue.on_grid(cells), drawn, UNLABELLED)
    return found, int((drawn != found).sum())


def in_turn(scribbles: Iterable[Scribble]) -> Iterator[str]:
    """The sections that scribbles lie on, those drawn on last first."""
    yield from dict.fromkeys(one.section_id for one in reversed(list(scribbles)) if one.label != RUBBER)
