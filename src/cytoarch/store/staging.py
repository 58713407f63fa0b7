"""The staging folder of a product: its journal, sealing and publishing.

A product is written into a staging folder named by its fingerprint. Each finished file is flushed to disk and entered
in a journal with its crc32c, so that the next run of the same fingerprint adopts it after a crash. When every file is
there, all are read back, compared and hashed, the record is written into the staging folder (the product is *sealed*),
the content is renamed into place, and last the record is moved beside the other records. A product without a record is
not done.
"""

import json
import os
import shutil
import threading
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import google_crc32c

from cytoarch.digests import (
    Checksum,
    FileSeal,
    canonical_json,
    checksum_file,
    content_digest,
    hash_and_checksum,
    sealed_json,
)
from cytoarch.errors import StoreError
from cytoarch.paths import is_litter
from cytoarch.store.disk import flush_to_disk, write_atomically, writing
from cytoarch.store.records import Record, read_record

READ_BACK_THREADS = 2
"""Hashing keeps up with a disk at about 2 GB/s a thread."""


class Staging:
    """The folder in which one product is written, before it is published.

    `path` holds the content. Files entered in the journal survive a crash and are adopted by the next run; anything
    else found at opening is removed. `scratch` is a folder for what the work needs on the way; it is never published.
    `guests` are folders of other products inside the content: they move with it and are left alone.
    Methods that write raise StoreError if the disk is full or cannot be written to.
    """

    def __init__(self, folder: Path, guests: Collection[str] = ()) -> None:
        self.folder = folder
        self._guests = frozenset(guests)
        self._journal_path = folder / "journal.jsonl"
        self._record_path = folder / "record.json"
        self._lock = threading.Lock()
        self.path = folder / "content"
        self.scratch = folder / "scratch"
        self._checksums: dict[str, Checksum] = {}

    def open(self) -> Self:
        """Make or adopt the folder: files of the journal that read back as written are kept."""
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        self.clear_scratch()
        self._checksums = {
            key: checksum for key, checksum in self._read_journal().items() if self._holds(key, checksum)
        }
        for file in list(self._files()):
            if self._key(file) not in self._checksums:
                file.unlink()
        lines = [_journal_line(key, checksum) for key, checksum in self._checksums.items()]
        write_atomically(self._journal_path, "".join(lines).encode())
        return self

    def join(self) -> Self:
        """Go on with a folder that another process opened: its journal is believed until the product is verified."""
        self._checksums = self._read_journal()
        return self

    def salvage(self, content: Path, files: Mapping[str, FileSeal]) -> None:
        """Take over a published product, to be opened: what still reads back as sealed need not be made again."""
        checksums = {key: _checksum_if(content / key, seal) for key, seal in files.items()}
        lines = [_journal_line(key, checksum) for key, checksum in checksums.items() if checksum is not None]
        write_atomically(self._journal_path, "".join(lines).encode())
        content.rename(self.path)
        flush_to_disk(content.parent)
        flush_to_disk(self.folder)

    def discard(self) -> None:
        """Remove the folder, if it is there."""
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def clear_scratch(self) -> None:
        """Remove what the work needed on the way."""
        if self.scratch.exists():
            shutil.rmtree(self.scratch)

    def has(self, key: str) -> bool:
        """Whether an earlier or this run finished the file at `key` (relative to `path`)."""
        return key in self._checksums

    def seal(self, key: str) -> None:
        """Flush the finished file at `key` to disk and enter it in the journal."""
        path = self.path / key
        flush_to_disk(path)
        self.enter(key, checksum_file(path))

    def enter(self, key: str, checksum: Checksum) -> None:
        """Enter a file that is on disk in the journal: from here on a crash does not lose it."""
        with self._lock:
            with writing(self._journal_path), self._journal_path.open("ab") as journal:
                journal.write(_journal_line(key, checksum).encode())
                journal.flush()
                os.fsync(journal.fileno())
            self._checksums[key] = checksum

    def write(self, key: str, parts: bytes | Iterable[bytes]) -> None:
        """Write a whole file at `key`, part by part, and seal it; until it is in the journal it is half-written."""
        path = self.path / key
        size = crc = 0
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                for part in [parts] if isinstance(parts, bytes) else parts:
                    file.write(part)
                    crc = google_crc32c.extend(crc, part)
                    size += len(part)
                file.flush()
                os.fsync(file.fileno())
        self.enter(key, Checksum(crc32c=crc, size_bytes=size))

    def drop(self, key: str) -> None:
        """Remove a finished file that only the work needed, such as where an interrupted one would go on."""
        with self._lock:
            self._checksums.pop(key, None)
            (self.path / key).unlink(missing_ok=True)

    @property
    def sealed_record(self) -> Record | None:
        """The record, where the product was sealed but not yet published."""
        if not self._record_path.exists():
            return None
        return read_record(self._record_path)

    def finish(self, record: Record, prefix: str) -> Record:
        """Seal the product: read every file back, hash it, and write the record into the staging folder.

        `prefix` is the key of the product's folder. Raises StoreError if a file does not read back as it was written.
        """
        for file in self._files():
            if not self.has(self._key(file)):
                self.seal(self._key(file))
        seals = self._read_back()
        self.clear_scratch()
        for folder in sorted(path for path in self.path.rglob("*") if path.is_dir()):
            flush_to_disk(folder)
        flush_to_disk(self.path)
        record = record.model_copy(update={"files": {f"{prefix}/{key}": seals[key] for key in sorted(seals)}})
        write_atomically(self._record_path, sealed_json(record))
        return record

    def trace(self, folder: str) -> str:
        """A digest of the finished files below a folder by key, size and crc32c: the same for equal content."""
        found = {key: f"{one.crc32c:08x} {one.size_bytes}" for key, one in self._checksums.items()}
        return content_digest({key: text for key, text in found.items() if key.startswith(folder)})

    def _read_back(self) -> dict[str, FileSeal]:
        """The seals of all files. Raises StoreError for the first that is not as it was written, which is removed."""
        seals = {}
        with ThreadPoolExecutor(READ_BACK_THREADS) as readers:
            for (key, checksum), seal in zip(
                self._checksums.items(), readers.map(self._sealed, self._checksums), strict=True
            ):
                if seal is None:
                    (self.path / key).unlink(missing_ok=True)
                    raise StoreError(
                        f"{self.path / key} does not read back as written ({checksum.size_bytes} bytes, crc32c "
                        f"{checksum.crc32c:08x} expected); check the disk, then run again"
                    )
                seals[key] = seal
        return seals

    def _sealed(self, key: str) -> FileSeal | None:
        """The seal of a file that is as it was written, else None."""
        try:
            seal, checksum = hash_and_checksum(self.path / key)
        except FileNotFoundError:
            return None
        return seal if checksum == self._checksums[key] else None

    def publish(self, target: Path, record_path: Path) -> None:
        """Rename the sealed content to `target` and its record to `record_path`; each step can be repeated.

        An older record goes first: at no moment does it stand beside content it does not speak of.
        """
        if self.path.exists():
            if record_path.exists():
                record_path.unlink()
                flush_to_disk(record_path.parent)
            with writing(target):
                target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                retired = self.folder / "retired"
                if retired.exists():
                    shutil.rmtree(retired)
                target.rename(retired)
            self.path.rename(target)
            flush_to_disk(target.parent)
        with writing(record_path):
            record_path.parent.mkdir(parents=True, exist_ok=True)
        self._record_path.replace(record_path)
        flush_to_disk(record_path.parent)
        shutil.rmtree(self.folder)

    def _files(self) -> list[Path]:
        every = (path for path in self.path.rglob("*") if not path.is_dir() and not is_litter(path.name))
        return sorted(path for path in every if path.relative_to(self.path).parts[0] not in self._guests)

    def _key(self, file: Path) -> str:
        return file.relative_to(self.path).as_posix()

    def _holds(self, key: str, checksum: Checksum) -> bool:
        path = self.path / key
        return path.is_file() and path.stat().st_size == checksum.size_bytes and checksum_file(path) == checksum

    def _read_journal(self) -> dict[str, Checksum]:
        checksums: dict[str, Checksum] = {}
        if self._journal_path.exists():
            for line in self._journal_path.read_text(errors="replace").splitlines():
                try:
                    entry = json.loads(line)
                    key = entry.pop("key")
                    checksums[key] = Checksum.model_validate(entry, strict=True)
                except (ValueError, KeyError, TypeError, AttributeError):  # a line a crash cut short: written again
                    continue
        return checksums


def _checksum_if(path: Path, seal: FileSeal) -> Checksum | None:
    """The checksum of a file that is what its seal says, else None."""
    try:
        found, checksum = hash_and_checksum(path)
    except OSError:
        return None
    return checksum if found == seal else None


def _journal_line(key: str, checksum: Checksum) -> str:
    return canonical_json({"key": key, **checksum.model_dump()}) + "\n"
