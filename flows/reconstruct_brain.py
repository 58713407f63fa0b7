"""A brain put together from its sections."""

from prefect import flow

from cytoarch.anatomy.reconstruction import ReconstructionSettings
from cytoarch.anatomy.reconstruction.volume import VolumeSettings
from cytoarch.errors import StoreError
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.reconstruction import (
    ALIGNMENT_PAGE,
    RECONSTRUCTION,
    AlignmentStep,
    ReconstructionStep,
    VolumeStep,
    has_volume,
)
from cytoarch.steps.sources import sections_with
from cytoarch.steps.step import Place
from cytoarch.steps.tissue import TISSUE
from flows.parameters import StoredBrain
from flows.stages import Summary, final_state, held_brain, run_name, run_whole, skipping
from tasks.cancelling import HOOKS


@flow(name="reconstruct-brain", flow_run_name=run_name("reconstruct"), **HOOKS)
def reconstruct_brain(
    brain: StoredBrain,
    align: ReconstructionSettings = ReconstructionSettings(),
    volume: VolumeSettings = VolumeSettings(),
    skip: tuple[str, ...] = (),
) -> Summary:
    """Put the sections of a brain together: align neighbours, flip mirrored ones, flag doubtful ones, make a volume.

    Args:
        brain: The brain in the store.
        align: How sections are linked and placed.
        volume: How the volume is made; there is none where no place along the cutting axis is known.
        skip: Sections to leave out.

    """
    with held_brain(brain.store_path, brain.brain_id) as opened, skipping(opened, skip):
        if not sections_with(opened, TISSUE):
            raise StoreError(f"{opened.name}: no section has tissue; run ingest-brain first")
        made = run_whole("reconstruct", opened, ReconstructionStep(align))
        made += run_whole("draw links", opened, AlignmentStep())
        if has_volume(opened):
            made += run_whole("volume", opened, VolumeStep(volume))
        return final_state(Summary(opened.brain_id, made, dict(opened.failed), _notes(opened, volume)))


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
