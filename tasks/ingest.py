"""Scans, label images, tissue and quality of one section, into the store."""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from prefect import task
from prefect.client.schemas.objects import State

from cytoarch.anatomy.tissue import TISSUE_VERSION, TissueSettings, find_tissue, overview, write_tissue
from cytoarch.brains import Brain, Section
from cytoarch.containment import Contained, Limits
from cytoarch.contents import (
    labels_product,
    open_section,
    open_tissue,
    quality_product,
    section_product,
    tissue_product,
)
from cytoarch.errors import ScanError, SectionError
from cytoarch.images.scans import check_is_scan, scan_files
from cytoarch.images.sections import LABELS_VERSION, SECTIONS_VERSION, IngestSettings, check_sha256
from cytoarch.paths import confined
from cytoarch.reporting.quality import (
    QUALITY_VERSION,
    quality_picture,
    sample_section,
    section_quality,
    shown_figures,
)
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.products import Product, Work
from cytoarch.store.records import Record
from cytoarch.store.staging import Staging
from tasks.progress import reporter
from tasks.sections import POLICY, section_state

STAGE = "ingest"
QUALITY_FILE = "quality.png"


@cache
def containment() -> Contained:
    """The child processes that read scans on behalf of this process."""
    return Contained()


@dataclass(frozen=True)
class IngestStage:
    """What is the same for all sections of a run."""

    store_path: Path
    brain: Brain
    scans_path: Path
    settings: IngestSettings
    tissue_settings: TissueSettings
    workers: int
    """Sections worked on at once, among which the processor's cores are shared out."""


@task(name="ingest-section", task_run_name="ingest {section.section_id}", **POLICY)
def ingest_section(stage: IngestStage, section: Section) -> "State[Any]":
    """Bring one section into the store: pixels, labels, tissue, quality."""
    return section_state(section.section_id, lambda: _ingest(_SectionWork(stage, section)))


def is_ingested(stage: IngestStage, section: Section) -> bool:
    """Whether there is nothing to do for a section, as far as can be said without reading its scan."""
    return not stage.settings.rehash and _SectionWork(stage, section).is_current()


def scan_sizes(brain: Brain, scans_path: Path) -> dict[str, int]:
    """Bytes of every section's scan, 0 where it cannot be found: how much work there is."""
    sizes = {}
    for section in brain.kept:
        try:
            sizes[section.section_id] = sum(
                path.stat().st_size for path in scan_files(confined(section.path, scans_path))
            )
        except (ScanError, OSError):
            sizes[section.section_id] = 0
    return sizes


class _SectionWork:
    """The products of one section: what each is made from, and how."""

    def __init__(self, stage: IngestStage, section: Section) -> None:
        self.stage, self.section = stage, section
        self.store = BrainStore(stage.store_path)
        self.ids = section.brain_id, section.section_id

    def is_current(self) -> bool:
        """Whether all products are there, made from the scan and label image as they were last seen."""
        store, section = self.store, self.section
        digest = self._known_digest(section.path)
        if section.sha256 not in (None, digest):
            return False
        pixels = store.current(section_product(*self.ids), self.pixels(digest)) if digest else None
        if pixels is None:
            return False
        labels = labels_product(*self.ids)
        if section.labels is None:
            if store.is_committed(labels):  # the manifest named some before
                return False
        else:
            labels_digest = self._known_digest(section.labels)
            if labels_digest is None or store.current(labels, self.labels(labels_digest, pixels)) is None:
                return False
        tissue = store.current(tissue_product(*self.ids), self.tissue(pixels))
        return (
            tissue is not None and store.current(quality_product(*self.ids), self.quality(pixels, tissue)) is not None
        )

    def _known_digest(self, path: str) -> str | None:
        try:
            scan = _existing(path, self.stage.scans_path)
            return self.store.known_digest(self.section.brain_id, scan, scan_files(scan))
        except ScanError:
            return None

    def pixels(self, digest: str) -> Work:
        """What the section's pixels are made from."""
        stated = self.section.model_dump(
            mode="json", include={"pixel_size_um", "pixel_size_source", "region_px", "plane_index"}
        )
        return Work(SECTIONS_VERSION, {"scan": digest}, stated)

    def labels(self, digest: str, pixels: Record) -> Work:
        """What its labels are made from."""
        table = self.stage.brain.label_table
        stated = {"table": table.model_dump(mode="json") if table else None, "origin": self.section.labels_origin}
        return Work(LABELS_VERSION, {"labels": digest, "section": pixels.fingerprint}, stated)

    def tissue(self, pixels: Record) -> Work:
        """What its tissue mask is made from."""
        return Work(TISSUE_VERSION, {"section": pixels.digest}, self.stage.tissue_settings.model_dump(mode="json"))

    def quality(self, pixels: Record, tissue: Record) -> Work:
        """What its figures and picture of quality are made from."""
        return Work(QUALITY_VERSION, {"section": pixels.digest, "tissue": tissue.digest}, {})


def _ingest(work: _SectionWork) -> bool:
    """Make what is not current; says whether anything was made."""
    store, section = work.store, work.section
    scan = _existing(section.path, work.stage.scans_path)
    digest = store.scan_digest(section.brain_id, scan, scan_files(scan), work.stage.settings.rehash)
    check_sha256(section, digest)
    pixels, made = _contained(
        work, section_product(*work.ids), work.pixels(digest), "ingest_work", scan, {"scan": str(scan)}
    )
    made |= _ingest_labels(work, pixels)
    tissue, found = store.ensure(
        tissue_product(*work.ids), work.tissue(pixels), lambda staging: _find_tissue(work, staging)
    )
    _, drawn = store.ensure(
        quality_product(*work.ids), work.quality(pixels, tissue), lambda staging: _draw_quality(work, pixels, staging)
    )
    return made or found or drawn


def _ingest_labels(work: _SectionWork, pixels: Record) -> bool:
    section, table = work.section, work.stage.brain.label_table
    product = labels_product(*work.ids)
    if section.labels is None or table is None:
        return work.store.remove(product)  # the manifest may have named some before
    path = _existing(section.labels, work.stage.scans_path)
    digest = work.store.scan_digest(section.brain_id, path, [path], work.stage.settings.rehash)
    arguments = {
        "labels": str(path),
        "table": table.model_dump(mode="json"),
        "shape": pixels.facts["shape"][1:],
        "pixel_size_um": pixels.facts["pixel_size_um"],
    }
    return _contained(work, product, work.labels(digest, pixels), "labels_work", path, arguments)[1]


def _contained(
    section_work: _SectionWork, product: Product, work: Work, function: str, source: Path, arguments: dict[str, Any]
) -> tuple[Record, bool]:
    """Make a product from an untrusted file, in a child process."""
    stage, section = section_work.stage, section_work.section
    store = section_work.store
    limits = Limits(int(stage.settings.memory_gb * 1e9), stage.settings.stall_s)

    def write(staging: Staging) -> dict[str, Any]:
        facts = containment().run(
            f"cytoarch.images.sections:{function}",
            {
                "section": section.model_dump(mode="json"),
                "room": str(staging.room),
                "threads": stage.settings.threads or max(1, (os.cpu_count() or 1) // stage.workers),
                **arguments,
            },
            limits,
            reporter(STAGE, section.section_id),
            store.lock_handle(section.brain_id),
            str(source),
        )
        staging.join()  # what the child wrote
        return facts

    return store.ensure(product, work, write)


def _find_tissue(work: _SectionWork, staging: Staging) -> dict[str, Any]:
    settings = work.stage.tissue_settings
    grey, grid = overview(open_section(work.store, *work.ids), settings.pixel_size_um)
    try:
        tissue = find_tissue(grey, grid.cell_um, settings)
    except SectionError as error:
        raise SectionError(f"{work.section.path}: {error}") from None
    write_tissue(staging, grey, tissue, grid)
    facts = {"area_mm2": tissue.area_mm2, "fraction": tissue.fraction, "polarity": tissue.polarity}
    return {**facts, "pixel_size_um": grid.cell_um, "threshold": float(np.round(tissue.threshold, 3))}


def _draw_quality(work: _SectionWork, pixels: Record, staging: Staging) -> dict[str, Any]:
    image, tissue = open_section(work.store, *work.ids), open_tissue(work.store, *work.ids)
    samples = sample_section(image, tissue)
    figures = section_quality(image, tissue, samples)
    facts = {"section": work.section.section_id, **shown_figures(figures)}
    facts["pixel"] += f" ({pixels.facts['pixel_size_source']})"
    facts |= {"remark": "; ".join(pixels.facts["remarks"])} if pixels.facts["remarks"] else {}
    staging.write(QUALITY_FILE, quality_picture(image, tissue, facts, samples))
    return figures


def _existing(path: str, scans_path: Path) -> Path:
    try:
        full = confined(path, scans_path)
        if not full.exists():
            raise ScanError(f"{path}: no such file below {scans_path}; check the path in the manifest")
        check_is_scan(full)  # a pipe would never end
        if full.is_file():
            with full.open("rb") as file:
                file.read(1)
    except OSError as error:
        raise ScanError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None
    return full
