"""The store: the folders of brains, studies and models, what the manifest stated of a brain, and the locks."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from cytoarch.brains import Brain
from cytoarch.digests import open_sealed, sealed_json
from cytoarch.errors import BrainBusyError, StoreError
from cytoarch.paths import is_id
from cytoarch.store import locks
from cytoarch.store.catalogue import Catalogue
from cytoarch.store.disk import write_atomically
from cytoarch.store.locks import Held, LockedError
from cytoarch.store.models import Models
from cytoarch.store.scan_digests import known_digest, scan_digest

_BUSY = "{} is being written by {{}}; wait for it or stop it, then run again"


class BrainStore:
    """The folder that holds brains, studies and models. Reading it needs no lock; writing into a brain does."""

    def __init__(self, root: Path) -> None:
        self.root = root

    # -- addresses ---------------------------------------------------------------------------------------------------

    def brain_path(self, brain_id: str) -> Path:
        """The folder of a brain."""
        if not is_id(brain_id):
            raise StoreError(f"brain {brain_id!r} is not a valid name")
        return self.root / "brains" / brain_id

    def study_path(self, study: str) -> Path:
        """The folder of a study."""
        if not is_id(study):
            raise StoreError(f"study {study!r} is not a valid name; letters, digits, '.', '_' and '-' are needed")
        return self.root / "studies" / study

    def catalogue(self, brain_id: str) -> Catalogue:
        """What is committed of a brain, to be read anew."""
        return Catalogue(self.brain_path(brain_id))

    @property
    def models(self) -> Models:
        """The models in the store."""
        return Models(self.root / "models")

    @property
    def tracking_path(self) -> Path:
        """The folder of the embedded MLflow database and its artifacts."""
        return self.root / "mlflow"

    def brain_ids(self) -> tuple[str, ...]:
        """The brains in the store."""
        folder = self.root / "brains"
        return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir())) if folder.is_dir() else ()

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
        self.check_there(brain_id)
        path = self.shared_path(brain_id)
        try:
            return open_sealed(path.read_bytes(), Brain)
        except ValueError as error:
            raise StoreError(f"{path} is damaged ({error}); run ingest-brain again") from None

    def check_there(self, brain_id: str) -> None:
        """Raise StoreError, listing the brains there are, if a brain is not in the store."""
        path = self.shared_path(brain_id)
        if path.exists():
            return
        if brain_id in self.brain_ids():
            raise StoreError(
                f"{path} is not there: brain {brain_id} was never taken in whole; run ingest-brain again, "
                "unless it is being taken in now"
            )
        known = ", ".join(self.brain_ids()) or "none"
        raise StoreError(f"{self.root} holds no brain {brain_id!r} (brains there: {known}); run ingest-brain first")

    # -- scans ---------------------------------------------------------------------------------------------------------

    def scan_digest(self, brain_id: str, scan: Path, files: Sequence[Path], rehash: bool = False) -> str:
        """sha256 of a scan outside the store, remembered by the sizes, modification times and inodes of its `files`.

        Of a scan of several files it is that of their sorted (name, sha256). `rehash` reads them in any case.
        """
        return scan_digest(self._scan_digests_path(brain_id), scan, files, rehash)

    def known_digest(self, brain_id: str, scan: Path, files: Sequence[Path]) -> str | None:
        """The remembered sha256 of a scan, or None if it is not known or its files have changed."""
        return known_digest(self._scan_digests_path(brain_id), scan, files)

    def study_scan_digest(self, study: str, scan: Path, files: Sequence[Path]) -> str:
        """As `scan_digest`, remembered by a study, whose volumes lie outside the store, too."""
        return scan_digest(self.study_path(study) / "scan-digests", scan, files)

    def known_study_digest(self, study: str, scan: Path, files: Sequence[Path]) -> str | None:
        """As `known_digest`, of a study."""
        return known_digest(self.study_path(study) / "scan-digests", scan, files)

    def _scan_digests_path(self, brain_id: str) -> Path:
        return self.brain_path(brain_id) / "scan-digests"

    # -- locks -------------------------------------------------------------------------------------------------------

    @contextmanager
    def lock(self, brain_id: str) -> Iterator[None]:
        """Hold the brain for writing. Raises BrainBusyError, naming the holder, if another live run has it."""
        with self._locked(self.brain_path(brain_id), f"brain {brain_id}"):
            yield

    @contextmanager
    def lock_study(self, study: str) -> Iterator[None]:
        """Hold a study for writing. Raises BrainBusyError, naming the holder, if another live run has it."""
        with self._locked(self.study_path(study), f"study {study}"):
            yield

    @contextmanager
    def lock_existing(self, brain_id: str) -> Iterator[None]:
        """Hold a brain that is in the store. Raises StoreError, listing the brains there are, if it is not."""
        if brain_id not in self.brain_ids():  # else the lock would make its folder
            known = ", ".join(self.brain_ids()) or "none"
            raise StoreError(f"{self.root} holds no brain {brain_id!r} (brains there: {known})")
        with self.lock(brain_id):
            yield

    @contextmanager
    def join(self, brain_id: str, ticket: str) -> Iterator[None]:
        """Write into a brain on behalf of the run that a ticket names, from whatever process of this machine.

        Raises BrainBusyError if that run no longer has the brain.
        """
        told = f"brain {brain_id} is held by {{}}, no longer by the run that this is done for; start that run again"
        with _busy_if_locked(told), locks.joined(_lock_path(self.brain_path(brain_id)), ticket):
            yield

    def check_free(self, brain_id: str) -> None:
        """Raise BrainBusyError if another live run holds the brain: a first look, which holds nothing itself."""
        with _busy_if_locked(_BUSY.format(f"brain {brain_id}")):
            locks.check_free(_lock_path(self.brain_path(brain_id)))

    def held(self, folder: Path) -> Held | None:
        """The lock of a brain's or study's folder, where this run has it."""
        return locks.held(_lock_path(folder))

    @contextmanager
    def _locked(self, folder: Path, name: str) -> Iterator[None]:
        is_first = self.held(folder) is None
        with ExitStack() as stack:
            with _busy_if_locked(_BUSY.format(name)):
                stack.enter_context(locks.locked(_lock_path(folder)))
            if is_first:
                _clear_leftovers(folder)
            yield


def group_metadata(attributes: Mapping[str, Any]) -> bytes:
    """The zarr.json of a Zarr v3 group."""
    metadata = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    return json.dumps(metadata, indent=1, sort_keys=True).encode()


def _lock_path(folder: Path) -> Path:
    return folder.resolve() / "lock"


def _clear_leftovers(home: Path) -> None:
    """Remove what a crash left of files that were being written, and staging folders of what was published."""
    for folder in ("", "scan-digests/", "records/*/*/", "sections.ome.zarr/", "sections.ome.zarr/OME/"):
        for draft in home.glob(f"{folder}.*.draft"):
            draft.unlink(missing_ok=True)
    for staging in (home / "staging").glob("*/"):
        if not (staging / "content").exists() and not (staging / "record.json").exists():
            shutil.rmtree(staging)


@contextmanager
def _busy_if_locked(told: str) -> Iterator[None]:
    """Raise BrainBusyError, which tells who holds the lock, where it cannot be had."""
    try:
        yield
    except LockedError as error:
        raise BrainBusyError(told.format(error)) from None
