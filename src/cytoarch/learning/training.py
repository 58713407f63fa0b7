"""From the labelled sections of a brain to a head with its scores on sections it has not seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.brains import LabelClass
from cytoarch.embeddings import SectionEmbeddings
from cytoarch.errors import TrainingError
from cytoarch.images.views import Level
from cytoarch.learning.decoder import Crops, fit_decoder
from cytoarch.learning.heads import Head, HeadCard, predict_bands
from cytoarch.learning.probes import fit_probe
from cytoarch.learning.splits import Split
from cytoarch.learning.targets import UNLABELLED, targets_on_grid
from cytoarch.measures.overlap import accuracy, class_scores, confusion_matrix, macro_f1, top_k_hits
from cytoarch.progress import Progress
from cytoarch.tiling import partition

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

CELL_PX = 4
"""Edge of a decoder's output cell in working pixels (Zhang, Xu and Zhou upsample to this grid)."""
CROP_PX = 512
"""Edge of a training crop in working pixels: one tile of a vision transformer."""
CROP_TOKENS = 32
"""Least edge of a training crop in tokens."""
MAX_CROPS = 256


class TrainSettings(BaseModel):
    """How a head is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: str = Field(
        default="areas", pattern=r"^[a-z][a-z0-9-]{0,15}$", description="What the labels are: areas, layers, ..."
    )
    by_group: bool = Field(default=False, description="Train on the coarser areas in the label table's group column.")
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of sampling, initialisation and order.")


class ProbeSettings(TrainSettings):
    """How a linear probe is trained."""

    tokens_per_class: int = Field(default=400, ge=10, le=100_000, description="Most tokens of a class per section.")
    regularisation: float = Field(default=1.0, gt=0, le=1e6, description="Strength of the L2 penalty (1/C).")


class DecoderSettings(TrainSettings):
    """How a fusion decoder is trained."""

    width: int = Field(default=64, ge=8, le=512, description="Channels of a branch and of the hidden layer.")
    epochs: int = Field(default=50, ge=1, le=1000, description="Passes over the crops; 15 suit scribbles.")
    batch_size: int = Field(default=16, ge=1, le=256, description="Crops in a step.")
    learning_rate: float = Field(default=5e-4, gt=0, le=1, description="Rate of AdamW, constant.")
    weight_decay: float = Field(default=1e-4, ge=0, le=1, description="Decay of AdamW, on all parameters.")


@dataclass(frozen=True)
class LabelledSection:
    """One section to learn from or to be scored on."""

    section_id: str
    embeddings: SectionEmbeddings
    labels: Level
    tissue: TissueMask

    def targets(self, classes: Sequence[LabelClass], cells_per_token: int) -> Int64:
        """Class per output cell (y, x); those without tissue or embedding are unlabelled."""
        grid = self.embeddings.layers[0].grid.split(cells_per_token)
        targets = targets_on_grid(self.labels, classes, grid)
        computed = np.repeat(np.repeat(self.embeddings.computed(), cells_per_token, 0), cells_per_token, 1)
        return np.where(self.tissue.on_grid(grid) & computed, targets, UNLABELLED)


@dataclass(frozen=True)
class Score:
    """Scores over some sections; confusion (k, k) counts cells, true class by row."""

    sections: tuple[str, ...]
    confusion: Int64
    top3: float

    def metrics(self) -> dict[str, float]:
        """The figures that stand for the score."""
        return {"macro_f1": macro_f1(self.confusion), "top1": accuracy(self.confusion), "top3": self.top3}

    def as_facts(self, classes: Sequence[LabelClass]) -> dict[str, Any]:
        """The score as JSON values, with a row per class."""
        per_class = class_scores(self.confusion)
        rows = [
            {
                "name": one.name,
                "support": int(per_class.support[i]),
                **{
                    name: None if np.isnan(values[i]) else round(float(values[i]), 6)
                    for name, values in (
                        ("precision", per_class.precision),
                        ("recall", per_class.recall),
                        ("f1", per_class.f1),
                    )
                },
            }
            for i, one in enumerate(classes)
        ]
        metrics = {name: None if np.isnan(value) else value for name, value in self.metrics().items()}
        return {"sections": list(self.sections), **metrics, "classes": rows, "confusion": self.confusion.tolist()}


Kind = Literal["probe", "decoder"]


def cells_per_token(kind: Kind, token_px: int) -> int:
    """Output cells along a token: a probe's is the token itself, a decoder's is 4 px, or the next that divides it.

    >>> [cells_per_token("decoder", token_px) for token_px in (4, 14, 16, 64)]
    [1, 2, 4, 16]
    """
    if kind == "probe":
        return 1
    return next(cells for cells in range(max(1, token_px // CELL_PX), 0, -1) if token_px % cells == 0)


def train_head(
    card: HeadCard,
    settings: ProbeSettings | DecoderSettings,
    sections: Sequence[LabelledSection],
    on_progress: Progress | None = None,
) -> tuple[Head, dict[str, Any]]:
    """Train a head on all of `sections`; returns it and facts about the training.

    Raises TrainingError if fewer than two classes have labels in tissue there.
    """
    if isinstance(settings, ProbeSettings):
        embeddings, targets = sample_tokens(sections, card.classes, settings.tokens_per_class, settings.seed)
        _check_classes(targets, card.classes, sections)
        probe, fit = fit_probe(card, embeddings, targets, settings.regularisation)
        return probe, {"tokens": len(targets), **fit}
    crops = cut_crops(sections, card, settings.seed)
    _check_classes(crops.targets, card.classes, sections)
    decoder, history = fit_decoder(
        card,
        crops,
        width=settings.width,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        seed=settings.seed,
        on_progress=on_progress,
    )
    return decoder, {"crops": len(crops.targets), **history}


def score_head(head: Head, sections: Sequence[LabelledSection]) -> Score:
    """Score a head on the labelled cells of sections, from their stored embeddings."""
    classes = head.card.classes
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    hits = cells = 0
    for section in sections:
        targets = section.targets(classes, head.card.cells_per_token)
        for row, band in predict_bands(head, section.embeddings):
            truth = targets[row : row + band.shape[1]]
            labelled = truth != UNLABELLED
            p = band[:, labelled].T
            confusion += confusion_matrix(truth[labelled], p.argmax(axis=1), len(classes))
            hits += top_k_hits(p, truth[labelled], 3)
            cells += len(p)
    return Score(tuple(s.section_id for s in sections), confusion, hits / cells if cells else float("nan"))


def score_split(head: Head, sections: Sequence[LabelledSection], split: Split) -> dict[str, Score]:
    """Scores on every fifth section, on the block, and on both together, where the split holds any out."""
    by_id = {section.section_id: section for section in sections}
    parts = {"fifth": split.fifth, "block": split.block}
    scores = {name: score_head(head, [by_id[one] for one in ids]) for name, ids in parts.items() if ids}
    if scores:
        total = np.sum([score.confusion for score in scores.values()], axis=0)
        weights = [int(score.confusion.sum()) for score in scores.values()]
        known = [(score.top3, weight) for score, weight in zip(scores.values(), weights, strict=True) if weight]
        top3 = sum(value * weight for value, weight in known) / sum(weights) if known else float("nan")
        scores["held_out"] = Score(split.held_out, total, top3)
    return scores


def sample_tokens(
    sections: Sequence[LabelledSection], classes: Sequence[LabelClass], per_class: int, seed: int
) -> tuple[Float32, Int64]:
    """Labelled tokens (n, c) and their classes (n,): at most `per_class` of each class from each section."""
    found: list[Float32] = []
    found_targets: list[Int64] = []
    for index, section in enumerate(sections):
        rng = np.random.default_rng([seed, index])
        targets = section.targets(classes, 1)
        chosen = np.zeros(targets.shape, dtype=bool)
        for one in range(len(classes)):
            at = np.flatnonzero(targets == one)
            chosen.flat[rng.permutation(at)[:per_class]] = True
        for y, x, height, width in partition(targets.shape[0], targets.shape[1], section.embeddings.chunk):
            inside = chosen[y : y + height, x : x + width]
            if inside.any():
                found.append(section.embeddings.read(y, x, height, width)[:, inside].T)
                found_targets.append(targets[y : y + height, x : x + width][inside])
    if not found:
        return np.zeros((0, 0), dtype=np.float32), np.zeros(0, dtype=np.int64)
    return np.concatenate(found), np.concatenate(found_targets)


def cut_crops(sections: Sequence[LabelledSection], card: HeadCard, seed: int) -> Crops:
    """Squares of one encoder tile that hold labels, at most 256, each padded with unlabelled cells at the border."""
    edge = max(CROP_TOKENS, CROP_PX // card.token_px)
    places = []
    for index, section in enumerate(sections):
        targets = section.targets(card.classes, card.cells_per_token)
        u = card.cells_per_token
        for y, x, height, width in partition(*section.embeddings.grid, edge):
            labelled = targets[y * u : (y + height) * u, x * u : (x + width) * u]
            if (labelled != UNLABELLED).any():
                places.append((index, y, x, labelled))
    kept = np.sort(np.random.default_rng(seed).permutation(len(places))[:MAX_CROPS])
    u = card.cells_per_token
    crops = np.zeros((len(kept), sum(card.dims), edge, edge), dtype=np.float16)
    crop_targets = np.full((len(kept), edge * u, edge * u), UNLABELLED, dtype=np.int64)
    for place, (index, y, x, labelled) in enumerate(places[one] for one in kept):
        height, width = labelled.shape[0] // u, labelled.shape[1] // u
        crops[place, :, :height, :width] = sections[index].embeddings.read(y, x, height, width)
        crop_targets[place, : height * u, : width * u] = labelled
    return Crops(crops, crop_targets)


def _check_classes(targets: Int64, classes: Sequence[LabelClass], sections: Sequence[LabelledSection]) -> None:
    present = sorted({int(one) for one in np.unique(targets)} - {UNLABELLED})
    if len(present) < 2:
        names = ", ".join(classes[one].name for one in present) or "none"
        raise TrainingError(
            f"the {len(sections)} sections to learn from hold labels of {len(present)} class(es) inside tissue "
            f"({names}); at least two are needed. Label more sections, or check that the ids in the label images "
            "are those of the label table"
        )
