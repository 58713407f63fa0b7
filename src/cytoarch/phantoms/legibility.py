"""What a patch of cortex gives away of its area: nothing by how grey it is, much by how it is layered."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cytoarch.phantoms.anatomy import AREA_COUNT
from cytoarch.phantoms.kernels import GREY
from cytoarch.phantoms.points import midline_points
from cytoarch.phantoms.rendering import render
from cytoarch.phantoms.sections import Phantom, PhantomSection, Window, cut, section_count
from cytoarch.phantoms.truth import truth

Float64 = NDArray[np.float64]

PATCH_MM = 1.6
BINS, DEPTHS = 32, 16
STRAIGHT_DEG = 60.0
"""Patches are taken where the columns lie nearly in the section (Spitzer et al. 2018 take 45 degrees and more)."""


class Patches(NamedTuple):
    """What was measured on n patches of one brain, within cortex."""

    mean: Float64
    """(n, 1) mean grey level."""
    histogram: Float64
    """(n, 32) shares of the grey levels."""
    profile: Float64
    """(n, 32) mean and standard deviation of the grey level of the patch's own area in 16 steps of laminar depth."""
    area: NDArray[np.int64]
    """(n,) area in the middle."""


def sample_patches(phantom: Phantom, per_area: int, sections: int, pixel_size_um: float = 4.0) -> Patches:
    """At most `per_area` patches of every area, centred on the middle of the cortex of evenly spread sections.

    Patches are squares of 1.6 mm; only their cortex is looked at. The phantom's stain must have one channel.
    """
    rng = np.random.default_rng(0 if phantom.settings.seed is None else phantom.settings.seed + 1)
    step = max(1, section_count(phantom) // sections)
    places: list[tuple[PhantomSection, Float64, int]] = []
    for number in range(step // 2, section_count(phantom), step):
        section = cut(phantom, number)
        points = midline_points(section)
        straight = points.truth.cut_angle_deg > STRAIGHT_DEG
        found = zip(points.slide_mm[straight], points.truth.area[straight].tolist(), strict=True)
        places += [(section, place, area) for place, area in found]
    areas = np.array([area for _, _, area in places])
    chosen: list[int] = []
    for area in range(1, AREA_COUNT + 1):
        of_area = np.flatnonzero(areas == area)
        chosen += rng.permutation(of_area)[:per_area].tolist()
    measured = [_measure(*places[index], pixel_size_um) for index in chosen]
    mean, histogram, profile = (np.array([one[k] for one in measured]) for k in range(3))
    return Patches(mean, histogram, profile, areas[chosen])


def _measure(
    section: PhantomSection, place: Float64, area: int, pixel_size_um: float
) -> tuple[Float64, Float64, Float64]:
    """Mean (1,), histogram (32,) and profile (32,) of the patch around a place on the slide."""
    side = round(PATCH_MM * 1000 / pixel_size_um)
    y, x = (int(at * 1000 / pixel_size_um) - side // 2 for at in place)
    window = Window(y, x, side, side)
    pixels, true = render(section, window, pixel_size_um).astype(np.float64), truth(section, window, pixel_size_um)
    cortex = true.tissue == GREY
    histogram = np.histogram(pixels[cortex], BINS, (0, 256))[0] / cortex.sum()
    own = cortex & (true.area == area)
    step = np.clip((true.laminar_depth[own] * DEPTHS).astype(np.int64), 0, DEPTHS - 1)
    count = np.maximum(np.bincount(step, minlength=DEPTHS), 1)
    mean = np.bincount(step, pixels[own], DEPTHS) / count
    square = np.bincount(step, pixels[own] ** 2, DEPTHS) / count
    spread = np.sqrt(np.maximum(square - mean**2, 0))
    return pixels[cortex].mean(keepdims=True), histogram, np.concatenate([mean, spread])


def times_chance(patches: Sequence[Patches], what: str) -> float:
    """Balanced accuracy over areas, as a multiple of chance, of a linear classifier on one of the measurements.

    `patches` holds one entry per brain. Every brain is classified by what was learned on the others.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features = np.concatenate([getattr(one, what) for one in patches])
    areas = np.concatenate([one.area for one in patches])
    brains = np.repeat(np.arange(len(patches)), [len(one.area) for one in patches])
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=3000))
    predicted = cross_val_predict(model, features, areas, groups=brains, cv=LeaveOneGroupOut())
    return float(balanced_accuracy_score(areas, predicted) * AREA_COUNT)
