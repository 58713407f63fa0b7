"""One run holds a brain at a time, with the processes that work for it; a dead one blocks nobody."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from cytoarch.errors import BrainBusyError
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.locks import Held

HOLDER = """
import sys
from pathlib import Path
from cytoarch.store.brain_store import BrainStore
with BrainStore(Path(sys.argv[1])).lock("B1"):
    print("held", flush=True)
    sys.stdin.read()
"""


WORKER = """
import sys
from pathlib import Path
from cytoarch.errors import BrainBusyError
from cytoarch.store.brain_store import BrainStore
store = BrainStore(Path(sys.argv[1]))
for ticket in sys.stdin:
    try:
        with store.join("B1", ticket.strip()):
            print("joined", flush=True)
            sys.stdin.readline()
        print("left", flush=True)
    except BrainBusyError as error:
        print(error, flush=True)
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


# -- processes that work for a run -------------------------------------------------------------------------------------


class Worker:
    """Another process that joins a run when it is told to, and leaves it when it is told to."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def told(self, line: str) -> str:
        """What it says when a line is written to it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().rstrip("\n")

    def join(self, ticket: str) -> str:
        return self.told(ticket)

    def leave(self) -> str:
        return self.told("")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def worker(store: BrainStore) -> Iterator[Callable[[], Worker]]:
    """Starts workers."""
    with ExitStack() as started:

        def start() -> Worker:
            command = [sys.executable, "-c", WORKER, str(store.root)]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            started.enter_context(process)
            return Worker(process)

        yield start


def lock_of(store: BrainStore) -> Held:
    lock = store.held(store.brain_path("B1"))
    assert lock is not None
    return lock


def ticket_of_holder(store: BrainStore) -> str:
    return (store.brain_path("B1") / "lock").read_text().split()[1]


def refusal(holder: str) -> str:
    return f"brain B1 is held by {holder}, no longer by the run that this is done for; start that run again"


def end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.wait()


def test_workers_join_the_run_that_their_ticket_names_side_by_side(
    store: BrainStore, worker: Callable[[], Worker]
) -> None:
    first, second = worker(), worker()
    with store.lock("B1"):
        ticket = lock_of(store).ticket
        assert [first.join(ticket), second.join(ticket)] == ["joined", "joined"]
        assert [first.leave(), second.leave()] == ["left", "left"]
        assert first.join(ticket) == "joined", "as often as it has work"


@pytest.mark.parametrize("ticket", ["another", "", "0" * 32])
def test_who_has_another_ticket_is_refused_and_told_who_holds_the_brain(
    store: BrainStore, worker: Callable[[], Worker], ticket: str
) -> None:
    with store.lock("B1"):
        assert worker().join(ticket) == refusal(f"process {os.getpid()}")


def test_nobody_joins_a_run_that_has_ended(store: BrainStore, worker: Callable[[], Worker]) -> None:
    with store.lock("B1"):
        ticket = lock_of(store).ticket
    assert worker().join(ticket) == refusal("nobody")
    with pytest.raises(BrainBusyError, match="held by nobody"), store.join("B1", ticket):
        pass


def test_nobody_joins_a_run_that_was_killed(
    store: BrainStore, holder: "subprocess.Popen[str]", worker: Callable[[], Worker]
) -> None:
    ticket, joins = ticket_of_holder(store), worker()
    assert joins.join(ticket) == "joined"
    assert joins.leave() == "left"
    end(holder)
    assert joins.join(ticket) == refusal("nobody")


def test_a_worker_of_a_killed_run_sees_that_a_new_run_has_come(
    store: BrainStore, holder: "subprocess.Popen[str]", worker: Callable[[], Worker]
) -> None:
    ticket, late = ticket_of_holder(store), worker()
    end(holder)
    with store.lock("B1"):
        assert lock_of(store).ticket != ticket
        assert late.join(ticket) == refusal(f"process {os.getpid()}")
        assert late.join(lock_of(store).ticket) == "joined"


@pytest.mark.parametrize("killed", [False, True], ids=["leaves", "is killed"])
def test_a_new_run_is_kept_out_while_a_worker_of_the_last_is_at_work_and_gets_in_when_it_has_gone(
    store: BrainStore, holder: "subprocess.Popen[str]", worker: Callable[[], Worker], killed: bool
) -> None:
    ticket, at_work = ticket_of_holder(store), [worker(), worker()]
    assert [one.join(ticket) for one in at_work] == ["joined", "joined"]
    end(holder)
    for one in at_work:
        with pytest.raises(BrainBusyError, match="is being written by a worker of an earlier run"), store.lock("B1"):
            pass
        if killed:
            one.kill()
        else:
            assert one.leave() == "left"
    with store.lock("B1"):
        assert lock_of(store).ticket != ticket


def test_who_is_at_work_when_a_new_run_is_kept_out_does_not_join_again(
    store: BrainStore, holder: "subprocess.Popen[str]", worker: Callable[[], Worker]
) -> None:
    ticket, at_work, late = ticket_of_holder(store), worker(), worker()
    assert at_work.join(ticket) == "joined"
    end(holder)
    with pytest.raises(BrainBusyError), store.lock("B1"):
        pass
    assert late.join(ticket) == refusal("nobody")
    assert at_work.leave() == "left"
    assert at_work.join(ticket) == refusal("nobody")


def test_workers_do_not_hide_who_holds_their_brain(
    store: BrainStore, holder: "subprocess.Popen[str]", worker: Callable[[], Worker]
) -> None:
    at_work = worker()
    assert at_work.join(ticket_of_holder(store)) == "joined"
    with pytest.raises(BrainBusyError, match=f"is being written by process {holder.pid};"):
        store.check_free("B1")
    with pytest.raises(BrainBusyError, match=f"is being written by process {holder.pid};"), store.lock("B1"):
        pass


def test_a_child_of_a_worker_keeps_new_runs_out_until_it_has_gone_too(
    store: BrainStore, holder: "subprocess.Popen[str]"
) -> None:
    """Who reads scans for a worker is given the open file that says so, and may outlive it and the run."""
    with store.join("B1", ticket_of_holder(store)):
        given = os.dup(lock_of(store).handle)
    end(holder)
    with pytest.raises(BrainBusyError, match="a worker of an earlier run"), store.lock("B1"):
        pass
    os.close(given)
    with store.lock("B1"):
        pass


def test_a_run_that_joins_itself_keeps_its_own_lock(store: BrainStore) -> None:
    with store.lock("B1"):
        lock = lock_of(store)
        with store.join("B1", "whatever"):
            assert lock_of(store) == lock


def test_a_thread_that_does_not_know_of_its_runs_lock_joins_it(store: BrainStore) -> None:
    """Threads start with an empty context."""
    joined: list[str] = []

    def work(ticket: str) -> None:
        assert store.held(store.brain_path("B1")) is None
        with store.join("B1", ticket):
            joined.append(lock_of(store).ticket)

    with store.lock("B1"):
        ticket = lock_of(store).ticket
        thread = threading.Thread(target=work, args=(ticket,))
        thread.start()
        thread.join()
    assert joined == [ticket]
