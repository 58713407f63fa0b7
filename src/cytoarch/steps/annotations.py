"""Human work in the store: the versions of what people drew, committed once, and what training reads of them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from cytoarch.annotations.drawing import DrawnLabels
from cytoarch.annotations.exchange import Drawer, as_json, scribbles_in
from cytoarch.annotations.scribbles import Annotation, Scribble
from cytoarch.brains import LabelTable
from cytoarch.containment import Limits
from cytoarch.digests import canonical_json
from cytoarch.errors import StoreError
from cytoarch.images.sections import IngestSettings
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.sections import SECTION, containment
from cytoarch.steps.step import MissingInputError, Place, Source
from cytoarch.store import drafts
from cytoarch.store.catalogue import Catalogue
from cytoarch.store.products import Product, Work, product_of
from cytoarch.store.staging import Staging

STEP = "annotations"
STATEMENTS_FILE = "annotation.json"
VERSION = 1
"""Of how annotations are written."""
LATEST = "latest"


def version_ids(catalogue: Catalogue, author: str) -> list[str]:
    """The versions of a person's annotations, oldest first."""
    return catalogue.section_ids(STEP, author)


def save_annotation(brain: OpenBrain, annotation: Annotation) -> str:
    """Commit what a person drew as a new version; returns its id, that of the last one where that is the same.

    Nothing that was committed before is touched. The caller holds the brain's lock. Raises StoreError if nothing is
    drawn, or if it cannot be written.
    """
    if annotation.brain_id != brain.brain_id:
        raise StoreError(f"{brain.name}: the annotations are of brain {annotation.brain_id}; open that one")
    unknown = sorted(set(annotation.section_ids) - set(brain.rows))
    if unknown:
        raise StoreError(f"{brain.name}: has no sections {', '.join(unknown[:8])} to keep scribbles of")
    if not annotation.scribbles:
        raise StoreError(f"{brain.name}: nothing is drawn by {annotation.author}; draw before you save")
    known = version_ids(brain.catalogue, annotation.author)
    work = Work(VERSION, {"scribbles": annotation.digest}, {})
    if known:
        last = product_of(STEP, annotation.author, known[-1])
        if brain.catalogue.current(last, work) is not None:
            return known[-1]
    version = f"v{int(known[-1][1:]) + 1 if known else 1:04d}"
    product = product_of(STEP, annotation.author, version)
    drafts.ensure(brain.catalogue, product, work, lambda staging: _write(staging, annotation))
    return version


def _write(staging: Staging, annotation: Annotation) -> Mapping[str, Any]:
    stated = annotation.model_dump(mode="json", exclude={"scribbles"})
    order = [one.section_id for one in annotation.scribbles]
    staging.write(STATEMENTS_FILE, canonical_json({**stated, "order": order}).encode())
    for section_id in sorted(set(order)):
        staging.write(f"{section_id}.geojson", as_json(annotation, section_id))
    return {
        "author": annotation.author,
        "origin": annotation.origin,
        "scribbles": len(annotation.scribbles),
        "sections": list(annotation.section_ids),
        "classes": [one.name for one in annotation.table.labels],
        "rounds": annotation.rounds,
    }


def opened_annotation(folder: Path) -> Annotation:
    """A committed version, read back."""
    stated = json.loads((folder / STATEMENTS_FILE).read_text())
    order: list[str] = stated.pop("order")
    table = LabelTable.model_validate(stated["table"])
    left: dict[str, list[Scribble]] = {}
    for section_id in set(order):
        drawer = Drawer(section_id, stated["author"], "")
        left[section_id] = list(scribbles_in(folder / f"{section_id}.geojson", table, drawer, 1.0))
    return Annotation.model_validate({**stated, "scribbles": tuple(left[one].pop(0) for one in order)})


@dataclass(frozen=True)
class Scribbled(Source[Annotation]):
    """One version of what a person drew on the brain."""

    author: str
    version: str

    @classmethod
    def of(cls, brain: OpenBrain, author: str, version: str = LATEST) -> "Scribbled":
        """That version, or the latest. Raises MissingInputError, listing the choices, if there is none."""
        authors = brain.catalogue.names(STEP)
        if author not in authors:
            raise MissingInputError(
                f"{brain.name}: {author!r} has no annotations in the store (authors there: "
                f"{', '.join(authors) or 'none'}); draw in the napari window, or run import-annotations"
            )
        versions = version_ids(brain.catalogue, author)
        chosen = versions[-1] if version == LATEST else version
        if chosen not in versions:
            raise MissingInputError(
                f"{brain.name}: {author} has no version {version!r}; there are {', '.join(versions)}"
            )
        return cls(author, chosen)

    @property
    def product(self) -> Product:
        """Where it lies."""
        return product_of(STEP, self.author, self.version)

    def digests(self, place: Place) -> Mapping[str, str]:
        """That of its content. Raises MissingInputError if it is not there or damaged."""
        record = place.home.catalogue.record(self.product)
        if record is None:
            raise MissingInputError(
                f"{place.home.name}: the annotations {self.version} of {self.author} are missing or damaged; human "
                "work is never made again: restore them from a copy"
            )
        return {"": record.digest}

    def addresses(self, place: Place) -> Mapping[str, str]:  # noqa: ARG002 - the same everywhere
        """Its address."""
        return {"": self.product.address}

    def open(self, place: Place) -> Annotation:
        """The annotation, read back."""
        return _read(place.home.catalogue.path(self.product), self.digests(place)[""])


@dataclass(frozen=True)
class ScribbledTable(Source[LabelTable | None]):
    """What the labels of a person's annotation mean."""

    scribbled: Scribbled

    def digests(self, place: Place) -> Mapping[str, str]:
        """One of the annotation."""
        return self.scribbled.digests(place)

    def open(self, place: Place) -> LabelTable | None:
        """The table."""
        return self.scribbled.open(place).table


@dataclass(frozen=True)
class ScribbledLabels(Source[DrawnLabels]):
    """The labels that a person's scribbles give the section at hand."""

    scribbled: Scribbled

    def digests(self, place: Place) -> Mapping[str, str]:
        """One of what is drawn on the section, whoever drew it and when, and of where the section lies on its scan."""
        region = place.section.region_px if place.section else None
        return {"": f"{self.scribbled.open(place).digest_of(place.section_id)} {list(region or ())}"}

    def open(self, place: Place) -> DrawnLabels:
        """The labels on the pixels of the section."""
        region = place.section.region_px if place.section else None
        scribbles = self.scribbled.open(place).of(place.section_id)
        return DrawnLabels.of(scribbles, SECTION.open(place).grid, region)


@lru_cache(maxsize=8)
def _read(folder: Path, _digest: str) -> Annotation:
    """A version, read once however many sections ask for it; its digest stands for what is in the folder."""
    return opened_annotation(folder)


def imported(
    brain: OpenBrain, file: Path, table: LabelTable, drawer: Drawer, width_px: float, settings: IngestSettings
) -> tuple[Scribble, ...]:
    """The scribbles in a GeoJSON file or label image that somebody else drew on a section, read in a child process.

    Raises ScanError if the file is no drawing or has classes that are not in the table; StoreError if the brain has no
    such section.
    """
    if drawer.section_id not in brain.rows:
        known = ", ".join(list(brain.rows)[:8])
        raise StoreError(f"{brain.name}: has no section {drawer.section_id!r}; there are {known}, ...")
    arguments = {
        "file": str(file.absolute()),
        "table": table.model_dump(mode="json"),
        "drawer": drawer._asdict(),
        "width_px": width_px,
        "section": {"region_px": brain.rows[drawer.section_id].region_px},
        "size": list(SECTION.open(Place(brain, brain.rows[drawer.section_id])).grid.shape),
    }
    limits = Limits(int(settings.memory_gb * 1e9), settings.stall_s)
    told = containment().run("cytoarch.annotations.contained:scribbles_work", arguments, limits, subject=str(file))
    return tuple(Scribble.model_validate(one) for one in told["scribbles"])
