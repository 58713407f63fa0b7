"""Tests of the window need napari and Qt."""

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.cytoarch.steps.small_brain import SmallBrain

if TYPE_CHECKING:
    from cytoarch.napari.widget import DrawWidget

collect_ignore: list[str] = []
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # napari's and its libraries' own, when they are imported
    try:
        import napari
        import npe2  # noqa: F401
        from PyQt6 import QtWidgets  # noqa: F401

        import cytoarch.napari.widget  # noqa: F401
    except ImportError:
        collect_ignore = ["test_browsing.py", "test_window.py", "windows.py"]


def pytest_report_header() -> str:
    """Why tests of the window are not run, where they are not."""
    return "napari or Qt is not installed: tests of the window are left out" if collect_ignore else "napari is found"


@pytest.fixture(scope="session")
def napari_window(screen: None) -> Iterator[Any]:
    """A window of napari's own: it takes seconds to open and to close."""
    from qtpy.QtWidgets import QApplication

    opened = napari.Viewer(show=True)
    yield opened
    opened.close()
    QApplication.processEvents()


@pytest.fixture
def viewer(napari_window: Any) -> Iterator[Any]:
    """The same window for every test, empty again after each."""
    from napari.qt.threading import GeneratorWorker
    from qtpy.QtWidgets import QApplication

    moved = napari_window.scene.camera.events
    before = moved.callbacks
    yield napari_window
    GeneratorWorker.await_workers(60_000)  # a window that closes waits for nothing
    napari_window.window.remove_dock_widget("all")
    napari_window.layers.clear()
    napari_window.mouse_drag_callbacks.clear()
    for callback in set(moved.callbacks) - set(before):
        moved.disconnect(callback)
    QApplication.processEvents()


@pytest.fixture
def window(viewer: Any, small: SmallBrain) -> "Iterator[DrawWidget]":
    """Our part of it, with a brain opened."""
    from cytoarch.napari.opening import Opening
    from cytoarch.napari.widget import DrawWidget
    from tests.cytoarch.napari.windows import FAST, settle

    widget = DrawWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Draw and map")
    widget.open(Opening(small.folder / "store", "B1", "ada", "texture"), FAST)
    settle(widget)
    yield widget
    widget.close_session()
