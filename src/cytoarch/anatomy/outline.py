"""Which pixels of an overview are tissue: stained against the slide beside them, thick enough, in pieces, no ink.

In order: a threshold in the gap between slide and tissue; sulci opened that meninges fill; the edge where half the
stain of the tissue beside it is reached; thin things taken away (lines, letters, dots of a frame), pale ones sooner
than dense ones; holes that hold pale tissue filled; ink and small pieces left out.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import closing, disk

from cytoarch.anatomy.slide import SOFT_PX, Float32, Mask, Slide, border, connected

SEEN = 5.0
"""What differs from the slide by so many standard deviations of its noise is something."""
SURE = 4.0
"""The threshold is at least so many."""
DENSE_PERCENTILE = 75.0
"""Of the stain of all that is something: what dense tissue shows."""
GAP = (0.05, 0.25)
"""Where the gap between slide and tissue is looked for, as shares of dense tissue's stain."""
HALF = 0.5
"""Share of the stain of the tissue beside it at which an edge lies, and from which on tissue counts as dense."""
EDGE_PX = 2.5
"""How far from the first outline its edge may be moved inwards."""
NEAR_PX = 3.0
"""How far the tissue beside an edge is looked at (sd of a Gaussian)."""
CLEFT, PALER = 0.7, 0.8
"""A cleft shows less than the first share of the stain of the tissue on both sides; less than the second is enough
where it opens no hole, for ventricles are near the surface, too."""
MENINGES = 0.6
"""Share of dense tissue's stain from which on nothing is a cleft: pale tissue beneath dark meninges is none."""
REGROWN_PX = 3
"""How far corners that were rounded off grow again."""
EXACT_PX = 4
"""Up to which radius a disc is one footprint; what a larger one costs grows with its area, unless it is a sequence."""
BLACK, NEUTRAL = 0.35, 0.12
"""Ink lets less than the first share of the light through in every channel, the same up to the second."""
BLACKER = 1.5
"""And it differs from the slide by so many times as much as dense tissue does."""
OTHER_HUE_DEG = 35.0
"""Ink of another hue: angle between what it and dense tissue absorb of red, green and blue. Of Nissl-stained tissue
99 % lie within 9-16 degrees."""
INKED = 0.2
"""A piece is ink if this share of it is."""


@dataclass(frozen=True)
class OutlineRules:
    """Sizes that decide what is tissue, in pixels."""

    smallest_px: float
    """Area of pieces that are left out, and of holes that are closed."""
    smallest_share: float
    """Of the largest piece's area: what smaller pieces are left out."""
    thin_px: float
    """Width below which dense things are no tissue; a piece of its own must somewhere be twice as wide."""
    pale_px: float
    """The same for pale things."""
    cleft_px: float
    """Width below which a pale cleft that opens to the outside is no tissue; nothing is below two pixels."""

    def fitting(self, deepest_px: float) -> "OutlineRules":
        """The rules for a picture in which no tissue is deeper: nothing wider than a quarter of it is thin."""
        most = deepest_px / 2
        return replace(self, thin_px=min(self.thin_px, most), pale_px=min(self.pale_px, most))


@dataclass(frozen=True)
class Outline:
    """The tissue of an overview and what was found on the way."""

    mask: Mask
    """(y, x)."""
    stain: Float32
    """(y, x) difference from the slide, positive towards tissue."""
    dense: float
    """Stain of dense tissue."""
    threshold: float
    """Stain from which on something was looked at as tissue."""
    pieces: int
    dropped_share: float
    """Area of all that was left out as too small or as ink, as a share of the tissue's."""
    ink_share: float
    """The same of ink alone."""
    cleft_share: float
    """The same of clefts that were opened."""


def outline(pixels: Float32, slide: Slide, rules: OutlineRules) -> Outline:
    """The tissue in a picture (c, y, x) on its slide; an empty mask if nothing differs from the slide."""
    differences = slide.differences(ndimage.gaussian_filter(pixels, (0, SOFT_PX, SOFT_PX)))
    stain = differences.mean(axis=0)
    something = slide.scanned & ~slide.bare & (stain > SEEN * slide.noise)
    if something.sum() <= max(rules.smallest_px, 1):
        return Outline(np.zeros(stain.shape, np.bool_), stain, 0.0, SEEN * slide.noise, 0, 0.0, 0.0, 0.0)
    dense = float(np.percentile(stain[something], DENSE_PERCENTILE))
    threshold = _gap(stain[slide.scanned], dense, SURE * slide.noise)
    over = slide.scanned & (stain > threshold)
    rough = _without_clefts(over, stain, dense, rules.cleft_px)
    cleft_px = int((over & ~rough).sum())
    depth = distances(rough)
    rules = rules.fitting(float(depth.max()))
    stained = _with_edges(rough, depth, stain, dense)
    turned = _hue_angles(differences, slide, stained & (stain > HALF * dense))
    ink = stained & (_black(pixels, slide, stain, dense) | (turned > OTHER_HUE_DEG))
    thick = opened(stained, rules.pale_px / 2) | opened(stained & (stain > HALF * dense), rules.thin_px / 2)
    for _ in range(REGROWN_PX):
        thick = ndimage.binary_dilation(thick) & stained
    filled = _without_holes(thick, stain, rules.smallest_px, slide.noise)
    mask, pieces, dropped_px = _pieces(_without_strokes(filled, ink, rules.pale_px / 2), ink, rules)
    area = max(1, int(mask.sum()))
    ink_px = int((ink & ~mask).sum())
    return Outline(mask, stain, dense, threshold, pieces, dropped_px / area, ink_px / area, cleft_px / area)


def _gap(stain: NDArray[np.floating], dense: float, least: float) -> float:
    """The emptiest place of the histogram between the slide and the palest tissue."""
    edges = np.linspace(0, 0.6 * dense, 121)
    counts = ndimage.gaussian_filter1d(np.histogram(stain, bins=edges)[0].astype(np.float64), 2)
    middles = (edges[1:] + edges[:-1]) / 2
    allowed = (middles >= max(least, GAP[0] * dense)) & (middles <= GAP[1] * dense)
    return float(middles[allowed][counts[allowed].argmin()]) if allowed.any() else least


def _without_clefts(mask: Mask, stain: Float32, dense: float, width_px: float) -> Mask:
    """The mask without clefts that open to the outside: sulci that are filled with meninges, paler than their banks.

    A cleft is a valley of the stain that closes where it is narrower than `width_px` (a grey closing). So is a thin
    callosum beneath a fissure: nothing here tells them apart.
    """
    reach = int(width_px / 2)
    outside = connected(~mask, border(mask.shape))
    if reach < 1 or not outside.any():
        return mask
    closed = closing(stain, disk(reach, decomposition="sequence" if reach > EXACT_PX else None))
    pale = stain < MENINGES * dense
    cleft = pale & (stain < CLEFT * closed)
    # at its mouth slide lies beside it, too, and nothing closes: there it is told by its banks further in
    banks = ndimage.maximum_filter(np.where(mask & cleft, closed, 0), size=2 * reach + 3)
    mouth = ndimage.binary_dilation(outside, iterations=reach + 1) & pale & (stain < CLEFT * banks)
    opened_up = connected(~mask | cleft | mouth, outside)
    holes = ~mask & ~opened_up
    paler = mask & pale & (stain < PALER * closed) & ~ndimage.binary_dilation(holes, structure=np.ones((3, 3)))
    return np.asarray(mask & ~connected(opened_up | paler, opened_up))


def _with_edges(mask: Mask, depth: Float32, stain: Float32, dense: float) -> Mask:
    """The mask without the blurred rim in which less than half the stain of the tissue beside it is reached."""
    inner = (depth > 2).astype(np.float32)
    weight = ndimage.gaussian_filter(inner, NEAR_PX)
    beside = ndimage.gaussian_filter(inner * np.minimum(stain, 1.5 * dense), NEAR_PX) / np.maximum(weight, 1e-3)
    return np.asarray(mask & ((depth > EDGE_PX) | (stain > HALF * beside)))


def _black(pixels: Float32, slide: Slide, stain: Float32, dense: float) -> Mask:
    """Pixels of a picture on a bright slide that are as black as ink and much darker than its tissue."""
    if slide.polarity == "bright":
        return np.zeros(stain.shape, np.bool_)
    passed = pixels / np.maximum(slide.level, 1e-6)
    return np.asarray((passed.max(axis=0) < BLACK) & (np.ptp(passed, axis=0) < NEUTRAL) & (stain > BLACKER * dense))


def _hue_angles(differences: Float32, slide: Slide, strong: Mask) -> Float32:
    """(y, x) by how many degrees what strongly stained pixels absorb of red, green and blue is not the usual hue.

    It is 0 elsewhere, and in pictures that have not three channels on a bright slide.
    """
    angles = np.zeros(strong.shape, dtype=np.float32)
    if slide.polarity == "dark" and len(differences) == 3 and strong.any():
        hue = differences[:, strong]
        hue = hue / np.maximum(np.linalg.norm(hue, axis=0), 1e-6)
        usual = np.median(hue, axis=1)
        cosine = usual @ hue / max(float(np.linalg.norm(usual)), 1e-6)
        angles[strong] = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    return angles


def _without_strokes(mask: Mask, ink: Mask, radius_px: float) -> Mask:
    """The mask without ink that runs out of it: what is left when the rest is closed over the ink that crosses it."""
    rest = mask & ~ink
    if not (mask & ink).any() or not rest.any():
        return mask
    grown = ndimage.distance_transform_edt(~rest) <= radius_px
    return np.asarray(rest | (mask & ink & (distances(grown) > radius_px)))


def _without_holes(mask: Mask, stain: Float32, smallest_px: float, noise: float) -> Mask:
    """The mask with its holes closed that are small, or that show tissue rather than the slide.

    They do if they reach half the stain of the tissue around them: what is pale is so against what lies beside it.
    """
    labels, count = ndimage.label(~mask)
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    far = ~ndimage.binary_dilation(mask)  # the rim of a hole is blurred
    inside = _means(stain, np.where(far, labels, 0), count)
    least = np.asarray(ndimage.minimum(stain, labels, np.arange(count + 1))) if count else inside
    seen = np.where(np.isnan(inside), least, inside)
    around = np.where(mask, ndimage.grey_dilation(labels, size=(5, 5)), 0)
    closed = (areas <= smallest_px) | (seen > np.maximum(3 * noise, HALF * _means(stain, around, count)))
    closed[0] = False
    closed[np.unique(labels[border(mask.shape)])] = False
    return np.asarray(mask | closed[labels])


def _means(values: Float32, labels: NDArray[np.int32], count: int) -> NDArray[np.float64]:
    """The mean of every label 0..count; NaN for those that are nowhere."""
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    sums = np.bincount(labels.ravel(), weights=values.ravel(), minlength=count + 1)
    return np.where(areas > 0, sums / np.maximum(areas, 1), np.nan)


def _pieces(mask: Mask, ink: Mask, rules: OutlineRules) -> tuple[Mask, int, int]:
    """The mask without ink and small pieces, the number of pieces, and the area of what was left out."""
    labels, count = ndimage.label(mask)
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    inked = np.bincount(labels.ravel(), weights=ink.ravel(), minlength=count + 1) >= INKED * np.maximum(areas, 1)
    thick = np.zeros(count + 1, dtype=np.bool_)
    thick[labels[distances(mask) > rules.thin_px]] = True  # a line of letters is nowhere as thick as that
    areas[0], inked[0] = 0, False
    largest = int(areas[~inked].max(initial=0))
    kept = ~inked & thick & (areas >= max(1.0, rules.smallest_px, rules.smallest_share * largest))
    return np.asarray(kept[labels]), int(kept.sum()), int(areas[~kept].sum())


def distances(mask: Mask) -> Float32:
    """(y, x) distance of every pixel of a mask to what is outside it; beyond the picture it is as at its edge."""
    padded = ndimage.distance_transform_edt(np.pad(mask, 1, mode="edge"))
    return np.asarray(padded[1:-1, 1:-1], dtype=np.float32)


def opened(mask: Mask, radius_px: float) -> Mask:
    """The parts of a mask that a disc of this radius reaches (an opening); all of it below one pixel.

    >>> line = np.zeros((7, 12), dtype=bool)
    >>> line[1:6, 1:6] = line[3] = True
    >>> opened(line, 2).astype(int)[3].tolist()
    [1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0]
    """
    if radius_px < 1:
        return mask
    core = distances(mask) > radius_px
    if not core.any():
        return np.zeros_like(mask)
    return np.asarray(mask & (ndimage.distance_transform_edt(~core) <= radius_px))
