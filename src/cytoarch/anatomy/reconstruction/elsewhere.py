"""Where in a brain a section fits that none of its neighbours is like: its number may be wrong."""

from collections.abc import Mapping, Sequence

import numpy as np

from cytoarch.anatomy.reconstruction.likeness import Overview, likeness
from cytoarch.anatomy.reconstruction.links import Link, Linkable, linked
from cytoarch.anatomy.reconstruction.settings import ReconstructionSettings

MOST_SECTIONS = 12
"""Sections that are looked for: if more have no links, it is not their order that is wrong."""
MOST_PLACES = 24
"""Places along the brain where each is tried first."""


def found_elsewhere(
    lost: Sequence[str],
    known: Sequence[str],
    overviews: Mapping[str, Overview],
    cell_um: float,
    settings: ReconstructionSettings,
) -> dict[str, str]:
    """Sections without links -> the linked section that each is most like, where that is like enough for a link.

    Each is tried along the whole brain at a few places, then around the best of them.
    """
    if not known or len(lost) > MOST_SECTIONS:
        return {}
    spread = np.unique(np.linspace(0, len(known) - 1, min(MOST_PLACES, len(known))).astype(int)).tolist()
    step = max(1, len(known) // max(1, len(spread)))
    found = {}
    for name in lost:
        section = likeness(name, overviews[name], cell_um)
        if section is None:
            continue
        here = Linkable(section)
        tried = {at: _compared(known[at], here, overviews, cell_um, settings) for at in spread}
        best = max(spread, key=lambda at: _score(tried[at]))
        if _score(tried[best]) == 0:
            continue
        for at in range(max(0, best - step), min(len(known), best + step + 1)):
            if at not in tried:
                tried[at] = _compared(known[at], here, overviews, cell_um, settings)
        at, link = max(tried.items(), key=lambda each: _score(each[1]))
        if link is not None and link.accepted:
            found[name] = f"fits better beside {known[at]}, with correlation {link.correlation:.2f}"
    return found


def _compared(
    other: str, here: Linkable, overviews: Mapping[str, Overview], cell_um: float, settings: ReconstructionSettings
) -> Link | None:
    there = likeness(other, overviews[other], cell_um)
    return None if there is None else linked(Linkable(there), here, settings)


def _score(link: Link | None) -> float:
    """The correlation of a link; 0 where it is not good enough to place a section by."""
    return 0.0 if link is None or not link.accepted else link.correlation
