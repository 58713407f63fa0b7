"""What embeddings know of the structure of cortex: linear regression of measures on their principal components.

After Schiffer et al.: components of the embeddings, 1 to 256 of them, ordinary least squares, R2 on folds held out.
Beside them, as the baseline, profiles of the stain across the cortex, 200 values a point, each standardised over
points. Points that lie next to each other are alike, so folds of points at random flatter; folds of sections less so.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GroupKFold, KFold

from cytoarch.errors import TrainingError
from cytoarch.progress import Progress
from cytoarch.settings import Settings

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Components = Annotated[int, Field(ge=1, le=10_000)]
FoldsOf = Literal["points", "sections"]
WAYS: tuple[FoldsOf, ...] = ("points", "sections")
FEWEST = 10
"""Points with a measure that a fit needs, at least."""


class StructureSettings(Settings):
    """How measures of the cortex are told from embeddings."""

    components: tuple[Components, ...] = Field(
        default=(1, 16, 32, 64, 128, 256), min_length=1, max_length=20, description="Principal components told from."
    )
    components_of: Literal["fold", "all"] = Field(
        default="fold", description="Components of the points learned from (fold), or of all points, as CytoNet (all)."
    )
    folds: int = Field(default=5, ge=2, le=50, description="Parts that are held out in turn.")
    attributed: int = Field(default=32, ge=1, le=256, description="Components whose share in each measure is shown.")
    most_points: int = Field(default=20_000, ge=100, le=1_000_000, description="Points that are used, drawn at random.")
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Of the folds and of the points that are drawn.")


@dataclass(frozen=True)
class Measured:
    """Points of a brain: what they look like and what was measured there."""

    features: Mapping[str, Float64]
    """Name -> (n, d), no blanks: embeddings, profiles."""
    measures: Mapping[str, Float64]
    """Name -> (n,), NaN where it is not known."""
    section: Int64
    """(n,)"""

    def chosen(self, rows: Int64) -> "Measured":
        """Some of the points."""
        return Measured(
            {name: one[rows] for name, one in self.features.items()},
            {name: one[rows] for name, one in self.measures.items()},
            self.section[rows],
        )


class StructureScore(NamedTuple):
    """How well one measure is told."""

    measure: str
    features: str
    folds_of: FoldsOf
    components: int
    """Principal components; 0: the features themselves."""
    points: int
    r2: float
    """Mean over folds, on points held out; NaN if it could not be fitted."""
    r2_sd: float


def structure_scores(points: Measured, settings: StructureSettings, on_progress: Progress) -> list[StructureScore]:
    """R2 of every measure from all features, by number of components, for folds of points and of sections.

    More components than points learned from are left out, and the features themselves where they are wider than that.
    Raises TrainingError where there are too few points.
    """
    count = len(points.section)
    if count < 2 * FEWEST:
        raise TrainingError(f"{count} points have embeddings and columns; {2 * FEWEST} are needed: trace more sections")
    found: dict[tuple[str, str, FoldsOf, int], list[float]] = {}
    steps = [(name, way) for name in points.features for way in WAYS]
    for number, (name, way) in enumerate(steps, start=1):
        for train, test in folds(points.section, way, settings):
            shown = _components(points.features[name], train, settings)
            for kept, values in shown.items():
                for measure, r2 in _fold_scores(values, points.measures, train, test).items():
                    found.setdefault((measure, name, way, kept), []).append(r2)
        on_progress(number, len(steps))
    known = {name: int(np.isfinite(one).sum()) for name, one in points.measures.items()}
    order = {name: at for at, name in enumerate(points.measures)}
    rows = [StructureScore(*key, known[key[0]], *_mean(values)) for key, values in found.items()]
    return sorted(rows, key=lambda one: (order[one.measure], one.features, one.folds_of, one.components or math.inf))


def folds(section: Int64, way: FoldsOf, settings: StructureSettings) -> Iterator[tuple[Int64, Int64]]:
    """Rows learned from and rows held out, fold by fold; of sections as many folds as there are, at most."""
    if way == "points":
        yield from KFold(settings.folds, shuffle=True, random_state=settings.seed).split(section)
        return
    sections = len(np.unique(section))
    if sections > 1:
        yield from GroupKFold(min(settings.folds, sections)).split(section, groups=section)


def _components(features: Float64, train: Int64, settings: StructureSettings) -> dict[int, Float64]:
    """The scores (n, k) of all points on some numbers of components, and under 0 the features themselves."""
    held = np.arange(len(features)) if settings.components_of == "all" else train
    most = min(features.shape[1], len(train) - 1)
    counts = sorted({one for one in settings.components if one <= most})
    found: dict[int, Float64] = {}
    if counts:
        scores = fitted_components(features[held], counts[-1]).transform(features)
        found = {one: scores[:, :one] for one in counts}
    if features.shape[1] < len(train):
        found[0] = features
    return found


def fitted_components(features: Float64, count: int) -> PCA:
    """The first principal components of features (n, d)."""
    tall = len(features) >= features.shape[1]
    return PCA(count, svd_solver="covariance_eigh" if tall else "full").fit(features)


def _fold_scores(values: Float64, measures: Mapping[str, Float64], train: Int64, test: Int64) -> dict[str, float]:
    """R2 of every measure on rows held out, NaN where too few are known; those of the same points in one fit."""
    together: dict[bytes, list[str]] = {}
    for name, measure in measures.items():
        together.setdefault(np.isfinite(measure).tobytes(), []).append(name)
    found: dict[str, float] = {}
    for names in together.values():
        truth = np.stack([measures[name] for name in names], axis=1)
        known = np.isfinite(truth[:, 0])
        learned, asked = train[known[train]], test[known[test]]
        if len(learned) < max(FEWEST, values.shape[1] + 1) or len(asked) < 2:
            found |= dict.fromkeys(names, math.nan)
            continue
        told = LinearRegression().fit(values[learned], truth[learned]).predict(values[asked])
        found |= {name: r2_of(truth[asked, at], told[:, at]) for at, name in enumerate(names)}
    return found


def r2_of(truth: Float64, told: Float64) -> float:
    """The share of the variance that is told; NaN where there is none.

    >>> r2_of(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 2.0])), r2_of(np.ones(2), np.ones(2))
    (0.5, nan)
    """
    spread = float(((truth - truth.mean()) ** 2).sum())
    return 1 - float(((truth - told) ** 2).sum()) / spread if spread > 0 else math.nan


def _mean(values: list[float]) -> tuple[float, float]:
    known = [one for one in values if math.isfinite(one)]
    return (float(np.mean(known)), float(np.std(known))) if known else (math.nan, math.nan)


def attribution(features: Float64, measures: Mapping[str, Float64], count: int) -> dict[str, Float64]:
    """How much each of the first components has to do with a measure: |beta sd(component) / sd(measure)| (k,).

    Fitted to all points. Components are uncorrelated over them, so that this is the correlation of the component with
    the measure where the measure is known everywhere, and the squares add up to R2. Measures that are known at too few
    points, or are the same everywhere, are left out.
    """
    kept = min(count, *features.shape, len(features) - 1)
    scores = fitted_components(features, kept).transform(features)
    found = {}
    for name, measure in measures.items():
        known = np.isfinite(measure)
        if known.sum() <= max(FEWEST, kept) or not measure[known].std() > 0:
            continue
        weights = LinearRegression().fit(scores[known], measure[known]).coef_
        found[name] = np.abs(weights * scores[known].std(axis=0) / measure[known].std())
    return found


class PlaceError(NamedTuple):
    """How far places in one brain are told wrong by fits to another: means over points and fits (mm)."""

    learned_from: str
    told: str
    """The same brain: of sections held out."""
    x_mm: float
    y_mm: float
    z_mm: float
    beside_mm: float
    """Of the distance from the plane between the hemispheres, |x|."""
    points: int


AXES = ("x_mm", "y_mm", "z_mm")


def place_errors(brains: Mapping[str, Measured], features: str, settings: StructureSettings) -> list[PlaceError]:
    """Errors of places told linearly from features, from every brain in every brain: one fit a fold of its sections.

    Brains whose places are not known are left out; so is the own brain where it has one section. Components: as many
    as are asked for at most.
    """
    placed = {name: known for name, one in brains.items() if (known := _placed(one)) is not None}
    found: list[PlaceError] = []
    for name, own in placed.items():
        mm = {other: _stacked(one) for other, one in placed.items()}
        errors: dict[str, list[Float64]] = {other: [] for other in placed}
        for train, test in folds(own.section, "sections", settings):
            fit = _fit_places(own.features[features][train], mm[name][train], settings)
            for other, one in placed.items():
                rows = test if other == name else np.arange(len(one.section))
                told, truth = fit(one.features[features][rows]), mm[other][rows]
                aside = np.abs(np.abs(told[:, :1]) - np.abs(truth[:, :1]))
                errors[other].append(np.concatenate([np.abs(told - truth), aside], axis=1).mean(axis=0))
        for other, each in errors.items():
            if each:
                x, y, z, beside = map(float, np.mean(each, axis=0))
                found.append(PlaceError(name, other, x, y, z, beside, len(placed[other].section)))
    return found


def _placed(brain: Measured) -> Measured | None:
    """The points whose places are known, if there are enough."""
    if any(axis not in brain.measures for axis in AXES):
        return None
    rows = np.flatnonzero(np.isfinite(_stacked(brain)).all(axis=1))
    return brain.chosen(rows) if len(rows) >= 2 * FEWEST else None


def _stacked(brain: Measured) -> Float64:
    return np.stack([brain.measures[axis] for axis in AXES], axis=1)


def _fit_places(features: Float64, places: Float64, settings: StructureSettings) -> Callable[[Float64], Float64]:
    """What tells places (n, 3) of features (n, d)."""
    count = min(max(settings.components), features.shape[1], len(features) // 2)
    shown = fitted_components(features, count)
    fit = LinearRegression().fit(shown.transform(features), places)
    return lambda asked: np.asarray(fit.predict(shown.transform(asked)))
