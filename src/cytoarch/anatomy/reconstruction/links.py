"""Two sections linked: aligned both ways, mirrored and not, with figures that say how well."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from cytoarch.anatomy.reconstruction import direct
from cytoarch.anatomy.reconstruction.features import Features, Matched, features_of, matched
from cytoarch.anatomy.reconstruction.likeness import Likeness, Mask, Overview, likeness
from cytoarch.anatomy.reconstruction.rigid import Rigid
from cytoarch.anatomy.reconstruction.settings import ReconstructionSettings

Way = Literal["features", "pixels"]


@dataclass(frozen=True)
class Link:
    """How one section maps onto another, by their pictures alone."""

    fixed: str
    moving: str
    rigid: Rigid
    """From the fixed section's (y, x) um to the moving one's; mirrored where one of them lies the other way up."""
    way: Way
    """What it was found by."""
    inliers: int
    """Matched features that agree with it; 0 where it was found by pixels."""
    correlation: float
    """Of the two pictures under it, 4 x 4 cells at a time."""
    other_correlation: float
    """The best that the other way up gives; NaN where features had already decided."""
    dice: float
    """Overlap of their tissue."""
    outline_um: float
    """Median distance between their outlines."""
    larger: float
    """How many times as large the moving section is."""
    accepted: bool
    """Whether it is good enough to place a section by."""


class _Found(NamedTuple):
    correlation: float
    rigid: Rigid
    way: Way
    inliers: int


@dataclass(frozen=True)
class Linkable:
    """A section with its features, found once."""

    likeness: Likeness

    @cached_property
    def features(self) -> Features:
        """Of the section as it lies."""
        return features_of(self.likeness, mirrored=False)

    @cached_property
    def mirrored_features(self) -> Features:
        """Of its mirror image."""
        return features_of(self.likeness, mirrored=True)


def linked_back(
    section: tuple[str, Overview],
    before: Sequence[tuple[str, Overview]],
    cell_um: float,
    settings: ReconstructionSettings,
) -> list[Link]:
    """A section's links to some before it, all of them in cells of `cell_um`.

    A section that holds too little tissue to tell has none.
    """
    moving = likeness(*section, cell_um)
    if moving is None:
        return []
    here = Linkable(moving)
    alike = (likeness(*one, cell_um) for one in before)
    return [linked(Linkable(one), here, settings) for one in alike if one is not None]


def linked(fixed: Linkable, moving: Linkable, settings: ReconstructionSettings) -> Link:
    """The best rigid map between two sections, mirrored or not.

    Features decide where there are enough of them and one way up has `flip_ratio` times the inliers of the other;
    else every turn is tried by pixels, both ways up. Either is refined by pixels. A mirror has to be better by
    `flip_margin`, so that of two equally good maps the plain one is taken.
    """
    plain, mirrored = (_by_features(fixed, moving, flip, settings) for flip in (False, True))
    decided = _decided(plain, mirrored, settings)
    found, other = None, float("nan")
    if decided is not None:
        found = _refined_start(fixed, moving, decided)
        if found.correlation < settings.least_correlation:
            found = None
    if found is None:
        ends = [_by_pixels(fixed, moving, flip, hint) for flip, hint in ((False, plain), (True, mirrored))]
        flip = ends[1].correlation > ends[0].correlation + settings.flip_margin
        found, other = ends[int(flip)], ends[1 - int(flip)].correlation
    rigid = direct.finished(fixed.likeness, moving.likeness, found.rigid)
    return _judged(fixed.likeness, moving.likeness, found._replace(rigid=rigid), other, settings)


def _by_features(fixed: Linkable, moving: Linkable, flip: bool, settings: ReconstructionSettings) -> Matched | None:
    cell = fixed.likeness.plane.grid.cell_um
    looks = moving.mirrored_features if flip else moving.features
    return matched(fixed.features, looks, flip, cell, settings.least_inliers)


def _decided(plain: Matched | None, mirrored: Matched | None, settings: ReconstructionSettings) -> Matched | None:
    """The way up that features are sure of, if any."""
    counts = [0 if one is None else one.inliers for one in (plain, mirrored)]
    best, worse = (plain, counts[1]) if counts[0] >= counts[1] else (mirrored, counts[0])
    if best is None or best.inliers < settings.least_inliers:
        return None
    sure = best.inliers > settings.flip_ratio * worse and best.inliers >= settings.least_inlier_share * best.matches
    return best if sure else None


def _refined_start(fixed: Linkable, moving: Linkable, start: Matched) -> _Found:
    score, rigid = direct.best_near(fixed.likeness, moving.likeness, [start.way])
    return _Found(score, rigid, "features", start.inliers)


def _by_pixels(fixed: Linkable, moving: Linkable, flip: bool, hint: Matched | None) -> _Found:
    starts = direct.searched(fixed.likeness, moving.likeness, flip)
    if hint is not None:
        starts.append(hint.way)
    score, rigid = direct.best_near(fixed.likeness, moving.likeness, starts)
    return _Found(score, rigid, "pixels", 0)


def _judged(fixed: Likeness, moving: Likeness, found: _Found, other: float, settings: ReconstructionSettings) -> Link:
    correlation = direct.correlation(fixed.levels[-1], moving.levels[-1], found.rigid)
    dice, outline = overlap(fixed, moving, found.rigid)
    larger = direct.larger(fixed.levels[-1], moving.levels[-1], found.rigid, fixed.centre_um)
    accepted = correlation >= settings.least_correlation and dice >= settings.least_overlap
    return Link(
        fixed.section_id, moving.section_id, found.rigid, found.way, found.inliers, correlation, other, dice,
        outline, larger, accepted,
    )  # fmt: skip


def overlap(fixed: Likeness, moving: Likeness, rigid: Rigid) -> tuple[float, float]:
    """Dice overlap of the tissue of two sections under a map, and the median distance of their outlines (um).

    The distance is NaN where they do not share a picture.
    """
    rows, columns = moving.plane.grid, fixed.plane.grid
    cells = columns.transform.then(rigid.transform).then(rows.transform.inverse())
    seen = ndimage.affine_transform(
        moving.tissue.astype(np.uint8), cells.linear, cells.added, output_shape=columns.shape, order=0
    ).astype(bool)
    both = int(fixed.tissue.sum()) + int(seen.sum())
    dice = 2 * int((fixed.tissue & seen).sum()) / both if both else 0.0
    one, other = _outline(fixed.tissue), _outline(seen)
    if not one.any() or not other.any():
        return dice, float("nan")
    here, there = np.argwhere(one), np.argwhere(other)
    apart = np.concatenate([cKDTree(there).query(here)[0], cKDTree(here).query(there)[0]])
    return dice, float(np.median(apart)) * columns.cell_um


def _outline(tissue: Mask) -> Mask:
    return np.asarray(tissue & ~ndimage.binary_erosion(tissue))
