"""How good a head is on sections it has not seen: scores over labelled cells."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoarch.brains import LabelClass
from cytoarch.learning.application import predict_bands
from cytoarch.learning.datasets import LabelledSection
from cytoarch.learning.heads import Head
from cytoarch.learning.splits import Split
from cytoarch.learning.targets import UNLABELLED
from cytoarch.measures.overlap import accuracy, class_scores, confusion_matrix, macro_f1, top_k_hits
from cytoarch.sampling import OnDemand, reading
from cytoarch.tiling import partition

Int64 = NDArray[np.int64]

SCORE_BYTES = 128 << 20
"""Probabilities that are compared with their targets at once take at most so much, copies included."""
_COPIES = 4
"""A cell's probabilities are picked out, compared three times and its target looked up: at most four times 4 bytes."""


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


def score_head(head: Head, sections: Sequence[LabelledSection]) -> Score:
    """Score a head on the labelled cells of sections, from their stored embeddings.

    Beside a band of probabilities at most `SCORE_BYTES` are held. Raises UnreadableSectionError if one is damaged.
    """
    count = len(head.card.classes)
    confusion = np.zeros((count, count), dtype=np.int64)
    hits = 0
    names: list[str] = []
    for section in sections:
        with reading(section.section_id):
            found, ahead = _score_section(head, section)
        confusion, hits = confusion + found, hits + ahead
        names.append(section.section_id)
    cells = int(confusion.sum())
    return Score(tuple(names), confusion, hits / cells if cells else float("nan"))


def _score_section(head: Head, section: LabelledSection) -> tuple[Int64, int]:
    """Confusion (k, k) of a section, and in how many cells the truth is among the three most probable classes."""
    classes, u = head.card.classes, head.card.cells_per_token
    edge = max(1, int((SCORE_BYTES / (4 * _COPIES * len(classes))) ** 0.5) // u)
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    hits = 0
    for row, band in predict_bands(head, section.embeddings):
        for y, x, height, width in partition(band.shape[1] // u, band.shape[2] // u, edge):
            truth = section.targets(classes, u, (row // u + y, x, height, width))
            labelled = truth != UNLABELLED
            if not labelled.any():
                continue
            p = band[:, y * u : (y + height) * u, x * u : (x + width) * u][:, labelled].T
            confusion += confusion_matrix(truth[labelled], p.argmax(axis=1), len(classes))
            hits += top_k_hits(p, truth[labelled], 3)
    return confusion, hits


def score_split(head: Head, sections: Sequence[LabelledSection], split: Split) -> dict[str, Score]:
    """Scores on every fifth section, on the block, and on both together, where the split holds any out."""
    place = {section.section_id: index for index, section in enumerate(sections)}
    parts = {"fifth": split.fifth, "block": split.block}
    chosen = {name: _chosen(sections, [place[one] for one in ids]) for name, ids in parts.items() if ids}
    scores = {name: score_head(head, held_out) for name, held_out in chosen.items()}
    if scores:
        total = np.sum([score.confusion for score in scores.values()], axis=0)
        weights = [int(score.confusion.sum()) for score in scores.values()]
        known = [(score.top3, weight) for score, weight in zip(scores.values(), weights, strict=True) if weight]
        top3 = sum(value * weight for value, weight in known) / sum(weights) if known else float("nan")
        scores["held_out"] = Score(split.held_out, total, top3)
    return scores


def _chosen(sections: Sequence[LabelledSection], places: Sequence[int]) -> Sequence[LabelledSection]:
    return OnDemand(len(places), lambda index: sections[places[index]])
