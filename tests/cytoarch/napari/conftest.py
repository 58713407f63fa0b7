"""A screen for Qt: the real window is driven under Xvfb, where there is one."""

import os
import shutil
import subprocess
import warnings
from collections.abc import Iterator

import pytest

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


@pytest.fixture(scope="session")
def screen() -> Iterator[None]:
    """A display of our own, drawn in software."""
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed; the window needs a screen (apt-get install xvfb)")
    reading, writing = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1600x1000x24", "-nolisten", "tcp"],
        pass_fds=(writing,),
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    with os.fdopen(reading) as told:
        display = told.readline().strip()
    given = {"DISPLAY": f":{display}", "QT_QPA_PLATFORM": "xcb", "LIBGL_ALWAYS_SOFTWARE": "1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        yield
    server.terminate()
    server.wait()
