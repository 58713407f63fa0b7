"""Brains of thousands of tiny sections in the real store: some are made for real, the others are copies of them.

A copy has its own scan, row of the manifest, product folders (hard links) and records; its records say what the steps
would say, so that every question a flow asks is asked as in a brain that was mapped section by section.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from cytoarch.anatomy.tissue import TissueSettings
from cytoarch.brains import Brain, read_manifest
from cytoarch.digests import sealed_json
from cytoarch.discovery.clusters import ClusterSettings
from cytoarch.embeddings import EmbedSettings
from cytoarch.learning.training import ProbeSettings
from cytoarch.parcellation.inference import ParcellateSettings
from cytoarch.parcellation.smoothing import SmoothSettings
from cytoarch.steps.agreement import AgreementStep
from cytoarch.steps.clusters import ClusterFitStep, ClustersStep
from cytoarch.steps.colours import ColourFitStep, ColoursStep
from cytoarch.steps.embeddings import EmbeddingsStep
from cytoarch.steps.familiarity import FamiliarityStep
from cytoarch.steps.opened import OpenBrain, open_brain
from cytoarch.steps.parcellations import parcellation_steps
from cytoarch.steps.pictures import Shown
from cytoarch.steps.report import drawn_steps
from cytoarch.steps.running import make, make_sections
from cytoarch.steps.scales import ScaleStep
from cytoarch.steps.sections import LabelsStep, ManifestFile, SectionStep
from cytoarch.steps.sources import open_head
from cytoarch.steps.step import Place, Step
from cytoarch.steps.tissue import QualityStep, TissueStep
from cytoarch.steps.training import TrainingStep, keep_head
from cytoarch.store.catalogue import Catalogue
from cytoarch.store.collection import write_collection
from cytoarch.store.products import Product
from cytoarch.store.records import Record, fingerprint, read_record

MADE = 6
"""Sections that are made for real; the first of them have labels."""
LABELLED = 5
SIZE = (48, 64)


def write_scans(folder: Path, count: int) -> Path:
    """Scans, a few label images, a label table and a manifest of so many sections; returns the manifest."""
    for name in ("scans", "labels"):
        (folder / name).mkdir(parents=True)
    y, x = np.ogrid[-1 : 1 : SIZE[0] * 1j, -1 : 1 : SIZE[1] * 1j]
    tissue = y * y + x * x < 0.7
    rows = ["brain_id,section_id,section_number,path,pixel_size_um,labels,labels_origin,flip"]
    for number in range(count):
        section, source = f"s{number:04d}", folder / "scans" / f"s{number % MADE:04d}.tif"
        if number < MADE:
            noise = np.random.default_rng(number).integers(0, 30, SIZE) * (1 + (x > 0))
            tifffile.imwrite(source, (220 - tissue * (60 + noise)).astype(np.uint8), metadata=None)
        else:
            os.link(source, folder / "scans" / f"{section}.tif")
        labels = ""
        if number < LABELLED:
            labels = f"labels/{section}.png"
            Image.fromarray(np.where(tissue, 1 + (x > 0), 0).astype(np.uint8)).save(folder / labels)
        rows.append(f"B1,{section},{number},scans/{section}.tif,20,{labels},{'phantom' if labels else ''},none")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    (folder / "labels.csv").write_text("id,name\n1,left\n2,right\n")
    return folder / "manifest.csv"


@dataclass(frozen=True)
class ManySections:
    """A brain of many sections, mapped."""

    manifest_path: Path
    store_path: Path
    brain: Brain


def map_many(folder: Path, count: int) -> ManySections:
    """Map a brain of so many sections with the defaults of `map-brain`: `MADE` for real, the others as their copies."""
    manifest = write_scans(folder / "brain", count)
    (brain,) = read_manifest(manifest, manifest.parent, manifest.parent / "labels.csv")
    with _unsynced(), open_brain(folder / "store", brain) as opened:
        _map(opened, manifest.parent)
    return ManySections(manifest, folder / "store", brain)


def _map(brain: OpenBrain, scans: Path) -> None:
    """What `map-brain` makes of a brain, without its report."""
    _each(brain, [SectionStep(ManifestFile(scans, "path")), LabelsStep(ManifestFile(scans, "labels"))])
    _each(brain, [TissueStep(TissueSettings()), QualityStep()])
    write_collection(brain.catalogue, brain.brain)
    embeddings = EmbeddingsStep.of(EmbedSettings(), brain)
    _each(brain, [embeddings])
    fit = ColourFitStep.of(embeddings.stored)
    _whole(brain, fit)
    _each(brain, [ColoursStep.of(fit)])
    _whole(brain, ScaleStep.of(embeddings.stored))
    training = TrainingStep.of(brain.brain_id, embeddings.stored, "probe", ProbeSettings())
    make(training, brain)
    digest = keep_head(brain, training.name)
    card = open_head(brain.store, digest).card
    device = {"device": "cpu", "batch_size": EmbedSettings().batch_size}
    maps = parcellation_steps(card, digest, embeddings.stored, ParcellateSettings(), SmoothSettings(), device)
    _each(brain, maps)
    _each(brain, [AgreementStep.of(maps[1]), FamiliarityStep.of(maps[1], maps[0], embeddings.stored)])
    clustering = ClusterFitStep.of(embeddings.stored, ClusterSettings())
    _whole(brain, clustering)
    _each(brain, [ClustersStep.of(clustering)])
    _each(brain, drawn_steps(Shown(embeddings.name, clustering.name, maps[1].name, digest, is_compared=True)))


def _each(brain: OpenBrain, steps: Sequence[Step[Any]]) -> None:
    made = make_sections(steps, brain, brain.sections[:MADE])
    assert [one.status for one in made] == ["made"] * MADE, made
    for step in steps:
        for number, section in enumerate(brain.sections[MADE:], start=MADE):
            if step.applies(section):
                product = step.product(brain.sections[number % MADE].section_id)
                original = read_record(brain.catalogue.record_path(product))
                _copy(brain.catalogue, step, Place(brain, section), original)


def _whole(brain: OpenBrain, step: Step[Any]) -> None:
    """A fit to the first sections, recorded as one to all."""
    everything = brain.brain
    brain.brain = everything.model_copy(update={"sections": everything.sections[:MADE]})
    make(step, brain)
    record = read_record(brain.catalogue.record_path(step.product()))
    brain.brain = everything
    _record(brain.catalogue, step, Place(brain), record, dict(record.files))


def _copy(catalogue: Catalogue, step: Step[Any], place: Place, original: Record) -> None:
    source, target = original.product, step.product(place.section_id)
    files = {}
    for key, seal in original.files.items():
        copy = target.key + key.removeprefix(source.key)
        path = catalogue.folder / copy
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(catalogue.folder / key, path)
        files[copy] = seal
    _record(catalogue, step, place, original, files)


def _record(catalogue: Catalogue, step: Step[Any], place: Place, original: Record, files: dict[str, Any]) -> None:
    work = step.work(place)
    product: Product = step.product(place.section_id)
    changes = {"section": product.section_id, "fingerprint": fingerprint(step.step, work), "files": files}
    changes |= {"inputs": dict(work.inputs), "sources": dict(work.sources)}
    path = catalogue.record_path(product)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(sealed_json(Record.model_validate({**original.model_dump(), **changes})))
    catalogue.refresh(product)


@contextmanager
def _unsynced() -> Iterator[None]:
    """Nobody waits for the disk: the brain is thrown away."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield
