"""Few strokes against dense labels: the decoder that maps brains, from 5 strokes a class and from all pixels."""

import argparse

import numpy as np

from benchmarks.scribbles_windows import Drawable, Ground, Map, classes_of, phantom_ground
from cytoarch.annotations.drawing import DrawnLabels
from cytoarch.annotations.exchange import Drawer
from cytoarch.annotations.scribbles import now
from cytoarch.embeddings import EmbedSettings
from cytoarch.interactive.annotator import Annotator
from cytoarch.learning.application import predict_bands
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.datasets import LabelledSection
from cytoarch.learning.targets import LabelPixels
from cytoarch.learning.training import DecoderSettings, cells_per_token, train_head
from cytoarch.measures.boundaries import BoundaryDistances
from cytoarch.steps import LABELS, SECTION, EmbeddingsStep, make_sections, open_brain
from cytoarch.steps.opened import read_only
from cytoarch.steps.step import Place
from cytoarch.steps.tissue import TISSUE

PEN_PX = 6.0
STROKES = 5
LENGTH_PX = (100.0, 310.0)
"""Strokes of 0.8 to 2.5 mm at 8 um: what is drawn on is a whole section."""


def labelled(ground: Ground, step: EmbeddingsStep, section: Drawable, labels: LabelPixels) -> LabelledSection:
    """A section to learn from or to predict."""
    brain = read_only(ground.store_path, ground.brain_id)
    place = Place(brain, brain.rows[section.section_id])
    return LabelledSection(section.section_id, step.stored.open(place), labels, TISSUE.open(place))


def measured(truth: Map, found: Map, cell_um: float) -> dict[int, tuple[float, float, float]]:
    """DSC, HD95 and ASSD (um) of every class of the truth, within what is labelled."""
    kept = np.where(truth > 0, found, 0)
    result = {}
    for one in np.unique(truth[truth > 0]).tolist():
        a, b = truth == one, kept == one
        apart = BoundaryDistances.between(a, b, (cell_um, cell_um), rim="ignored")
        result[one] = 2 * float((a & b).sum()) / float(a.sum() + b.sum()), apart.hd95_um, apart.assd_um
    return result


def dense_table(asked: argparse.Namespace) -> None:
    """Print DSC, HD95 and ASSD by layer, from strokes and from dense labels, on a section nobody labelled."""
    names = ("DSC", "HD95 um", "ASSD um")
    print("| phantom | layer |" + "".join(f" {one}, strokes | {one}, dense |" for one in names))
    print("|---|---|" + "---|" * 6)
    for seed in asked.phantoms:
        ground = phantom_ground(asked.store_path, seed, None)
        both = [found_by(ground, EmbedSettings(encoder=asked.encoders[0]), kind) for kind in ("strokes", "dense")]
        table = {one.id: one.name for one in classes_of(ground).labels}
        for one in both[0]:
            cells = [f"{by[one][place]:.{3 if place == 0 else 0}f}" for place in range(3) for by in both]
            print(f"| {seed} | {table[one]} | {' | '.join(cells)} |", flush=True)
        means = [[np.nanmean([by[one][place] for one in by]) for by in both] for place in range(3)]
        cells = [f"{value:.{3 if place == 0 else 0}f}" for place, pair in enumerate(means) for value in pair]
        print(f"| {seed} | mean | {' | '.join(cells)} |")
        print(f"phantom {seed}: {means[0][0] / means[0][1]:.2f} of the dense DSC", flush=True)


def strokes_on(ground: Ground) -> DrawnLabels:
    """Five strokes a class on the first section."""
    here = ground.sections[0]
    by = Drawer(here.section_id, "simulated", now())
    annotator = Annotator(here.truth, 0, LENGTH_PX)
    strokes = [by.line(one.label, here.on_section(one.path_px), PEN_PX) for one in annotator.strokes(None, STROKES)]
    brain = read_only(ground.store_path, ground.brain_id)
    return DrawnLabels.of(strokes, SECTION.open(Place(brain, brain.rows[here.section_id])).grid, None)


def found_by(ground: Ground, embed: EmbedSettings, kind: str) -> dict[int, tuple[float, float, float]]:
    """Scores of the decoder on the second section, having learned from the first."""
    here, other = ground.sections
    with open_brain(ground.store_path, ground.brain_id) as brain:
        step = EmbeddingsStep.of(embed, brain)
        make_sections([step], brain)
    brain = read_only(ground.store_path, ground.brain_id)
    drawn = strokes_on(ground)
    dense = LABELS.open(Place(brain, brain.rows[here.section_id])).levels[0]
    encoder = step.encoder.encoder
    token_px, channels = encoder.tiles.token_px, here.pixels.shape[-1]
    card = HeadCard(
        kind="decoder", target="layers", classes=classes_of(ground).classes(by_group=False),
        dims=encoder.dims(channels), cells_per_token=cells_per_token("decoder", token_px), embedding=step.embed,
        encoder_digest=encoder.digest, token_px=token_px, pixel_size_um=step.pixel_size_um,
    )  # fmt: skip
    learned = labelled(ground, step, here, drawn if kind == "strokes" else dense)
    head, _ = train_head(card, DecoderSettings(target="layers"), [learned])
    unseen = labelled(ground, step, other, dense)
    cells = unseen.embeddings.layers[0].grid.split(card.cells_per_token)
    bands = [band for _, band in predict_bands(head, unseen.embeddings)]
    found = np.concatenate(bands, axis=1).argmax(axis=0)
    ids = np.array([one.ids[0] for one in card.classes])
    truth = LABELS.open(Place(brain, brain.rows[other.section_id])).levels[0]
    rows, columns = cells.nearest_in(truth.grid)
    return measured(truth.pixels()[np.ix_(rows, columns)].astype(np.int64), ids[found], cells.cell_um)
