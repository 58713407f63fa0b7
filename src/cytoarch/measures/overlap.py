"""Scores of predicted against known classes, all from one confusion matrix."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]


def confusion_matrix(truth: Int64, predicted: Int64, classes: int) -> Int64:
    """Counts (k, k), true class by row, predicted class by column; both given as indices (n,).

    >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    return np.bincount(truth * classes + predicted, minlength=classes**2).reshape(classes, classes)


@dataclass(frozen=True)
class ClassScores:
    """Scores per class (k,), NaN where they are undefined: a class neither present nor predicted has none."""

    support: Int64
    precision: Float64
    recall: Float64
    f1: Float64
    """Also called Dice, DSC."""
    iou: Float64


def class_scores(confusion: Int64) -> ClassScores:
    """Precision, recall, F1 (= Dice) and intersection over union (= Jaccard) of every class."""
    hits = np.diag(confusion).astype(np.float64)
    present, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    with np.errstate(invalid="ignore"):
        either = present + predicted
        return ClassScores(present, hits / predicted, hits / present, 2 * hits / either, hits / (either - hits))


def macro_f1(confusion: Int64) -> float:
    """Mean F1 over the classes that are present or predicted (scikit-learn's convention); NaN if there is none.

    >>> round(macro_f1(np.array([[2, 0, 0], [0, 1, 1], [0, 0, 0]])), 4)
    0.5556
    """
    return mean_of_defined(class_scores(confusion).f1)


def map_macro_f1(confusion: Int64) -> float:
    """Macro-F1 of a label map, from its confusion (k + 1, k + 1) with "outside tissue" first; NaN if there is none.

    A labelled cell that is drawn as outside tissue is missed by its class, but "outside" is no class of its own.

    >>> round(map_macro_f1(np.array([[0, 0, 0], [1, 2, 0], [0, 0, 3]])), 4)
    0.9
    """
    return mean_of_defined(class_scores(confusion).f1[1:])


def mean_of_defined(scores: Float64) -> float:
    """The mean of those figures that are defined; NaN if none is."""
    return float(np.nanmean(scores)) if np.isfinite(scores).any() else float("nan")


def accuracy(confusion: Int64) -> float:
    """Share of correct predictions; NaN if there are none."""
    total = int(confusion.sum())
    return float(np.trace(confusion) / total) if total else float("nan")


def top_k_hits(probabilities: NDArray[np.float32], truth: Int64, k: int) -> int:
    """How many of n samples have their true class among the k most probable; probabilities (n, classes).

    Of equally probable classes the first counts as more probable, as it does for argmax.
    """
    own = np.take_along_axis(probabilities, truth[:, None], axis=1)
    first = np.arange(probabilities.shape[1]) < truth[:, None]
    ahead = (probabilities > own) | ((probabilities == own) & first)
    return int((ahead.sum(axis=1) < k).sum())


def purity(contingency: Int64) -> float:
    """Mean over clusters of the share of their most frequent label (Schiffer et al.); counts (clusters, labels).

    Every cluster counts alike, however large; empty ones are left out. NaN if all are.

    >>> purity(np.array([[8, 0], [1, 1]]))
    0.75
    """
    sizes = contingency.sum(axis=1)
    filled = sizes > 0
    return float((contingency.max(axis=1)[filled] / sizes[filled]).mean()) if filled.any() else float("nan")
