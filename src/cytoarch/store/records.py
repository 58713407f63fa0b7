"""What is committed for one product, and from what it was made."""

import hashlib
import json
import marshal
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from pydantic import BaseModel, ConfigDict

from cytoarch.digests import FileSeal, canonical_json, content_digest, open_sealed, sealed_text, values_digest
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


class Said(NamedTuple):
    """What a record says of a product beside its files; see `Record`."""

    inputs: dict[str, str]
    sources: dict[str, str]
    settings: dict[str, Any]
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Committed:
    """What a run remembers of a committed product: its record without the list of files. There are tens of thousands.

    What is seldom asked for is kept packed, in a fifth of the memory that dictionaries take: records of the same family
    differ in little.
    """

    product: Product
    _digests: bytes
    """The fingerprint and the sha256 of content and facts, 32 bytes each."""
    _packed: bytes
    """What it says, as what differs from `_like`."""
    _like: bytes
    """What another record says, or nothing."""

    @property
    def fingerprint(self) -> str:
        """That of the work it was made from."""
        return self._digests[:32].hex()

    @property
    def digest(self) -> str:
        """That of its content."""
        return self._digests[32:64].hex()

    @property
    def unpacked(self) -> bytes:
        """What it says, to pack others against."""
        return zlib.decompressobj(_WINDOW_BITS, self._like).decompress(self._packed)

    @property
    def said(self) -> Said:
        """All that it says: of thousands of inputs this is made anew with every call."""
        return Said(*marshal.loads(self.unpacked))  # noqa: S302 - this process wrote it

    @property
    def inputs(self) -> dict[str, str]:
        """Digests of everything it was made from."""
        return self.said.inputs

    @property
    def sources(self) -> dict[str, str]:
        """Addresses of those inputs that are products of the same brain or study."""
        return self.said.sources

    @property
    def settings(self) -> dict[str, Any]:
        """What it was made with, as JSON values."""
        return self.said.settings

    @property
    def facts(self) -> dict[str, Any]:
        """Small JSON values about it."""
        return self.said.facts

    @property
    def facts_digest(self) -> str:
        """sha256 of the facts."""
        return self._digests[64:].hex()

    def is_of(self, version: int) -> bool:
        """Whether it was made by this version of its step."""
        said = self.said
        return self.fingerprint == fingerprint(self.product.step, Work(version, said.inputs, said.settings))

    def __eq__(self, other: object) -> bool:
        """Whether they say the same, however packed."""
        return isinstance(other, Committed) and self._whole == other._whole

    def __hash__(self) -> int:
        """Of what was made."""
        return hash((self.product, self._digests))

    @property
    def _whole(self) -> tuple[Product, bytes, Said]:
        return self.product, self._digests, self.said


_WINDOW_BITS = -12
"""A raw stream, in which what is like something else is found 4 kB back."""
_UNSHARED = 2
"""The version of marshal that writes equal values alike, whichever of them are one in memory."""


def _committed(content: Mapping[str, Any], like: bytes = b"") -> Committed:
    """What is remembered of the content of a record file."""
    product = product_of(content["step"], content["name"], content["section"])
    files = content["files"]
    digest = content_digest({key: files[key]["sha256"] for key in files})
    digests = bytes.fromhex(content["fingerprint"] + digest + values_digest(content["facts"]))
    said = marshal.dumps(tuple(content[one] for one in Said._fields), _UNSHARED)
    stream = zlib.compressobj(1, wbits=_WINDOW_BITS, memLevel=4, zdict=like)
    return Committed(product, digests, stream.compress(said) + stream.flush(), like)


def fingerprint(step: str, work: Work) -> str:
    """sha256 of everything a product depends on: the step and its version, input digests, settings.

    >>> a = fingerprint("tissue", Work(1, {"scan": "00"}, {"pixel_size_um": 64.0}))
    >>> a == fingerprint("tissue", Work(1, {"scan": "00"}, {"pixel_size_um": 64.0}))
    True
    >>> a == fingerprint("tissue", Work(2, {"scan": "00"}, {"pixel_size_um": 64.0}))
    False
    """
    return fingerprint_of(step, work.version, [work.inputs], canonical_json(work.settings))


def fingerprint_of(step: str, version: int, inputs: Iterable[Mapping[str, str]], settings_json: str) -> str:
    """The same, told in parts.

    `inputs` come in the order of what they are, so that a report's tens of thousands are never held together;
    `settings_json` is canonical, made once by a step for thousands of sections.
    """
    digest, comma = hashlib.sha256(b'{"format":%d,"inputs":{' % RECORD_FORMAT), b""
    for part in inputs:
        if part:  # of texts alone this is the same canonical JSON
            digest.update(comma + orjson.dumps(part, option=orjson.OPT_SORT_KEYS)[1:-1])
            comma = b","
    digest.update(f'}},"settings":{settings_json},"step":"{step}","version":{version}}}'.encode())
    return digest.hexdigest()


def read_record(path: Path) -> Record:
    """The record in a file. Raises StoreError if it is no record or not the one that was written."""
    try:
        record = open_sealed(path.read_bytes(), Record)
    except ValueError as error:
        raise StoreError(f"{path} is not a readable record ({error}); run verify to see what is damaged") from None
    _check_format(path, record.format)
    return record


_LARGE_BYTES = 1 << 18
"""Records of fits and reports, which orjson would need sixteen times their size for."""


def read_committed(path: str, like: bytes = b"") -> tuple[Committed, dict[str, int]]:
    """What is remembered of the record in a file, and the sizes (bytes) of the product's files by key.

    `like` is what another record says that it resembles, unpacked: it is packed against that.
    Raises StoreError if it is no record or not the one that was written. What is sealed is what was written: it is not
    looked at again, since there are tens of thousands.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a `Path` takes as long to make as a record to read
            text = sealed_text(file.read())
        content = orjson.loads(text) if len(text) < _LARGE_BYTES else json.loads(text)
        _check_format(path, content["format"])
        return _committed(content, like), {key: seal["size_bytes"] for key, seal in content["files"].items()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise StoreError(f"{path} is not a readable record ({error}); run verify to see what is damaged") from None


def _check_format(path: str | Path, found: int) -> None:
    if found != RECORD_FORMAT:
        raise StoreError(f"{path} is a record of format {found}, not {RECORD_FORMAT}: it is made again")
