"""Alignment by all pixels: every turn tried on a coarse plane, then refined on finer ones.

The search multiplies spectra: for every turn, the correlation of two planes at all shifts at once. The refinement is
the inverse compositional Gauss-Newton method (Baker and Matthews 2004) on squared differences with weights that
forget outliers (Cauchy), since folds, tears and lost pieces are no reason to move a section.
"""

import math
from collections.abc import Iterable

import numpy as np
from scipy.fft import irfft2, next_fast_len, rfft2

from cytoarch.anatomy.reconstruction.likeness import Float32, Likeness, Plane
from cytoarch.anatomy.reconstruction.rigid import Rigid
from cytoarch.geometry import Pair, Transform

TURNS = 60
"""Turns tried, evenly around the circle: a refinement finds its way over half of one such step."""
KEPT = 4
"""Best turns that are refined."""
SUPPORT = 0.05
"""Stain that counts as such."""
LEAST_SCALE = 0.02
"""Differences below this are no outliers."""
STEPS = 30
CLOSE = 0.01
"""The refinement ends when it moves less than this, in cells."""


def searched(fixed: Likeness, moving: Likeness, mirrored: bool) -> list[Rigid]:
    """The best turns and shifts from `fixed` um to `moving` um over the whole circle, best first."""
    one, other = fixed.coarse, moving.coarse
    size = next_fast_len(2 * max(*one.grid.shape, *other.grid.shape))
    spectrum = np.conj(rfft2(one.values, (size, size)))
    norm = float(np.linalg.norm(one.values))
    found: list[tuple[float, Rigid]] = []
    for turn in range(TURNS):
        start = Rigid(mirrored, turn * 360.0 / TURNS, (0.0, 0.0)).about(fixed.centre_um, moving.centre_um)
        seen = other.on(one.grid, start.transform)
        product = irfft2(rfft2(seen, (size, size)) * spectrum, (size, size))
        at = int(product.argmax())
        shift = [k - size if k > size // 2 else k for k in divmod(at, size)]
        y, x = (np.array(shift) * one.grid.cell_um).tolist()
        score = float(product.flat[at]) / max(norm * float(np.linalg.norm(seen)), 1e-9)
        found.append((score, Rigid(False, 0.0, (y, x)).then(start)))
    found.sort(key=lambda each: -each[0])
    return [rigid for _, rigid in found[:KEPT]]


def refined(fixed: Plane, moving: Plane, start: Rigid, centre_um: Pair) -> Rigid:
    """The map from `fixed` um to `moving` um near `start` under which two planes differ least."""
    return _followed(fixed, moving, start, centre_um, sized=False)[0]


def larger(fixed: Plane, moving: Plane, way: Rigid, centre_um: Pair) -> float:
    """How many times as large a section is as another that it lies on by a map, where they differ least."""
    return _followed(fixed, moving, way, centre_um, sized=True)[1]


def _followed(fixed: Plane, moving: Plane, start: Rigid, centre_um: Pair, sized: bool) -> tuple[Rigid, float]:
    """The map under which two planes differ least, and how many times sizes about a centre grow with it if `sized`."""
    grid, cell = fixed.grid, fixed.grid.cell_um
    slopes = [slope / cell for slope in np.gradient(fixed.values)]
    y, x = grid.centres_um()
    reach = max(grid.extent_um)  # so that a turn is measured in um, as shifts are
    down, along = (y - centre_um[0])[:, None], (x - centre_um[1])[None]
    columns = [(slopes[1] * down - slopes[0] * along) / reach, *slopes]
    columns += [(slopes[0] * down + slopes[1] * along) / reach] if sized else []
    steepest = np.stack(columns, axis=-1).reshape(-1, len(columns))
    used = np.abs(steepest).sum(axis=1) > 1e-9
    steepest, target = steepest[used], fixed.values.ravel()[used]
    way, grown = start, 1.0
    for _ in range(STEPS):
        off = moving.on(grid, _grown(grown, centre_um).then(way.transform)).ravel()[used] - target
        scale = 1.4826 * float(np.median(np.abs(off))) + LEAST_SCALE
        weighted = steepest / (1 + (off / (2 * scale)) ** 2)[:, None]
        # no BLAS: its threads would cut these sums differently on every machine, and sections are linked side by side
        normal, right = np.einsum("ij,ik->jk", weighted, steepest), np.einsum("ij,i->j", weighted, off)
        step = np.linalg.lstsq(normal, right, rcond=1e-12)[0]
        grown *= math.exp(-step[3] / reach) if sized else 1.0
        turn = Rigid(False, math.degrees(step[0] / reach), (0.0, 0.0)).about(
            centre_um, (centre_um[0] + grown * step[1], centre_um[1] + grown * step[2])
        )
        way = turn.inverse().then(way)
        if np.abs(step).max() < CLOSE * cell:
            break
    return way, grown


def _grown(times: float, centre_um: Pair) -> Transform:
    """The map that makes all so many times as large about a centre."""
    y, x = centre_um
    return Transform.of(times * np.eye(2), (1 - times) * np.array([y, x]))


def correlation(fixed: Plane, moving: Plane, way: Rigid) -> float:
    """Pearson correlation of two planes where either shows tissue; 0 where that cannot be told."""
    seen = moving.on(fixed.grid, way.transform)
    return correlated(fixed.values, seen)


def correlated(one: Float32, other: Float32) -> float:
    """Pearson correlation of two arrays of the same shape where either shows tissue."""
    shown = (one > SUPPORT) | (other > SUPPORT)
    a, b = one[shown], other[shown]
    if len(a) < 2 or min(float(np.ptp(a)), float(np.ptp(b))) < 1e-6:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def best_near(fixed: Likeness, moving: Likeness, starts: Iterable[Rigid]) -> tuple[float, Rigid]:
    """The start that leads furthest on the coarsest level: its correlation there and where it led."""
    level, other = fixed.levels[-1], moving.levels[-1]
    ends = [refined(level, other, start, fixed.centre_um) for start in starts]
    return max(((correlation(level, other, end), end) for end in ends), key=lambda each: each[0])


def finished(fixed: Likeness, moving: Likeness, way: Rigid) -> Rigid:
    """A map found on the coarsest level, refined on the finer one.

    Single cells would not say more: what neighbouring sections share is coarser than that.
    """
    return refined(fixed.levels[0], moving.levels[0], way, fixed.centre_um)
