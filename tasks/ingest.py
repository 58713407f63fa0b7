"""Scans, label images and tissue of one section, into the store."""

from pathlib import Path
from typing import Any

import numpy as np
from prefect import task
from prefect.client.schemas.objects import State

from cytoarch.anatomy.tissue import TISSUE_VERSION, TissueSettings, find_tissue, overview, write_tissue
from cytoarch.brains import Brain, Section
from cytoarch.contents import labels_product, open_section, section_product, tissue_product
from cytoarch.errors import ScanError
from cytoarch.images.sections import (
    LABELS_VERSION,
    SECTIONS_VERSION,
    IngestSettings,
    check_sha256,
    write_labels,
    write_section,
)
from cytoarch.paths import confined
from cytoarch.records import Record, Staging
from cytoarch.stores import BrainStore, Work
from tasks.progress import reporter
from tasks.sections import POLICY, section_state

STAGE = "ingest"


@task(name="ingest-section", task_run_name="ingest {section.section_id}", **POLICY)
def ingest_section(
    store_path: Path,
    brain: Brain,
    section: Section,
    scans_path: Path,
    settings: IngestSettings,
    tissue_settings: TissueSettings,
) -> "State[Any]":
    """Bring one section into the store: pixels, labels, tissue."""

    def work() -> bool:
        store = BrainStore(store_path)
        pixels, made = _ingest_pixels(store, section, scans_path, settings)
        if section.labels:
            labelled = _ingest_labels(store, brain, section, scans_path, settings, pixels)
        else:  # the manifest may have named some before
            labelled = store.remove(labels_product(section.brain_id, section.section_id))
        return _find_tissue(store, section, tissue_settings, pixels) or labelled or made

    return section_state(section.section_id, work)


def _ingest_pixels(
    store: BrainStore, section: Section, scans_path: Path, settings: IngestSettings
) -> tuple[Record, bool]:
    scan = _existing(section.path, scans_path)
    digest = store.scan_digest(section.brain_id, scan, settings.rehash)
    check_sha256(section, digest)
    stated = section.model_dump(
        mode="json",
        include={"pixel_size_um", "pixel_size_source", "region_px", "plane_index"},
    )
    work = Work(SECTIONS_VERSION, {"scan": digest}, stated)
    product = section_product(section.brain_id, section.section_id)
    progress = reporter(STAGE, section.section_id)
    return store.ensure(product, work, lambda staging: write_section(staging, scan, section, progress))


def _ingest_labels(
    store: BrainStore, brain: Brain, section: Section, scans_path: Path, settings: IngestSettings, pixels: Record
) -> bool:
    table = brain.label_table
    if section.labels is None or table is None:
        return False
    image_path = _existing(section.labels, scans_path)
    inputs = {
        "labels": store.scan_digest(section.brain_id, image_path, settings.rehash),
        "section": pixels.fingerprint,
    }
    stated = {"table": table.model_dump(mode="json"), "origin": section.labels_origin}
    shape = (int(pixels.facts["shape"][1]), int(pixels.facts["shape"][2]))
    size_um = float(pixels.facts["pixel_size_um"])
    _, made = store.ensure(
        labels_product(section.brain_id, section.section_id),
        Work(LABELS_VERSION, inputs, stated),
        lambda staging: write_labels(staging, image_path, section, table, shape, size_um),
    )
    return made


def _find_tissue(store: BrainStore, section: Section, settings: TissueSettings, pixels: Record) -> bool:
    def write(staging: Staging) -> dict[str, Any]:
        image = open_section(store, section.brain_id, section.section_id)
        grey, size_um = overview(image, settings.pixel_size_um)
        tissue = find_tissue(grey, size_um, settings)
        write_tissue(staging, grey, tissue)
        facts = {"area_mm2": tissue.area_mm2, "fraction": tissue.fraction, "polarity": tissue.polarity}
        return {**facts, "pixel_size_um": size_um, "threshold": float(np.round(tissue.threshold, 3))}

    work = Work(TISSUE_VERSION, {"section": pixels.digest}, settings.model_dump(mode="json"))
    _, made = store.ensure(tissue_product(section.brain_id, section.section_id), work, write)
    return made


def _existing(path: str, scans_path: Path) -> Path:
    try:
        full = confined(path, scans_path)
        if not full.is_file():
            raise ScanError(f"{path}: no such file below {scans_path}; check the path in the manifest")
        with full.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise ScanError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None
    return full
