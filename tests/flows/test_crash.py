"""kill -9 in the middle of a run loses nothing that was done, and the next run ends where an undisturbed one does."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from cytoarch.store.brain_store import BrainStore
from tests.flows.conftest import MappedBrain
from tests.verified import damaged

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("flows")]

ROOT = Path(__file__).resolve().parent.parent.parent

DIES_AFTER = r"""
import os, signal, sys
from pathlib import Path
from cytoarch.store import staging

left = int(sys.argv[3])
enter = staging.Staging.enter

def counted(self, key, seal):
    global left
    enter(self, key, seal)
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

staging.Staging.enter = counted
from flows.map_brain import map_brain
from flows.parameters import BrainSource
map_brain(source=BrainSource(manifest_path=Path(sys.argv[1]), store_path=Path(sys.argv[2])))
"""


def run(manifest: Path, store: Path, home: Path, files: int) -> int:
    """Map a brain in a process of its own that kills itself after so many files; its exit code."""
    environment = {**os.environ, "PREFECT_HOME": str(home), "PREFECT_LOGGING_LEVEL": "CRITICAL"}
    for name in [name for name in environment if name.startswith("PREFECT_API")]:
        del environment[name]
    command = [sys.executable, "-c", DIES_AFTER, str(manifest), str(store), str(files)]
    # no pipes, and a session of its own: the Prefect server that the dead process leaves behind is ended here
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        return process.wait(timeout=120)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_killed_runs_resume_to_the_content_of_an_undisturbed_one(mapped: MappedBrain, tmp_path: Path) -> None:
    store = BrainStore(tmp_path / "store")
    for files in (40, 120):  # while sections are ingested, then while maps are drawn
        assert run(mapped.manifest_path, store.root, tmp_path / "home", files) == -signal.SIGKILL
    committed = {record.digest for record in store.catalogue("P01").records()}
    assert committed, "some products were done before the last kill"
    assert run(mapped.manifest_path, store.root, tmp_path / "home", 1_000_000) == 0
    assert committed <= {record.digest for record in store.catalogue("P01").records()}
    assert store.catalogue("P01").content_digest() == mapped.store.catalogue("P01").content_digest()
    assert damaged(store, "P01") == []
    assert not list((store.brain_path("P01") / "staging").iterdir())
