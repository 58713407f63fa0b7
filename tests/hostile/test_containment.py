"""Work in child processes: whatever it does, it costs itself only, and nothing is left of it."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from cytoarch.containment import MOST_WORKS, Contained, Limits
from cytoarch.errors import CytoarchError, SectionError, StoreError
from tests.hostile.polling import is_gone, stop, wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
LIMITS = Limits(memory_bytes=1_000_000_000, stall_s=20.0)
SHORT = Limits(memory_bytes=1_000_000_000, stall_s=1.0)
GIB = 1 << 30


@pytest.fixture
def contained() -> Iterator[Contained]:
    children = Contained()
    yield children
    children.close()


def run(contained: Contained, work: str, limits: Limits = LIMITS, **arguments: Any) -> dict[str, Any]:
    return contained.run(f"tests.hostile.works:{work}", arguments, limits, subject="scans/a.tif")


def pid(contained: Contained, limits: Limits = LIMITS) -> int:
    """The process that does the next piece of work."""
    return int(run(contained, "echo", limits, given=None)["pid"])


# -- what is asked and answered ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [None, 1.5, "\u00e4\u0308 \U0001f9e0 \n\0 \udcff", [1, {"a": []}], "x" * 3_000_000],
    ids=["none", "number", "text", "nested", "long"],
)
def test_arguments_go_there_and_come_back(contained: Contained, given: object) -> None:
    found = run(contained, "echo", given=given)
    assert found["given"] == given
    assert found["pid"] != os.getpid()


def test_a_long_result_comes_back_whole(contained: Contained) -> None:
    assert run(contained, "large", length=2_000_000) == {"text": "\u00e4" * 2_000_000}


def test_progress_is_heard_in_order_and_by_the_caller(contained: Contained) -> None:
    heard: list[tuple[int, int]] = []
    contained.run("tests.hostile.works:count", {"steps": 500}, LIMITS, lambda done, total: heard.append((done, total)))
    assert heard == [(done + 1, 500) for done in range(500)]


def test_progress_of_several_threads_is_heard_whole(contained: Contained) -> None:
    heard: list[int] = []
    contained.run("tests.hostile.works:threads_speak", {"steps": 500}, LIMITS, lambda done, _total: heard.append(done))
    assert sorted(heard) == sorted(4 * list(range(500)))


def test_what_work_prints_disturbs_nothing(contained: Contained, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(contained, "speak") == {"spoke": True}
    printed = capfd.readouterr()
    assert "below Python" in printed.out
    assert "nor this" in printed.err


def test_libraries_in_a_child_start_no_threads_of_their_own(contained: Contained) -> None:
    found = run(contained, "environment", names=["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"])
    assert set(found["environment"].values()) == {"1"}


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "error", "text"),
    [
        ("section", SectionError, r"^s1: no good$"),
        ("scan", SectionError, r"^a\.tif: no good$"),
        ("store", StoreError, r"^store: no good$"),
        ("manifest", RuntimeError, r"ManifestError: m\.csv: 1 fault"),
        ("value", RuntimeError, r"(?s)Traceback.*works\.py.*ValueError: no good"),
        ("os", RuntimeError, r"OSError: \[Errno 5\] no good"),
        ("assertion", RuntimeError, r"AssertionError: no good"),
        ("recursion", RuntimeError, r"RecursionError: no good"),
        ("unicode", RuntimeError, r"ValueError: no good"),
        ("memory", SectionError, r"memory_gb"),
        ("exit", SectionError, r"^scans/a\.tif: .*exit code 4"),
    ],
)
def test_what_work_raises_is_raised_by_the_caller(
    contained: Contained, kind: str, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text) as caught:
        run(contained, "fail", kind=kind)
    assert isinstance(caught.value, CytoarchError) == issubclass(error, CytoarchError)
    assert run(contained, "echo", given=1)["given"] == 1


@pytest.mark.parametrize(
    ("work", "text"),
    [
        ("segfault", "crashed the decoder (SIGSEGV)"),
        ("abort", "crashed the decoder (SIGABRT)"),
        ("leave", "exit code 3"),
        ("kill_itself", "was killed, most likely for want of memory"),
    ],
)
def test_a_child_that_dies_costs_its_work_only(contained: Contained, work: str, text: str) -> None:
    with pytest.raises(SectionError, match=rf"^scans/a\.tif: .*{re.escape(text)}"):
        run(contained, work)
    assert run(contained, "echo", given=1)["given"] == 1


@pytest.mark.parametrize("how", ["numpy", "malloc", "pieces"])
def test_a_child_gets_the_memory_it_may_take_and_no_more(contained: Contained, how: str) -> None:
    run(contained, "allocate", nbytes=GIB // 4, how=how)
    with pytest.raises(SectionError, match="memory"):
        run(contained, "allocate", nbytes=10 * GIB, how=how)


def test_work_that_wants_too_much_memory_is_named(contained: Contained) -> None:
    with pytest.raises(SectionError, match=r"^scans/a\.tif: .*memory_gb"):
        run(contained, "fail", kind="memory")


@pytest.mark.parametrize("work", ["wait", "compute", "compute_alone"])
def test_work_that_makes_no_progress_is_stopped(contained: Contained, work: str, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    begun = time.monotonic()
    with pytest.raises(SectionError, match=r"^scans/a\.tif: made no progress for 1 s .*stall_s"):
        run(contained, work, SHORT, pid_file=str(pid_file))
    assert time.monotonic() - begun < 10
    assert is_gone(int(pid_file.read_text()))


def test_work_that_makes_progress_may_take_as_long_as_it_needs(contained: Contained) -> None:
    assert run(contained, "slow_count", SHORT, steps=12, pause_s=0.2) == {}


@pytest.mark.parametrize("work", ["tests.hostile.works:nowhere", "tests.hostile.nowhere:echo", "echo"])
def test_work_that_is_not_there_is_a_fault_of_the_program(contained: Contained, work: str) -> None:
    with pytest.raises(RuntimeError, match="Traceback"):
        contained.run(work, {}, LIMITS)


def test_a_result_that_is_no_json_is_a_fault_of_the_program(contained: Contained) -> None:
    with pytest.raises(RuntimeError, match="JSON"):
        run(contained, "no_json")


def test_an_answer_that_was_cut_short_is_a_death(contained: Contained) -> None:
    with pytest.raises(SectionError, match="exit code 3"):
        run(contained, "half_a_line")


def test_a_listener_that_fails_ends_the_work_and_its_child(contained: Contained, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    def listener(_done: int, _total: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        contained.run("tests.hostile.works:report_then_compute", {"pid_file": str(pid_file)}, LIMITS, listener)
    assert not pid_file.exists() or is_gone(int(pid_file.read_text()))
    assert run(contained, "echo", given=1)["given"] == 1


# -- children ----------------------------------------------------------------------------------------------------------


def test_a_child_is_kept_for_the_next_piece_of_work(contained: Contained) -> None:
    assert len({pid(contained) for _ in range(5)}) == 1


@pytest.mark.parametrize("kind", ["scan", "store", "value", "memory"])
def test_a_child_that_met_an_error_is_replaced(contained: Contained, kind: str) -> None:
    first = pid(contained)
    with pytest.raises((CytoarchError, RuntimeError)):
        run(contained, "fail", kind=kind)
    assert is_gone(first)
    assert pid(contained) != first


def test_a_child_that_died_while_it_waited_is_replaced(contained: Contained) -> None:
    first = pid(contained)
    os.kill(first, signal.SIGKILL)
    assert wait_until(lambda: is_gone(first), 5)
    assert pid(contained) != first


def test_a_child_is_replaced_after_so_many_works(contained: Contained) -> None:
    pids = [pid(contained) for _ in range(MOST_WORKS + 1)]
    assert len(set(pids[:-1])) == 1
    assert pids[-1] != pids[0]
    assert is_gone(pids[0])


def test_work_of_another_limit_gets_a_child_of_its_own(contained: Contained) -> None:
    other = Limits(memory_bytes=800_000_000, stall_s=20.0)
    first = pid(contained)
    assert pid(contained, other) != first
    assert pid(contained) == first


def test_threads_that_work_leaves_behind_disturb_nothing(contained: Contained) -> None:
    first = run(contained, "leave_threads")
    second = run(contained, "leave_threads")
    assert second["pid"] == first["pid"]
    contained.close()
    assert is_gone(first["pid"])


def test_other_work_goes_on_while_some_fails(contained: Contained) -> None:
    works = [("segfault", {}), ("slow_count", {"steps": 5, "pause_s": 0.1}), ("echo", {"given": "b"}), ("leave", {})]

    def outcome(one: tuple[str, dict[str, Any]]) -> object:
        try:
            return run(contained, one[0], **one[1]).get("given")
        except SectionError:
            return "failed"

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(outcome, 2 * works)) == 2 * ["failed", None, "b", "failed"]


def test_closing_ends_the_children_that_wait_and_can_be_repeated() -> None:
    contained = Contained()
    first = pid(contained)
    contained.close()
    assert is_gone(first)
    contained.close()
    assert pid(contained) != first
    contained.close()


def test_an_interrupt_is_for_the_caller(contained: Contained) -> None:
    first = pid(contained)
    os.kill(first, signal.SIGINT)
    assert pid(contained) == first


def test_a_module_that_lies_in_the_current_folder_is_never_imported(
    contained: Contained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tifffile.py").write_text("")  # a folder of scans may hold anything
    monkeypatch.chdir(tmp_path)
    assert not run(contained, "imported", module="tifffile")["file"].startswith(str(tmp_path))


# -- the lock, and a caller that is killed -----------------------------------------------------------------------------

CALLER = """
import fcntl, os, sys, threading
from cytoarch.containment import Contained, Limits

work, pid_file, lock_file = sys.argv[1:]
lock = os.open(lock_file, os.O_RDWR | os.O_CREAT)
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
deaf = lambda done, total: threading.Event().wait(600)
Contained().run(f"tests.hostile.works:{work}", {"pid_file": pid_file}, Limits(10**9, 600.0), deaf, held=lock)
"""


@contextmanager
def caller_of(work: str, folder: Path) -> Iterator[tuple["subprocess.Popen[bytes]", int, Path]]:
    """A process that holds a lock while a child of it works: the process, the child, the file of the lock."""
    pid_file, lock_file = folder / "pid", folder / "lock"
    command = [sys.executable, "-c", CALLER, work, str(pid_file), str(lock_file)]
    caller = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    child = 0
    try:
        assert wait_until(pid_file.exists, 60), "the work never began"
        child = int(pid_file.read_text())
        yield caller, child, lock_file
    finally:
        caller.kill()
        caller.wait()
        if child:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


def is_locked(path: Path) -> bool:
    with path.open("rb+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


@pytest.mark.parametrize(
    "work",
    [
        "wait",
        "compute",
        "compute_alone",
        "report_then_compute",
    ],
)
def test_a_child_ends_with_its_caller_whatever_it_is_doing(work: str, tmp_path: Path) -> None:
    with caller_of(work, tmp_path) as (caller, child, lock_file):
        assert is_locked(lock_file)
        caller.kill()
        caller.wait()
        assert wait_until(lambda: is_gone(child), 1)
        assert wait_until(lambda: not is_locked(lock_file), 1)


def test_the_lock_is_held_until_the_child_is_gone_too(tmp_path: Path) -> None:
    with caller_of("compute", tmp_path) as (caller, child, lock_file):
        stop(child)
        caller.kill()
        caller.wait()
        assert is_locked(lock_file)
        assert not is_gone(child)
        os.kill(child, signal.SIGCONT)
        assert wait_until(lambda: is_gone(child), 1)
        assert wait_until(lambda: not is_locked(lock_file), 1)


@pytest.mark.parametrize("ends", ["result", "error", "death"])
def test_a_child_lets_the_lock_go_with_its_work(contained: Contained, tmp_path: Path, ends: str) -> None:
    works: dict[str, tuple[str, dict[str, Any]]] = {
        "result": ("echo", {"given": 1}),
        "error": ("fail", {"kind": "scan"}),
        "death": ("segfault", {}),
    }
    work, arguments = works[ends]
    path = tmp_path / "lock"
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with suppress(SectionError):
            contained.run(f"tests.hostile.works:{work}", arguments, LIMITS, held=file.fileno())
        assert is_locked(path)
    assert not is_locked(path)


def test_files_of_the_caller_are_not_given_to_children(contained: Contained, tmp_path: Path) -> None:
    with (tmp_path / "mine").open("wb") as mine:
        os.set_inheritable(mine.fileno(), True)
        child = pid(contained)
        opened = _opened(child)
    assert str(tmp_path / "mine") not in opened


def _opened(process: int) -> set[str]:
    found = set()
    for link in Path(f"/proc/{process}/fd").iterdir():
        with suppress(OSError):
            found.add(str(link.readlink()))
    return found
