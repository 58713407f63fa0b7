"""Embeddings of one section, and their colours over a brain."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prefect import task
from prefect.client.schemas.objects import State

from cytoarch.brains import Brain, Section
from cytoarch.colours import COLOURS_VERSION, ColourMap, write_colours
from cytoarch.contents import (
    FIT_FILE,
    embedding_records,
    open_colour_map,
    open_embeddings,
    open_section,
    open_tissue,
    section_product,
    tissue_on_tokens,
    tissue_product,
)
from cytoarch.embeddings import (
    EMBEDDINGS_VERSION,
    EmbedSettings,
    check_same_dims,
    embedding_name,
    estimated_bytes,
    working_pixel_size_um,
    write_embeddings,
)
from cytoarch.encoders import Encoder
from cytoarch.errors import StoreError
from cytoarch.images.views import StoredImage
from cytoarch.records import Staging
from cytoarch.stores import BrainStore, Product, Work
from tasks.encoders import device_slot, encoder_for
from tasks.progress import reporter
from tasks.sections import POLICY, section_state

STAGE = "embed"
SAMPLE_TOKENS = 2000
"""Tokens of a section that the colours are fitted to."""


class EmbeddingPlan(NamedTuple):
    """How a brain is embedded: the name it is kept under and the one pixel size it is read at."""

    name: str
    pixel_size_um: float


def plan_embedding(
    store: BrainStore, brain: Brain, sections: tuple[Section, ...], settings: EmbedSettings
) -> EmbeddingPlan:
    """Decide how the sections are embedded. Raises StoreError if the result would not fit on the disk."""
    encoder = encoder_for(settings)
    images = {one.section_id: open_section(store, brain.brain_id, one.section_id) for one in sections}
    pixel_size_um = working_pixel_size_um(settings, encoder, [image.pixel_size_um for image in images.values()])
    name = embedding_name(settings, encoder, pixel_size_um)
    absent = [
        image
        for section_id, image in images.items()
        if store.record(Product(brain.brain_id, "embeddings", name, section_id)) is None
    ]
    check_space(store, absent, encoder, pixel_size_um)
    return EmbeddingPlan(name, pixel_size_um)


def check_space(store: BrainStore, images: Sequence[StoredImage], encoder: Encoder, pixel_size_um: float) -> None:
    """Raise StoreError if the disk has less room than the embeddings of these sections take uncompressed."""
    needed = sum(estimated_bytes(image, encoder, pixel_size_um) for image in images)
    free = shutil.disk_usage(store.root).free
    if needed > free:
        raise StoreError(
            f"embeddings of {len(images)} sections take up to {needed / 1e9:.1f} GB, {store.root} has "
            f"{free / 1e9:.1f} GB free; choose a coarser pixel_size_um, fewer blocks, or another disk"
        )


@task(name="embed-section", task_run_name="embed {section.section_id}", **POLICY)
def embed_section(
    store_path: Path, section: Section, name: str, settings: EmbedSettings, pixel_size_um: float
) -> "State[Any]":
    """Embed one section."""

    def work() -> bool:
        store = BrainStore(store_path)
        brain_id, section_id = section.brain_id, section.section_id
        encoder = encoder_for(settings)
        hint = "run ingest-brain first"
        inputs = {
            "section": store.require(section_product(brain_id, section_id), hint).digest,
            "tissue": store.require(tissue_product(brain_id, section_id), hint).digest,
            "encoder": encoder.digest,
        }
        stated = {"pixel_size_um": pixel_size_um, "channels": list(settings.channels), "tile_px": settings.tile_px}

        def write(staging: Staging) -> dict[str, Any]:
            image = open_section(store, brain_id, section_id)
            tissue = open_tissue(store, brain_id, section_id)
            progress = reporter(STAGE, section_id)
            with device_slot(settings.device):
                return write_embeddings(staging, image, tissue, encoder, settings, pixel_size_um, progress)

        product = Product(brain_id, "embeddings", name, section_id)
        _, made = store.ensure(product, Work(EMBEDDINGS_VERSION, inputs, stated), write)
        return made

    return section_state(section.section_id, work)


@task(name="fit-colours", task_run_name="fit colours of {name}", **POLICY)
def fit_colours(store_path: Path, brain: Brain, sections: tuple[Section, ...], name: str) -> bool:
    """Fit one map from embeddings to colours for the whole brain."""
    store = BrainStore(store_path)
    records = embedding_records(store, brain, name, sections)

    def write(staging: Staging) -> dict[str, Any]:
        opened = [(s.section_id, open_embeddings(store, brain.brain_id, name, s.section_id)) for s in sections]
        check_same_dims(opened)
        samples = (
            embeddings.sample(tissue_on_tokens(store, brain.brain_id, one, embeddings), SAMPLE_TOKENS, seed=index)
            for index, (one, embeddings) in enumerate(opened)
        )
        staging.write(FIT_FILE, ColourMap.fit(samples).to_bytes())
        return {}

    work = Work(COLOURS_VERSION, {one: record.digest for one, record in records.items()}, {"tokens": SAMPLE_TOKENS})
    _, made = store.ensure(Product(brain.brain_id, "colours", name), work, write)
    return made


@task(name="colour-section", task_run_name="colour {section.section_id}", **POLICY)
def colour_section(store_path: Path, section: Section, name: str) -> "State[Any]":
    """Draw one section's embeddings as colours."""

    def work() -> bool:
        store = BrainStore(store_path)
        brain_id, section_id = section.brain_id, section.section_id
        inputs = {
            "embeddings": store.require(Product(brain_id, "embeddings", name, section_id), "run embed-brain").digest,
            "colours": store.require(Product(brain_id, "colours", name), "run embed-brain").digest,
        }

        def write(staging: Staging) -> dict[str, Any]:
            embeddings = open_embeddings(store, brain_id, name, section_id)
            tissue = open_tissue(store, brain_id, section_id)
            return write_colours(staging, embeddings, tissue, open_colour_map(store, brain_id, name))

        _, made = store.ensure(Product(brain_id, "colours", name, section_id), Work(COLOURS_VERSION, inputs, {}), write)
        return made

    return section_state(section.section_id, work)
