"""From a drawing to the store and back: what a session begins with, versions, the decoder and the maps of a brain."""

from collections.abc import Iterator
from pathlib import Path

from cytoarch.annotations.autosave import Drawing
from cytoarch.embeddings import EmbedSettings
from cytoarch.interactive.regions import Blocks
from cytoarch.interactive.views import Told
from cytoarch.learning.training import DecoderSettings
from cytoarch.parcellation.inference import ParcellateSettings
from cytoarch.parcellation.smoothing import SmoothSettings
from cytoarch.progress import Progress
from cytoarch.steps.annotations import STEP, Scribbled, opened_annotation, save_annotation, version_ids
from cytoarch.steps.embeddings import EmbeddingsStep
from cytoarch.steps.models import settings_for
from cytoarch.steps.opened import OpenBrain, open_brain
from cytoarch.steps.parcellations import parcellation_steps
from cytoarch.steps.running import make, make_section
from cytoarch.steps.scales import ScaleStep, scale_of
from cytoarch.steps.sections import ready_sections
from cytoarch.steps.sources import open_head
from cytoarch.steps.training import TrainingStep, keep_head


def take_up(drawing: Drawing, brain: OpenBrain) -> None:
    """Begin an empty drawing with its author's latest version, else with the brain's table of labels.

    To one that is in progress, what was imported since it was saved is added.
    """
    author = drawing.path.stem
    if drawing.labels or drawing.scribbles:
        _add_later(drawing, brain)
    elif author in brain.catalogue.names(STEP):
        scribbled = Scribbled.of(brain, author)
        earlier = opened_annotation(brain.catalogue.path(scribbled.product))
        drawing.set_classes(earlier.table.labels)
        for one in earlier.scribbles:
            drawing.draw(one)
        drawing.note_saved(scribbled.version)
    elif brain.brain.label_table is not None:
        drawing.set_classes(brain.brain.label_table.labels)


def _add_later(drawing: Drawing, brain: OpenBrain) -> None:
    """Add what was imported for the author since a drawing was saved, if nothing was drawn since."""
    author = drawing.path.stem
    there = version_ids(brain.catalogue, author)
    if not drawing.saved or not there or there[-1] == drawing.saved:
        return
    later = opened_annotation(brain.catalogue.path(Scribbled(author, there[-1]).product))
    known = set(drawing.scribbles)
    drawing.set_classes(later.table.labels)
    for one in later.scribbles:
        if one not in known:
            drawing.draw(one)
    drawing.note_saved(there[-1])


def save(drawing: Drawing, store_path: Path, brain_id: str) -> str:
    """Commit what is drawn as a version in the store; returns its id. Raises as `Session.save`."""
    drawn = drawing.annotation(brain_id)
    with open_brain(store_path, brain_id) as brain:
        version = save_annotation(brain, drawn)
    if (drawn.table.labels, drawn.scribbles) == (drawing.labels, tuple(drawing.scribbles)):
        drawing.note_saved(version)  # unless a stroke was drawn meanwhile
    return version


def hand_over(
    store_path: Path, brain_id: str, scribbled: Scribbled, blocks: Blocks, settings: DecoderSettings, told: Progress
) -> tuple[str, str]:
    """Train the decoder of `train-decoder` on a version; its digest and the name of its training."""
    with open_brain(store_path, brain_id) as brain:
        for section_id in opened_annotation(brain.catalogue.path(scribbled.product)).section_ids:
            blocks.compute_section(section_id, brain)
        stored = blocks.step.stored
        if settings.standardise == "brain":
            make(ScaleStep.of(stored), brain)
        step = TrainingStep.on_scribbles(brain, stored, "decoder", settings, scribbled)
        make(step, brain, told)
        return keep_head(brain, step.name), step.name


def map_brain(store_path: Path, brain_id: str, digest: str) -> Iterator[Told]:
    """Map every section with a decoder of the store, as `parcellate-brain` does by default."""
    with open_brain(store_path, brain_id) as brain:
        card = open_head(brain.store, digest).card
        embeddings = EmbeddingsStep.of(settings_for(card, EmbedSettings()), brain).stored
        if scale_of(card.standardise, embeddings) is not None:
            make(ScaleStep.of(embeddings), brain)
        steps = parcellation_steps(card, digest, embeddings, ParcellateSettings(), SmoothSettings(), {})
        sections = ready_sections(brain)
        failed = 0
        for done, section in enumerate(sections):
            yield Told(f"mapping section {section.section_id}", done, len(sections))
            failed += make_section(steps, brain, section).status == "failed"
        told = f", {failed} could not be mapped: run parcellate-brain to see why" if failed else ""
        yield Told(f"Mapped {len(sections) - failed} sections as {steps[1].name}{told}.", len(sections), len(sections))
