"""Names and paths from outside, checked before they are used as addresses."""

import os
import re
import stat
from functools import lru_cache
from pathlib import Path

from cytoarch.errors import ScanError

ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_ID = re.compile(ID_PATTERN)
_LITTER = (".DS_Store", "Thumbs.db", "desktop.ini")
_URL_LIKE = re.compile(r"://|::|^[A-Za-z][A-Za-z0-9+.-]+:")


@lru_cache(1 << 16)
def is_id(text: str) -> bool:
    """Whether `text` can name a brain or section: a letter or digit, then up to 63 of `A-Z a-z 0-9 . _ -`.

    >>> is_id("B07"), is_id("../B07"), is_id(""), is_id("section 1")
    (True, False, False, False)
    """
    return _ID.fullmatch(text) is not None


def is_litter(name: str) -> bool:
    """Whether a file is what desktops leave in folders that somebody looks into, or beside files that they copy.

    >>> [is_litter(name) for name in (".DS_Store", "._s001.json", "Thumbs.db", ".zattrs", "s001.json")]
    [True, True, True, False, False]
    """
    return name in _LITTER or name.startswith("._")


def confined(path: str | Path, root: Path) -> Path:
    """The absolute path of `path` below `root`, with symbolic links followed.

    Raises ScanError if `path` looks like a URL, holds a NUL, or leads out of `root` (through `..`, an absolute
    path elsewhere, or a symbolic link). The file itself need not exist.
    """
    text = str(path)
    if _URL_LIKE.search(text):
        raise ScanError(f"{text!r} looks like a URL; a path to a local file below {root} is needed")
    if "\0" in text:
        raise ScanError(f"{text!r} holds a NUL character; a path to a local file is needed")
    home = _resolved(root)
    try:
        full = _without_links(home, text) or (home / text).resolve()
    except (OSError, RuntimeError) as error:  # a loop of links, a name that is too long
        raise ScanError(f"{text!r} cannot be followed below {home} ({error}); correct the path") from None
    if full != home and home not in full.parents:
        raise ScanError(
            f"{text!r} leads outside {home}; paths must stay below that folder "
            "(set scans_path to a folder that holds every scan)"
        )
    return full


def _resolved(root: Path) -> Path:
    """A folder with symbolic links followed: thousands of paths are looked at below one."""
    try:
        found = root.stat()
    except OSError:
        return root.resolve()
    return _known_folder(root.absolute(), found.st_dev, found.st_ino)


@lru_cache(64)
def _known_folder(root: Path, _device: int, _inode: int) -> Path:
    return root.resolve()


def _without_links(home: Path, text: str) -> Path | None:
    """The path below a folder, where it is there, goes down only, and meets no link; else None."""
    at = str(home)
    for part in text.split("/"):
        at = f"{at}/{part}"
        if part in ("", ".", ".."):
            return None
        try:
            if stat.S_ISLNK(os.lstat(at).st_mode):
                return None
        except OSError:  # not there, below a file, or too long a name: whoever opens it is told
            return None
    return Path(at)
