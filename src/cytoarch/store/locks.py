"""A lock file that one run holds at a time, and that its helpers in other processes share while they work.

Free at once when its holders die; single-host, as flock is. The run holds the file itself. A process that works on its
behalf (a Dask worker) holds a second file beside it, shared with its like, and only as long as the run that sent it
still has the lock: the lock file names the run, and a new run first writes its name, then waits for nobody to be left
in the second file. So a worker that outlives its run either sees that another run has come, or keeps that run out.
"""

import fcntl
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from cytoarch.store.disk import writing

LOOKS = 5
LOOK_S = 0.02
"""Who only looks whether a file is locked holds it for a moment: a run that wants it looks again."""


class Held(NamedTuple):
    """A lock that this run has."""

    handle: int
    """The open file: a child that is given it too keeps the lock until it is gone."""
    ticket: str
    """Names the run, to processes that work on its behalf."""


_held: ContextVar[Mapping[Path, Held]] = ContextVar("held", default=MappingProxyType({}))
"""The files this run has locked: a flow that calls another does not lock itself out."""


class LockedError(Exception):
    """The lock cannot be had; the text says who holds it."""


def held(path: Path) -> Held | None:
    """The lock of a file, where this run has it."""
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
        _take(handle, fcntl.LOCK_EX)
        ticket = uuid.uuid4().hex
        with writing(path):
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()} {ticket}".encode(), 0)
        _wait_for_helpers(path)
        with _entered(path, Held(handle, ticket)):
            yield
    finally:
        os.close(handle)


@contextmanager
def joined(path: Path, ticket: str) -> Iterator[None]:
    """Work on behalf of the run that a ticket names. Raises LockedError if it no longer has the lock."""
    if path in _held.get():
        yield
        return
    helpers = _helpers_path(path)
    with writing(helpers):
        handle = os.open(helpers, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _take(handle, fcntl.LOCK_SH)
        _check_run(path, ticket)
        with _entered(path, Held(handle, ticket)):
            yield
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


@contextmanager
def _entered(path: Path, lock: Held) -> Iterator[None]:
    token = _held.set(MappingProxyType({**_held.get(), path: lock}))
    try:
        yield
    finally:
        _held.reset(token)


def _helpers_path(path: Path) -> Path:
    return path.with_name(f"{path.name}-helpers")


def _check_run(path: Path, ticket: str) -> None:
    """Raise LockedError if the run that a ticket names no longer has the lock."""
    try:
        check_free(path)
    except LockedError:  # by that run, or by another
        named = path.read_text(errors="replace").split()
        if named[1:] != [ticket]:
            raise
    else:
        raise LockedError("nobody")


def _wait_for_helpers(path: Path) -> None:
    """Raise LockedError if a process that worked for an earlier run is still at it."""
    helpers = _helpers_path(path)
    if not helpers.exists():
        return
    handle = os.open(helpers, os.O_RDWR)
    try:
        _take(handle, fcntl.LOCK_EX, "a worker of an earlier run")
    finally:
        os.close(handle)


def _take(handle: int, kind: int, holder: str = "") -> None:
    for look in range(1, LOOKS + 1):
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if look == LOOKS:
                raise LockedError(holder or _holder(handle)) from None
            time.sleep(LOOK_S)
        else:
            return


def _holder(handle: int) -> str:
    named = os.pread(handle, 64, 0).decode(errors="replace").split() or ["unknown"]
    return f"process {named[0]}"
