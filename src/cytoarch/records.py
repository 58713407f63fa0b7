"""When a product is done: fingerprints, the journal of a staging folder, sealing, publishing and verification.

A product is written into a staging folder named by its fingerprint. Each finished file is flushed to disk, hashed and
entered in a journal, so that the next run of the same fingerprint adopts it after a crash. When every file is there,
all are read back and compared, the record is written into the staging folder (the product is *sealed*), the content
is renamed into place, and last the record is moved beside the other records. A product without a record is not done.
"""

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from cytoarch.digests import FileSeal, canonical_json, content_digest, hash_file
from cytoarch.errors import StoreError

RECORD_FORMAT = 1
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


def write_atomically(path: Path, content: bytes) -> None:
    """Put `content` at `path` so that a reader, or a crash, sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.draft")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    flush_to_disk(path.parent)


def flush_to_disk(path: Path) -> None:
    """Fsync a file or folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Staging:
    """The folder in which one product is written, before it is published.

    `path` holds the content. Files entered in the journal with `seal` survive a crash and are adopted by the next
    run; anything else found at opening is removed.
    """

    def __init__(self, room: Path) -> None:
        self._room = room
        self._journal_path = room / "journal.jsonl"
        self._record_path = room / "record.json"
        self._lock = threading.Lock()
        self.path = room / "content"
        self._seals: dict[str, FileSeal] = {}

    def open(self) -> Self:
        """Make or adopt the folder."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._seals = {key: seal for key, seal in self._read_journal().items() if self._holds(key, seal)}
        for file in list(self._files()):
            if self._key(file) not in self._seals:
                file.unlink()
        lines = [_journal_line(key, seal) for key, seal in self._seals.items()]
        write_atomically(self._journal_path, "".join(lines).encode())
        return self

    def discard(self) -> None:
        """Remove the folder, if it is there."""
        if self._room.exists():
            shutil.rmtree(self._room)

    def has(self, key: str) -> bool:
        """Whether an earlier or this run finished the file at `key` (relative to `path`)."""
        return key in self._seals

    def seal(self, key: str) -> None:
        """Flush the finished file at `key` to disk, hash it and enter it in the journal."""
        path = self.path / key
        flush_to_disk(path)
        self.enter(key, hash_file(path))

    def enter(self, key: str, seal: FileSeal) -> None:
        """Enter a file that is on disk in the journal: from here on a crash does not lose it."""
        with self._lock:
            with self._journal_path.open("ab") as journal:
                journal.write(_journal_line(key, seal).encode())
                journal.flush()
                os.fsync(journal.fileno())
            self._seals[key] = seal

    def write(self, key: str, *parts: bytes) -> None:
        """Write a whole file at `key` and seal it; until it is in the journal it counts as half-written."""
        path = self.path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for part in parts:
                file.write(part)
                digest.update(part)
            file.flush()
            os.fsync(file.fileno())
        self.enter(key, FileSeal(sha256=digest.hexdigest(), size_bytes=sum(map(len, parts))))

    @property
    def sealed_record(self) -> Record | None:
        """The record, where the product was sealed but not yet published."""
        if not self._record_path.exists():
            return None
        return Record.model_validate_json(self._record_path.read_bytes())

    def finish(self, record: Record, prefix: str) -> Record:
        """Seal the product: hash what is left, read every file back, and write the record into the staging folder.

        `prefix` is the key of the product's folder. Raises StoreError if a file does not read back as it was written.
        """
        for file in self._files():
            if not self.has(self._key(file)):
                self.seal(self._key(file))
        for key, seal in self._seals.items():
            file = self.path / key
            found = hash_file(file) if file.is_file() else None
            if found != seal:
                file.unlink(missing_ok=True)
                state = f"{found.size_bytes} bytes, {found.sha256[:12]}" if found else "missing"
                raise StoreError(
                    f"{file} does not read back as written ({state}; {seal.size_bytes} bytes, {seal.sha256[:12]} "
                    "expected); check the disk, then run again"
                )
        for folder in sorted(path for path in self.path.rglob("*") if path.is_dir()):
            flush_to_disk(folder)
        flush_to_disk(self.path)
        record = record.model_copy(
            update={"files": {f"{prefix}/{key}": self._seals[key] for key in sorted(self._seals)}}
        )
        write_atomically(self._record_path, record.model_dump_json(indent=1).encode())
        return record

    def publish(self, target: Path, record_path: Path) -> None:
        """Rename the sealed content to `target` and its record to `record_path`; each step can be repeated.

        An older record goes first: at no moment does it stand beside content it does not speak of.
        """
        if self.path.exists():
            if record_path.exists():
                record_path.unlink()
                flush_to_disk(record_path.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                retired = self._room / "retired"
                if retired.exists():
                    shutil.rmtree(retired)
                target.rename(retired)
            self.path.rename(target)
            flush_to_disk(target.parent)
        record_path.parent.mkdir(parents=True, exist_ok=True)
        self._record_path.replace(record_path)
        flush_to_disk(record_path.parent)
        shutil.rmtree(self._room)

    def _files(self) -> list[Path]:
        return sorted(path for path in self.path.rglob("*") if not path.is_dir())

    def _key(self, file: Path) -> str:
        return file.relative_to(self.path).as_posix()

    def _holds(self, key: str, seal: FileSeal) -> bool:
        path = self.path / key
        return path.is_file() and path.stat().st_size == seal.size_bytes and hash_file(path) == seal

    def _read_journal(self) -> dict[str, FileSeal]:
        seals: dict[str, FileSeal] = {}
        if self._journal_path.exists():
            for line in self._journal_path.read_text(errors="replace").splitlines():
                try:
                    entry = json.loads(line)
                    seals[entry["key"]] = FileSeal(sha256=entry["sha256"], size_bytes=entry["size_bytes"])
                except (ValueError, KeyError, TypeError):  # the line a crash cut short; its file is written again
                    continue
        return seals


def _journal_line(key: str, seal: FileSeal) -> str:
    return canonical_json({"key": key, **seal.model_dump()}) + "\n"
