"""Waiting for what other processes do, for a bounded time."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil

PERIOD_S = 0.01


def wait_until(condition: Callable[[], bool], at_most_s: float) -> bool:
    """Whether a condition came true in time."""
    end = time.monotonic() + at_most_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(PERIOD_S)
    return True


def is_gone(pid: int) -> bool:
    """Whether a process has ended with all its threads, reaped or not."""
    try:
        process = psutil.Process(pid)
        return process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD) and process.num_threads() <= 1
    except psutil.NoSuchProcess:
        return True


def stop(pid: int) -> None:
    """Stop a process, and wait until it is: a thread that still runs can be ended by another signal."""

    def states() -> list[str]:
        files = Path(f"/proc/{pid}/task").glob("*/stat")
        return [file.read_text().rpartition(")")[2].split()[0] for file in files]

    os.kill(pid, signal.SIGSTOP)
    assert wait_until(lambda: set(states()) == {"T"}, 10), f"process {pid} does not stop"
