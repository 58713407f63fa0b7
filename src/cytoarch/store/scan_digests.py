"""sha256 of scans outside the store, remembered so that gigabytes are not read again to see that nothing changed."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cytoarch.digests import canonical_json, content_digest, hash_file, open_sealed, sealed_json
from cytoarch.store.disk import write_atomically


class ScanDigest(BaseModel):
    """What is remembered of a scan."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    identity: str
    sha256: str


def scan_digest(folder: Path, scan: Path, files: Sequence[Path], rehash: bool = False) -> str:
    """sha256 of a scan, remembered in `folder` by the sizes, modification times and inodes of its `files`.

    Of a scan of several files it is that of their sorted (name, sha256). `rehash` reads them in any case.
    """
    known = None if rehash else known_digest(folder, scan, files)
    if known is not None:
        return known
    identity = _identity(files)
    hashes = {path.relative_to(scan).as_posix(): hash_file(path).sha256 for path in files}
    digest = hashes["."] if files == [scan] else content_digest(hashes)
    content = sealed_json(ScanDigest(identity=identity, sha256=digest))
    memory = _memory(folder, scan)
    if not memory.exists() or memory.read_bytes() != content:
        write_atomically(memory, content)
    return digest


def known_digest(folder: Path, scan: Path, files: Sequence[Path]) -> str | None:
    """The sha256 of a scan remembered in `folder`, or None if it is not known or its files have changed."""
    try:
        known = open_sealed(_memory(folder, scan).read_bytes(), ScanDigest)
    except (FileNotFoundError, ValueError):
        return None
    return known.sha256 if known.identity == _identity(files) else None


def _memory(folder: Path, scan: Path) -> Path:
    name = content_digest({"path": str(scan)})[:32]
    return folder / f"{name}.json"


def _identity(files: Sequence[Path]) -> str:
    """A digest of what tells files from changed ones without reading them."""
    stats = ((str(path), path.stat()) for path in files)
    facts = [[name, stat.st_size, stat.st_mtime_ns, stat.st_ino] for name, stat in stats]
    return hashlib.sha256(canonical_json(facts).encode()).hexdigest()
