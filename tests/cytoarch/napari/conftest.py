"""Tests of the window need napari and Qt."""

import warnings

collect_ignore: list[str] = []
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # napari's and its libraries' own, when they are imported
    try:
        import napari  # noqa: F401
        import npe2  # noqa: F401
        from PyQt6 import QtWidgets  # noqa: F401

        import cytoarch.napari.widget  # noqa: F401
    except ImportError:
        collect_ignore = ["test_window.py"]


def pytest_report_header() -> str:
    """Why tests of the window are not run, where they are not."""
    return "napari or Qt is not installed: tests of the window are left out" if collect_ignore else "napari is found"
