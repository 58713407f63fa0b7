"""What is committed for one product, and from what it was made."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from cytoarch.digests import FileSeal, canonical_json, content_digest, open_sealed
from cytoarch.errors import StoreError

RECORD_FORMAT = 2
"""Version of the record files; part of every fingerprint."""


class Record(BaseModel):
    """What is committed for one product, and from what it was made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = RECORD_FORMAT
    step: str
    name: str
    section: str
    fingerprint: str
    inputs: dict[str, str]
    settings: dict[str, Any]
    facts: dict[str, Any] = {}
    files: dict[str, FileSeal]
    """Files by their key relative to the brain's folder."""

    @property
    def digest(self) -> str:
        """sha256 over the sorted (key, sha256) of the files: the content, free of times and links."""
        return content_digest({key: seal.sha256 for key, seal in self.files.items()})


def fingerprint(step: str, version: int, inputs: Mapping[str, str], settings: Mapping[str, Any]) -> str:
    """sha256 of everything a product depends on: the step and its version, input digests, settings.

    >>> a = fingerprint("tissue", 1, {"scan": "00"}, {"pixel_size_um": 64.0})
    >>> a == fingerprint("tissue", 1, {"scan": "00"}, {"pixel_size_um": 64.0})
    True
    >>> a == fingerprint("tissue", 2, {"scan": "00"}, {"pixel_size_um": 64.0})
    False
    """
    parts = {"format": RECORD_FORMAT, "step": step, "version": version, "inputs": inputs, "settings": settings}
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def read_record(path: Path) -> Record:
    """The record in a file. Raises StoreError if it is no record or not the one that was written."""
    try:
        return open_sealed(path.read_bytes(), Record)
    except ValueError as error:
        raise StoreError(f"{path} is not a readable record ({error}); run verify to see what is damaged") from None
