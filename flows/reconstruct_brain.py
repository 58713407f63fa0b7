"""A brain put together from its sections."""

from typing import Literal

from prefect import flow

from cytoarch.anatomy.depth import DepthSettings
from cytoarch.anatomy.midline import MidlineSettings
from cytoarch.anatomy.reconstruction import ReconstructionSettings
from cytoarch.anatomy.reconstruction.volume import VolumeSettings
from cytoarch.anatomy.surfaces import SurfaceSettings
from cytoarch.errors import StoreError
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.reconstruction import (
    ALIGNMENT_PAGE,
    RECONSTRUCTION,
    AlignmentStep,
    LinksStep,
    ReconstructionStep,
    VolumeStep,
    has_volume,
)
from cytoarch.steps.sources import sections_with
from cytoarch.steps.step import Place
from cytoarch.steps.tissue import TISSUE
from flows.parameters import RunSettings, StoredBrain
from flows.stages import Summary, final_state, held_brain, run_name, run_steps, run_whole, skipping, workers
from flows.trace_cortex import trace_cortex
from tasks.cancelling import HOOKS


@flow(name="reconstruct-brain", flow_run_name=run_name("reconstruct"), **HOOKS)
def reconstruct_brain(
    brain: StoredBrain,
    align: ReconstructionSettings = ReconstructionSettings(),
    volume: VolumeSettings = VolumeSettings(),
    cortex: Literal["trace", "none"] = "trace",
    depth: DepthSettings = DepthSettings(),
    midline: MidlineSettings = MidlineSettings(),
    surface: SurfaceSettings = SurfaceSettings(),
    skip: tuple[str, ...] = (),
    run: RunSettings = RunSettings(),
) -> Summary:
    """Put the sections of a brain together: align neighbours, flip mirrored ones, flag doubtful ones, make a volume.

    Then the cortex is traced, as trace-cortex does: its depth, its middle, and points along that in the brain.

    Args:
        brain: The brain in the store.
        align: How sections are linked and placed.
        volume: How the volume is made; there is none where no place along the cutting axis is known.
        cortex: trace: measure depth in the cortex and trace its middle, too; none: leave that out.
        depth: How depth is measured.
        midline: Where points are taken.
        surface: How the middle is made a surface, where its lines are those of a surface.
        skip: Sections to leave out.
        run: How the work is spread over sections.

    """
    with held_brain(brain.store_path, brain.brain_id) as opened, skipping(opened, skip), workers(run) as runner:
        if not sections_with(opened, TISSUE):
            raise StoreError(f"{opened.name}: no section has tissue; run ingest-brain first")
        made = run_steps("link", runner, opened, [LinksStep.of(align)], run, sections_with(opened, TISSUE))
        made += run_whole("reconstruct", opened, ReconstructionStep(align))
        made += run_whole("draw links", opened, AlignmentStep())
        if has_volume(opened):
            made += run_whole("volume", opened, VolumeStep(volume))
        notes = _notes(opened, volume)
        if cortex == "trace":
            traced = trace_cortex(brain, depth, midline, surface, skip, run)
            made, notes = made + traced.made, {**notes, **traced.notes}
        return final_state(Summary(opened.brain_id, made, dict(opened.failed), notes))


def _notes(brain: OpenBrain, volume: VolumeSettings) -> dict[str, str]:
    """What a person wants to find again."""
    facts = RECONSTRUCTION.record(Place(brain)).facts
    page = brain.catalogue.path(AlignmentStep().product()) / ALIGNMENT_PAGE
    notes = {
        "reconstruction": str(page.resolve()),
        "sections linked": f"{facts['linked']} of {facts['sections']}",
        "flipped": str(facts["flipped"]),
        "to be looked at": ", ".join(facts["flagged"]) or "none",
        "volume": "none: no place along the cutting axis is known",
    }
    if has_volume(brain):
        notes["volume"] = str(brain.catalogue.path(VolumeStep(volume).product()).resolve())
    return notes
