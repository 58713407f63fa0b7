"""Embeddings of patches at points of sections."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prefect import task
from prefect.client.schemas.objects import State

from cytoarch.brains import Brain, Section
from cytoarch.contents import open_section, section_product
from cytoarch.embeddings import EmbedSettings, embedding_name, working_pixel_size_um
from cytoarch.embeddings.augmentation import AUGMENTATION_VERSION
from cytoarch.embeddings.engine import Speed, grouped
from cytoarch.embeddings.jobs import Job
from cytoarch.embeddings.places import Points
from cytoarch.embeddings.reading import SectionReader
from cytoarch.embeddings.sampled import (
    POINTS_VERSION,
    Rows,
    SampleJob,
    SamplePlan,
    SampleSettings,
    points_per_lot,
    write_table,
)
from cytoarch.encoders import Encoder
from cytoarch.encoders.inference import device_name
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.products import Product, Work
from tasks.embeddings import check_space
from tasks.encoders import embed_jobs, encoder_for
from tasks.sections import POLICY, group_run_name, group_state, unfinished

STAGE = "sample"
PATCH_PX = 512
"""Edge of a patch for encoders that have no size of their own."""


class SamplingPlan(NamedTuple):
    """How points are embedded: the name they are kept under, the pixel size, what is computed together."""

    name: str
    pixel_size_um: float
    groups: tuple[tuple[Section, ...], ...]


def plan_sampling(
    store: BrainStore,
    brain: Brain,
    sections: tuple[Section, ...],
    points: Points,
    table: str,
    settings: EmbedSettings,
    sample: SampleSettings,
) -> SamplingPlan:
    """Decide how points are embedded. Raises StoreError if the result would not fit on the disk."""
    encoder = encoder_for(settings)
    images = [open_section(store, brain.brain_id, one.section_id) for one in sections]
    pixel_size_um = working_pixel_size_um(settings, encoder, [image.pixel_size_um for image in images])
    counts = [len(points.sections[one.section_id].rows) * max(1, sample.draws) for one in sections]
    drawn = (str(sample.draws), str(sample.seed)) if sample.draws else ()
    extent = (str(patch_size_px(settings, encoder)), *drawn)
    name = f"{table}-{embedding_name(settings, encoder, pixel_size_um, extent)}"
    absent = sum(
        count
        for section, count in zip(sections, counts, strict=True)
        if store.record(Product(brain.brain_id, "points", name, section.section_id)) is None
    )
    check_space(store, absent * encoder.patch_dims(3) * 4, f"embeddings of {absent} patches")
    groups = tuple(tuple(sections[one] for one in group) for group in grouped(counts, settings.batch_size))
    return SamplingPlan(name, pixel_size_um, groups)


def patch_size_px(settings: EmbedSettings, encoder: Encoder) -> int:
    """Edge of a patch: as asked for, or the encoder's tile; encoders of finite reach take patches of any size."""
    return settings.tile_px or (encoder.tiles.tile_px if encoder.tiles.halo_px is None else PATCH_PX)


@task(name="sample-sections", task_run_name=group_run_name("sample"), **POLICY)
def sample_sections(
    store_path: Path,
    sections: tuple[Section, ...],
    name: str,
    points: Points,
    settings: EmbedSettings,
    sample: SampleSettings,
    pixel_size_um: float,
) -> "State[Any]":
    """Embed the points of some sections in one go, so that batches go over the borders between them."""
    store = BrainStore(store_path)
    encoder = encoder_for(settings)

    def job(section: Section) -> Job:
        return _sample_job(store, section, name, encoder, points, settings, sample, pixel_size_um)

    def compute(jobs: Sequence[Job]) -> tuple[dict[str, str], Speed]:
        return embed_jobs(STAGE, jobs, lambda patches: [encoder.embed(patches)], settings, "patches", 1)

    return group_state(sections, job, compute)


def _sample_job(
    store: BrainStore,
    section: Section,
    name: str,
    encoder: Encoder,
    points: Points,
    settings: EmbedSettings,
    sample: SampleSettings,
    pixel_size_um: float,
) -> SampleJob:
    brain_id, section_id = section.brain_id, section.section_id
    record = store.require(section_product(brain_id, section_id), "run ingest-brain first")
    placed = section.model_dump(mode="json", include={"flip", "rotation", "position_um", "region_px"})
    inputs = {"section": record.digest, "encoder": encoder.digest, "points": points.sections[section_id].digest}
    image = open_section(store, brain_id, section_id)
    reader = SectionReader.open(image, encoder, settings, pixel_size_um)
    patch_px = patch_size_px(settings, encoder)
    own = points.sections[section_id]
    plan = SamplePlan.of(section, image, reader, patch_px, own, sample)
    stated = {
        "pixel_size_um": pixel_size_um,
        "channels": list(settings.channels),
        "patch_px": patch_px,
        "augmentation": AUGMENTATION_VERSION,
        **sample.model_dump(mode="json", exclude={"name"}),
        **placed,
    }
    begun = store.begin(Product(brain_id, "points", name, section_id), Work(POINTS_VERSION, inputs, stated))
    draft = unfinished(begun)

    def table(folder: Path) -> None:
        write_table(folder, section, image, own, plan, encoder)

    if draft is None:
        return SampleJob(plan, None, table, dict)
    dims, count = encoder.patch_dims(reader.depth), len(plan.rows) * plan.draws
    rows = Rows.create(draft.staging, count, dims, points_per_lot(plan) * plan.draws)
    device = device_name(settings.device)
    return SampleJob(plan, rows, table, lambda facts: draft.commit({**facts, "device": device}))
