"""How few labels are enough: a linear probe learned from shares of the labelled patches, scored on sections held out.

After Schiffer et al.: 1, 5, 10, 20 and 100 % of the patches, each in folds. A fold is fitted without a fifth of its
patches. Shares are nested: what 1 % holds is in 5 %. An encoder that is worth its place does well with little.
"""

import math
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cytoarch.errors import TrainingError
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.datasets import Crops, LabelledSection, cut_crops
from cytoarch.learning.probes import fit_probe
from cytoarch.learning.targets import UNLABELLED
from cytoarch.measures.overlap import confusion_matrix, macro_f1
from cytoarch.progress import Progress
from cytoarch.settings import Settings

Int64 = NDArray[np.int64]
Tokens = tuple[NDArray[np.float32], Int64]
"""Embeddings (n, c) and classes (n,)."""


class ShareSettings(Settings):
    """Which shares of the labels are learned from."""

    percent: tuple[Annotated[float, Field(gt=0, le=100)], ...] = Field(
        default=(1.0, 5.0, 10.0, 20.0, 100.0), min_length=1, max_length=20, description="Shares of the patches (%)."
    )
    folds: int = Field(default=5, ge=2, le=50, description="Fits of each share, each without another part of it.")
    patch_tokens: int = Field(default=16, ge=1, le=256, description="Edge of a patch, in tokens.")
    regularisation: float = Field(default=1.0, gt=0, le=1e6, description="scikit-learn's 1/C.")
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Of the order in which patches are taken.")


class ShareScore(NamedTuple):
    """The score of one share."""

    percent: float
    patches: int
    fits: int
    """Folds that had two classes to learn; others are left out."""
    macro_f1: float
    """Mean over fits, of the sections held out; NaN if there was no fit."""
    macro_f1_sd: float


def share_scores(
    card: HeadCard,
    learned: Sequence[LabelledSection],
    held_out: Sequence[LabelledSection],
    settings: ShareSettings,
    on_progress: Progress,
) -> list[ShareScore]:
    """A score for each share, of squares cut from the sections learned from.

    Squares are at most those that `cut_crops` keeps. Raises TrainingError if there are no labels on either side.
    """
    train, test = (cut_crops(some, card, settings.seed, settings.patch_tokens) for some in (learned, held_out))
    for crops, what in ((train, "to learn from"), (test, "held out")):
        if not len(crops.embeddings):
            raise TrainingError(f"the sections {what} hold no labels inside tissue; label sections all over the brain")
    order = np.random.default_rng([settings.seed, 5]).permutation(len(train.embeddings))
    asked = _tokens(test, np.arange(len(test.embeddings)))
    found = []
    for number, percent in enumerate(sorted(settings.percent), start=1):
        chosen = order[: max(1, math.ceil(percent / 100 * len(order)))]
        scores = [
            score
            for kept in _folds(chosen, settings.folds)
            if (score := _fitted(card, _tokens(train, kept), asked, settings.regularisation)) is not None
        ]
        mean, deviation = (float(np.mean(scores)), float(np.std(scores))) if scores else (math.nan, math.nan)
        found.append(ShareScore(percent, len(chosen), len(scores), mean, deviation))
        on_progress(number, len(settings.percent))
    return found


def _folds(chosen: Int64, folds: int) -> list[Int64]:
    """The patches without each part of them in turn; a single patch is not divided."""
    if len(chosen) < 2:
        return [chosen]
    return [np.setdiff1d(chosen, part) for part in np.array_split(chosen, min(folds, len(chosen)))]


def _tokens(crops: Crops, chosen: Int64) -> Tokens:
    """The labelled tokens of some patches."""
    values = np.moveaxis(crops.embeddings[chosen], 1, -1)
    targets = crops.targets[chosen].astype(np.int64)
    known = targets != UNLABELLED
    return values[known].astype(np.float32), targets[known]


def _fitted(card: HeadCard, learned: Tokens, asked: Tokens, regularisation: float) -> float | None:
    """Macro-F1 of a probe; None where there is one class to learn at most."""
    if len(np.unique(learned[1])) < 2:
        return None
    probe, _ = fit_probe(card, *learned, regularisation)
    told = (asked[0] @ probe.weight.T + probe.bias).argmax(axis=1)
    return macro_f1(confusion_matrix(asked[1], told, len(card.classes)))
