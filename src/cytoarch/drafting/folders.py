"""The image files of a folder, and how a manifest names them."""

import os
from collections.abc import Iterable
from pathlib import Path

from cytoarch.errors import ManifestError, ScanError
from cytoarch.images.scans import SUFFIXES, is_scan
from cytoarch.paths import confined
from cytoarch.tables import UNCONFIRMED

_FORMULAS = ("=", "+", "-", "@")
"""How a cell begins that spreadsheets compute, also where the table was read from CSV."""


def printable(path: Path) -> str:
    """A path as it can be shown and written: of a byte that is no UTF-8 text, its number."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def is_text(path: Path) -> bool:
    """Whether a path is text that a manifest can hold."""
    return printable(path) == str(path)


def images_in(folder: Path, also: tuple[str, ...] = ()) -> list[Path]:
    """The scans or label images in a folder by name, links to content that is not here among them; nothing hidden.

    Files whose suffix is one of `also` count as images, too.

    Raises ManifestError if the folder cannot be listed.
    """
    if not folder.is_dir():
        raise ManifestError(printable(folder), ["there is no such folder"])
    try:
        return sorted(path for path in folder.iterdir() if _is_image(path) or _has_suffix(path, also))
    except OSError as error:
        raise ManifestError(
            printable(folder), [f"cannot be listed ({error.strerror}); check its permissions"]
        ) from None


def folders_with_images(folder: Path) -> list[str]:
    """The folders below one that hold images, relative to it; folders that cannot be listed are passed over."""
    found = []
    for place, below, files in os.walk(folder):
        below[:] = [name for name in below if not _is_hidden(name)]
        if any(_is_image(Path(place, name)) for name in (*below, *files)) and Path(place) != folder:
            found.append(printable(Path(place).relative_to(folder)))
        below[:] = [name for name in below if not _is_image(Path(place, name))]
    return sorted(found)


def lacks_content(path: Path) -> bool:
    """Whether a path is a link to something that is not there, as git-annex leaves behind."""
    return path.is_symlink() and not path.exists()


def common_root(folders: Iterable[Path], files: Iterable[Path]) -> Path:
    """The deepest folder that holds the folders, and what links among the files lead to in a dataset of git-annex.

    The content of such a dataset lies in its `.git/annex/objects`, above the folder of scans or beside it.
    """
    homes = {folder.resolve() for folder in folders}
    for path in files:
        parts = Path(os.path.realpath(path)).parts
        if path.is_symlink() and ".git" in parts and "annex" in parts:
            dataset = Path(*parts[: parts.index(".git")])
            if dataset in path.parent.resolve().parents:
                homes.add(dataset)
    return Path(os.path.commonpath(homes))


def cell_for(path: Path, root: Path) -> str:
    """What a manifest writes for a file below `root`, its own name where it is a link; read back, it is that file.

    Names that would be read as something else get a `./` in front: blanks are stripped from cells, a leading `?` is the
    mark of what a person has to confirm, and spreadsheets compute what begins like a formula. Raises ScanError, naming
    the file, if no cell leads to it.
    """
    text = (path.parent.resolve() / path.name).relative_to(root).as_posix()
    if not is_text(path):
        raise ScanError(
            f"{printable(path)}: its name is no UTF-8 text, which a manifest is; rename it (`convmv` does so for many)"
        )
    if text.startswith((UNCONFIRMED, *_FORMULAS)) or text != text.strip() or ":" in text:
        text = f"./{text}"
    confined(text, root)
    return text


def _is_image(path: Path) -> bool:
    if _is_hidden(path.name):
        return False
    return path.suffix.lower() in SUFFIXES and (is_scan(path) or lacks_content(path))


def _has_suffix(path: Path, suffixes: tuple[str, ...]) -> bool:
    return path.suffix.lower() in suffixes and path.is_file() and not _is_hidden(path.name)


def _is_hidden(name: str) -> bool:
    """Mac and git keep files of theirs beside others': `._a.tif` is no scan."""
    return name.startswith(".")
