"""Sections of a brain into embeddings."""

from pathlib import Path

from prefect import flow, get_run_logger

from cytoarch.contents import ready_sections
from cytoarch.embeddings import EmbedSettings
from cytoarch.embeddings.places import RegionTable, read_regions
from cytoarch.errors import StoreError
from cytoarch.store.brain_store import BrainStore
from flows.parameters import RunSettings, StoredBrain
from flows.stages import (
    Summary,
    failures,
    final_state,
    made_count,
    not_ingested,
    run_groups,
    run_name,
    run_stage,
    without,
    workers,
)
from tasks.embeddings import STAGE, colour_section, embed_sections, fit_colours, plan_embedding
from tasks.encoders import encoder_for
from tasks.progress import speed_note


@flow(name="embed-brain", flow_run_name=run_name("embed"))
def embed_brain(
    brain: StoredBrain,
    embed: EmbedSettings = EmbedSettings(),
    regions_path: Path | None = None,
    skip: tuple[str, ...] = (),
    run: RunSettings = RunSettings(),
) -> Summary:
    """Turn the ingested sections of a brain, or regions of them, into embeddings, and draw these as colours.

    Args:
        brain: The brain in the store.
        embed: The encoder and how it sees the sections.
        regions_path: CSV file with columns section_id, y_px, x_px, height_px, width_px (pixels of the scan); only
            tiles that touch a region are computed. Blank: whole sections.
        skip: Sections to leave out.
        run: How the work is spread.

    """
    encoder_for(embed)  # an encoder that cannot be loaded is found before any section is read
    store = BrainStore(brain.store_path)
    known = store.read_brain(brain.brain_id)
    sections = tuple(one for one in ready_sections(store, known) if one.section_id not in skip)
    if not sections:
        raise StoreError(f"brain {brain.brain_id}: no section is ingested; run ingest-brain and look at its failures")
    regions: RegionTable | None = None
    extent: tuple[str, ...] = ()
    not_ready: dict[str, str] = {}
    if regions_path is not None:
        regions = read_regions(regions_path, [one.section_id for one in known.kept])
        sections = tuple(one for one in sections if one.section_id in regions.section_ids)
        extent = ("regions", regions_path.stem)
        not_ready = not_ingested(known, sections, regions.section_ids, skip)
    plan = plan_embedding(store, known, sections, embed, regions, extent)
    get_run_logger().info(
        "%d sections, %s tokens in tissue, up to %.1f GB to write",
        len(sections),
        f"{plan.tokens:,}",
        plan.needed_bytes / 1e9,
    )
    with store.lock(brain.brain_id), workers(run) as runner:
        outcomes, speed = run_groups(
            STAGE,
            runner,
            embed_sections,
            plan.groups,
            lambda group: {
                "store_path": brain.store_path,
                "sections": group,
                "name": plan.name,
                "settings": embed,
                "pixel_size_um": plan.pixel_size_um,
                "regions": regions,
            },
        )
        failed = failures(outcomes) | not_ready
        made = made_count(outcomes)
        removed = (
            () if regions is None else store.remove_others(known.brain_id, "embeddings", plan.name, regions.section_ids)
        )
        embedded = without(sections, failed)
        if embedded:
            made += int(fit_colours(brain.store_path, known, embedded, plan.name))
            drawn = run_stage(
                "colours",
                runner,
                colour_section,
                embedded,
                lambda section: {"store_path": brain.store_path, "section": section, "name": plan.name},
            )
            failed |= failures(drawn)
            made += made_count(drawn)
    notes = {"embeddings": plan.name}
    if removed:
        notes["removed"] = f"{', '.join(removed)}: the table of regions no longer names them"
    if speed.tiles:
        notes["speed"] = speed_note(speed, "tokens", plan.tokens_per_tile)
    return final_state(Summary(brain.brain_id, made, failed, notes))
