"""Nearest neighbours of tokens by their embeddings: whether they share an area, or rather the section and the stain."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cytoarch.discovery.known import KnownTokens
from cytoarch.discovery.quality import UNKNOWN

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

ROWS = 1024
"""Tokens that are compared with all others at once."""
NO_TOKEN = -1
"""In place of a neighbour where none could have been."""


class Shared(NamedTuple):
    """How many of the nearest neighbours share a value with the token they are near to."""

    share: float
    chance: float
    """Of tokens that could have been neighbours, drawn at random."""
    values: int

    @property
    def excess(self) -> float:
        """Between chance (0) and all (1)."""
        return (self.share - self.chance) / max(1 - self.chance, 1e-9)


def nearest(tokens: Float32, known: KnownTokens, count: int, apart_um: float) -> tuple[Int64, dict[str, Shared]]:
    """The `count` most alike tokens (n, count) of each by cosine, the most alike first, and what they share.

    `tokens` (n, c) are those of `known`, standardised. Tokens of the same section nearer than `apart_um` are no
    neighbours: their patches overlap. Where fewer than `count` could have been, the rest of the row is `NO_TOKEN`.
    Chance is counted over the same tokens that could have been.
    """
    units = tokens / np.maximum(np.linalg.norm(tokens, axis=1, keepdims=True), 1e-12)
    values = {name: one for name, one in known.values().items() if len(np.unique(one[one != UNKNOWN])) > 1}
    found = np.empty((len(tokens), min(count, max(1, len(tokens) - 1))), dtype=np.int64)
    tallies = {name: np.zeros(4) for name in values}
    for start in range(0, len(tokens), ROWS):
        rows = np.arange(start, min(start + ROWS, len(tokens)))
        possible = ~_overlapping(known, rows, apart_um)
        alike = np.where(possible, units[rows] @ units.T, -np.inf)
        order = np.argpartition(-alike, found.shape[1] - 1, axis=1)[:, : found.shape[1]]
        ranked = np.argsort(-np.take_along_axis(alike, order, axis=1), axis=1, kind="stable")
        near = np.take_along_axis(order, ranked, axis=1)
        found[rows] = np.where(np.take_along_axis(possible, near, axis=1), near, NO_TOKEN)
        for name, one in values.items():
            tallies[name] += _tally(one, rows, found[rows], possible)
    return found, {name: _shared(tallies[name], values[name]) for name in values}


def _overlapping(known: KnownTokens, rows: Int64, apart_um: float) -> NDArray[np.bool_]:
    """Whether tokens (r, n) lie in the same section and too near to be told apart; a token overlaps itself."""
    same = known.section[rows, None] == known.section[None]
    away = np.abs(known.places_um[rows, None] - known.places_um[None]).max(axis=-1)
    return np.asarray(same & (away < apart_um))


def _tally(values: Int64, rows: Int64, near: Int64, possible: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Neighbours that agree, neighbours, the same among all that could have been; of tokens whose value is known."""
    own = values[rows, None]
    of_near, of_all = values[near], values[None]
    known_near = (own != UNKNOWN) & (of_near != UNKNOWN) & (near != NO_TOKEN)
    known_all = (own != UNKNOWN) & (of_all != UNKNOWN) & possible
    return np.array([
        (known_near & (own == of_near)).sum(), known_near.sum(), (known_all & (own == of_all)).sum(), known_all.sum()
    ], dtype=np.float64)  # fmt: skip


def _shared(tally: NDArray[np.float64], values: Int64) -> Shared:
    agree, near, agree_all, possible = tally
    return Shared(
        float(agree / max(near, 1)), float(agree_all / max(possible, 1)), len(np.unique(values[values != UNKNOWN]))
    )


def typical(tokens: Float32, groups: Int64, count: int) -> Int64:
    """The token nearest to the mean of each group (q,), of the `count` largest groups, in the order of the groups."""
    known = groups[groups != UNKNOWN]
    numbers, sizes = np.unique(known, return_counts=True)
    largest = np.sort(numbers[np.argsort(-sizes, kind="stable")[:count]])
    found = []
    for one in largest:
        members = np.flatnonzero(groups == one)
        away = ((tokens[members] - tokens[members].mean(axis=0)) ** 2).sum(axis=1)
        found.append(members[int(np.argmin(away))])
    return np.array(found, dtype=np.int64)


def facts_of(shared: Mapping[str, Shared]) -> dict[str, dict[str, float]]:
    """As JSON values."""
    return {
        name: {**{key: round(float(value), 5) for key, value in one._asdict().items()}, "excess": round(one.excess, 5)}
        for name, one in shared.items()
    }
