"""What a person looks at, and what a model makes of it: values that pass between the session and its window."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cytoarch.errors import StoreError
from cytoarch.geometry import Grid
from cytoarch.interactive.regions import Layout, Window


class View(NamedTuple):
    """What a person looks at: a window of a section in pixels of its image."""

    section_id: str
    y_px: float
    x_px: float
    height_px: float
    width_px: float

    @property
    def middle_px(self) -> tuple[float, float]:
        """Its middle (y, x) in pixels of the section's image."""
        return self.y_px + self.height_px / 2, self.x_px + self.width_px / 2


class Seen(NamedTuple):
    """A part of a view as the model sees it."""

    section_id: str
    grid: Grid
    """Where its cells lie, in the frame of the section."""
    labels: NDArray[Any]
    """(y, x) ids of the classes; 0 outside tissue and where nothing is embedded."""
    confidence: NDArray[np.float32]
    """(y, x) in [0, 1]: how much likelier the first class is than the second; 0 where there is no label."""
    at: tuple[int, int]
    """(y, x) of its first cell on the grid of the whole section."""


class Told(NamedTuple):
    """How far something is, for a person."""

    text: str
    done: int
    total: int
    """0: nobody knows."""


class Spot(NamedTuple):
    """A place on a section in pixels of its image."""

    section_id: str
    y_px: float
    x_px: float


def token_px(layout: Layout) -> float:
    """Edge of a token in pixels of the section's image."""
    return layout.tokens.cell_um / layout.image.pixel_size_um


def window_of(layout: Layout, view: View) -> Window:
    """The tokens of a section that a view touches. Raises StoreError if it touches none."""
    size = token_px(layout)
    rows, columns = layout.tokens.shape
    top, left = max(0, int(view.y_px // size)), max(0, int(view.x_px // size))
    bottom = min(rows, int(-(-(view.y_px + view.height_px) // size)))
    right = min(columns, int(-(-(view.x_px + view.width_px) // size)))
    if bottom <= top or right <= left:
        raise StoreError(f"the view lies beside section {view.section_id}; move it onto the section")
    return top, left, bottom - top, right - left
