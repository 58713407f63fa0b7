"""Embeddings of one section, and their colours over a brain."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prefect import task
from prefect.client.schemas.objects import State

from cytoarch.brains import Brain, Section
from cytoarch.contents import (
    FIT_FILE,
    embedding_records,
    open_colour_map,
    open_embeddings,
    open_section,
    open_tissue,
    section_product,
    tissue_product,
)
from cytoarch.discovery.colours import COLOURS_VERSION, ColourMap, colour_sample, write_colours
from cytoarch.embeddings import (
    EMBEDDINGS_VERSION,
    EmbedSettings,
    check_same_dims,
    embedding_name,
    working_pixel_size_um,
)
from cytoarch.embeddings.dense import (
    DenseJob,
    DensePlan,
    dense_job,
    estimated_bytes,
    tile_plan,
    wanted_tiles,
)
from cytoarch.embeddings.engine import Speed, grouped
from cytoarch.embeddings.jobs import Job
from cytoarch.embeddings.places import RegionTable
from cytoarch.encoders import Encoder
from cytoarch.encoders.inference import device_name
from cytoarch.errors import SectionError, StoreError
from cytoarch.sampling import tissue_source
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.products import Product, Work
from cytoarch.store.staging import Staging
from tasks.encoders import embed_jobs, encoder_for
from tasks.sections import POLICY, group_run_name, group_state, section_state, unfinished

STAGE = "embed"


class EmbeddingPlan(NamedTuple):
    """How a brain is embedded: the name it is kept under, the pixel size it is read at, what is computed together."""

    name: str
    pixel_size_um: float
    groups: tuple[tuple[Section, ...], ...]
    tokens_per_tile: int
    tokens: int
    needed_bytes: int
    """What is not there yet takes at most so much."""


def plan_embedding(
    store: BrainStore,
    brain: Brain,
    sections: tuple[Section, ...],
    settings: EmbedSettings,
    regions: RegionTable | None = None,
    extent: tuple[str, ...] = (),
) -> EmbeddingPlan:
    """Decide how the sections are embedded. Raises StoreError if the result would not fit on the disk."""
    encoder = encoder_for(settings)
    brain_id = brain.brain_id
    images = {one.section_id: open_section(store, brain_id, one.section_id) for one in sections}
    pixel_size_um = working_pixel_size_um(settings, encoder, [image.pixel_size_um for image in images.values()])
    name = embedding_name(settings, encoder, pixel_size_um, extent)
    counts, needed, tokens = [], 0, 0
    for section_id, image in images.items():
        view = image.at(pixel_size_um)
        plan = tile_plan(encoder, view.height, view.width, settings)
        windows = None if regions is None else regions.windows(section_id, image.pixel_size_um)
        tiles = int(wanted_tiles(plan, pixel_size_um, open_tissue(store, brain_id, section_id), windows).sum())
        counts.append(tiles)
        if store.record(Product(brain_id, "embeddings", name, section_id)) is None:
            needed += estimated_bytes(tiles, plan, encoder.dims(len(settings.channels) or image.channels))
        tokens = (plan.step_px // plan.cell_px) ** 2
    check_space(store, needed, f"embeddings of {len(sections)} sections")
    groups = tuple(tuple(sections[one] for one in group) for group in grouped(counts, settings.batch_size))
    return EmbeddingPlan(name, pixel_size_um, groups, tokens, sum(counts) * tokens, needed)


def check_space(store: BrainStore, needed_bytes: int, what: str) -> None:
    """Raise StoreError if the disk has less room than something takes uncompressed."""
    free = shutil.disk_usage(store.root).free
    if needed_bytes > free:
        raise StoreError(
            f"{what} take up to {needed_bytes / 1e9:.1f} GB, {store.root} has {free / 1e9:.1f} GB free; choose a "
            "coarser pixel_size_um, fewer blocks, fewer sections, or another disk"
        )


@task(name="embed-sections", task_run_name=group_run_name("embed"), **POLICY)
def embed_sections(
    store_path: Path,
    sections: tuple[Section, ...],
    name: str,
    settings: EmbedSettings,
    pixel_size_um: float,
    regions: RegionTable | None = None,
) -> "State[Any]":
    """Embed some sections in one go, so that batches go over the borders between them."""
    store = BrainStore(store_path)
    encoder = encoder_for(settings)

    def job(section: Section) -> Job:
        return _dense_job(store, section, name, encoder, settings, pixel_size_um, regions)

    def compute(jobs: Sequence[Job]) -> tuple[dict[str, str], Speed]:
        per_tile = next(one.plan.core_tokens for one in jobs if isinstance(one, DenseJob)) ** 2
        return embed_jobs(STAGE, jobs, encoder.encode, settings, "tokens", per_tile)

    return group_state(sections, job, compute)


def check_inside(windows: Sequence[tuple[float, float, float, float]], extent_um: tuple[float, float]) -> None:
    """Raise SectionError if a region (y, x, height, width) um lies outside its section."""
    outside = [one for one in windows if one[0] >= extent_um[0] or one[1] >= extent_um[1]]
    if outside:
        raise SectionError(
            f"{len(outside)} of its {len(windows)} regions lie outside the section of {extent_um[0]:.0f} x "
            f"{extent_um[1]:.0f} um; they must be in pixels of the scan, y before x"
        )


def _dense_job(
    store: BrainStore,
    section: Section,
    name: str,
    encoder: Encoder,
    settings: EmbedSettings,
    pixel_size_um: float,
    regions: RegionTable | None,
) -> DenseJob:
    brain_id, section_id = section.brain_id, section.section_id
    hint = "run ingest-brain first"
    inputs = {
        "section": store.require(section_product(brain_id, section_id), hint).digest,
        "tissue": store.require(tissue_product(brain_id, section_id), hint).digest,
        "encoder": encoder.digest,
    }
    stated: dict[str, Any] = {
        "pixel_size_um": pixel_size_um,
        "channels": list(settings.channels),
        "tile_px": settings.tile_px,
        "margin_px": settings.margin_px,
    }
    image, tissue = open_section(store, brain_id, section_id), open_tissue(store, brain_id, section_id)
    windows = None if regions is None else regions.windows(section_id, image.pixel_size_um)
    if windows is not None:
        stated["regions_um"] = [list(window) for window in windows]
        check_inside(windows, image.extent_um)
    plan = DensePlan.of(image, tissue, encoder, settings, pixel_size_um, windows)
    begun = store.begin(Product(brain_id, "embeddings", name, section_id), Work(EMBEDDINGS_VERSION, inputs, stated))
    draft = unfinished(begun)
    if draft is None:
        return dense_job(section_id, plan, encoder, None, dict)
    device = device_name(settings.device)
    return dense_job(section_id, plan, encoder, draft.staging, lambda facts: draft.commit({**facts, "device": device}))


@task(name="fit-colours", task_run_name="fit colours of {name}", **POLICY)
def fit_colours(store_path: Path, brain: Brain, sections: tuple[Section, ...], name: str) -> bool:
    """Fit one map from embeddings to colours for the whole brain."""
    store = BrainStore(store_path)
    records = embedding_records(store, brain, name, sections)

    def write(staging: Staging) -> dict[str, Any]:
        opened = [(s.section_id, open_embeddings(store, brain.brain_id, name, s.section_id)) for s in sections]
        check_same_dims(opened)
        sources = [tissue_source(one, found, open_tissue(store, brain.brain_id, one)) for one, found in opened]
        sample = colour_sample(sources)
        staging.write(FIT_FILE, ColourMap.fit([sample.tokens]).to_bytes())
        return dict(sample.facts())

    work = Work(COLOURS_VERSION, {one: record.digest for one, record in records.items()}, {})
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
