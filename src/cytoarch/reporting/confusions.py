"""Confusion matrices that stay readable with many classes: the worst as a list, matrices of groups, and within them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]

LISTED = 25
"""Confusions that are listed."""
WHOLE = 30
"""A matrix of so many classes is shown as a whole."""
ELSEWHERE = "elsewhere"


class Confused(NamedTuple):
    """One class taken for another."""

    known: str
    drawn: str
    cells: int
    share: float
    """Of the cells of the known class."""


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix to be shown."""

    title: str
    names: Sequence[str]
    """Of the rows."""
    columns: Sequence[str]
    shares: Sequence[Sequence[float]]
    """Of each row, the cells of a known class, how they were drawn; all 0 where the class has none."""
    is_open: bool = True

    @classmethod
    def of(
        cls, title: str, counts: Int64, names: Sequence[str], columns: Sequence[str] = (), is_open: bool = True
    ) -> "Matrix":
        """The matrix of counts (rows, columns), without rows of classes that nobody labelled."""
        kept = np.flatnonzero(counts.sum(axis=1)).tolist()
        shares = counts[kept] / np.maximum(counts[kept].sum(axis=1, keepdims=True), 1)
        return cls(title, [names[one] for one in kept], columns or names, shares.round(4).tolist(), is_open)


def worst(confusion: Int64, names: Sequence[str], count: int = LISTED) -> list[Confused]:
    """The errors with the most cells, (k, k) known by row.

    >>> worst(np.array([[8, 2], [0, 5]]), ["a", "b"])
    [Confused(known='a', drawn='b', cells=2, share=0.2)]
    """
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    totals = confusion.sum(axis=1)
    rows = (np.unravel_index(one, wrong.shape) for one in order)
    return [
        Confused(names[i], names[j], int(wrong[i, j]), round(float(wrong[i, j] / totals[i]), 4))
        for i, j in rows
        if wrong[i, j]
    ]


def matrices(confusion: Int64, names: Sequence[str], groups: Sequence[str]) -> list[Matrix]:
    """The matrix of all classes where they are few; else of their groups, and of the members within each group.

    `groups` names the group of every class; blank: it stands for itself. Without groups a large matrix is not shown:
    the worst confusions are what can be read of it.
    """
    if len(names) <= WHOLE:
        return [Matrix.of("all classes", confusion, names)]
    own = [group or name for group, name in zip(groups, names, strict=True)]
    order = list(dict.fromkeys(own))
    if len(order) == len(names):
        return []
    member = np.array([[one == group for group in order] for one in own], dtype=np.int64)
    found = [Matrix.of("groups", member.T @ confusion @ member, order, is_open=len(order) <= WHOLE)]
    for group in order:
        inside = np.array([place for place, one in enumerate(own) if one == group])
        if len(inside) > 1:
            rest = np.setdiff1d(np.arange(len(names)), inside)
            counts = np.column_stack([confusion[np.ix_(inside, inside)], confusion[np.ix_(inside, rest)].sum(axis=1)])
            within = [names[one] for one in inside.tolist()]
            found.append(Matrix.of(f"within {group}", counts, within, [*within, ELSEWHERE], is_open=False))
    return found
