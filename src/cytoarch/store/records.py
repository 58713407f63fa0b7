"""What is committed for one product, and from what it was made."""

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from cytoarch.digests import FileSeal, canonical_json, content_digest, open_sealed, sealed_text
from cytoarch.errors import StoreError
from cytoarch.store.products import Product, Work, product_of

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

    @property
    def digest(self) -> str:
        """sha256 over the sorted (key, sha256) of the files: the content, free of times and links."""
        return content_digest({key: seal.sha256 for key, seal in self.files.items()})

    @property
    def product(self) -> Product:
        """What it is the record of."""
        return Product(self.step, self.name, self.section)

    def committed(self) -> "Committed":
        """What is remembered of it."""
        return _committed(self.model_dump(mode="json"))


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
    settings_json: str
    facts_json: str

    def is_of(self, version: int) -> bool:
        """Whether it was made by this version of its step."""
        work = Work(version, self.inputs, self.settings)
        return self.fingerprint == fingerprint(self.product.step, work)

    @property
    def settings(self) -> dict[str, Any]:
        """What it was made with, as JSON values."""
        settings: dict[str, Any] = json.loads(self.settings_json)
        return settings

    @property
    def facts(self) -> dict[str, Any]:
        """Small JSON values about it."""
        facts: dict[str, Any] = json.loads(self.facts_json)
        return facts

    @property
    def facts_digest(self) -> str:
        """sha256 of the facts."""
        return hashlib.sha256(self.facts_json.encode()).hexdigest()


def _committed(content: Mapping[str, Any]) -> Committed:
    """What is remembered of the content of a record file."""
    return Committed(
        product_of(content["step"], content["name"], content["section"]),
        content["fingerprint"],
        content_digest({key: seal["sha256"] for key, seal in content["files"].items()}),
        _shared(content["inputs"]),
        _shared(content["sources"]),
        sys.intern(canonical_json(content["settings"])),
        canonical_json(content["facts"]),
    )


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


def read_record(path: Path) -> Record:
    """The record in a file. Raises StoreError if it is no record or not the one that was written."""
    try:
        record = open_sealed(path.read_bytes(), Record)
    except ValueError as error:
        raise StoreError(f"{path} is not a readable record ({error}); run verify to see what is damaged") from None
    _check_format(path, record.format)
    return record


def read_committed(path: str) -> tuple[Committed, dict[str, int]]:
    """What is remembered of the record in a file, and the sizes (bytes) of the product's files by key.

    Raises StoreError if it is no record or not the one that was written. What is sealed is what was written: it is not
    looked at again, since there are tens of thousands.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a `Path` takes as long to make as a record to read
            content = json.loads(sealed_text(file.read()))
        _check_format(path, content["format"])
        return _committed(content), {key: seal["size_bytes"] for key, seal in content["files"].items()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise StoreError(f"{path} is not a readable record ({error}); run verify to see what is damaged") from None


def _check_format(path: str | Path, found: int) -> None:
    if found != RECORD_FORMAT:
        raise StoreError(f"{path} is a record of format {found}, not {RECORD_FORMAT}: it is made again")
