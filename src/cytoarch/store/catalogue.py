"""What is committed of one brain or study: its records, each read once, and the question "is this current?"."""

import os
import sys
import threading
from collections.abc import Collection, Iterator
from pathlib import Path

from cytoarch.digests import canonical_json, content_digest
from cytoarch.errors import StoreError
from cytoarch.paths import is_litter
from cytoarch.store.disk import write_atomically
from cytoarch.store.products import WHOLE_BRAIN, Product, Work, product_of
from cytoarch.store.records import Committed, Record, fingerprint, read_committed, read_record

DAMAGE = ".damage"
"""Ending of the file beside a record that says that files of its product have changed."""


class Catalogue:
    """The records of one brain or study, for the length of a run: each is read and checked once, then remembered.

    What this process commits or takes away through it is seen at once; what other processes do, after `refresh`. May
    be asked from any thread.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        """The folder of the brain or study."""
        self.records_read = 0
        """How many record files have been read."""
        self._known: dict[str, dict[str, Committed | None]] = {}  # by family, then section
        self._like: dict[str, bytes] = {}  # by family, what the first of its records said
        self._listed: dict[str, set[str]] = {}
        self._outdated: dict[Product, str] = {}
        self._dependents: dict[Product, set[Product]] = {}  # what was found to be made from a product
        self._lock = threading.RLock()

    # -- addresses ---------------------------------------------------------------------------------------------------

    def path(self, product: Product) -> Path:
        """The folder of a product, whether or not it is there."""
        return self.folder / product.key

    def record_path(self, product: Product) -> Path:
        """The file of a product's record, whether or not it is there."""
        return self.folder / "records" / f"{product.address}.json"

    def damage_path(self, product: Product) -> Path:
        """The file that says which files of a product have changed, where any have."""
        return self.folder / "records" / f"{product.address}{DAMAGE}"

    # -- one product -------------------------------------------------------------------------------------------------

    def record(self, product: Product) -> Committed | None:
        """The record of a product that is committed and not damaged, else None.

        The record must read back as it was written, the files must all be present in full length, and `verify` must
        not have found any of them changed.
        """
        section_id = product.section_id
        with self._lock:
            known = self._known.setdefault(product.family, {})
            if section_id not in known:
                known[section_id] = self._read(product)
            return known[section_id]

    def is_committed(self, product: Product) -> bool:
        """Whether the product has a record, whatever has happened to its files since."""
        return f"{product.section_id}.json" in self._listing(product.step, product.name)

    def require(self, product: Product, hint: str) -> Committed:
        """The record of a committed product. Raises StoreError with `hint` (what to run) where there is none."""
        record = self.record(product)
        if record is None:
            raise StoreError(f"{self.folder.name} holds no committed {product.step} {product.key!r}; {hint}")
        return record

    def current(self, product: Product, work: Work) -> Committed | None:
        """The record of the product if it was made from exactly `work`, else None. Reads only, and no pixel."""
        record = self.record(product)
        return record if record is not None and record.fingerprint == fingerprint(product.step, work) else None

    def outdated(self, record: Committed) -> str:
        """Which product that the record's was made from has changed, or been lost, since; blank: none.

        Asked of these products in turn: what was made from something older is older itself.
        """
        product = record.product
        with self._lock:
            changed = self._outdated.get(product)
            if changed is None:
                changed = self._outdated[product] = self._changed_source(record)
            return changed

    def forget(self, product: Product) -> None:
        """Take the product's record away, so that it is made again; its files stay until they are replaced."""
        self.record_path(product).unlink(missing_ok=True)
        self.damage_path(product).unlink(missing_ok=True)
        self.refresh(product)

    def note_damage(self, product: Product, keys: Collection[str]) -> None:
        """Note that files of a committed product have changed: it is not used, and the next run heals it."""
        write_atomically(self.damage_path(product), canonical_json(sorted(keys)).encode())
        self.refresh(product)

    def refresh(self, product: Product) -> None:
        """Look at a product, and at those inside it, anew: something was committed or taken away."""
        with self._lock:
            names = [family.split("/") for family in self._known]
            inside = [product_of(step, name, product.section_id) for step, name in names if step in product.guests]
            for one in (product, *inside):  # the files of those inside it may have gone with it
                self._known.get(one.family, {}).pop(one.section_id, None)
                self._unsettle(one)
            listing = self._listed.get(product.family)
            if listing is None:
                return
            for path in (self.record_path(product), self.damage_path(product)):
                (listing.add if path.exists() else listing.discard)(path.name)

    # -- all of them -------------------------------------------------------------------------------------------------

    def records(self) -> Iterator[Record]:
        """Every record, in the order of their addresses. Raises StoreError at one that cannot be read."""
        for path in self.record_paths():
            yield read_record(path)

    def record_paths(self) -> list[Path]:
        """The files of all records, in the order of their addresses."""
        return sorted(path for path in (self.folder / "records").glob("*/*/*.json") if not is_litter(path.name))

    def names(self, step: str) -> list[str]:
        """The names under which a step has products."""
        folders = [path for path in (self.folder / "records" / step).glob("*") if path.is_dir()]
        return sorted(path.name for path in folders if any(not is_litter(one.name) for one in path.glob("*.json")))

    def section_ids(self, step: str, name: str) -> list[str]:
        """The sections that have a committed product of this step and name."""
        with self._lock:
            ids = {one.removesuffix(".json") for one in self._listing(step, name) if one.endswith(".json")}
        return sorted(ids - {WHOLE_BRAIN})

    def content_digest(self) -> str:
        """sha256 over every committed file that is no view: equal for equal content, whenever and however made."""
        content = (record for record in self.records() if not record.view)
        return content_digest({key: seal.sha256 for record in content for key, seal in record.files.items()})

    # -- reading -----------------------------------------------------------------------------------------------------

    def _listing(self, step: str, name: str) -> set[str]:
        """The names of the files in the folder of a step's records, listed once: there may be thousands."""
        key = f"{step}/{name}"
        with self._lock:
            if key not in self._listed:
                try:
                    names = os.listdir(self.folder / "records" / step / name)  # noqa: PTH208 - names are all that is asked for, of thousands of files
                    self._listed[key] = {sys.intern(one) for one in names if not is_litter(one)}
                except FileNotFoundError:
                    self._listed[key] = set()
            return self._listed[key]

    def _read(self, product: Product) -> Committed | None:
        listing = self._listing(product.step, product.name)
        if f"{product.section_id}.json" not in listing or f"{product.section_id}{DAMAGE}" in listing:
            return None
        self.records_read += 1
        home, like = str(self.folder), self._like.get(product.family, b"")
        try:
            committed, sizes = read_committed(f"{home}/records/{product.address}.json", like)
        except (StoreError, FileNotFoundError):  # nothing vouches for what it spoke of; `verify` names it
            return None
        for key, size_bytes in sizes.items():
            try:
                if os.stat(f"{home}/{key}").st_size != size_bytes:  # noqa: PTH116 - thousands of shards a section
                    return None
            except FileNotFoundError:
                return None
        if not like and product.section_id != WHOLE_BRAIN:
            self._like[product.family] = committed.unpacked
        return committed

    def _changed_source(self, record: Committed) -> str:
        inputs, sources, *_ = record.said
        for label, address in sources.items():
            product = product_of(*address.split("/"))
            self._dependents.setdefault(product, set()).add(record.product)
            source = self.record(product)
            if source is None or source.digest != inputs.get(label):
                return label
            deeper = self.outdated(source)
            if deeper:
                return deeper
        return ""

    def _unsettle(self, product: Product) -> None:
        """Forget whether a product, and whatever was made from it, is outdated.

        No more than that: a fit to thousands of sections is not looked at again for every section that it is used on.
        """
        self._outdated.pop(product, None)
        for dependent in self._dependents.pop(product, ()):
            self._unsettle(dependent)
