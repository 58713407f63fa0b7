"""Whether sections lie in the order that the manifest states: each is compared with every gap between others.

Seen in one frame, a section differs least from those it was cut beside. What putting it into a gap adds to the sum of
differences along the series tells where it fits (the insertion step of a travelling salesman's tour). Nothing is
changed: a section that fits elsewhere much better is reported.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cytoarch.anatomy.reconstruction.likeness import Plane
from cytoarch.anatomy.reconstruction.placed import PlacedSection, Reconstruction
from cytoarch.anatomy.reconstruction.settings import ReconstructionSettings
from cytoarch.geometry import Float64, Grid

LEAST = 0.01
"""Differences below this share of the pictures' squares are none."""
MOST_MOVED = 20
"""Sections that are said to be out of order at most."""
FEWEST = 5
"""Sections below which nothing is said about their order."""


class Order(NamedTuple):
    """What seems wrong with the order of sections."""

    of: Mapping[str, str]
    """Section -> where it fits better."""
    remarks: tuple[str, ...]


def misplaced(
    brain: Reconstruction, planes: Mapping[str, Plane], settings: ReconstructionSettings, known: Mapping[str, str]
) -> Order:
    """The sections that fit elsewhere much better: by `order_gain` times the usual difference of neighbours.

    `planes` are the sections' coarse pictures. Sections without links have no common frame; what is `known` of them
    joins what is found.
    """
    chosen = [one for one in brain if one.linked and one.section_id in planes]
    found = dict(known)
    if len(chosen) >= FEWEST:
        apart = differences(chosen, planes)
        least = max(LEAST, settings.order_gain * float(np.median(np.diag(apart, 1))))
        found |= moved([one.section_id for one in chosen], apart, least)
    remarks = (f"sections {', '.join(found)} seem out of order: check section_number in the manifest",) if found else ()
    return Order(found, remarks)


def moved(names: Sequence[str], apart: Float64, least: float) -> dict[str, str]:
    """Which sections have to be moved so that no other one fits elsewhere better by `least` -> where they fit.

    The one that gains most is moved first, in thought, so that those it was among are not blamed for it. Where it only
    passes its neighbour, the two are swapped: nothing tells which of them moved, and both are named.

    >>> places = np.array([0.0, 1.0, 6.0, 3.0, 4.0, 5.0, 2.0, 7.0])
    >>> moved("abcdefgh", np.abs(places[:, None] - places[None]), 0.5)
    {'c': 'fits better between g and h', 'g': 'fits better between b and d'}
    >>> places = np.array([0.0, 1.0, 3.0, 2.0, 4.0, 5.0])
    >>> moved("abcdef", np.abs(places[:, None] - places[None]), 0.5)
    {'c': 'fits better between d and e', 'd': 'fits better between b and c'}
    """
    order = list(range(len(names)))
    found: dict[str, str] = {}
    for _ in range(MOST_MOVED):
        seen = apart[np.ix_(order, order)]
        tried = [insertion(seen, at) for at in range(len(order))]
        gains = [-np.inf if names[order[at]] in found else here - there for at, (here, _, there) in enumerate(tried)]
        at = int(np.argmax(gains))
        if gains[at] <= least:
            break
        node, gap = order.pop(at), tried[at][1]
        found[names[node]] = _told([names[one] for one in order], gap)
        order.insert(gap, node)
        if abs(gap - at) == 1:
            passed = names[order[at]]
            found.setdefault(passed, _told([names[one] for one in order if names[one] != passed], at))
    return found


def differences(sections: list[PlacedSection], planes: Mapping[str, Plane]) -> Float64:
    """(n, n): squared difference of the pictures of two sections in the brain's plane, as a share of their squares.

    They have the size that they have on their slides: what lies among others by mistake was evened out with them.
    """
    grid = _shared(sections, planes)
    seen = np.stack([planes[one.section_id].on(grid, one.rigid.transform.inverse()).ravel() for one in sections])
    products = (seen @ seen.T).astype(np.float64)
    squares = np.diag(products)
    total = np.maximum(squares[:, None] + squares[None], 1e-9)
    return np.asarray(1 - 2 * products / total)


def insertion(apart: Float64, at: int) -> tuple[float, int, float]:
    """What section `at` adds to the series where it is, the gap that it adds least to, and how much there.

    Gap k lies before the k-th of the others. Before the first and after the last one, only one neighbour counts.

    >>> places = np.array([0.0, 2.0, 1.0, 3.0])  # the second and the third are swapped
    >>> insertion(np.abs(places[:, None] - places[None]), 1)
    (2.0, 2, 0.0)
    """
    others = np.delete(np.arange(len(apart)), at)
    to = apart[at, others]
    added = np.concatenate([to[:1], to[:-1] + to[1:] - apart[others[:-1], others[1:]], to[-1:]])
    here = float(added[at])
    added[at] = np.inf
    gap = int(added.argmin())
    return here, gap, float(added[gap])


def _told(others: list[str], gap: int) -> str:
    if gap in (0, len(others)):
        return f"fits better {'before' if gap == 0 else 'after'} {others[min(gap, len(others) - 1)]}"
    return f"fits better between {others[gap - 1]} and {others[gap]}"


def _shared(sections: list[PlacedSection], planes: Mapping[str, Plane]) -> Grid:
    """A grid in the brain's plane that holds all of the sections' pictures."""
    corners = np.concatenate([one.rigid(planes[one.section_id].grid.corners_um) for one in sections])
    cell = max(planes[one.section_id].grid.cell_um for one in sections)
    low, high = corners.min(axis=0), corners.max(axis=0)
    height, width = np.maximum(1, np.ceil((high - low) / cell)).astype(int).tolist()
    return Grid.at_corner((height, width), cell, (float(low[0]), float(low[1])))
