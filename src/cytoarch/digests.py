"""Digests of files and values: how content is told from other content."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

_BLOCK_BYTES = 4 << 20


class FileSeal(BaseModel):
    """What a committed file must hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    size_bytes: int


def content_digest(hashes: Mapping[str, str]) -> str:
    """sha256 over sorted (key, sha256) pairs."""
    lines = (f"{key}\0{hashes[key]}\n" for key in sorted(hashes))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def canonical_json(value: object) -> str:
    """The one JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def hash_file(path: Path) -> FileSeal:
    """The size and sha256 of a file's content."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
    return FileSeal(sha256=digest.hexdigest(), size_bytes=size)
