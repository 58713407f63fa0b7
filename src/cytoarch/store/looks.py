"""Whether files stand still, told by looking again: their dates come from clocks that may be wrong."""

import json
import os
import time
from contextlib import suppress
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from cytoarch.errors import StoreError
from cytoarch.store.disk import write_atomically

LOOKS_FILE = ".cytoarch-looks.json"
"""What the last look saw, in the folder that is looked into."""

ROUNDED_S = 2.0
"""FAT dates files to two seconds, Linux to the last tick."""

_KEPT = TypeAdapter(dict[str, tuple[int, int, float]])
"""Path -> size (bytes), date (ns), and the time (s) of the first look that saw it so."""


class Looks:
    """One look at the files of a folder, which knows what the look before has seen.

    Time is that of the folder's file system, where it can be asked: a server of files has a clock of its own.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOOKS_FILE
        self._before: dict[str, tuple[int, int, float]] = {}
        self._seen: dict[str, tuple[int, int, float]] = {}
        self.remembers = True
        """Whether this look can be told to the next; in a folder that cannot be written to, dates are all there is."""
        try:
            self.now_s = clock_s(self._path)
            self._before = _KEPT.validate_python(json.loads(self._path.read_bytes() or b"{}"))
        except OSError:
            self.now_s, self.remembers = time.time(), False
        except (ValueError, ValidationError):  # damaged: as at the first look
            self._before = {}

    def still_s(self, path: Path) -> float:
        """For how long a file, or a folder with all in it, has stood still at least (s).

        Its date says so, where it is not in the future, or looks that found size and date the same.
        """
        size, date_ns = _trace(path)
        before = self._before.get(str(path))
        is_same = before is not None and before[:2] == (size, date_ns) and before[2] <= self.now_s
        since_s = before[2] if before is not None and is_same else self.now_s
        self._seen[str(path)] = (size, date_ns, since_s)
        return max(self.now_s - date_ns / 1e9, self.now_s - since_s)

    def is_ahead(self, path: Path) -> bool:
        """Whether a file is dated in the future: by more than file systems round."""
        return _trace(path)[1] / 1e9 > self.now_s + ROUNDED_S

    def keep(self) -> None:
        """Remember this look for the next."""
        if not self.remembers:
            return
        try:
            write_atomically(self._path, json.dumps(self._seen).encode())
        except StoreError:
            self.remembers = False


def clock_s(path: Path) -> float:
    """The time (s) by the clock of the file system that holds `path`, which is made if it is not there."""
    path.touch()
    return path.stat().st_mtime


def _trace(path: Path) -> tuple[int, int]:
    """Size (bytes) and latest date (ns) of a file, or of all that is in a folder."""
    stat = path.stat()
    size, date_ns = stat.st_size, stat.st_mtime_ns
    for folder, _, names in os.walk(path):
        for name in (*names, ""):
            with suppress(FileNotFoundError):  # it moves: then another look will differ
                stat = (Path(folder) / name).lstat()
                size, date_ns = size + stat.st_size, max(date_ns, stat.st_mtime_ns)
    return size, date_ns
