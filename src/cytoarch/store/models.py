"""Trained models, kept under the digest of their files."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cytoarch.digests import content_digest, files_digest, hash_file
from cytoarch.errors import StoreError
from cytoarch.paths import is_litter
from cytoarch.store.disk import flush_to_disk, write_atomically


@dataclass(frozen=True)
class Models:
    """The folder of all models of a store."""

    folder: Path

    def path(self, digest: str) -> Path:
        """The folder of a model, whether or not it is there. Raises StoreError if that is no digest."""
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise StoreError(f"{digest!r} is not the digest of a model; 64 hexadecimal digits are needed")
        return self.folder / digest

    def is_whole(self, digest: str) -> bool:
        """Whether a model is there as it was kept."""
        path = self.path(digest)
        found = path.iterdir() if path.is_dir() else ()
        files = sorted(one for one in found if one.is_file() and not is_litter(one.name))
        return content_digest({one.name: hash_file(one).sha256 for one in files}) == digest

    def add(self, files: Mapping[str, bytes]) -> str:
        """Keep a model's files under their digest, and return it. A model that is there and whole is left untouched."""
        digest = files_digest(files)
        target = self.path(digest)
        if target.exists() and not self.is_whole(digest):
            self.remove(digest)
        if not target.exists():
            draft = target.with_name(f".{digest[:16]}.{os.getpid()}.draft")
            for key, data in files.items():
                write_atomically(draft / key, data)
            draft.rename(target)
            flush_to_disk(target.parent)
        return digest

    def remove(self, digest: str) -> None:
        """Remove a model's files, if they are there."""
        folder = self.path(digest)
        if folder.exists():
            shutil.rmtree(folder)
