"""How sections lie on their slides, as a witness of slow drift.

A stack that drifts a little from section to section fits its neighbours as well as the true one does. People mount
sections much alike, though: upright, in the middle of the slide. For one section that says little, but its error is its
own, while drift is shared by many; so the slides tell what neighbours cannot. How far they are believed is measured on
the brain itself: by how much the mounting scatters about what links say, and by how much neighbours share of that.
Where scans are cropped to their tissue, or were mounted in batches, they share most of it, and slides say nothing.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cytoarch.anatomy.reconstruction.rigid import Rigid, apart_deg
from cytoarch.anatomy.reconstruction.solving import Measured, Solution, solved
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
ROUNDS = 2
"""Drift that is held no longer counts as scatter of the mounting."""


class Mounted(NamedTuple):
    """How a section lies on its slide."""

    way: Rigid
    """From its um to the slide's, whose middle is zero; turned over where the section is a mirror image."""
    middle_um: Pair
    """The middle of the slide in the frame of the section."""


class Scatter(NamedTuple):
    """How much the mounting of a single section has to say: standard deviations that its slide is worth."""

    shift_um: float
    """Along an axis."""
    turn_deg: float


def steadied(found: Solution, links: Sequence[Measured], held: Sequence[int], mounted: dict[int, Mounted]) -> Solution:
    """A solution with its slow drift held by the slides of some of its nodes, as far as they can be believed.

    Links over the same stretch of the brain share their error, which is what anatomy moves there: all of them together
    say no more than one, and the slides weigh against them as if there were one.
    """
    nodes = sorted(mounted)
    crossing = sum(abs(one.moving - one.fixed) for one in links) / max(1, len(nodes) - 1)
    for _ in range(ROUNDS):
        leaning = [mounted[node].way.inverse().then(found.places[node]) for node in nodes]
        worth = scatter(leaning)
        if worth is None:
            break
        ties = _ties(len(found.places), worth, mounted, max(1.0, crossing))
        result = solved([*found.places, _usual(leaning)], [*links, *ties], held)
        found = Solution(result.places[:-1], result.disagreement_um[: len(links)])
    return found


def scatter(leaning: Sequence[Rigid]) -> Scatter | None:
    """What slides are worth, from the maps that lead each, in cutting order, to the plane of the brain by its links.

    None where there are too few, or where neighbours share most of what scatters.
    """
    if len(leaning) < FEWEST:
        return None
    usual = _usual(leaning)
    turns = np.array([apart_deg(usual.angle_deg, one.angle_deg) for one in leaning])
    shifts = np.array([one.shift_um for one in leaning]) - np.array(usual.shift_um)
    found = Scatter(max(LEAST_UM, _worth(shifts)), max(LEAST_DEG, _worth(turns[:, None])))
    return found if math.isfinite(found.shift_um) and found.turn_deg < MOST_TURNED_DEG else None


def _ties(hub: int, worth: Scatter, mounted: dict[int, Mounted], crossing: float) -> list[Measured]:
    """A link from every section to a common slide, the node `hub`, as weak as mounting is scattered."""
    radius = worth.shift_um / math.radians(worth.turn_deg)
    weight = crossing * (100.0 / worth.shift_um) ** 2
    return [
        Measured(node, hub, one.way, weight, one.middle_um, radius, FORGIVING * worth.shift_um)
        for node, one in mounted.items()
    ]


def _usual(leaning: Sequence[Rigid]) -> Rigid:
    """The middle of maps that do not mirror."""
    angles = np.radians([one.angle_deg for one in leaning])
    mean = math.degrees(float(np.angle(np.exp(1j * angles).sum())))
    middle = mean + float(np.median([apart_deg(mean, one.angle_deg) for one in leaning]))
    y, x = np.median([one.shift_um for one in leaning], axis=0).tolist()
    return Rigid(False, middle, (y, x))


def _worth(off: Float64) -> float:
    """The standard deviation (along an axis) of independent errors that would say as little as these (n, axes).

    What neighbours share is counted once for all of them: the variance of the mean of numbers that are correlated with
    the next by r is (1 + r) / (1 - r) times as large.
    """
    spread = NORMAL * float(np.median(np.abs(off)))
    clipped = np.clip(off, -3 * spread, 3 * spread)
    square = float((clipped**2).mean())
    shared = max(0.0, float((clipped[1:] * clipped[:-1]).mean()) / square) if square else 0.0
    return spread * math.sqrt((1 + shared) / (1 - shared)) if shared < MOST_SHARED else math.inf
