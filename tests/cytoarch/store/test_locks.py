"""One run holds a brain at a time, and a dead one blocks nobody."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cytoarch.errors import BrainBusyError
from cytoarch.store.brain_store import BrainStore


@pytest.fixture
def store(tmp_path: Path) -> BrainStore:
    return BrainStore(tmp_path / "store")


HOLDER = """
import sys
from pathlib import Path
from cytoarch.store.brain_store import BrainStore
with BrainStore(Path(sys.argv[1])).lock("B1"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(store: BrainStore) -> Iterator["subprocess.Popen[str]"]:
    """Another process that holds the lock of brain B1 until its input ends."""
    command = [sys.executable, "-c", HOLDER, str(store.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        if process.poll() is None:
            process.communicate("")


def test_a_second_process_is_refused_at_once_and_told_who_holds_the_brain(
    store: BrainStore, holder: "subprocess.Popen[str]"
) -> None:
    start = time.monotonic()
    with pytest.raises(BrainBusyError, match=f"process {holder.pid}"), store.lock("B1"):
        pass
    assert time.monotonic() - start < 5


def test_another_brain_is_not_locked(store: BrainStore, holder: "subprocess.Popen[str]") -> None:
    with store.lock("B2"):
        assert holder.poll() is None


def test_the_lock_is_free_when_its_holder_ends(store: BrainStore, holder: "subprocess.Popen[str]") -> None:
    holder.communicate("")
    assert holder.returncode == 0
    with store.lock("B1"):
        pass


def test_the_lock_is_free_when_its_holder_is_killed(store: BrainStore, holder: "subprocess.Popen[str]") -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with store.lock("B1"):
        pass


def test_a_run_that_holds_the_brain_does_not_lock_itself_out(store: BrainStore) -> None:
    with store.lock("B1"):
        with store.lock("B1"), BrainStore(store.root).lock("B1"):
            pass
        refused = subprocess.run([sys.executable, "-c", HOLDER, store.root], input="", capture_output=True, text=True)
        assert refused.returncode != 0
        assert f"BrainBusyError: brain B1 is being written by process {os.getpid()}" in refused.stderr


def test_two_runs_in_one_process_exclude_each_other(store: BrainStore) -> None:
    found: list[type[BaseException] | None] = []

    def run() -> None:
        try:
            with store.lock("B1"):
                found.append(None)
        except BrainBusyError as error:
            found.append(type(error))

    with store.lock("B1"):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    run()
    assert found == [BrainBusyError, None]


def test_the_lock_is_free_after_an_error_under_it(store: BrainStore) -> None:
    with pytest.raises(RuntimeError), store.lock("B1"):
        raise RuntimeError("under the lock")
    refused = subprocess.run([sys.executable, "-c", HOLDER, store.root], input="", capture_output=True, text=True)
    assert refused.returncode == 0


def test_who_looks_whether_a_brain_is_free_never_keeps_a_run_from_it(store: BrainStore) -> None:
    with store.lock("B1"):
        pass
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            try:
                store.check_free("B1")
            except BrainBusyError:  # held for a moment by this test
                continue

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for one in lookers:
        one.start()
    try:
        for _ in range(200):
            with store.lock("B1"):
                pass
    finally:
        stop.set()
        for one in lookers:
            one.join()
