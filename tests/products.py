"""Small products for tests of the store, and what a folder looks like."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cytoarch.digests import FileSeal
from cytoarch.store.catalogue import Catalogue
from cytoarch.store.products import Product, Work
from cytoarch.store.records import read_record
from cytoarch.store.staging import Staging

TISSUE = Product("tissue", "slide", "s1")
WORK = Work(1, {"scan": "00"}, {"size_um": 4.0})
CHANGES = [
    replace(WORK, version=2),
    replace(WORK, inputs={"scan": "01"}),
    replace(WORK, inputs={"scan": "00", "mask": "02"}),
    replace(WORK, settings={"size_um": 8.0}),
]
"""Other work than `WORK`, in one respect each."""


def writes(content: Mapping[str, bytes], **facts: Any) -> Callable[[Staging], Mapping[str, Any]]:
    """Writes what is not there yet of some files, and gives facts."""

    def write(staging: Staging) -> Mapping[str, Any]:
        for key, data in content.items():
            if not staging.has(key):
                staging.write(key, data)
        return facts

    return write


def never(_: Staging) -> Mapping[str, Any]:
    """Writes nothing, and must not be asked to."""
    raise AssertionError("a current product was made again")


def fresh(catalogue: Catalogue) -> Catalogue:
    """A catalogue that has read nothing yet: what another run would see."""
    return Catalogue(catalogue.folder)


def seals(catalogue: Catalogue, product: Product) -> dict[str, FileSeal]:
    """The files of a committed product, as its record states them."""
    return read_record(catalogue.record_path(product)).files


def state(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Every file and folder with its size, inode and time of change."""
    found = ((path, path.stat()) for path in sorted(folder.rglob("*")))
    return {path.relative_to(folder).as_posix(): (s.st_size, s.st_ino, s.st_mtime_ns) for path, s in found}
