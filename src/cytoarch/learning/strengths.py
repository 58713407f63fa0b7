"""How strongly a probe is held small: told by parts of what it learns from, each by a fit to the others.

Parts are whole brains, where tokens are of several, else stretches of sections that follow each other. Of strengths
that are about as good the greatest is taken: what is held small says less of how these very brains were stained.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cytoarch.learning.cards import HeadCard
from cytoarch.learning.probes import Probe, fit_probe
from cytoarch.measures.overlap import confusion_matrix, macro_f1

Int64 = NDArray[np.int64]

STRENGTHS = (1.0, 10.0, 100.0, 1e3, 1e4)
"""Strengths of the penalty that are tried, for `TOKENS` tokens."""
DEFAULT_STRENGTH = 1.0
"""Where there is nothing to choose by."""
TOKENS = 6000
"""Tokens that are tried on, at most, evenly chosen; the penalty grows with their number."""
FOLDS = 4
"""Parts, at most."""
ABOUT = 0.01
"""Macro-F1 by which strengths may miss the best."""


class Strength(NamedTuple):
    """The strength that was chosen, and what each gave on the parts left out."""

    regularisation: float
    macro_f1: tuple[tuple[float, float], ...]

    def facts(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "regularisation": self.regularisation,
            "strengths": [[strength, round(score, 6)] for strength, score in self.macro_f1],
        }


def choose_strength(
    card: HeadCard, tokens: NDArray[Any], strata: Int64, sections: Int64, groups: Sequence[int] = ()
) -> Strength | None:
    """The strength for tokens (n, c) of classes (n,) from sections (n,), numbered in cutting order.

    `groups` says how many of these sections, one after the other, are of each brain; none: all are of one. None: there
    is one section only, so that nothing can be left out.
    """
    chosen = np.unique(np.linspace(0, len(tokens) - 1, min(len(tokens), TOKENS)).round().astype(np.int64))
    folds = folds_of(sections, groups)[chosen]
    count = len(card.classes)
    confusions = {strength: np.zeros((count, count), dtype=np.int64) for strength in STRENGTHS}
    for fold in np.unique(folds) if len(np.unique(folds)) > 1 else ():
        learned, asked = chosen[folds != fold], chosen[folds == fold]
        if len(np.unique(strata[learned])) < 2:
            continue
        for strength, counts in confusions.items():
            probe, _ = fit_probe(card, tokens[learned], strata[learned], strength * len(learned) / TOKENS)
            np.add(counts, confusion_matrix(strata[asked], _told(probe, tokens[asked]), count), out=counts)
    scores = {strength: macro_f1(counts) for strength, counts in confusions.items() if counts.any()}
    return _chosen(scores, len(tokens)) if scores else None


def folds_of(sections: Int64, groups: Sequence[int] = ()) -> Int64:
    """The part (n,) that each token's section belongs to: its brain, of one brain its stretch; at most `FOLDS`.

    >>> folds_of(np.array([0, 1, 2, 3, 4])), folds_of(np.array([0, 1, 2]), (1, 2))
    (array([0, 0, 1, 2, 3]), array([0, 1, 1]))
    """
    if len(groups) > 1:
        units = np.repeat(np.arange(len(groups)), groups)[sections]
    else:
        units = np.unique(sections, return_inverse=True)[1]
    parts = np.array_split(np.arange(int(units.max(initial=-1)) + 1), FOLDS)
    number = np.repeat(np.arange(FOLDS), [len(one) for one in parts])
    return np.asarray(number[units], dtype=np.int64)


def _told(probe: Probe, tokens: NDArray[Any]) -> Int64:
    """The likeliest classes (n,) of tokens (n, c)."""
    found = probe.probabilities(np.asarray(tokens, dtype=np.float32).T[None, :, :, None])
    return np.asarray(found[0, :, :, 0].argmax(axis=0), dtype=np.int64)


def _chosen(scores: Mapping[float, float], tokens: int) -> Strength:
    """The greatest strength that is about as good as the best, for so many tokens."""
    best = max(scores.values())
    strength = max(one for one, score in scores.items() if score >= best - ABOUT)
    return Strength(strength * tokens / TOKENS, tuple(scores.items()))
