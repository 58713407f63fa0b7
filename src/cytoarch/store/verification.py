"""Reads everything committed of a brain back and names what has changed, for the next run to heal."""

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cytoarch.brains import Brain
from cytoarch.digests import FileSeal, hash_file, open_sealed
from cytoarch.errors import StoreError
from cytoarch.paths import is_litter
from cytoarch.progress import Progress
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.catalogue import Catalogue
from cytoarch.store.collection import COLLECTION, collection_files
from cytoarch.store.products import FOLDERS, Product, product_folder
from cytoarch.store.records import Record, read_record

THREADS = 2
"""Files are hashed side by side; a thread keeps up with about 2 GB/s."""
HEALS = "the next run makes it again"
REPLACES = "the next run that makes it replaces it; delete it if it is no longer wanted"
RESTORE_RECORD = "human work is never made again: finish the step that was interrupted, or restore it from a copy"
RESTORE = "human work is never made again: restore it from a copy"


@dataclass(frozen=True)
class Fault:
    """A file that is not what was written."""

    key: str
    """Relative to the brain's folder, or to the store's for models."""
    found: str
    remedy: str


@dataclass(frozen=True)
class Verification:
    """What reading a brain back showed."""

    files: int
    nbytes: int
    faults: tuple[Fault, ...]
    strays: tuple[str, ...]
    """Files that belong to no record: left as they are."""


def verify_brain(store: BrainStore, brain_id: str, on_progress: Progress | None = None) -> Verification:
    """Compare every committed file of a brain with its sha256.

    Products with a fault are marked, so that nothing uses them and the next run makes whole what is damaged;
    annotations are only named. `on_progress` counts bytes. The caller holds the brain's lock.
    """
    catalogue = store.catalogue(brain_id)
    home = catalogue.folder
    faults = [*_brain_faults(store, catalogue, brain_id)]
    records: list[Record] = []
    for path in catalogue.record_paths():
        try:
            records.append(read_record(path))
        except StoreError:
            key = path.relative_to(home).as_posix()
            human = _product_of(path).is_human
            faults.append(Fault(key, "the record itself has changed", RESTORE if human else HEALS))
    total = sum(seal.size_bytes for record in records for seal in record.files.values())
    done = 0
    with ThreadPoolExecutor(THREADS) as readers:
        for record in records:
            damaged = []
            for key, found in readers.map(lambda item: _compared(home, *item), record.files.items()):
                done += record.files[key].size_bytes
                if found:
                    damaged.append(key)
                    faults.append(Fault(key, found, RESTORE if record.product.is_human else HEALS))
                if on_progress is not None:
                    on_progress(done, total)
            if damaged and not record.product.is_human:
                catalogue.note_damage(record.product, damaged)
    faults += _model_faults(store, records)
    known_keys = {key for record in records for key in record.files}
    strays = tuple(key for key in _files_below(home) if key not in known_keys)
    faults += _unrecorded(catalogue, strays)
    return Verification(len(known_keys), total, tuple(faults), strays)


def _unrecorded(catalogue: Catalogue, strays: Collection[str]) -> Iterator[Fault]:
    """Products of which there are files but no record, by their folders."""
    recorded = {_product_of(path).key for path in catalogue.record_paths()}
    for folder in sorted({product_folder(key) for key in strays} - recorded - {""}):
        yield Fault(folder, "has no record", RESTORE_RECORD if folder.startswith("annotations/") else REPLACES)


def _compared(home: Path, key: str, seal: FileSeal) -> tuple[str, str]:
    """The key, and what is wrong with its file; blank: nothing."""
    try:
        found = hash_file(home / key)
    except FileNotFoundError:
        return key, "missing"
    except OSError as error:
        return key, f"cannot be read ({error.strerror})"
    if found.size_bytes != seal.size_bytes:
        return key, f"{found.size_bytes} bytes where {seal.size_bytes} were written"
    return key, "" if found == seal else "its content has changed"


def _product_of(record_path: Path) -> Product:
    step, name, file = record_path.parts[-3:]
    return Product(step, name, file.removesuffix(".json"))


def _brain_faults(store: BrainStore, catalogue: Catalogue, brain_id: str) -> Iterator[Fault]:
    """Faults of what the manifest stated, and of the collection of sections, which is derived from it."""
    path = store.shared_path(brain_id)
    home = catalogue.folder
    try:
        files = collection_files(catalogue, open_sealed(path.read_bytes(), Brain))
    except (FileNotFoundError, ValueError) as error:
        yield Fault(path.name, f"not what was written ({error})", "run ingest-brain again")
        for key in COLLECTION:
            if (home / "sections.ome.zarr").exists():
                yield Fault(key, f"cannot be compared while {path.name} is damaged", HEALS)
        return
    for key, content in files.items():
        file = home / key
        if not file.is_file() or file.read_bytes() != content:
            yield Fault(key, "is not the list of the committed sections", HEALS)


def _model_faults(store: BrainStore, records: list[Record]) -> Iterator[Fault]:
    """Models that are not what their digest says; the next run takes them from the training that made them."""
    for record in records:
        digest = record.facts.get("model")
        if isinstance(digest, str) and not store.models.is_whole(digest):
            store.models.remove(digest)
            yield Fault(f"models/{digest}", "missing or not what its digest says", "the next training brings it back")


def _files_below(home: Path) -> Iterator[str]:
    for name in FOLDERS:
        for path in sorted((home / name).rglob("*")):
            key = path.relative_to(home).as_posix()
            if path.is_file() and key not in COLLECTION and not is_litter(path.name):
                yield key
