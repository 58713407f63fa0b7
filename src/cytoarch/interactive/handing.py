"""From a drawing to the store and back: what a session begins with, versions, the decoder and the maps of a brain."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cytoarch.annotations.autosave import Drawing, DrawingClosedError
from cytoarch.annotations.scribbles import RUBBER, Annotation
from cytoarch.brains import Label
from cytoarch.embeddings import EmbedSettings
from cytoarch.interactive.classes import merged
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

    To one that is in progress, what was imported since it was last saved is added.
    """
    if drawing.path.stem in brain.catalogue.names(STEP):
        _add_later(drawing, brain)
    elif not (drawing.labels or drawing.scribbles) and brain.brain.label_table is not None:
        drawing.set_classes(brain.brain.label_table.labels)


def _add_later(drawing: Drawing, brain: OpenBrain) -> None:
    """Add what the author's latest version holds beyond the one that the drawing goes on from.

    What was undone since stays undone.
    """
    author = drawing.path.stem
    there = version_ids(brain.catalogue, author)
    if not there or there[-1] == drawing.last_saved:
        return
    later = opened_annotation(brain.catalogue.path(Scribbled(author, there[-1]).product))
    labels: tuple[Label, ...] = ()
    known = set(drawing.scribbles)
    if drawing.last_saved in there:
        base = opened_annotation(brain.catalogue.path(Scribbled(author, drawing.last_saved).product))
        labels, known = base.table.labels, known | set(base.scribbles)
    added = [one for one in later.scribbles if one not in known]
    left = {one.id for one in labels} - {one.label for one in added}  # also what was removed here, and is not needed
    named = tuple(one for one in later.table.labels if one.id not in left)
    classes, numbers = merged(drawing.labels, labels, named)
    if classes != drawing.labels:
        drawing.set_classes(classes)
    for one in added:
        drawing.draw(one.model_copy(update={"label": {RUBBER: RUBBER, **numbers}[one.label]}))
    _note(drawing, later, there[-1])


def _note(drawing: Drawing, kept: Annotation, version: str) -> None:
    """Note that a version holds what is drawn, or that what is drawn goes on from it."""
    if (kept.table.labels, kept.scribbles) == (drawing.labels, tuple(drawing.scribbles)):
        drawing.note_saved(version)
    else:
        drawing.note_included(version)


def save(drawing: Drawing, store_path: Path, brain_id: str) -> str:
    """Commit what is drawn, and what was imported meanwhile, as a version; returns its id. Raises as `Session.save`."""
    with open_brain(store_path, brain_id) as brain:
        _add_later(drawing, brain)
        drawn = drawing.annotation(brain_id)
        version = save_annotation(brain, drawn)
        with suppress(DrawingClosedError):  # the window was closed meanwhile: the version is found when it opens again
            _note(drawing, drawn, version)  # a stroke may have been drawn meanwhile
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
