"""Files written so that a crash leaves the old one or the new one, and what a file system refuses said in words."""

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cytoarch.errors import StoreError

_MAKE_ROOM = "make room or choose another store"
_MAKE_WRITABLE = "make it writable or choose another store"
_REFUSALS = {
    errno.ENOSPC: ("the disk is full", _MAKE_ROOM),
    errno.EDQUOT: ("the quota is used up", _MAKE_ROOM),
    errno.EFBIG: ("files may not become so large here", "raise the limit or choose another store"),
    errno.EROFS: ("the file system is read-only", _MAKE_WRITABLE),
    errno.EACCES: ("no permission to write there", _MAKE_WRITABLE),
    errno.EPERM: ("no permission to write there", _MAKE_WRITABLE),
}
"""What the file system says, and what to do about it."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the file system refuses while `path` is written into a StoreError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        found, remedy = _REFUSALS[error.errno]
        raise StoreError(
            f"{path}: cannot be written: {found} ({_free_space(path)}); {remedy}, then run again: what is finished "
            "stays, and the run goes on where it stopped"
        ) from None


def _free_space(path: Path) -> str:
    there = next((folder for folder in path.parents if folder.exists()), Path("/"))
    return f"{shutil.disk_usage(there).free / 1e9:.2f} GB free"


def write_atomically(path: Path, content: bytes) -> None:
    """Put `content` at `path` so that a reader, or a crash, sees the old file or the new one, never a part.

    Raises StoreError if the disk is full or cannot be written to.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.draft")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with draft.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
    flush_to_disk(path.parent)


def flush_to_disk(path: Path) -> None:
    """Fsync a file or folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_room(folder: Path, needed_bytes: int, what: str, remedy: str) -> None:
    """Raise StoreError if the disk of a folder has less space than something takes; `remedy` says what takes less."""
    free = shutil.disk_usage(folder).free
    if needed_bytes > free:
        raise StoreError(
            f"{what} take up to {needed_bytes / 1e9:.1f} GB, {folder} has {free / 1e9:.1f} GB free; "
            f"choose {remedy}, or another disk"
        )
