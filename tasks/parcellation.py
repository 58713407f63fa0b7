"""A head applied to one section: probabilities, then smoothed probabilities and a label map."""

from pathlib import Path
from typing import Any

from prefect import task
from prefect.client.schemas.objects import State

from cytoarch.brains import Section
from cytoarch.contents import (
    labels_product,
    open_embeddings,
    open_head,
    open_labels,
    open_section,
    open_tissue,
    require_embedding,
    section_product,
    tissue_product,
)
from cytoarch.images.views import StoredImage
from cytoarch.learning.cards import check_fits
from cytoarch.parcellation.inference import PROBABILITIES_VERSION, ParcellateSettings, write_probabilities
from cytoarch.parcellation.smoothing import SMOOTHING_VERSION, SmoothSettings, score_label_map, write_parcellation
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.products import Product, Work
from cytoarch.store.records import Record
from cytoarch.store.staging import Staging
from tasks.encoders import Device, device_slot, encoder_for
from tasks.progress import reporter
from tasks.sections import POLICY, section_state

STAGE = "parcellate"


def parcellation_name(target: str, kind: str, model_digest: str) -> str:
    """The name under which the maps of a model are kept."""
    return f"{target}-{kind}-{model_digest[:8]}"


@task(name="parcellate-section", task_run_name="parcellate {section.section_id}", **POLICY)
def parcellate_section(
    store_path: Path,
    section: Section,
    model_digest: str,
    embedding_name: str,
    settings: ParcellateSettings,
    smooth: SmoothSettings,
    device: Device,
    batch_size: int,
) -> "State[Any]":
    """Map one section with a head: blended probabilities, smoothed, and the label map."""

    def work() -> bool:
        store = BrainStore(store_path)
        card = open_head(store, model_digest).card
        name = parcellation_name(card.target, card.kind, model_digest)
        probabilities, made = _probabilities(
            store, section, model_digest, name, embedding_name, settings, device, batch_size
        )
        return (
            _label_map(store, section, model_digest, name, card.target, settings.level, smooth, probabilities) or made
        )

    return section_state(section.section_id, work)


def _probabilities(
    store: BrainStore,
    section: Section,
    model_digest: str,
    name: str,
    embedding_name: str,
    settings: ParcellateSettings,
    device: Device,
    batch_size: int,
) -> tuple[Record, bool]:
    brain_id, section_id = section.brain_id, section.section_id
    hint = "run ingest-brain and embed-brain first"
    inputs = {
        "section": store.require(section_product(brain_id, section_id), hint).digest,
        "tissue": store.require(tissue_product(brain_id, section_id), hint).digest,
        "model": model_digest,
    }
    cached = settings.source == "cache"
    if cached:
        record = require_embedding(store, brain_id, embedding_name, section_id)
        embedded = record.facts
        card = open_head(store, model_digest).card
        check_fits(card, tuple(embedded["dims"]), record.inputs["encoder"], float(embedded["pixel_size_um"]))
        inputs["embeddings"] = record.digest

    def write(staging: Staging) -> dict[str, Any]:
        head = open_head(store, model_digest)
        encoder = encoder_for(head.card.embedding.model_copy(update={"device": device}))
        check_fits(head.card, head.card.dims, encoder.digest, head.card.pixel_size_um)  # weights may have been replaced
        with device_slot(device):
            return write_probabilities(
                staging,
                open_section(store, brain_id, section_id),
                open_tissue(store, brain_id, section_id),
                head,
                encoder,
                open_embeddings(store, brain_id, embedding_name, section_id) if cached else None,
                settings,
                batch_size,
                reporter(STAGE, section_id),
            )

    work = Work(PROBABILITIES_VERSION, inputs, settings.model_dump(mode="json", exclude={"level"}))
    return store.ensure(Product(brain_id, "probabilities", name, section_id), work, write)


def _label_map(
    store: BrainStore,
    section: Section,
    model_digest: str,
    name: str,
    target: str,
    level: int | None,
    smooth: SmoothSettings,
    probabilities: Record,
) -> bool:
    brain_id, section_id = section.brain_id, section.section_id
    inputs = {"probabilities": probabilities.digest, "model": model_digest}
    labels = store.record(labels_product(brain_id, section_id)) if section.labels else None
    if labels is not None:
        inputs["labels"] = labels.digest

    def write(staging: Staging) -> dict[str, Any]:
        classes = open_head(store, model_digest).card.classes
        source = store.path(Product(brain_id, "probabilities", name, section_id)) / "probabilities"
        image = open_section(store, brain_id, section_id)
        facts = write_parcellation(staging, image, StoredImage.open(source), classes, smooth, level, target)
        if labels is not None:
            drawn = StoredImage.open(staging.path / "labels" / target)
            facts["confusion"] = score_label_map(drawn, open_labels(store, brain_id, section_id), classes).tolist()
        return facts

    work = Work(SMOOTHING_VERSION, inputs, {**smooth.model_dump(mode="json"), "level": level})
    _, made = store.ensure(Product(brain_id, "parcellations", name, section_id), work, write)
    return made
