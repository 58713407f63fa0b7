"""Products on their way: begun in a staging folder, committed to their place, removed when no longer wanted."""

import json
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cytoarch.digests import canonical_json
from cytoarch.errors import StoreError
from cytoarch.store.catalogue import Catalogue
from cytoarch.store.products import WHOLE_BRAIN, Product, Work
from cytoarch.store.records import Committed, Record, fingerprint, read_record
from cytoarch.store.staging import Staging


@dataclass(frozen=True)
class Draft:
    """A product that is being made: the staging folder to fill, and how what is in it becomes the product."""

    catalogue: Catalogue
    product: Product
    work: Work
    staging: Staging
    sealed: Record | None
    """The record, where an earlier run sealed the product but did not come to publish it: nothing is left to fill."""

    def commit(self, facts: Mapping[str, Any]) -> Committed:
        """Verify, seal and publish the product with `facts` (small JSON values) in its record; can be repeated."""
        record = self.sealed or self._seal(facts)
        catalogue, product = self.catalogue, self.product
        self.staging.publish(catalogue.path(product), catalogue.record_path(product))
        catalogue.damage_path(product).unlink(missing_ok=True)
        catalogue.refresh(product)
        return record.committed()

    def _seal(self, facts: Mapping[str, Any]) -> Record:
        product, work = self.product, self.work
        draft = Record(
            step=product.step,
            name=product.name,
            section=product.section_id,
            view=work.view,
            fingerprint=fingerprint(product.step, work),
            inputs=dict(work.inputs),
            sources=dict(work.sources),
            settings=json.loads(canonical_json(work.settings)),
            facts=dict(facts),
            files={},
        )
        return self.staging.finish(draft, product.key)


def begin(catalogue: Catalogue, product: Product, work: Work) -> Committed | Draft:
    """The record of the product if it is current; else a draft to fill.

    The draft adopts what an earlier run of the same fingerprint left: a staging folder, or a product that was
    committed and has been damaged since, of which the intact files are kept. Human work that is there is never made
    again: then StoreError is raised. The caller holds the lock of the brain or study.
    """
    wanted = fingerprint(product.step, work)
    folder = staging_folder(catalogue, product, wanted)
    staging = Staging(folder, product.guests)
    record = catalogue.current(product, work)
    others = [other for other in staging_folders(catalogue, product) if other != folder]
    if not product.is_human:
        for other in others:
            shutil.rmtree(other)
    elif record is None:
        _check_replaces_nothing(catalogue, product, staging, others)
    if record is not None:
        staging.discard()  # what a crash between the last two steps of publishing left
        return record
    _salvage(catalogue, product, wanted, staging)
    sealed = staging.sealed_record
    return Draft(catalogue, product, work, staging if sealed is not None else staging.open(), sealed)


def ensure(
    catalogue: Catalogue, product: Product, work: Work, write: Callable[[Staging], Mapping[str, Any]]
) -> tuple[Committed, bool]:
    """Make the product unless it is current; returns its record and whether it was made now.

    `write` fills the staging folder and returns facts for the record (small JSON values). The caller holds the lock
    of the brain or study.
    """
    begun = begin(catalogue, product, work)
    if isinstance(begun, Committed):
        return begun, False
    return begun.commit({} if begun.sealed else write(begun.staging)), True


def remove(catalogue: Catalogue, product: Product) -> bool:
    """Remove a product that is no longer wanted, its record first; says whether there was one."""
    known = catalogue.is_committed(product)
    path = catalogue.path(product)
    catalogue.forget(product)
    if path.exists():
        shutil.rmtree(path)
    return known


def remove_others(catalogue: Catalogue, step: str, name: str, kept: Collection[str]) -> tuple[str, ...]:
    """Remove the products of a step and name for sections that are not to be kept, finished or not.

    Gives the sections that had finished ones. The caller holds the brain's lock.
    """
    gone = tuple(one for one in catalogue.section_ids(step, name) if one not in kept)
    for section_id in gone:
        remove(catalogue, Product(step, name, section_id))
    for folder in (catalogue.folder / "staging").glob(f"{step}+{name}+*"):
        section_id = folder.name.split("+")[2]
        if section_id not in (*kept, WHOLE_BRAIN):
            shutil.rmtree(folder)
    return gone


def staging_folder(catalogue: Catalogue, product: Product, wanted: str) -> Path:
    """Where the product of this fingerprint is made."""
    return catalogue.folder / "staging" / f"{_prefix(product)}{wanted[:16]}"


def staging_folders(catalogue: Catalogue, product: Product) -> list[Path]:
    """Where the product is made, or was, for whatever fingerprint."""
    return sorted((catalogue.folder / "staging").glob(f"{_prefix(product)}*"))


def _prefix(product: Product) -> str:
    return product.address.replace("/", "+") + "+"  # '+' cannot be part of a name


def _check_replaces_nothing(catalogue: Catalogue, product: Product, staging: Staging, others: Sequence[Path]) -> None:
    """Raise StoreError if something is at the address, or on its way there, that is not this very product."""
    is_ours = staging.sealed_record is not None and not staging.path.exists()
    is_taken = not is_ours and (catalogue.path(product).exists() or catalogue.is_committed(product))
    if is_taken or any(Staging(other).sealed_record is not None for other in others):
        raise StoreError(
            f"{catalogue.path(product)} holds human work with another record, or with none; it is never made again: "
            "restore it from a copy, or choose a new version"
        )


def _salvage(catalogue: Catalogue, product: Product, wanted: str, staging: Staging) -> None:
    """Take a damaged product back into staging, where what is left of it is made whole."""
    path, content = catalogue.record_path(product), catalogue.path(product)
    if not path.exists() or staging.path.exists():
        return
    try:
        record = read_record(path)
    except StoreError:  # then nothing vouches for what is there: it is made again
        catalogue.forget(product)
        return
    if record.fingerprint == wanted and content.is_dir():
        lead = f"{product.key}/"
        staging.salvage(content, {key.removeprefix(lead): seal for key, seal in record.files.items()})
        catalogue.forget(product)
