"""Where things are: every address in the store, its records, and the question "is this current?"."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cytoarch.brains import Brain
from cytoarch.digests import canonical_json, content_digest, open_sealed, sealed_json
from cytoarch.errors import BrainBusyError, StoreError
from cytoarch.paths import is_id
from cytoarch.store import locks
from cytoarch.store.disk import flush_to_disk, write_atomically
from cytoarch.store.locks import LockedError
from cytoarch.store.products import WHOLE_BRAIN, Product, Step, Work
from cytoarch.store.records import Record, fingerprint, read_record
from cytoarch.store.scan_digests import known_digest, scan_digest
from cytoarch.store.staging import Staging


@dataclass(frozen=True)
class Draft:
    """A product that is being made: the staging folder to fill, and how what is in it becomes the product."""

    store: "BrainStore"
    product: Product
    work: Work
    staging: Staging
    sealed: Record | None
    """The record, where an earlier run sealed the product but did not come to publish it: nothing is left to fill."""

    def commit(self, facts: Mapping[str, Any]) -> Record:
        """Verify, seal and publish the product with `facts` (small JSON values) in its record."""
        record = self.sealed
        if record is None:
            product, work = self.product, self.work
            draft = Record(
                step=product.step,
                name=product.name,
                section=product.section_id,
                fingerprint=fingerprint(product.step, work.version, work.inputs, work.settings),
                inputs=dict(work.inputs),
                settings=json.loads(canonical_json(work.settings)),
                facts=dict(facts),
                files={},
            )
            record = self.staging.finish(draft, product.key)
        self.store.publish(self)
        return record


class BrainStore:
    """The folder that holds brains and models. Reading it needs no lock; writing a brain's step does."""

    def __init__(self, root: Path) -> None:
        self.root = root

    # -- addresses ---------------------------------------------------------------------------------------------------

    def brain_path(self, brain_id: str) -> Path:
        """The folder of a brain."""
        if not is_id(brain_id):
            raise StoreError(f"brain {brain_id!r} is not a valid name")
        return self.root / "brains" / brain_id

    def path(self, product: Product) -> Path:
        """The folder of a product, whether or not it is there."""
        return self.brain_path(product.brain_id) / product.key

    def model_path(self, digest: str) -> Path:
        """The folder of a trained model."""
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise StoreError(f"{digest!r} is not the digest of a model; 64 hexadecimal digits are needed")
        return self.root / "models" / digest

    @property
    def tracking_path(self) -> Path:
        """The folder of the embedded MLflow database and its artifacts."""
        return self.root / "mlflow"

    def brain_ids(self) -> tuple[str, ...]:
        """The brains in the store."""
        folder = self.root / "brains"
        return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir())) if folder.is_dir() else ()

    def record_path(self, product: Product) -> Path:
        """The file of a product's record, whether or not it is there."""
        records = self.brain_path(product.brain_id) / "records"
        return records / product.step / product.name / f"{product.section_id}.json"

    def _damage_path(self, product: Product) -> Path:
        return self.record_path(product).with_name(f"{product.section_id}.damage")

    def shared_path(self, brain_id: str) -> Path:
        """The file that holds what the manifest states about a brain."""
        return self.brain_path(brain_id) / "brain.json"

    # -- brains ------------------------------------------------------------------------------------------------------

    def write_brain(self, brain: Brain) -> None:
        """Remember what the manifest states about a brain; unchanged statements are not rewritten."""
        path = self.shared_path(brain.brain_id)
        content = sealed_json(brain)
        if not path.exists() or path.read_bytes() != content:
            write_atomically(path, content)

    def read_brain(self, brain_id: str) -> Brain:
        """What the manifest stated about a brain. Raises StoreError, listing the brains there are."""
        path = self.shared_path(brain_id)
        if not path.exists():
            known = ", ".join(self.brain_ids()) or "none"
            raise StoreError(f"{self.root} holds no brain {brain_id!r} (brains there: {known}); run ingest-brain first")
        try:
            return open_sealed(path.read_bytes(), Brain)
        except ValueError as error:
            raise StoreError(f"{path} is damaged ({error}); run ingest-brain again") from None

    # -- records -----------------------------------------------------------------------------------------------------

    def record(self, product: Product) -> Record | None:
        """The record of a product that is committed and not damaged, else None.

        The record must read back as it was written, the files must all be present in full length, and `verify` must
        not have found any of them changed.
        """
        path = self.record_path(product)
        if not path.exists() or self._damage_path(product).exists():
            return None
        try:
            record = read_record(path)
        except StoreError:  # nothing vouches for what it spoke of; `verify` names it
            return None
        home = str(self.brain_path(product.brain_id))
        for key, seal in record.files.items():
            try:
                if os.stat(f"{home}/{key}").st_size != seal.size_bytes:  # noqa: PTH116 - thousands of shards a section
                    return None
            except FileNotFoundError:
                return None
        return record

    def is_committed(self, product: Product) -> bool:
        """Whether the product has a record, whatever has happened to its files since."""
        return self.record_path(product).exists()

    def mark_damaged(self, product: Product, keys: Collection[str]) -> None:
        """Note that files of a committed product have changed: it is not used, and the next run heals it."""
        write_atomically(self._damage_path(product), canonical_json(sorted(keys)).encode())

    def require(self, product: Product, hint: str) -> Record:
        """The record of a committed product. Raises StoreError with `hint` (what to run) where there is none."""
        record = self.record(product)
        if record is None:
            raise StoreError(f"brain {product.brain_id} holds no committed {product.step} {product.key!r}; {hint}")
        return record

    def current(self, product: Product, work: Work) -> Record | None:
        """The record of the product if it was made from exactly `work`, else None. Reads only, and no pixel."""
        record = self.record(product)
        wanted = fingerprint(product.step, work.version, work.inputs, work.settings)
        return record if record is not None and record.fingerprint == wanted else None

    def begin(self, product: Product, work: Work) -> "Record | Draft":
        """The record of the product if it is current; else a draft to fill.

        The draft adopts what an earlier run of the same fingerprint left: a staging folder, or a product that was
        committed and has been damaged since, of which the intact files are kept. Human work that is there is never
        made again: then StoreError is raised. The caller holds the brain's lock.
        """
        mark = fingerprint(product.step, work.version, work.inputs, work.settings)
        room = self._room(product, mark)
        staging = Staging(room, product.guests)
        record = self.current(product, work)
        others = [other for other in self._rooms(product) if other != room]
        if product.step != "annotations":
            for other in others:
                shutil.rmtree(other)
        elif record is None:
            self._check_replaces_nothing(product, staging, others)
        if record is not None:
            staging.discard()  # what a crash between the last two steps of publishing left
            return record
        self._salvage(product, mark, staging)
        sealed = staging.sealed_record
        return Draft(self, product, work, staging if sealed is not None else staging.open(), sealed)

    def _check_replaces_nothing(self, product: Product, staging: Staging, others: Sequence[Path]) -> None:
        """Raise StoreError if something is at the address, or on its way there, that is not this very product."""
        is_ours = staging.sealed_record is not None and not staging.path.exists()
        is_taken = not is_ours and (self.path(product).exists() or self.is_committed(product))
        if is_taken or any(Staging(other).sealed_record is not None for other in others):
            raise StoreError(
                f"{self.path(product)} holds human work with another record, or with none; it is never made again: "
                "restore it from a copy, or choose a new version"
            )

    def _salvage(self, product: Product, mark: str, staging: Staging) -> None:
        """Take a damaged product back into staging, where what is left of it is made whole."""
        path = self.record_path(product)
        content = self.path(product)
        if not path.exists() or staging.path.exists():
            return
        try:
            record = read_record(path)
        except StoreError:  # then nothing vouches for what is there: it is made again
            self.forget(product)
            return
        if record.fingerprint == mark and content.is_dir():
            lead = f"{product.key}/"
            staging.salvage(content, {key.removeprefix(lead): seal for key, seal in record.files.items()})
            self.forget(product)

    def ensure(
        self, product: Product, work: Work, write: Callable[[Staging], Mapping[str, Any]]
    ) -> tuple[Record, bool]:
        """Make the product unless it is current; returns its record and whether it was made now.

        `write` fills the staging folder and returns facts for the record (small JSON values). The caller holds the
        brain's lock.
        """
        begun = self.begin(product, work)
        if isinstance(begun, Record):
            return begun, False
        return begun.commit({} if begun.sealed else write(begun.staging)), True

    def publish(self, draft: Draft) -> None:
        """Bring a sealed draft to its address; can be repeated."""
        draft.staging.publish(self.path(draft.product), self.record_path(draft.product))
        self._damage_path(draft.product).unlink(missing_ok=True)

    def forget(self, product: Product) -> None:
        """Take the product's record away, so that it is made again; its files stay until they are replaced."""
        self.record_path(product).unlink(missing_ok=True)
        self._damage_path(product).unlink(missing_ok=True)

    def remove(self, product: Product) -> bool:
        """Remove a product that is no longer wanted, its record first; says whether there was one."""
        path = self.path(product)
        known = self.record_path(product).exists()
        self.forget(product)
        if path.exists():
            shutil.rmtree(path)
        return known

    def remove_others(self, brain_id: str, step: Step, name: str, kept: Collection[str]) -> tuple[str, ...]:
        """Remove a step's products of this name for sections that are not to be kept, finished or not.

        Gives the sections that had finished ones. The caller holds the brain's lock.
        """
        home = self.brain_path(brain_id)
        found = sorted(path.stem for path in (home / "records" / step / name).glob("*.json"))
        gone = tuple(one for one in found if one not in kept and one != WHOLE_BRAIN)
        for section_id in gone:
            self.remove(Product(brain_id, step, name, section_id))
        for room in (home / "staging").glob(f"{step}+{name}+*"):
            if room.name.split("+")[2] not in (*kept, WHOLE_BRAIN):
                shutil.rmtree(room)
        return gone

    def records(self, brain_id: str) -> Iterator[Record]:
        """Every record of a brain, in the order of their addresses."""
        for path in self.record_paths(brain_id):
            yield read_record(path)

    def names(self, brain_id: str, step: Step) -> list[str]:
        """The names under which a step has products."""
        folder = self.brain_path(brain_id) / "records" / step
        return sorted({path.parent.name for path in folder.glob("*/*.json")})

    def record_paths(self, brain_id: str) -> list[Path]:
        """The files of a brain's records, in the order of their addresses."""
        return sorted((self.brain_path(brain_id) / "records").glob("*/*/*.json"))

    def content_digest(self, brain_id: str) -> str:
        """sha256 over every committed file of a brain: equal for equal content, whenever and however it was made.

        The report, which names runs and model versions, and the pictures of quality are views of it and left out.
        """
        content = (record for record in self.records(brain_id) if record.step not in ("report", "quality"))
        return content_digest({key: seal.sha256 for record in content for key, seal in record.files.items()})

    def _room(self, product: Product, mark: str) -> Path:
        """Where the product is made for this fingerprint."""
        return self.brain_path(product.brain_id) / "staging" / f"{_address(product)}{mark[:16]}"

    def _rooms(self, product: Product) -> list[Path]:
        """Where it is made, or was, for whatever fingerprint."""
        return sorted((self.brain_path(product.brain_id) / "staging").glob(f"{_address(product)}*"))

    # -- scans, collection, models -----------------------------------------------------------------------------------

    def scan_digest(self, brain_id: str, scan: Path, files: Sequence[Path], rehash: bool = False) -> str:
        """sha256 of a scan outside the store, remembered by the sizes, modification times and inodes of its `files`.

        Of a scan of several files it is that of their sorted (name, sha256). `rehash` reads them in any case.
        """
        return scan_digest(self._scan_digests_path(brain_id), scan, files, rehash)

    def known_digest(self, brain_id: str, scan: Path, files: Sequence[Path]) -> str | None:
        """The remembered sha256 of a scan, or None if it is not known or its files have changed."""
        return known_digest(self._scan_digests_path(brain_id), scan, files)

    def _scan_digests_path(self, brain_id: str) -> Path:
        return self.brain_path(brain_id) / "scan-digests"

    def write_group(self, path: Path, attributes: Mapping[str, Any]) -> None:
        """Write the metadata of a Zarr v3 group; unchanged metadata is not rewritten."""
        content = group_metadata(attributes)
        target = path / "zarr.json"
        if not target.exists() or target.read_bytes() != content:
            write_atomically(target, content)

    def add_model(self, files: Mapping[str, bytes]) -> str:
        """Keep a model's files under their digest, and return it. A model already there is left untouched."""
        digest = content_digest({key: hashlib.sha256(data).hexdigest() for key, data in files.items()})
        target = self.model_path(digest)
        if not target.exists():
            draft = target.with_name(f".{digest[:16]}.{os.getpid()}.draft")
            for key, data in files.items():
                write_atomically(draft / key, data)
            draft.rename(target)
            flush_to_disk(target.parent)
        return digest

    def remove_model(self, digest: str) -> None:
        """Remove a model's files, if they are there."""
        folder = self.model_path(digest)
        if folder.exists():
            shutil.rmtree(folder)

    # -- locks -------------------------------------------------------------------------------------------------------

    @contextmanager
    def lock(self, brain_id: str) -> Iterator[None]:
        """Hold the brain for writing. Raises BrainBusyError, naming the holder, if another live run has it."""
        path = self._lock_path(brain_id)
        is_first = locks.held_handle(path) is None
        with ExitStack() as stack:
            with _busy_if_locked(brain_id):
                stack.enter_context(locks.locked(path))
            if is_first:
                self._clear_leftovers(brain_id)
            yield

    def check_free(self, brain_id: str) -> None:
        """Raise BrainBusyError if another live run holds the brain: a first look, which holds nothing itself."""
        with _busy_if_locked(brain_id):
            locks.check_free(self._lock_path(brain_id))

    def _clear_leftovers(self, brain_id: str) -> None:
        """Remove what a crash left of files that were being written, and staging folders of what was published."""
        home = self.brain_path(brain_id)
        for folder in ("", "scan-digests/", "records/*/*/", "sections.ome.zarr/", "sections.ome.zarr/OME/"):
            for draft in home.glob(f"{folder}.*.draft"):
                draft.unlink(missing_ok=True)
        for room in (home / "staging").glob("*"):
            if not (room / "content").exists() and not (room / "record.json").exists():
                shutil.rmtree(room)

    @contextmanager
    def lock_existing(self, brain_id: str) -> Iterator[None]:
        """Hold a brain that is in the store. Raises StoreError, listing the brains there are, if it is not."""
        if brain_id not in self.brain_ids():  # else the lock would make its folder
            known = ", ".join(self.brain_ids()) or "none"
            raise StoreError(f"{self.root} holds no brain {brain_id!r} (brains there: {known})")
        with self.lock(brain_id):
            yield

    def lock_handle(self, brain_id: str) -> int | None:
        """The open file of the lock, where this process holds it: who is given it too keeps the brain locked."""
        return locks.held_handle(self._lock_path(brain_id))

    def _lock_path(self, brain_id: str) -> Path:
        return self.brain_path(brain_id).resolve() / "lock"


def group_metadata(attributes: Mapping[str, Any]) -> bytes:
    """The zarr.json of a Zarr v3 group."""
    metadata = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    return json.dumps(metadata, indent=1, sort_keys=True).encode()


def _address(product: Product) -> str:
    return f"{product.step}+{product.name}+{product.section_id}+"  # '+' cannot be part of a name


@contextmanager
def _busy_if_locked(brain_id: str) -> Iterator[None]:
    try:
        yield
    except LockedError as error:
        raise BrainBusyError(
            f"brain {brain_id} is being written by process {error}; wait for it or stop it, then run again"
        ) from None
