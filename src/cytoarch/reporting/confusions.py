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

    `groups` names the group of every class; blank: it stands for itself. Of more than `WHOLE` classes or groups those
    with the most errors are shown.
    """
    own = [group or name for group, name in zip(groups, names, strict=True)]
    order = list(dict.fromkeys(own))
    if len(names) <= WHOLE or len(order) == len(names):
        return [_shown("all classes", confusion, names)]
    member = np.array([[one == group for group in order] for one in own], dtype=np.int64)
    found = [_shown("groups", member.T @ confusion @ member, order)]
    for group in order:
        inside = np.array([place for place, one in enumerate(own) if one == group])
        if len(inside) > 1:
            rest = np.setdiff1d(np.arange(len(names)), inside)
            counts = confusion[np.ix_(inside, inside)], confusion[np.ix_(inside, rest)].sum(axis=1)
            found.append(_shown(f"within {group}", counts[0], [names[one] for one in inside.tolist()], counts[1]))
    return found


def _shown(title: str, counts: Int64, names: Sequence[str], rest: Int64 | None = None) -> Matrix:
    """The matrix of counts (k, k), of the `WHOLE` with the most errors where it is larger, in their order.

    `rest` (k,) are cells that were taken for something else; what is left out joins them.
    """
    errors = counts.sum(axis=1) + counts.sum(axis=0) - 2 * np.diag(counts)
    kept = np.sort(np.argsort(-errors, kind="stable")[:WHOLE])
    chosen = [names[one] for one in kept.tolist()]
    shown = counts[np.ix_(kept, kept)]
    if len(kept) < len(names):
        title = f"{title}: the {WHOLE} of {len(names)} with the most errors"
    elif rest is None:
        return Matrix.of(title, shown, chosen)
    beyond = counts[kept].sum(axis=1) - shown.sum(axis=1) + (0 if rest is None else rest[kept])
    return Matrix.of(title, np.column_stack([shown, beyond]), chosen, [*chosen, ELSEWHERE], is_open=rest is None)
