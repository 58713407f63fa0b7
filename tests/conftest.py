"""Fixtures for all tests: one Prefect server per worker process, nothing written outside temporary folders."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.distribution import TogetherScheduling, group

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from xdist.remote import Producer

os.environ.update(
    DO_NOT_TRACK="true",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    MLFLOW_DISABLE_TELEMETRY="true",
    PREFECT_LOGGING_LEVEL="ERROR",
    HF_HUB_OFFLINE="1",
    MPLBACKEND="Agg",
)
for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_API_KEY", "MLFLOW_TRACKING_URI"):
    os.environ.pop(name, None)

# the same examples everywhere, and no test that fails because a machine is busy
settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("same")

# Every core has a test of its own: threads that wait for each other would spin, and wait for a core besides.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

ROOT = Path(__file__).resolve().parent.parent


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: "Producer") -> TogetherScheduling | None:
    return TogetherScheduling(config, log) if config.getvalue("dist") == "loadscope" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups go first: a long one that began last would be waited for."""
    items.sort(key=lambda item: group(item.path) is None)


NO_WORK = ("scheduler", "late_runs", "foreman", "pause_expirations", "cancellation_cleanup", "triggers")
"""Services of a Prefect server that look every few seconds for what no test leaves to them."""


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A Prefect server with a database of its own, for tests that run flows or tasks."""
    from prefect.testing.utilities import prefect_test_harness

    from flows.serving import unwatched

    with pytest.MonkeyPatch.context() as patch:
        for name in NO_WORK:
            patch.setenv(f"PREFECT_SERVER_SERVICES_{name.upper()}_ENABLED", "false")
        with prefect_test_harness(server_startup_timeout=120), unwatched():
            patch.undo()
            yield


def made_here(factory: pytest.TempPathFactory, what: str) -> None:
    """Note that this worker makes what is to be made once a run. Raises RuntimeError if another one has."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    try:
        (factory.getbasetemp().parent / what).mkdir()
    except FileExistsError:
        raise RuntimeError(
            f"{what}: another worker has made it; do all tests that ask for it name one group?"
        ) from None


@pytest.fixture
def client(prefect_server: None) -> Iterator["SyncPrefectClient"]:
    """A client of that server."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as one:
        yield one


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real brains, or a skip that says what is missing."""
    folder = Path(os.environ.get("CYTOARCH_REAL_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real brains at {folder} (set CYTOARCH_REAL_DATA)")
    return folder


@pytest.fixture(scope="session")
def screen() -> Iterator[None]:
    """A display of our own for the window, drawn in software."""
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
