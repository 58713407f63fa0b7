"""A lock file that one run holds at a time: free at once when its holder dies; single-host, as flock is."""

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType

from cytoarch.store.disk import writing

LOOKS = 5
LOOK_S = 0.02
"""Who only looks whether a file is locked holds it for a moment: a run that wants it looks again."""

_held: ContextVar[Mapping[Path, int]] = ContextVar("held", default=MappingProxyType({}))
"""The files this run has locked, with their handles: a flow that calls another does not lock itself out."""


class LockedError(Exception):
    """Another live process holds the lock; the text names it."""


def held_handle(path: Path) -> int | None:
    """The handle of a file that this run has locked: who is given it too keeps the lock."""
    return _held.get().get(path)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock; what a run holds already is not taken twice. Raises LockedError, StoreError."""
    if path in _held.get():
        yield
        return
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _take(handle)
        with writing(path):
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
        token = _held.set(MappingProxyType({**_held.get(), path: handle}))
        try:
            yield
        finally:
            _held.reset(token)
    finally:
        os.close(handle)


def check_free(path: Path) -> None:
    """Raise LockedError if another live process holds the lock: a first look, which holds nothing itself."""
    if not path.exists() or path in _held.get():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LockedError(_holder(handle)) from None
    finally:
        os.close(handle)


def _take(handle: int) -> None:
    for look in range(1, LOOKS + 1):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if look == LOOKS:
                raise LockedError(_holder(handle)) from None
            time.sleep(LOOK_S)
        else:
            return


def _holder(handle: int) -> str:
    return os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
