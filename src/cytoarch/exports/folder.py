"""Folders of exports that appear as a whole: a half-written one is never taken for done."""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cytoarch.digests import canonical_json, hash_file
from cytoarch.errors import StoreError
from cytoarch.store.disk import flush_to_disk, write_atomically, writing

CARD_FILE = "export.json"
"""Written last: what the export is of, how it was made, and the sha256 of every file."""


@contextmanager
def whole_folder(target: Path, about: Mapping[str, Any]) -> Iterator[Path]:
    """A draft folder to write into, which takes the place of `target` at the end, with a card that lists its files.

    What an interrupted export left is removed first; an earlier export is replaced once the new one is complete.
    Raises StoreError if `target` is something else than an export, or cannot be written.
    """
    if target.exists() and not (target / CARD_FILE).is_file():
        raise StoreError(f"{target} is there and is no export (it has no {CARD_FILE}); choose another folder")
    draft, old = (target.with_name(f".{target.name}.{word}") for word in ("draft", "old"))
    scratch = Draft(draft).scratch
    with writing(target):
        for left in (draft, old, scratch):
            if left.exists():
                shutil.rmtree(left)
        draft.mkdir(parents=True)
        try:
            yield draft
            _seal(draft, about)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if target.exists():
            target.replace(old)
        draft.replace(target)
        flush_to_disk(target.parent)
        shutil.rmtree(old, ignore_errors=True)


def _seal(draft: Path, about: Mapping[str, Any]) -> None:
    """Write the card, and see that all is on the disk."""
    files = {}
    for place, _, names in os.walk(draft):
        for name in sorted(names):
            path = Path(place, name)
            flush_to_disk(path)
            files[path.relative_to(draft).as_posix()] = hash_file(path).sha256
        flush_to_disk(Path(place))
    write_atomically(draft / CARD_FILE, canonical_json({**about, "files": dict(sorted(files.items()))}).encode())


class Draft:
    """A folder that pyramids are written into at one go; nothing of it is adopted by a later run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.scratch = path.with_name(f"{path.name}.scratch")

    def has(self, key: str) -> bool:  # noqa: ARG002 - nothing is there before
        """Nothing is finished before."""
        return False

    def seal(self, key: str) -> None:
        """Files are sealed together, at the end."""

    def write(self, key: str, parts: bytes | Iterable[bytes]) -> None:
        """Write a whole file, part by part."""
        path = self.path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for part in (parts,) if isinstance(parts, bytes) else parts:
                file.write(part)
