"""How sections lie on their slides, as a witness of slow drift.

A stack that drifts a little from section to section fits its neighbours as well as the true one does. People mount
sections much alike, though: upright, in the middle of the slide. For one section that says little, but its error is its
own, while drift is shared by many; so the slides tell what neighbours cannot. How far they are believed is measured on
the brain itself: by how much the mounting scatters about what links say, and by how much neighbours share of that. Where
scans are cropped to their tissue, or were mounted in batches, they share most of it, and the slides say nothing.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cytoarch.anatomy.reconstruction.rigid import Rigid, apart_deg
from cytoarch.anatomy.reconstruction.solving import Measured
from cytoarch.geometry import Float64, Pair

FEWEST = 8
"""Sections of which a scatter can be told."""
MOST_SHARED = 0.9
"""Correlation of the mounting of neighbours from which on the slides say nothing."""
LEAST_UM = 50.0
LEAST_DEG = 0.2
"""Nobody mounts sections more alike."""
MOST_TURNED_DEG = 15.0
"""Sections that scatter by more were not mounted upright."""
FORGIVING = 2.385
"""Deviations from which on a tie counts less: Cauchy's weights are then 95 % efficient for a normal scatter."""
NORMAL = 1.4826
"""Standard deviation of a normal population over its median absolute deviation."""


class Scatter(NamedTuple):
    """How much the mounting of a single section has to say."""

    shift_um: float
    """Standard deviation along an axis that a section's place on its slide is worth."""
    turn_deg: float
    """The same of how it is turned."""


def scatter(leaning: Sequence[Rigid], next_to: Sequence[tuple[int, int]]) -> Scatter | None:
    """What the slides are worth, from the maps that lead each slide to the plane of the brain as links place them.

    `next_to` are pairs of neighbours among them. None where there are too few, or where neighbours share what scatters.
    """
    if len(leaning) < FEWEST or len(next_to) < FEWEST // 2:
        return None
    middle = _middle_deg(np.array([one.angle_deg for one in leaning]))
    turns = np.array([apart_deg(middle, one.angle_deg) for one in leaning])
    shifts = np.array([one.shift_um for one in leaning])
    spread_um = max(LEAST_UM, _worth(shifts - np.median(shifts, axis=0), next_to))
    spread_deg = max(LEAST_DEG, _worth((turns - np.median(turns))[:, None], next_to))
    return Scatter(spread_um, spread_deg) if math.isfinite(spread_um) and spread_deg < MOST_TURNED_DEG else None


def ties(hub: int, leaning: Scatter, mounted: Sequence[Rigid], middles_um: Sequence[Pair]) -> list[Measured]:
    """A link from every section to a common slide, the node `hub`, as weak as its mounting is scattered."""
    radius = leaning.shift_um / math.radians(leaning.turn_deg)
    weight = (100.0 / leaning.shift_um) ** 2
    return [
        Measured(node, hub, way, weight, middle, radius, FORGIVING * leaning.shift_um)
        for node, (way, middle) in enumerate(zip(mounted, middles_um, strict=True))
    ]


def _middle_deg(angles: Float64) -> float:
    """The middle of angles around a circle."""
    return math.degrees(float(np.angle(np.exp(1j * np.radians(angles)).sum())))


def _worth(off: Float64, next_to: Sequence[tuple[int, int]]) -> float:
    """The standard deviation (along an axis) that independent errors would need to say as little as these (n, axes).

    What neighbours share is counted once for all of them: the variance of a mean of numbers that are correlated with
    the next by r is (1 + r) / (1 - r) times as large.
    """
    spread = NORMAL * float(np.median(np.abs(off)))
    held = np.clip(off, -3 * spread, 3 * spread) if spread else off
    one, other = np.array(next_to).T
    square = float((held**2).mean())
    shared = max(0.0, float((held[one] * held[other]).mean()) / square) if square else 0.0
    return spread * math.sqrt((1 + shared) / (1 - shared)) if shared < MOST_SHARED else math.inf
