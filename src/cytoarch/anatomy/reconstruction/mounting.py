"""How sections lie on their slides, as a witness of slow drift.

A stack that drifts a little from section to section fits its neighbours as well as the true one does. People mount
sections much alike, though: upright, in the middle of the slide. For one section that says little, but its error is its
own, while drift is shared by many; so the slides tell what neighbours cannot. How sections lean on their slides, by
their links, is smoothed along the series; how much of that is each section's own scatter is told by what is likely
(a walk among scatter, Harvey 1989; smoothing by cosines, Garcia 2010). What is smooth is drift, and taken away.
Where scans are cropped to their tissue, or were mounted in batches, neighbours share most of how they lean: slides say
nothing then.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.fft import dct, idct

from cytoarch.anatomy.reconstruction.rigid import Rigid, apart_deg
from cytoarch.geometry import Float64, Pair

FEWEST = 12
"""Sections of which a scatter can be told."""
MOST_SHARED = 0.8
"""Correlation of how neighbours lean from which on the slides say nothing."""
MOST_TURNED_DEG = 15.0
"""Sections that scatter by more were not mounted upright."""
CLIPPED = 3.0
"""A section that leans by so many deviations more than most is no witness of more than that."""
NORMAL = 1.4826
"""Standard deviation of a normal population over its median absolute deviation."""
STEPS, BENDS = np.logspace(0, 7, 36), np.logspace(0, 9, 46)
"""Variances of a section's scatter, in those of what each link adds to the drift and to its slope, that are tried."""


class Mounted(NamedTuple):
    """How a section lies on its slide."""

    way: Rigid
    """From its um to the slide's, whose middle is zero; turned over where the section is a mirror image."""
    middle_um: Pair
    """The middle of the slide in the frame of the section."""


def steadied(places: Sequence[Rigid], mounted: Mapping[int, Mounted], base: int) -> list[Rigid]:
    """Places of sections by their links, without the slow drift that their slides tell of; the base stays.

    `mounted` are those in the frame of the base, in cutting order; others stay where they are. All of them do where
    slides say nothing.
    """
    nodes = sorted(mounted)
    drift = slow([mounted[node].way.inverse().then(places[node]) for node in nodes])
    if not drift:
        return list(places)
    back = {node: one.inverse() for node, one in zip(nodes, drift, strict=True)}
    found = list(places)
    for node in nodes:
        found[node] = places[node].then(back[node]).then(back[base].inverse())
    return found


def slow(leaning: Sequence[Rigid]) -> list[Rigid]:
    """The drift of a series, from the maps that lead each slide, in cutting order, to the plane of the brain.

    None where there are too few, or where slides say nothing.
    """
    if len(leaning) < FEWEST:
        return []
    angles = np.radians([one.angle_deg for one in leaning])
    usual = float(np.degrees(np.angle(np.exp(1j * angles).sum())))
    turns = np.array([apart_deg(usual, one.angle_deg) for one in leaning])
    values = np.column_stack([turns, [one.shift_um for one in leaning]])
    middle = np.median(values, axis=0)
    off = values - middle
    spread = NORMAL * np.median(np.abs(off), axis=0)
    if spread[0] > MOST_TURNED_DEG:
        return []
    off = np.clip(off, -CLIPPED * spread, CLIPPED * spread)
    if shared(off[:, :1]) > MOST_SHARED or shared(off[:, 1:]) > MOST_SHARED:
        return []
    turned, down, along = (middle + np.column_stack([smooth(one) for one in off.T])).T
    return [
        Rigid(False, apart_deg(0.0, usual + turn), (y, x))
        for turn, y, x in zip(turned.tolist(), down.tolist(), along.tolist(), strict=True)
    ]


def shared(off: Float64) -> float:
    """How much of the squares of numbers (n, axes) each has in common with the next: 0 none, 1 all."""
    square = float((off**2).mean())
    return float((off[1:] * off[:-1]).mean()) / square if square else 0.0


def smooth(values: Float64) -> Float64:
    """Numbers (n,) without their scatter, if they are a walk whose steps and whose slope change at random.

    Links err each by itself, which makes steps, and follow what moves on through many sections, which makes a slope
    (the local linear trend of Harvey 1989). So few sections do not tell how much there is of either: what is expected
    is the mean over all amounts, each as likely as it makes the waves of the numbers (restricted likelihood).
    """
    count = len(values)
    waves = dct(values, norm="ortho")
    apart = 2 - 2 * np.cos(np.pi * np.arange(1, count) / count)
    walk = 1 / (STEPS[:, None, None] * apart) + 1 / (BENDS[:, None] * apart**2)  # variance, in that of the scatter
    scatter = np.maximum((waves[1:] ** 2 / (1 + walk)).mean(axis=-1), np.finfo(np.float64).tiny)
    unlikely = ((count - 1) * np.log(scatter) + np.log1p(walk).sum(axis=-1)) / 2
    likely = np.exp(unlikely.min() - unlikely)
    kept = (likely[..., None] * walk / (1 + walk)).sum(axis=(0, 1)) / likely.sum()
    return np.asarray(idct(np.append(1.0, kept) * waves, norm="ortho"), dtype=np.float64)
