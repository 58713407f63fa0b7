"""Pieces of work that go wrong in every way there is, for children of `cytoarch.containment` to do."""

import ctypes
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from cytoarch.errors import ManifestError, ScanError, SectionError, StoreError

Arguments = Mapping[str, Any]
Progress = Callable[[int, int], None]
Result = dict[str, Any]


def echo(arguments: Arguments, on_progress: Progress) -> Result:
    """Gives back what it was given, and which process did."""
    return {"given": arguments["given"], "pid": os.getpid()}


def count(arguments: Arguments, on_progress: Progress) -> Result:
    for done in range(arguments["steps"]):
        on_progress(done + 1, arguments["steps"])
    return {"pid": os.getpid()}


def slow_count(arguments: Arguments, on_progress: Progress) -> Result:
    """Takes longer than a stall in all, but never without a word."""
    for done in range(arguments["steps"]):
        threading.Event().wait(arguments["pause_s"])
        on_progress(done + 1, arguments["steps"])
    return {}


_ERRORS: dict[str, Callable[[], BaseException]] = {
    "section": lambda: SectionError("s1: no good"),
    "scan": lambda: ScanError("a.tif: no good"),
    "store": lambda: StoreError("store: no good"),
    "manifest": lambda: ManifestError("m.csv", ["row 2: no good"]),
    "value": lambda: ValueError("no good"),
    "os": lambda: OSError(5, "no good"),
    "assertion": lambda: AssertionError("no good"),
    "recursion": lambda: RecursionError("no good"),
    "unicode": lambda: ValueError("no good \udcff \n\0"),
    "memory": lambda: MemoryError("no good"),
    "exit": lambda: SystemExit(4),
}


def fail(arguments: Arguments, on_progress: Progress) -> Result:
    error = _ERRORS[arguments["kind"]]()
    raise error


def segfault(arguments: Arguments, on_progress: Progress) -> Result:
    ctypes.string_at(0)
    return {}


def abort(arguments: Arguments, on_progress: Progress) -> Result:
    os.abort()


def leave(arguments: Arguments, on_progress: Progress) -> Result:
    os._exit(3)


def kill_itself(arguments: Arguments, on_progress: Progress) -> Result:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def allocate(arguments: Arguments, on_progress: Progress) -> Result:
    """Takes memory in one piece, or in pieces of a mebibyte that are all written to."""
    nbytes: int = arguments["nbytes"]
    if arguments["how"] == "numpy":
        return {"sum": int(np.ones(nbytes, dtype=np.uint8)[:: 1 << 20].sum())}
    if arguments["how"] == "malloc":
        libc = ctypes.CDLL(None)
        libc.malloc.restype = ctypes.c_void_p
        if not libc.malloc(ctypes.c_size_t(nbytes)):
            raise MemoryError("malloc gave nothing")
        return {}
    held = [bytearray(b"x") * (1 << 20) for _ in range(nbytes >> 20)]
    return {"sum": len(held)}


def speak(arguments: Arguments, on_progress: Progress) -> Result:
    """Writes to both streams of the process, by Python and below it."""
    sys.stdout.write('{"result": "not this"}\n')
    sys.stdout.flush()
    sys.stderr.write('{"error": "nor this"}\n')
    os.write(1, b"below Python\n")
    return {"spoke": True}


def leave_threads(arguments: Arguments, on_progress: Progress) -> Result:
    """Comes to its end while threads it started go on."""
    waiting = threading.Event()
    for daemon in (False, True):
        threading.Thread(target=waiting.wait, daemon=daemon).start()
    return {"threads": threading.active_count(), "pid": os.getpid()}


def threads_speak(arguments: Arguments, on_progress: Progress) -> Result:
    """Reports from several threads at once, as the writer of shards does."""
    steps = arguments["steps"]
    threads = [threading.Thread(target=lambda: [on_progress(at, steps) for at in range(steps)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {}


def no_json(arguments: Arguments, on_progress: Progress) -> Result:
    return {"path": Path("a")}


def large(arguments: Arguments, on_progress: Progress) -> Result:
    return {"text": "\u00e4" * arguments["length"]}


def half_a_line(arguments: Arguments, on_progress: Progress) -> Result:
    """Ends as a process does that is killed while it answers."""
    closure = cast("Any", on_progress).__closure__
    channel = next(cell.cell_contents for cell in closure if isinstance(cell.cell_contents, socket.socket))
    channel.sendall(b'{"result": {"a"')
    os._exit(3)


def environment(arguments: Arguments, on_progress: Progress) -> Result:
    return {"environment": {name: os.environ.get(name) for name in arguments["names"]}}


def imported(arguments: Arguments, on_progress: Progress) -> Result:
    """Where a module comes from that is imported now."""
    return {"file": __import__(arguments["module"]).__file__}


# -- work that never ends ----------------------------------------------------------------------------------------------


def _begin(arguments: Arguments) -> None:
    if "pid_file" in arguments:
        draft = Path(arguments["pid_file"] + ".draft")
        draft.write_text(str(os.getpid()))
        draft.rename(arguments["pid_file"])


def wait(arguments: Arguments, on_progress: Progress) -> Result:
    _begin(arguments)
    threading.Event().wait(600)
    return {}


def compute(arguments: Arguments, on_progress: Progress) -> Result:
    """Computes in Python: other threads get their turn."""
    _begin(arguments)
    end = time.monotonic() + 600
    while time.monotonic() < end:
        pass
    return {}


def compute_alone(arguments: Arguments, on_progress: Progress) -> Result:
    """Computes in one call of C that lets no other thread of Python run."""
    _begin(arguments)
    return {"sum": sum(range(10**11))}


def report_then_compute(arguments: Arguments, on_progress: Progress) -> Result:
    """Reports more than a parent that is busy takes in (8 KiB), less than its socket holds, then computes."""
    for done in range(40):
        on_progress(done, 10**1000)
    return compute(arguments, on_progress)
