"""Digests of files and values: how content is told from other content."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import google_crc32c
from pydantic import BaseModel, ConfigDict, ValidationError

_BLOCK_BYTES = 4 << 20


class FileSeal(BaseModel):
    """What a committed file must hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    size_bytes: int


class Checksum(BaseModel):
    """What a file that is being made holds. Computed ten times as fast as a sha256; finds accidents, not forgeries."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    crc32c: int
    size_bytes: int


def content_digest(hashes: Mapping[str, str]) -> str:
    """sha256 over sorted (key, sha256) pairs."""
    lines = [f"{key}\0{hashes[key]}\n" for key in sorted(hashes)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def files_digest(files: Mapping[str, bytes]) -> str:
    """The content digest of files in memory."""
    return content_digest({key: hashlib.sha256(data).hexdigest() for key, data in files.items()})


_CANONICAL = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False, check_circular=False
)


def canonical_json(value: object) -> str:
    """The one JSON text of a value: sorted keys, no spaces, no NaN."""
    return _CANONICAL.encode(value)


def values_digest(values: object) -> str:
    """sha256 of JSON values."""
    return hashlib.sha256(canonical_json(values).encode()).hexdigest()


Model = TypeVar("Model", bound=BaseModel)


_SEAL = re.compile(rb'\{\n"sha256": "([0-9a-f]{64})",\n"content": ')
_SEAL_END = b"\n}\n"


def sealed_json(value: BaseModel) -> bytes:
    """A value as JSON that carries the sha256 of its own text, so that no flipped bit in it goes unseen."""
    text = json.dumps(value.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False).encode()
    seal = hashlib.sha256(text).hexdigest()
    return b'{\n"sha256": "%s",\n"content": %s%s' % (seal.encode(), text, _SEAL_END)


def open_sealed(data: bytes, model: type[Model]) -> Model:
    """The value in `sealed_json`. Raises ValueError, saying what is wrong, if it is not what was written.

    >>> seal = FileSeal(sha256="00", size_bytes=7)
    >>> open_sealed(sealed_json(seal), FileSeal) == seal
    True
    >>> open_sealed(sealed_json(seal).replace(b"7", b"8"), FileSeal)
    Traceback (most recent call last):
    ValueError: its content is not what its sha256 says
    """
    try:
        return model.model_validate_json(sealed_text(data), strict=False)
    except ValidationError as error:
        raise ValueError(str(error).splitlines()[0]) from None


def sealed_text(data: bytes) -> bytes:
    """The JSON text in `sealed_json`. Raises ValueError if it is not what was written."""
    seal = _SEAL.match(data)
    text = data[seal.end() : -len(_SEAL_END)] if seal else _text_of_earlier(data)
    if seal and not (data.endswith(_SEAL_END) and hashlib.sha256(text).hexdigest().encode() == seal[1]):
        raise ValueError("its content is not what its sha256 says")
    return text


def _text_of_earlier(data: bytes) -> bytes:
    """The content of a file of earlier versions, whose sha256 is that of the canonical JSON: slower to check."""
    parts = json.loads(data)
    if not isinstance(parts, dict) or set(parts) != {"sha256", "content"}:
        raise ValueError("it holds no sha256 and content")
    text = canonical_json(parts["content"]).encode()
    is_as_written = data == json.dumps(parts, indent=1, ensure_ascii=False).encode()
    if not is_as_written or hashlib.sha256(text).hexdigest() != parts["sha256"]:
        raise ValueError("its content is not what its sha256 says")
    return text


def hash_file(path: Path) -> FileSeal:
    """The size and sha256 of a file's content."""
    return hash_and_checksum(path)[0]


def hash_and_checksum(path: Path) -> tuple[FileSeal, Checksum]:
    """The seal and the checksum of a file's content, read once."""
    digest = hashlib.sha256()
    size = crc = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            crc = google_crc32c.extend(crc, block)
            size += len(block)
    return FileSeal(sha256=digest.hexdigest(), size_bytes=size), Checksum(crc32c=crc, size_bytes=size)


def checksum_file(path: Path) -> Checksum:
    """The size and crc32c of a file's content."""
    size = crc = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            crc = google_crc32c.extend(crc, block)
            size += len(block)
    return Checksum(crc32c=crc, size_bytes=size)
