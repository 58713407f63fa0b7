"""How good a head is on sections it has not seen: scores over labelled cells."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoarch.brains import LabelClass
from cytoarch.learning.application import predict_bands
from cytoarch.learning.datasets import LabelledSection
from cytoarch.learning.heads import Head
from cytoarch.learning.splits import Split
from cytoarch.learning.targets import UNLABELLED
from cytoarch.measures.class_boundaries import ClassBoundaries, MapPair, joined_boundaries
from cytoarch.measures.neighbours import Pairs, together
from cytoarch.measures.overlap import (
    accuracy,
    class_scores,
    confusion_matrix,
    macro_f1,
    mean_of_defined,
    top_k_hits,
)
from cytoarch.sampling import OnDemand, reading
from cytoarch.tiling import partition

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

SCORE_BYTES = 128 << 20
"""Probabilities that are compared with their targets at once take at most so much, copies included."""
FIGURES = (
    "macro_f1", "top1", "top3", "iou", "dsc_by_image", "hd95_um", "assd_um", "hd95_by_image_um", "assd_by_image_um",
)  # fmt: skip
"""The names of the figures of a score, the same everywhere."""
_COPIES = 4
"""A cell's probabilities are picked out, compared three times and its target looked up: at most four times 4 bytes."""


@dataclass(frozen=True)
class Score:
    """Scores over some sections; confusion (k, k) counts cells, true class by row."""

    sections: tuple[str, ...]
    confusion: Int64
    top3: float
    dice: tuple[Float64, ...] = ()
    """(k,) of every section on its own; NaN of a class that is neither there nor found."""
    boundaries: Mapping[int, ClassBoundaries] = field(default_factory=dict)
    """By class that is in any section."""
    touches: Pairs = field(default_factory=dict)
    """How often each two classes are truly neighbours."""

    @classmethod
    def joined(cls, scores: Sequence["Score"]) -> "Score":
        """That over the sections of several scores, at least one, of the same classes."""
        weights = [int(score.confusion.sum()) for score in scores]
        known = [score.top3 * weight for score, weight in zip(scores, weights, strict=True) if weight]
        return cls(
            tuple(one for score in scores for one in score.sections),
            np.sum([score.confusion for score in scores], axis=0),
            sum(known) / sum(weights) if known else float("nan"),
            tuple(one for score in scores for one in score.dice),
            joined_boundaries(score.boundaries for score in scores),
            together(score.touches for score in scores),
        )

    def metrics(self) -> dict[str, float]:
        """The figures that stand for the score: over all cells, and over the boundaries of classes."""
        return {
            "macro_f1": macro_f1(self.confusion),
            "top1": accuracy(self.confusion),
            "top3": self.top3,
            **map_figures(class_scores(self.confusion).iou, self.dice, self.boundaries),
        }

    def as_facts(self, classes: Sequence[LabelClass]) -> dict[str, Any]:
        """The score as JSON values, with a row per class."""
        rows = class_figures(classes, self.confusion, self.boundaries)
        metrics = {name: None if np.isnan(value) else value for name, value in self.metrics().items()}
        return {"sections": list(self.sections), **metrics, "classes": rows, "confusion": self.confusion.tolist()}


def map_figures(iou: Float64, dice: Iterable[Float64], boundaries: Mapping[int, ClassBoundaries]) -> dict[str, float]:
    """IoU over all cells, DSC by image, HD95 and ASSD (um) over all images and by image: each the mean over classes.

    What is undefined for a class (in one image) is left out of the mean.
    """
    by_image = [mean_of_defined(one) for one in dice]

    def over(values: Iterable[float]) -> float:
        return mean_of_defined(np.array(list(values), dtype=np.float64))

    found = boundaries.values()
    return {
        "iou": mean_of_defined(iou),
        "dsc_by_image": over(by_image),
        "hd95_um": over(one.pooled_hd95_um for one in found),
        "assd_um": over(one.pooled_assd_um for one in found),
        "hd95_by_image_um": over(over(one.hd95_um) for one in found),
        "assd_by_image_um": over(over(one.assd_um) for one in found),
    }


def class_figures(
    classes: Sequence[LabelClass], confusion: Int64, boundaries: Mapping[int, ClassBoundaries], first: int = 0
) -> list[dict[str, Any]]:
    """A row per class as JSON values; what is undefined is None.

    `first` is the place of the first class in the confusion (1: "outside tissue" comes before it). `missing` counts the
    images where the class is only in one of the two, so that no distance is defined.
    """
    found = class_scores(confusion)
    rows = []
    for i, one in enumerate(classes):
        far = boundaries.get(i, ClassBoundaries())
        figures = {
            "precision": found.precision[first + i],
            "recall": found.recall[first + i],
            "f1": found.f1[first + i],
            "iou": found.iou[first + i],
            "hd95_um": far.pooled_hd95_um,
            "assd_um": far.pooled_assd_um,
        }
        shown = {name: None if np.isnan(value) else round(float(value), 6) for name, value in figures.items()}
        rows.append({"name": one.name, "support": int(found.support[first + i]), **shown, "missing": far.missing})
    return rows


def score_head(head: Head, sections: Sequence[LabelledSection]) -> Score:
    """Score a head on the labelled cells of sections, from their stored embeddings.

    Beside a band of probabilities at most `SCORE_BYTES` are held. Raises UnreadableSectionError if one is damaged.
    """
    count = len(head.card.classes)
    found = [Score((), np.zeros((count, count), dtype=np.int64), float("nan"))]
    for section in sections:
        with reading(section.section_id):
            found.append(_score_section(head, section))
    return Score.joined(found)


def _score_section(head: Head, section: LabelledSection) -> Score:
    """The score of one section."""
    classes, u = head.card.classes, head.card.cells_per_token
    edge = max(1, int((SCORE_BYTES / (4 * _COPIES * len(classes))) ** 0.5) // u)
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    hits = 0
    height, width = section.embeddings.grid
    pair = MapPair.blank(height * u, width * u)
    for row, band in predict_bands(head, section.embeddings):
        for y, x, height, width in partition(band.shape[1] // u, band.shape[2] // u, edge):
            truth = section.targets(classes, u, (row // u + y, x, height, width))
            labelled = truth != UNLABELLED
            if not labelled.any():
                continue
            window = band[:, y * u : (y + height) * u, x * u : (x + width) * u]
            pair.put(row + y * u, x * u, truth, window.argmax(axis=0))
            p = window[:, labelled].T
            confusion += confusion_matrix(truth[labelled], p.argmax(axis=1), len(classes))
            hits += top_k_hits(p, truth[labelled], 3)
    cells = int(confusion.sum())
    return Score(
        (section.section_id,),
        confusion,
        hits / cells if cells else float("nan"),
        (class_scores(confusion).f1,) if cells else (),
        pair.boundaries(section.embeddings.token_um / u),
        pair.touches(),
    )


def score_split(head: Head, sections: Sequence[LabelledSection], split: Split) -> dict[str, Score]:
    """Scores on every fifth section, on the block, and on both together, where the split holds any out."""
    place = {section.section_id: index for index, section in enumerate(sections)}
    parts = {"fifth": split.fifth, "block": split.block}
    chosen = {name: _chosen(sections, [place[one] for one in ids]) for name, ids in parts.items() if ids}
    scores = {name: score_head(head, held_out) for name, held_out in chosen.items()}
    if scores:
        scores["held_out"] = Score.joined(list(scores.values()))
    return scores


def _chosen(sections: Sequence[LabelledSection], places: Sequence[int]) -> Sequence[LabelledSection]:
    return OnDemand(len(places), lambda index: sections[places[index]])
