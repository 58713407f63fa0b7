"""What a killed process left in a store: finished files, half-finished ones, and the stage it was in."""

import json
from dataclasses import dataclass
from pathlib import Path

from cytoarch.store.brain_store import BrainStore
from cytoarch.store.products import Product

SHARD = "/c/"
LAST_FILES = {"zarr.json", "labels/zarr.json", "labels/tissue/zarr.json", "quality.png", "index.html"}
"""What is written last of a product."""
CHANGING = ("derived/quality/page/", "sections.ome.zarr/zarr.json", "sections.ome.zarr/OME/")
"""What is made anew whenever the sections there are have changed."""
Identity = tuple[int, int, int]
"""(inode, time of change in ns, bytes)"""


def identity(path: Path) -> Identity:
    stat = path.stat()
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def identities(folder: Path) -> dict[str, Identity]:
    """Every file below a folder."""
    return {str(one.relative_to(folder)): identity(one) for one in sorted(folder.rglob("*")) if one.is_file()}


@dataclass(frozen=True)
class StagingFolder:
    """A staging folder."""

    path: Path
    home: Path

    @property
    def product(self) -> Product:
        step, name, section, _ = self.path.name.split("+")
        return Product(step, name, section)

    @property
    def content(self) -> Path:
        """Where the files are, before and after they were renamed into place."""
        staged = self.path / "content"
        return staged if staged.exists() else self.home / self.product.key

    @property
    def journal(self) -> set[str]:
        journal = self.path / "journal.jsonl"
        lines = journal.read_text().splitlines() if journal.exists() else []
        return {json.loads(line)["key"] for line in lines if line.endswith("}")}

    def half_finished(self) -> list[str]:
        """Shards that are on disk, whole or in part, and not in the journal."""
        staged = self.path / "content"
        files = [str(one.relative_to(staged)) for one in staged.rglob("*") if one.is_file()]
        return [key for key in files if SHARD in f"/{key}" and key not in self.journal]

    def stage(self) -> str:
        """What was being done here."""
        step, journal = self.product.step, self.journal
        if (self.path / "record.json").exists():
            return f"{step}: publishing"
        if journal & LAST_FILES:
            return f"{step}: verifying"
        if (self.path / "scratch").exists() and not any(SHARD in f"/{key}" for key in journal):
            return f"{step}: before the first shard"
        return f"{step}: writing"


def staging_folders(store: BrainStore, brain_id: str) -> list[StagingFolder]:
    """The staging folders there are."""
    home = store.brain_path(brain_id)
    return [StagingFolder(path, home) for path in sorted((home / "staging").glob("*"))]


def finished(store: BrainStore, brain_id: str) -> dict[str, Identity]:
    """Files that are committed or in a journal, by their key in the brain's folder."""
    home = store.brain_path(brain_id)
    found = {key: home / key for record in store.catalogue(brain_id).records() for key in record.files}
    for one in staging_folders(store, brain_id):
        found |= {f"{one.product.key}/{key}": one.content / key for key in one.journal}
    return {key: identity(path) for key, path in found.items() if path.is_file() and not key.startswith(CHANGING)}


def stage(store: BrainStore, brain_id: str) -> str:
    """What the process that was killed was doing."""
    if not store.shared_path(brain_id).exists():
        return "start"
    found = [one.stage() for one in staging_folders(store, brain_id)]
    return " + ".join(found) or "between products"


def temporary(store: BrainStore) -> list[str]:
    """Files and folders that nobody needs when all is done."""
    names = [*store.root.glob("brains/*/staging/*"), *store.root.rglob("*.draft"), *store.root.rglob("scratch")]
    return sorted(str(one.relative_to(store.root)) for one in names)
