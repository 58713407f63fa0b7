"""Sections of a brain into embeddings."""

from pathlib import Path

from prefect import flow, get_run_logger

from cytoarch.embeddings import EmbedSettings
from cytoarch.errors import StoreError
from cytoarch.steps.colours import ColourFitStep, ColoursStep
from cytoarch.steps.embeddings import EmbeddingsStep, Regions, check_space, overlooked
from cytoarch.steps.encoders import encoder_for
from cytoarch.steps.running import plan_engine
from cytoarch.steps.sections import ready_sections
from cytoarch.steps.sources import sections_with
from cytoarch.store.drafts import remove_others
from flows.parameters import RunSettings, StoredBrain
from flows.stages import (
    Embedded,
    compute_step,
    final_state,
    held_brain,
    not_ingested,
    run_name,
    run_steps,
    run_whole,
    skipping,
    workers,
)
from tasks.cancelling import HOOKS
from tasks.progress import speed_note


@flow(name="embed-brain", flow_run_name=run_name("embed"), **HOOKS)
def embed_brain(
    brain: StoredBrain,
    embed: EmbedSettings = EmbedSettings(),
    regions_path: Path | None = None,
    skip: tuple[str, ...] = (),
    run: RunSettings = RunSettings(),
) -> Embedded:
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
    with held_brain(brain.store_path, brain.brain_id) as opened, skipping(opened, skip), workers(run) as runner:
        sections = ready_sections(opened)
        if not sections:
            raise StoreError(f"{opened.name}: no section is ingested; run ingest-brain and look at its failures")
        regions = None if regions_path is None else Regions.of(regions_path)
        named = None if regions is None else regions.table(opened).section_ids
        not_ready = {} if named is None else not_ingested(opened, named)
        step = EmbeddingsStep.of(embed, opened, regions)
        if said := overlooked(opened, embed, step.encoder.encoder):
            get_run_logger().warning(said)
        plan = plan_engine(step, opened, [one for one in sections if named is None or one.section_id in named])
        check_space(opened.store, plan.needed_bytes, f"embeddings of {len(sections)} sections")
        tokens = f"{plan.tiles * step.tokens_per_tile:,}"
        get_run_logger().info(
            "up to %s tokens in the tiles that hold tissue, up to %.1f GB to write", tokens, plan.needed_bytes / 1e9
        )
        made, speed = compute_step("embed", runner, opened, step, plan, "tokens", step.tokens_per_tile)
        removed = () if named is None else remove_others(opened.catalogue, step.step, step.name, named)
        if sections_with(opened, step.stored):
            fit = ColourFitStep.of(step.stored)
            made += run_whole("fit colours", opened, fit)
            drawn = sections_with(opened, step.stored)
            made += run_steps("colours", runner, opened, [ColoursStep.of(fit)], run, drawn)
        notes = {"embeddings": step.name}
        if removed:
            notes["removed"] = f"{', '.join(removed)}: the table of regions no longer names them"
        if speed.tiles:
            notes["speed"] = speed_note(speed, "tokens", step.tokens_per_tile)
        return final_state(Embedded(opened.brain_id, made, opened.failed | not_ready, notes, step.name))
