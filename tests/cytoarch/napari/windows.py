"""A window that is driven as a person would."""

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
from qtpy.QtWidgets import QApplication

from cytoarch.interactive.lessons import SessionSettings
from cytoarch.learning.sketch import SketchFit
from cytoarch.napari.widget import DrawWidget
from tests.cytoarch.steps.small_brain import CORTEX, WHITE_MATTER

FAST = SessionSettings(fit=SketchFit(first_steps=100, steps=30))


def settle(widget: DrawWidget, seconds: float = 300.0) -> None:
    """Until nothing is going on any more."""
    end = time.monotonic() + seconds
    QApplication.processEvents()
    while widget.working.deed is not None or widget.working.reading:
        QApplication.processEvents()
        time.sleep(0.02)  # the worker needs the interpreter, too
        assert time.monotonic() < end, widget.panel.status.text()
    QApplication.processEvents()


def settle_looking(widget: DrawWidget, seconds: float = 300.0) -> None:
    """Until nothing is looked at ahead any more."""
    end = time.monotonic() + seconds
    while widget.working.looking is not None:
        QApplication.processEvents()
        time.sleep(0.02)
        assert time.monotonic() < end


def drag(widget: DrawWidget, places_px: Any) -> None:
    """The mouse pressed, moved and let go over places of the section, as napari tells its callbacks."""
    event = SimpleNamespace(type="mouse_press", button=1, position=())
    event.position = tuple(widget.layers.to_world(places_px[0]))
    stroke = widget._drag(widget.viewer, event)
    for place in places_px[1:]:
        next(stroke, None)
        event.type, event.position = "mouse_move", tuple(widget.layers.to_world(place))
    next(stroke, None)
    event.type = "mouse_release"
    next(stroke, None)


def halves(widget: DrawWidget) -> None:
    """A stroke in either half of the section."""
    for label, x in ((CORTEX, 30.0), (WHITE_MATTER, 100.0)):
        widget.panel.classes.select(label)
        drag(widget, np.array([[20.0, x], [50.0, x], [80.0, x]]))


def share(widget: DrawWidget, label: int, columns: slice) -> float:
    """How much of what the map shows in some columns is of a class."""
    shown = widget.layers.map.data[:, columns]
    return float((shown[shown > 0] == label).mean())
