"""What clusters follow: areas, or rather the section, the side, the distance to the tissue's border; their stability.

Clusters are fitted again and again from other starts, as Schiffer et al. did with thirty runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, calinski_harabasz_score

from cytoarch.measures.overlap import purity
from cytoarch.reproducible import single_threaded

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

UNKNOWN = -1
"""Of a token whose label, side or place is not known."""
BORDER_BANDS = 5
"""Bands of equal size that tokens are put in by their distance to the tissue's border."""


class Followed(NamedTuple):
    """How far clusters follow something, over the runs."""

    purity: float
    spread: float
    """Standard deviation over the runs."""
    baseline: float
    """Purity of clusters of the same sizes drawn at random: what follows nothing reaches this."""
    accuracy: float
    """Share of tokens that the best assignment of clusters to values gets right, on average."""
    values: int
    tokens: int

    @property
    def excess(self) -> float:
        """How far it lies between the baseline (0) and pure clusters (1)."""
        return (self.purity - self.baseline) / max(1 - self.baseline, 1e-9)


@dataclass(frozen=True)
class ClusterQuality:
    """How good clusters are, by what is known of their tokens."""

    followed: Mapping[str, Followed]
    calinski_harabasz: float
    stability: Mapping[int, float]
    """By number of clusters: mean adjusted Rand index of fits to resampled tokens, on tokens that both saw."""
    tokens: int
    clusters: int
    runs: int

    def facts(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "followed": {
                name: {**{key: _rounded(value) for key, value in one._asdict().items()}, "excess": _rounded(one.excess)}
                for name, one in self.followed.items()
            },
            "calinski_harabasz": _rounded(self.calinski_harabasz),
            "stability": [[count, _rounded(value)] for count, value in self.stability.items()],
            "tokens": self.tokens,
            "clusters": self.clusters,
            "runs": self.runs,
        }


def judge(
    tokens: Float32, known: Mapping[str, Int64], clusters: int, runs: int, counts: Sequence[int], seed: int
) -> ClusterQuality:
    """Fit `clusters` clusters to tokens (n, c) in so many runs, and compare them with what is known of each token.

    `known` gives a value (n,) for every token under each name, `UNKNOWN` where there is none. Stability is measured for
    every number of clusters in `counts`.
    """
    with single_threaded():
        fits = [_fit(tokens, clusters, seed + run) for run in range(runs)]
    followed = {}
    for name, values in known.items():
        at = values != UNKNOWN
        if len(np.unique(values[at])) > 1:
            followed[name] = follow([one[at] for one in fits], values[at], seed)
    chosen = fits[0]
    score = calinski_harabasz_score(tokens, chosen) if len(np.unique(chosen)) > 1 else float("nan")
    return ClusterQuality(followed, float(score), stability(tokens, counts, seed), len(tokens), clusters, runs)


def follow(fits: Sequence[Int64], values: Int64, seed: int = 0) -> Followed:
    """How far clusters (n,) of several runs follow values (n,).

    >>> follow([np.array([0, 0, 1, 1])], np.array([7, 7, 9, 9]))[:2]
    (1.0, 0.0)
    """
    _, index = np.unique(values, return_inverse=True)
    rng = np.random.default_rng(seed)
    tables = [contingency(one, index) for one in fits]
    shuffled = [contingency(one, rng.permutation(index)) for one in fits]
    purities = [purity(one) for one in tables]
    accuracies = [matched_accuracy(one) for one in tables]
    baseline = np.mean([purity(one) for one in shuffled])
    return Followed(
        float(np.mean(purities)), float(np.std(purities)), float(baseline), float(np.mean(accuracies)),
        int(index.max()) + 1, len(values),
    )  # fmt: skip


def contingency(clusters: Int64, values: Int64) -> Int64:
    """Counts (clusters, values) of tokens, both given as indices (n,)."""
    width = int(values.max(initial=0)) + 1
    height = int(clusters.max(initial=0)) + 1
    return np.bincount(clusters * width + values, minlength=height * width).reshape(height, width)


def matched_accuracy(table: Int64) -> float:
    """Share of tokens that are right once every cluster stands for at most one value and no two for the same.

    The best such assignment is found by the Hungarian method (Kuhn, 1955).

    >>> matched_accuracy(np.array([[1, 9], [8, 2]]))
    0.85
    """
    rows, columns = linear_sum_assignment(-table)
    return float(table[rows, columns].sum() / table.sum()) if table.sum() else float("nan")


def stability(tokens: Float32, counts: Sequence[int], seed: int, pairs: int = 3) -> dict[int, float]:
    """How alike clusters of two random halves of the tokens are, by number of clusters (after Ben-Hur et al., 2002).

    Both halves' clusters are drawn on all tokens and compared by the adjusted Rand index: 1 where they agree.
    """
    found = {}
    rng = np.random.default_rng(seed)
    for count in counts:
        if len(tokens) < 2 * count:
            continue
        scores = []
        for pair in range(pairs):
            order = rng.permutation(len(tokens))
            halves = order[: len(order) // 2], order[len(order) // 2 :]
            with single_threaded():
                drawn = [
                    KMeans(count, n_init=1, random_state=seed + pair).fit(tokens[half]).predict(tokens)
                    for half in halves
                ]
            scores.append(adjusted_rand_score(*drawn))
        found[count] = float(np.mean(scores))
    return found


def bands(distances: NDArray[np.floating[Any]], count: int = BORDER_BANDS) -> Int64:
    """The band (n,) that each distance falls in, of so many bands with equally many tokens.

    >>> bands(np.array([4.0, 1.0, 3.0, 2.0]), 2).tolist()
    [1, 0, 1, 0]
    """
    order = np.argsort(np.argsort(distances, kind="stable"), kind="stable")
    return np.asarray(order * count // max(1, len(distances)), dtype=np.int64)


def _fit(tokens: Float32, clusters: int, seed: int) -> Int64:
    return np.asarray(KMeans(clusters, n_init=1, random_state=seed).fit(tokens).labels_, dtype=np.int64)


def _rounded(value: float) -> float | None:
    return None if not np.isfinite(value) else round(float(value), 5)
