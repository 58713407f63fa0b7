"""What is committed for one product, and from what it was made."""

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from cytoarch.digests import FileSeal, canonical_json, content_digest, open_sealed
from cytoarch.errors import StoreError
from cytoarch.store.products import Product, Work

RECORD_FORMAT = 3
"""Version of the record files; part of every fingerprint."""


class Record(BaseModel):
    """What is committed for one product, and from what it was made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = RECORD_FORMAT
    step: str
    name: str
    section: str
    view: bool = False
    fingerprint: str
    inputs: dict[str, str]
    sources: dict[str, str] = {}
    """Addresses of those inputs that are products of the same brain or study."""
    settings: dict[str, Any]
    facts: dict[str, Any] = {}
    files: dict[str, FileSeal]
    """Files by their key relative to the folder of the brain or study."""

    @cached_property
    def digest(self) -> str:
        """sha256 over the sorted (key, sha256) of the files: the content, free of times and links."""
        return content_digest({key: seal.sha256 for key, seal in self.files.items()})

    @property
    def product(self) -> Product:
        """What it is the record of."""
        return Product(self.step, self.name, self.section)

    def committed(self) -> "Committed":
        """What is remembered of it."""
        inputs, sources = _shared(self.inputs), _shared(self.sources)
        return Committed(self.product, self.fingerprint, self.digest, inputs, sources, canonical_json(self.facts))


@dataclass(frozen=True, slots=True)
class Committed:
    """What a run remembers of a committed product: its record without the list of files. There are tens of thousands.

    The attributes are those of the record.
    """

    product: Product
    fingerprint: str
    digest: str
    inputs: Mapping[str, str]
    sources: Mapping[str, str]
    facts_json: str

    @property
    def facts(self) -> dict[str, Any]:
        """Small JSON values about it."""
        facts: dict[str, Any] = json.loads(self.facts_json)
        return facts

    @property
    def facts_digest(self) -> str:
        """sha256 of the facts."""
        return hashlib.sha256(self.facts_json.encode()).hexdigest()


def _shared(texts: Mapping[str, str]) -> dict[str, str]:
    """The same texts, each held once in memory: the digest of a section is an input of many products."""
    return {sys.intern(one): sys.intern(text) for one, text in texts.items()}


def fingerprint(step: str, work: Work) -> str:
    """sha256 of everything a product depends on: the step and its version, input digests, settings.

    >>> a = fingerprint("tissue", Work(1, {"scan": "00"}, {"pixel_size_um": 64.0}))
    >>> a == fingerprint("tissue", Work(1, {"scan": "00"}, {"pixel_size_um": 64.0}))
    True
    >>> a == fingerprint("tissue", Work(2, {"scan": "00"}, {"pixel_size_um": 64.0}))
    False
    """
    parts = {
        "format": RECORD_FORMAT,
        "step": step,
        "version": work.version,
        "inputs": work.inputs,
        "settings": work.settings,
    }
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def read_record(path: str | Path) -> Record:
    """The record in a file. Raises StoreError if it is no record or not the one that was written."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a `Path` takes as long to make as a record to read
            record = open_sealed(file.read(), Record)
    except ValueError as error:
        raise StoreError(f"{path} is not a readable record ({error}); run verify to see what is damaged") from None
    if record.format != RECORD_FORMAT:
        raise StoreError(f"{path} is a record of format {record.format}, not {RECORD_FORMAT}: it is made again")
    return record
