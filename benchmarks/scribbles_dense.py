"""Few strokes against dense labels: the decoder that maps brains, from 5 strokes a class and from all pixels."""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.scribbles_windows import Drawable, Ground, Map, classes_of, phantom_ground
from cytoarch.annotations.drawing import DrawnLabels
from cytoarch.annotations.exchange import Drawer
from cytoarch.annotations.scribbles import now
from cytoarch.embeddings import EmbedSettings
from cytoarch.geometry import Grid
from cytoarch.interactive.annotator import Annotator
from cytoarch.learning.application import predict_bands
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.datasets import LabelledSection
from cytoarch.learning.targets import LabelPixels
from cytoarch.learning.training import DecoderSettings, cells_per_token, train_head
from cytoarch.measures.boundaries import BoundaryDistances
from cytoarch.steps import SECTION, EmbeddingsStep, make_sections, open_brain
from cytoarch.steps.opened import read_only
from cytoarch.steps.step import Place
from cytoarch.steps.tissue import TISSUE

PEN_PX = 6.0
STROKES = 5


@dataclass(frozen=True)
class TruthLabels:
    """The truth of a window as labels to learn from."""

    values: Map
    grid: Grid

    @property
    def pixel_size_um(self) -> float:
        """Edge of a pixel (um)."""
        return self.grid.cell_um

    def pixels(self, y: slice = slice(None), x: slice = slice(None)) -> NDArray[np.uint16]:
        """A window (h, w) of label ids."""
        return self.values[y, x].astype(np.uint16)


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
        ground = phantom_ground(asked.store_path, seed, asked.edge)
        embed = EmbedSettings(encoder=asked.encoders[0])
        kept = [kept_scores(asked.results, ground, embed, kind) for kind in ("strokes", "dense")]
        both = [one.by_class for one in kept]
        table = {str(one.id): one.name for one in classes_of(ground).labels}
        for one in both[0]:
            cells = [f"{by[one][place]:.{3 if place == 0 else 0}f}" for place in range(3) for by in both]
            print(f"| {seed} | {table[one]} | {' | '.join(cells)} |", flush=True)
        means = [[np.nanmean([by[one][place] for one in by]) for by in both] for place in range(3)]
        cells = [f"{value:.{3 if place == 0 else 0}f}" for place, pair in enumerate(means) for value in pair]
        print(f"| {seed} | mean | {' | '.join(cells)} |")
        took = ", ".join(f"{one.seconds:.0f} s" for one in kept)
        print(f"phantom {seed}: {means[0][0] / means[0][1]:.2f} of the dense DSC; with embedding and mapping: {took}")


class Kept(NamedTuple):
    """Scores of a decoder."""

    by_class: dict[str, list[float]]
    """DSC, HD95 and ASSD (um), by the class's id."""
    seconds: float
    """That it took to embed, to learn and to map."""


def kept_scores(path: Path, ground: Ground, embed: EmbedSettings, kind: str) -> Kept:
    """What `found_by` gives, from a file of results where it is there; else it is kept in it."""
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    name = f"{ground.brain_id}, {embed.encoder}, decoder from {kind}"
    if name not in known:
        started = time.perf_counter()
        found = found_by(ground, embed, kind)
        by_class = {str(one): list(scores) for one, scores in found.items()}
        known[name] = Kept(by_class, time.perf_counter() - started)._asdict()
        path.write_text(json.dumps(known, indent=1))
    return Kept(**known[name])


def strokes_on(ground: Ground) -> DrawnLabels:
    """Five strokes a class in the first window."""
    here = ground.sections[0]
    by = Drawer(here.section_id, "simulated", now())
    strokes = [
        by.line(one.label, here.on_section(one.path_px), PEN_PX)
        for one in Annotator(here.truth, 0).strokes(None, STROKES)
    ]
    return DrawnLabels.of(strokes, image_grid(ground, here), None)


def image_grid(ground: Ground, section: Drawable) -> Grid:
    """Where the pixels of a section lie."""
    brain = read_only(ground.store_path, ground.brain_id)
    return SECTION.open(Place(brain, brain.rows[section.section_id])).grid


def found_by(ground: Ground, embed: EmbedSettings, kind: str) -> dict[int, tuple[float, float, float]]:
    """Scores of the decoder in the second window, having learned from the first."""
    here, other = ground.sections
    with open_brain(ground.store_path, ground.brain_id) as brain:
        step = EmbeddingsStep.of(embed, brain)
        make_sections([step], brain)
    encoder, channels = step.encoder.encoder, here.pixels.shape[-1]
    token_px = encoder.tiles.token_px
    card = HeadCard(
        kind="decoder", target="layers", classes=classes_of(ground).classes(by_group=False),
        dims=encoder.dims(channels), cells_per_token=cells_per_token("decoder", token_px), embedding=step.embed,
        encoder_digest=encoder.digest, token_px=token_px, pixel_size_um=step.pixel_size_um,
    )  # fmt: skip
    window = image_grid(ground, here).window(*here.window)
    labels = strokes_on(ground) if kind == "strokes" else TruthLabels(here.truth, window)
    head, _ = train_head(card, DecoderSettings(target="layers"), [labelled(ground, step, here, labels)])
    seen_on = image_grid(ground, other).window(*other.window)
    unseen = labelled(ground, step, other, TruthLabels(other.truth, seen_on))
    cells = unseen.embeddings.layers[0].grid.split(card.cells_per_token)
    bands = [band for _, band in predict_bands(head, unseen.embeddings)]
    ids = np.array([one.ids[0] for one in card.classes])
    found = ids[np.concatenate(bands, axis=1).argmax(axis=0)]
    return measured(other.truth, found[np.ix_(*seen_on.nearest_in(cells))], seen_on.cell_um)
