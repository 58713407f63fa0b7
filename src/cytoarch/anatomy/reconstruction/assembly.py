"""A brain from its sections: linked to their neighbours, placed together, and what is doubtful said of each."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cytoarch.anatomy.reconstruction import solving
from cytoarch.anatomy.reconstruction.doubts import doubts_of, odd_stains
from cytoarch.anatomy.reconstruction.elsewhere import found_elsewhere
from cytoarch.anatomy.reconstruction.likeness import Likeness, Overview, Plane, likeness
from cytoarch.anatomy.reconstruction.links import Link, Linkable, linked
from cytoarch.anatomy.reconstruction.mounting import Mounted, steadied
from cytoarch.anatomy.reconstruction.order import misplaced
from cytoarch.anatomy.reconstruction.placed import LinkQuality, PlacedBy, PlacedSection, Reconstruction
from cytoarch.anatomy.reconstruction.rigid import Rigid
from cytoarch.anatomy.reconstruction.settings import ReconstructionSettings
from cytoarch.anatomy.reconstruction.sizes import Grown, own_sizes, to_usual_size
from cytoarch.anatomy.reconstruction.solving import Measured
from cytoarch.errors import SectionError
from cytoarch.geometry import Flip, Float64, Grid, Pair, Transform
from cytoarch.progress import Progress

DEFAULTS = ReconstructionSettings()
LEAST_UM = 20.0
"""Uncertainty of a perfect link (standard deviation)."""
FADING_UM = 400.0
"""What is added to it per correlation that is lacking."""


@dataclass(frozen=True)
class Stated:
    """What the manifest states of a section."""

    section_id: str
    section_number: int
    flip: Flip = "none"
    rotation_deg: float = 0.0
    transform: Transform | None = None
    """A person's: from (y, x) um of the section to (y, x) um of the brain's plane."""
    z_um: float | None = None
    stain: str = "unstated"

    def upright(self, grid: Grid) -> Rigid:
        """The section as stated, its middle at zero."""
        turned = Rigid.of(np.array(Transform.orientation(self.flip, self.rotation_deg).matrix))
        return turned.about(grid.centre_um, (0.0, 0.0))

    @property
    def corrections(self) -> tuple[str, ...]:
        """What is done because it is stated."""
        done = [f"flip {self.flip}"] if self.flip != "none" else []
        done += [f"rotation {self.rotation_deg:g} degrees"] if self.rotation_deg else []
        return (*done, *(["transform"] if self.transform is not None else []))


class Seen(NamedTuple):
    """What is kept of a section once it is linked: little, whatever its size."""

    grid: Grid
    coarse: Plane | None
    centre_um: tuple[float, float]
    radius_um: float
    polarity: str
    channels: int


def reconstruct(
    brain_id: str,
    stated: Sequence[Stated],
    overviews: Mapping[str, Overview],
    settings: ReconstructionSettings = DEFAULTS,
    unplaced: Mapping[str, str] | None = None,
    on_progress: Progress = lambda _done, _total: None,
    links: Sequence[Link] | None = None,
) -> Reconstruction:
    """The sections of a brain in one frame.

    `stated` are the sections in cutting order, `overviews` their pictures, each opened when its turn comes and kept
    while its neighbours are linked, unless the `links` of all of them are known. Sections without an overview have no
    place; `unplaced` says why others have none. Raises SectionError where the settings name a base section that the
    brain does not have.
    """
    rows = [one for one in stated if one.section_id in overviews]
    lacking = {one.section_id: "no tissue was found in it" for one in stated if one.section_id not in overviews}
    missing = {**lacking, **(unplaced or {})}
    if settings.base_section and settings.base_section not in {one.section_id for one in rows}:
        raise SectionError(
            f"{brain_id}: base_section {settings.base_section!r} is none of the sections with tissue; name one of "
            + ", ".join(one.section_id for one in rows[:8])
        )
    if not rows:
        return Reconstruction(brain_id, "", {}, (), missing)
    seen, every = _linked(rows, overviews, settings, on_progress, links)
    brain = _assembled(brain_id, rows, seen, every, settings, missing)
    lost = [name for name, one in brain.sections.items() if not one.linked and seen[name].coarse is not None]
    known = [name for name, one in brain.sections.items() if one.linked and seen[name].coarse is not None]
    cell_um = seen[rows[0].section_id].grid.cell_um
    elsewhere = found_elsewhere(lost, known, overviews, cell_um, settings) if len(known) > 1 else {}
    return _with_doubts(brain, rows, seen, elsewhere, settings)


def _linked(
    rows: Sequence[Stated],
    overviews: Mapping[str, Overview],
    settings: ReconstructionSettings,
    on_progress: Progress,
    known: Sequence[Link] | None,
) -> tuple[dict[str, Seen], list[Link]]:
    """Every section against those before it within reach, then parts of the brain that hold together against others."""
    seen: dict[str, Seen] = {}
    here_too = {row.section_id for row in rows}
    links = [one for one in known or () if {one.fixed, one.moving} <= here_too]
    before: deque[Linkable] = deque(maxlen=settings.reach)
    cell_um = 0.0
    for done, row in enumerate(rows):
        overview = overviews[row.section_id]
        cell_um = cell_um or overview.grid.cell_um
        section = likeness(row.section_id, overview, cell_um)
        seen[row.section_id] = _seen(overview, section)
        if section is not None and known is None:
            here = Linkable(section)
            links += [linked(one, here, settings) for one in before]
            before.append(here)
        on_progress(done + 1, len(rows))
    for one, other in _gaps(rows, links):
        pair = [likeness(name, overviews[name], cell_um) for name in (one, other)]
        if pair[0] is not None and pair[1] is not None:
            links.append(linked(Linkable(pair[0]), Linkable(pair[1]), settings))
    return seen, links


def _gaps(rows: Sequence[Stated], links: Sequence[Link]) -> list[tuple[str, str]]:
    """Pairs worth a try beyond the reach: the ends of parts of the brain that follow each other and no link joins."""
    number = {row.section_id: at for at, row in enumerate(rows)}
    tried = {(one.fixed, one.moving) for one in links}
    good = [_measured(one, number, None) for one in links if one.accepted]
    parts = [sorted(part) for part in solving.components(len(rows), good) if len(part) > 1]
    parts.sort(key=lambda part: part[0])
    ends = [
        (rows[i].section_id, rows[j].section_id) for one, other in pairwise(parts) for i in one[-2:] for j in other[:2]
    ]
    return [pair for pair in ends if pair not in tried]


def _seen(overview: Overview, section: Likeness | None) -> Seen:
    coarse = None if section is None else section.coarse
    centre, radius = ((0.0, 0.0), 0.0) if section is None else (section.centre_um, section.radius_um)
    return Seen(overview.grid, coarse, centre, radius, overview.polarity, overview.channels)


def _measured(link: Link, number: Mapping[str, int], seen: Mapping[str, Seen] | None) -> Measured:
    spread_um = LEAST_UM + FADING_UM * (1 - link.correlation)
    fixed = None if seen is None else seen[link.fixed]
    centre, radius = ((0.0, 0.0), 1.0) if fixed is None else (fixed.centre_um, fixed.radius_um)
    return Measured(
        number[link.fixed], number[link.moving], link.rigid, (100.0 / spread_um) ** 2, centre, radius
    )  # fmt: skip


def _assembled(
    brain_id: str,
    rows: Sequence[Stated],
    seen: Mapping[str, Seen],
    links: Sequence[Link],
    settings: ReconstructionSettings,
    missing: Mapping[str, str],
) -> Reconstruction:
    number = {row.section_id: at for at, row in enumerate(rows)}
    good = [(one, _measured(one, number, seen)) for one in links if one.accepted]
    upright = [row.upright(seen[row.section_id].grid) for row in rows]
    base = _base(rows, [measured for _, measured in good], upright, settings)
    fixed = {
        at: _rigid(row.transform, seen[row.section_id].centre_um)
        for at, row in enumerate(rows)
        if row.transform is not None
    }
    roots = {base: upright[base], **fixed}
    flips = [fixed.get(at, one).mirrored for at, one in enumerate(upright)]
    held = [row.flip != "none" or at in fixed or not settings.find_mirrored for at, row in enumerate(rows)]
    found = solving.mirrored_nodes(len(rows), roots, [one for _, one in good], flips, held)
    used = [(link, one) for link, one in good if (found[one.fixed] != found[one.moving]) == link.rigid.mirrored]
    if base not in fixed and found[base] != upright[base].mirrored:
        roots[base] = _turned_over(upright[base], seen[rows[base].section_id])
    chain = solving.chained(len(rows), roots, [one for _, one in used])
    reached = [at for at, one in enumerate(chain) if one is not None]
    places = [upright[at] if one is None else one for at, one in enumerate(chain)]
    inside = [(link, one) for link, one in used if one.fixed in reached and one.moving in reached]
    result = solving.solved(places, [one for _, one in inside], list(roots))
    if settings.slides == "believed" and not fixed:  # a person's word says more of where sections lie
        slides = {at: _mounted(upright[at], seen[rows[at].section_id], found[at]) for at in reached}
        result = result._replace(places=steadied(result.places, slides, base))
    tissue = [seen[row.section_id].centre_um for row in rows]
    sizes = own_sizes(_along(rows), [_grown(*one) for one in inside] if settings.sizes == "evened" else [])
    evidence = _evidence(len(rows), inside, result.disagreement_um)
    sections: dict[str, PlacedSection] = {}
    for at, row in enumerate(rows):
        by: PlacedBy = "base" if at == base else "links" if chain[at] is not None else "manifest"
        by = "transform" if row.transform is not None else by
        usual = to_usual_size(float(sizes[at]), tissue[at])
        plane = row.transform if row.transform is not None else usual.then(result.places[at].transform)
        sections[row.section_id] = PlacedSection(
            row.section_id, row.section_number, seen[row.section_id].grid, plane, row.z_um,
            flipped=result.places[at].mirrored, placed_by=by, quality=evidence[at], corrections=row.corrections,
            centre_um=tissue[at],
        )  # fmt: skip
    return Reconstruction(brain_id, rows[base].section_id, sections, tuple(links), missing)


def _along(rows: Sequence[Stated]) -> Float64:
    """Where sections lie along the cutting axis; their numbers, where that is not known of all."""
    places = [row.z_um for row in rows if row.z_um is not None]
    return np.array(places if len(places) == len(rows) else [row.section_number for row in rows], dtype=np.float64)


def _grown(link: Link, one: Measured) -> Grown:
    return Grown(one.fixed, one.moving, link.larger, one.weight)


def _mounted(upright: Rigid, seen: Seen, mirrored: bool) -> Mounted:
    """How a section lies on its slide, which is turned over where the section is found to be mirrored."""
    return Mounted(upright if upright.mirrored == mirrored else _turned_over(upright, seen), seen.grid.centre_um)


def _turned_over(upright: Rigid, seen: Seen) -> Rigid:
    """A base that its links say is mounted mirrored: mirrored about its own middle."""
    over = Rigid(True, 0.0, (0.0, 0.0)).about(seen.grid.centre_um, seen.grid.centre_um)
    return over.then(upright)


def _rigid(transform: Transform, centre_um: Pair) -> Rigid:
    """The rigid map nearest to a person's transform, which it equals in the middle of the tissue."""
    y, x = transform(np.array(centre_um)).tolist()
    return Rigid.of(np.array(transform.matrix)).about(centre_um, (y, x))


def _base(
    rows: Sequence[Stated], links: Sequence[Measured], upright: Sequence[Rigid], settings: ReconstructionSettings
) -> int:
    """The section asked for, or the one nearest to the middle of the largest part that lies as most of it does."""
    if settings.base_section:
        return next(at for at, row in enumerate(rows) if row.section_id == settings.base_section)
    part = sorted(solving.components(len(rows), links)[0])
    middle = part[len(part) // 2]
    chain = solving.chained(len(rows), {middle: upright[middle]}, links)
    turned = [upright[at].inverse().then(chain[at] or upright[at]) for at in part]
    usual = _alike(turned, settings.turned_deg) > len(part) / 2
    order = sorted(range(len(part)), key=lambda place: abs(place - len(part) // 2))
    return next((part[place] for place in order if usual[place]), middle)


def _alike(turned: Sequence[Rigid], within_deg: float) -> NDArray[np.int64]:
    """How many lie the same way up as each and turned by about the same: to a degree, so that it is quick."""
    angles = np.floor([one.angle_deg % 360 for one in turned]).astype(np.int64)
    mirrored = np.array([one.mirrored for one in turned])
    reach = np.arange(360)[: 2 * int(within_deg) + 1] - int(within_deg)
    counts = np.zeros(len(turned), np.int64)
    for way in (False, True):
        held = np.bincount(angles[mirrored == way], minlength=360)
        counts += np.where(mirrored == way, held[(angles[:, None] + reach) % 360].sum(axis=1), 0)
    return counts


def _evidence(
    count: int, used: Sequence[tuple[Link, Measured]], disagreement_um: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> list[LinkQuality]:
    """By section the medians over the links that hold it."""
    figures: list[list[tuple[float, ...]]] = [[] for _ in range(count)]
    for (link, one), apart in zip(used, disagreement_um.tolist(), strict=True):
        for node in (one.fixed, one.moving):
            figures[node].append((link.correlation, link.dice, link.outline_um, apart))
    return [
        LinkQuality(len(rows), *np.nanmedian(np.array(rows), axis=0).tolist()) if rows else LinkQuality.none()
        for rows in figures
    ]


def _with_doubts(
    brain: Reconstruction,
    rows: Sequence[Stated],
    seen: Mapping[str, Seen],
    elsewhere: Mapping[str, str],
    settings: ReconstructionSettings,
) -> Reconstruction:
    """The same brain with what a person should look at."""
    looks = {row.section_id: (row.stain, *seen[row.section_id][4:6]) for row in rows}
    stains = odd_stains({name: look for name, look in looks.items() if seen[name].coarse is not None})
    planes = {name: one.coarse for name, one in seen.items() if one.coarse is not None}
    order = misplaced(brain, planes, settings, elsewhere)
    flags = {
        row.section_id: doubts_of(
            brain, row.section_id, row.rotation_deg, row.upright(seen[row.section_id].grid), settings,
            stains.get(row.section_id, ""), order.of.get(row.section_id, ""), seen[row.section_id].coarse is None,
        )
        for row in rows
    }  # fmt: skip
    sections = {one.section_id: replace(one, flags=flags[one.section_id]) for one in brain}
    return replace(brain, sections=sections, remarks=order.remarks)
