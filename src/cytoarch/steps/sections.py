"""Scans and label images in our format: pixels as scanned, read by child processes since files come from anywhere."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from cytoarch.anatomy.drawn import OUTLINE_SUFFIXES
from cytoarch.brains import Section
from cytoarch.containment import Contained, Limits
from cytoarch.digests import values_digest
from cytoarch.errors import ScanError
from cytoarch.images.scans import DRAWN_SUFFIXES, check_is_scan, scan_files
from cytoarch.images.sections import LABEL_NAME, IngestSettings
from cytoarch.images.views import StoredImage
from cytoarch.paths import confined
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.sources import Row, Table
from cytoarch.steps.step import Facts, Inputs, MissingInputError, Place, Source, Step, Stored, conduct
from cytoarch.store.staging import Staging

SCAN_NAME = "scan"
LABELS_NAME = "manifest"
PIXELS = "pixels"
"""The fact that tells the pixels of a section from those of any other."""
FULL_RESOLUTION = "0"
"""The folder of the first level of an image."""
CONTAINED = "cytoarch.images.contained"
"""Where the functions are that children call."""


@cache
def containment() -> Contained:
    """The child processes that read files on behalf of this process."""
    return Contained()


class OutsideFile(NamedTuple):
    """A file outside the store."""

    path: Path
    stated: str
    """As the manifest names it."""


@dataclass(frozen=True)
class ManifestFile(Source[OutsideFile]):
    """The scan, label image or drawn tissue that the manifest names for a section."""

    scans_path: Path
    column: Literal["path", "labels", "tissue_path"]
    rehash: bool = False
    """Whether it is read again to see that it has not changed."""

    def digests(self, place: Place) -> Mapping[str, str]:
        """sha256 of its content. Raises ScanError if it is not there, or not the file that the manifest means."""
        path, files = self._files(place)
        digest = place.home.store.scan_digest(place.brain.brain_id, path, files, self.rehash)
        stated = place.section.sha256 if place.section and self.column == "path" else None
        if stated not in (None, digest):
            raise ScanError(
                f"{self._stated(place)}: its sha256 is {digest[:12]}..., the manifest states {stated[:12]}...: the "
                "file is not the one that was meant, or it was damaged; copy it again or correct the manifest"
            )
        return {"": digest}

    def known_digests(self, place: Place) -> Mapping[str, str] | None:
        """sha256 of the file when it was last read, if its size and dates are still the same; nothing is read."""
        if self.rehash:
            return None
        try:
            path = confined(self._stated(place), self.scans_path)
            digest = place.home.store.known_digest(place.brain.brain_id, path, self._files_of(path))
        except (ScanError, OSError):
            return None
        stated = place.section.sha256 if place.section and self.column == "path" else None
        return None if digest is None or stated not in (None, digest) else {"": digest}

    def open(self, place: Place) -> OutsideFile:
        """Where it is."""
        return OutsideFile(self._files(place)[0], self._stated(place))

    def _stated(self, place: Place) -> str:
        return str(getattr(place.section, self.column))

    def _files(self, place: Place) -> tuple[Path, list[Path]]:
        path = _existing(self._stated(place), self.scans_path, self.column)
        return path, self._files_of(path)

    def _files_of(self, path: Path) -> list[Path]:
        return scan_files(path) if self.column == "path" else [path]


@dataclass(frozen=True)
class SectionStep(Step[StoredImage]):
    """The pixels of a section, as scanned, with a pyramid."""

    step: ClassVar[str] = "sections"
    version: ClassVar[int] = 2
    verb: ClassVar[str] = "ingest"

    scan: ManifestFile
    stated: Row = Row(("pixel_size_um", "pixel_size_source", "region_px", "plane_index"))
    ingest: IngestSettings = conduct(IngestSettings())

    @property
    def name(self) -> str:
        """One scan a section."""
        return SCAN_NAME

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Stream the scan into the store."""
        scan = inputs[self.scan]
        section = {**inputs[self.stated], "path": scan.stated}
        facts = contained(f"{CONTAINED}:section_work", inputs, staging, self.ingest, scan, {"section": section})
        whole = values_digest([facts["shape"], facts["dtype"], staging.trace(f"{FULL_RESOLUTION}/c/")])
        return {**facts, PIXELS: whole}

    @classmethod
    def opened(cls, folder: Path) -> StoredImage:
        """The image."""
        return StoredImage.open(folder)


SECTION = Stored(SectionStep, SCAN_NAME)
"""The pixels of the section at hand."""


@dataclass(frozen=True)
class PixelsDigest(Source[str]):
    """What tells the pixels of a section from those of any other, whatever file they came from and what rows state."""

    def digests(self, place: Place) -> Mapping[str, str]:
        """The digest itself."""
        return {"": self.open(place)}

    def open(self, place: Place) -> str:
        """A digest of the full resolution as it is stored: the same pixels give the same bytes."""
        facts = SECTION.record(place).facts
        if PIXELS not in facts:
            raise MissingInputError(
                f"{place.home.name}: section {place.section_id} was ingested by an earlier version, which did not note "
                "what its pixels are; run ingest-brain again"
            )
        return str(facts[PIXELS])


@dataclass(frozen=True)
class LabelsStep(Step[StoredImage]):
    """The label image that the manifest names for a section, on the section's pixels."""

    step: ClassVar[str] = "labels"
    version: ClassVar[int] = 1
    verb: ClassVar[str] = "ingest"

    labels: ManifestFile
    stated: Row = Row(("labels_origin", "region_px"))
    table: Table = Table()
    section: Stored[StoredImage] = SECTION
    ingest: IngestSettings = conduct(IngestSettings())

    @property
    def name(self) -> str:
        """They come from the manifest."""
        return LABELS_NAME

    def applies(self, section: Section) -> bool:
        """Only where the manifest names a label image."""
        return section.labels is not None

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Check every id against the label table and write the image."""
        labels, table, image = inputs[self.labels], inputs[self.table], inputs[self.section]
        if table is None:
            raise ScanError(f"{labels.stated}: there is no label table; give one with columns id, name")
        arguments = {
            "section": {**inputs[self.stated], "labels": labels.stated},
            "table": table.model_dump(mode="json"),
            "shape": image.levels[0].size,
            "pixel_size_um": image.pixel_size_um,
        }
        return contained(f"{CONTAINED}:labels_work", inputs, staging, self.ingest, labels, arguments)

    @classmethod
    def opened(cls, folder: Path) -> StoredImage:
        """The label image."""
        return StoredImage.open(folder / LABEL_NAME)


LABELS = Stored(LabelsStep, LABELS_NAME)
"""The labels of the section at hand."""


def scan_sizes(sections: Iterable[Section], scans_path: Path) -> dict[str, int]:
    """Bytes of every section's scan, by which work is measured; 0 if it cannot be found."""
    sizes = {}
    for section in sections:
        try:
            files = scan_files(confined(section.path, scans_path))
            sizes[section.section_id] = sum(path.stat().st_size for path in files)
        except (ScanError, OSError):
            sizes[section.section_id] = 0
    return sizes


def contained(
    work: str,
    inputs: Inputs,
    staging: Staging,
    settings: IngestSettings,
    source: OutsideFile,
    arguments: Mapping[str, Any],
) -> dict[str, Any]:
    """Fill the staging folder from an untrusted file, in a child process."""
    facts = containment().run(
        work,
        {
            "name": inputs.name,
            "file": str(source.path),
            "staging": str(staging.folder.absolute()),  # a child may have been started in another folder
            "threads": settings.threads or inputs.threads,
            **arguments,
        },
        Limits(int(settings.memory_gb * 1e9), settings.stall_s),
        inputs.on_progress,
        inputs.held,
        str(source.path),
    )
    staging.join()  # what the child wrote
    return facts


def cores_each(workers: int) -> int:
    """The processor's cores, shared out among so many workers."""
    return max(1, (os.cpu_count() or 1) // workers)


def _existing(path: str, scans_path: Path, column: str) -> Path:
    try:
        full = confined(path, scans_path)
        if not full.exists():
            raise ScanError(f"{path}: no such file below {scans_path}; check the path in the manifest")
        drawn = {"labels": DRAWN_SUFFIXES, "tissue_path": OUTLINE_SUFFIXES}.get(column, ())
        if not (full.suffix.lower() in drawn and full.is_file()):
            check_is_scan(full)  # a pipe would never end
        if full.is_file():
            with full.open("rb") as file:
                file.read(1)
    except OSError as error:
        raise ScanError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None
    return full


def ready_sections(brain: OpenBrain) -> tuple[Section, ...]:
    """The sections at work whose pixels and labels (where the manifest names any) are committed, in cutting order."""
    catalogue = brain.catalogue

    def is_ready(section: Section) -> bool:
        products = [SECTION.product(section.section_id)]
        products += [LABELS.product(section.section_id)] if section.labels else []
        return all(catalogue.record(product) is not None for product in products)

    return tuple(section for section in brain.sections if is_ready(section))
