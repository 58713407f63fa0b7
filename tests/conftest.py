"""Fixtures for all tests: one Prefect server per worker process, nothing written outside temporary folders."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

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

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A Prefect server with a database of its own, for tests that run flows or tasks."""
    from prefect.testing.utilities import prefect_test_harness

    from flows.serving import unwatched

    with prefect_test_harness(server_startup_timeout=120), unwatched():
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real brains, or a skip that says what is missing."""
    folder = Path(os.environ.get("CYTOARCH_REAL_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real brains at {folder} (set CYTOARCH_REAL_DATA)")
    return folder
