"""The files of a store, which is a folder: nothing outside it is read, and links that leave it are refused."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cytoarch.errors import ScanError
from cytoarch.paths import is_litter

MAX_METADATA_BYTES = 16 << 20
"""Largest metadata file that is read."""

Metadata = Mapping[str, Any]


def store_files(path: Path) -> Iterator[Path]:
    """Every file below a store, sorted within each folder, files before folders, so that its digest can be computed.

    What desktops leave there is passed over: who looks at a store does not change it.
    Raises ScanError at a link that leads out of the store or to a folder, at what is neither file nor folder, at a name
    that is no UTF-8, at folders nested too deep, and at a folder that cannot be listed.
    """
    return files_below(path, path)


MAX_DEPTH = 32
"""Folders inside folders; a store has a group, an image, a level and a key of five numbers at most."""


def files_below(folder: Path, root: Path, depth: int = 0) -> Iterator[Path]:
    """Every file below a folder of a store, as `store_files` gives them."""
    if depth > MAX_DEPTH:
        raise ScanError(
            f"{root}: folders are nested more than {MAX_DEPTH} deep; that is no OME-Zarr store, check the path"
        )
    folders = []
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise ScanError(f"{folder}: cannot be listed ({error.strerror}); check its permissions") from None
    for entry in found:
        if is_litter(entry.name):
            continue
        if not entry.name.isprintable():
            raise ScanError(
                f"{folder}: holds a file named {entry.name!r}; a name of plain text is needed, rename or remove it"
            )
        entry_path = Path(entry.path)
        inside = not entry.is_symlink() or is_below(entry_path, root)
        if inside and entry.is_file():
            yield entry_path
        elif entry.is_dir(follow_symlinks=False):
            folders.append(entry_path)
        else:
            raise ScanError(
                f"{entry.path}: is a link that leaves the store or leads to a folder, or no file at all; copy the "
                "store together with the files its links lead to"
            )
    for one in folders:
        yield from files_below(one, root, depth + 1)


def is_below(path: Path, root: Path) -> bool:
    """Whether a path, links followed, lies in a folder."""
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # a loop of links
        return False


def folder_below(root: Path, folder: Path, key: object) -> Path:
    """The folder at a key that metadata state. Raises ScanError unless it lies below the store."""
    parts = key.split("/") if isinstance(key, str) else [""]
    unsafe = any(part in ("", ".", "..") or "\\" in part or ":" in part or "\0" in part for part in parts)
    if unsafe or not is_below(folder.joinpath(*parts), root):
        raise ScanError(f"its metadata name {key!r}; a path of folders below the store is needed")
    return folder.joinpath(*parts)


def read_json(root: Path, file: Path) -> Metadata:
    """The object in a metadata file of the store."""
    if not is_below(file, root):
        raise ScanError(f"{file}: is a link that leaves the store; copy the store with the files its links lead to")
    with file.open("rb") as opened:
        text = opened.read(MAX_METADATA_BYTES + 1)
    if len(text) > MAX_METADATA_BYTES:
        raise ScanError(f"{file}: holds more than {MAX_METADATA_BYTES} bytes of metadata; at most these are read")
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ScanError(f"{file}: holds no JSON object; copy the store again")
    return value
