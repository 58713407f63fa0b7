"""Waiting for what other processes do, for a bounded time."""

import time
from collections.abc import Callable

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
    """Whether a process has ended, reaped or not."""
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return True
