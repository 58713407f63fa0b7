"""What embeddings of a brain's points know of the structure of its cortex; and of where they lie in other brains."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cytoarch.anatomy.points import SCHEMA
from cytoarch.brains import LabelTable
from cytoarch.embeddings.sampled import open_points
from cytoarch.errors import StoreError, TrainingError
from cytoarch.learning.structure import (
    AXES,
    Measured,
    PlaceError,
    StructureScore,
    StructureSettings,
    attribution,
    place_errors,
    structure_scores,
)
from cytoarch.steps.arrays import arrays_of
from cytoarch.steps.columns import Columns, ColumnsStep
from cytoarch.steps.points import PointsStep
from cytoarch.steps.sources import Each, OfBrains, Table
from cytoarch.steps.step import Facts, Inputs, Step, Stored
from cytoarch.store.staging import Staging

SCORES_FILE, ATTRIBUTION_FILE, POINTS_FILE, PLACES_FILE = "scores.csv", "attribution.csv", "points.npz", "places.csv"
EMBEDDING, PROFILE = "embedding", "profile"
"""What measures are told from."""
CROSSED = 3
"""Labels that half of the columns cross, at least, for them to be layers: those of areas are crossed one at a time."""
BEYOND = 0.95
"""Labels that lie deeper in the mean are white matter, which the ends of columns touch."""
LEAST_SHARE = 0.03
"""Of a column, that a label has at least where it is crossed."""

Float64 = NDArray[np.float64]


class Judged(NamedTuple):
    """What is known of one way of embedding a brain's points."""

    scores: Path
    """CSV of `StructureScore`."""
    attribution: Path
    """CSV: measure, component (from 1), share."""
    points: Path
    """The points it was found on."""


@dataclass(frozen=True)
class StructureStep(Step[Judged]):
    """R2 of measures of the cortex told from the embeddings of a brain's points, and from profiles of its stain."""

    step: ClassVar[str] = "structure"
    scope: ClassVar = "brain"
    verb: ClassVar[str] = "regress"

    judged: StructureSettings
    points: Each[Path]
    columns: Each[Columns]
    table: Table = Table()

    @classmethod
    def of(cls, columns: ColumnsStep, judged: StructureSettings) -> "StructureStep":
        """That of the points whose columns were measured."""
        both = (columns.points, columns.stored)
        return cls(judged, Each(columns.points, both), Each(columns.stored, both))

    @property
    def name(self) -> str:
        """That of the points."""
        source = self.points.source
        return source.name if isinstance(source, Stored) else PointsStep.step

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Gather the points, fit and score. Raises TrainingError where there are too few."""
        gathered, left_out, layers = gathered_points(inputs[self.points], inputs[self.columns], inputs[self.table])
        rng = np.random.default_rng([self.judged.seed, 6])
        kept = np.sort(rng.permutation(len(gathered.section))[: self.judged.most_points])
        points = gathered.chosen(kept)
        scores = structure_scores(points, self.judged, inputs.on_progress)
        shares = attribution(points.features[EMBEDDING], points.measures, self.judged.attributed)
        staging.write(SCORES_FILE, table_of(StructureScore._fields, scores))
        rows = [(name, at, value) for name, one in shares.items() for at, value in enumerate(one.tolist(), start=1)]
        staging.write(ATTRIBUTION_FILE, table_of(("measure", "component", "share"), rows))
        staging.write(POINTS_FILE, packed(points))
        return {"points": len(kept), "left_out": left_out, "layers": layers, "best": best_of(scores)}

    @classmethod
    def opened(cls, folder: Path) -> Judged:
        """The tables."""
        return Judged(folder / SCORES_FILE, folder / ATTRIBUTION_FILE, folder / POINTS_FILE)


@dataclass(frozen=True)
class BrainPlacesStep(Step[Path]):
    """How far places are told wrong, from each of some brains in each of them."""

    step: ClassVar[str] = "brain-places"
    scope: ClassVar = "study"
    verb: ClassVar[str] = "tell places"

    points: str
    judged: StructureSettings
    brains: OfBrains[Judged]

    @property
    def name(self) -> str:
        """That of the points."""
        return self.points

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Fit in every brain and ask in all. Raises TrainingError if brains were embedded in different ways."""
        brains = {name: unpacked(one.points) for name, one in inputs[self.brains].items()}
        widths = {name: one.features[EMBEDDING].shape[1] for name, one in brains.items()}
        if len(set(widths.values())) > 1:
            said = ", ".join(f"{name} {width}" for name, width in widths.items())
            raise TrainingError(
                f"embeddings of different length cannot be compared ({said}); embed all in the same way"
            )
        found = place_errors(brains, EMBEDDING, self.judged)
        staging.write(PLACES_FILE, table_of(PlaceError._fields, found))
        return {"errors": [one._asdict() for one in found]}

    @classmethod
    def opened(cls, folder: Path) -> Path:
        """CSV of `PlaceError`."""
        return folder / PLACES_FILE


def gathered_points(
    points: Mapping[str, Path], columns: Mapping[str, Columns], table: LabelTable | None
) -> tuple[Measured, int, str]:
    """The points of all sections that have a whole column, how many have none, and what is said of layers."""
    known = open_points([points[one] for one in columns])
    rows = np.flatnonzero(known.obs["draw"].to_numpy() == 0)
    obs = known.obs.iloc[rows]
    parts = list(columns.values())
    measures: dict[str, Float64] = {
        name: np.concatenate([getattr(one, name) for one in parts]) for name in ("thickness_mm", "curvature_per_mm")
    }
    profile = np.concatenate([one.profile for one in parts])
    layered, said = _layers(parts, {} if table is None else {one.id: one.name for one in table.labels})
    measures |= layered | _further(obs)
    places = np.asarray(known.obsm["brain_mm"], dtype=np.float64)[rows]
    measures |= {axis: places[:, number] for number, axis in enumerate(AXES)} | {"beside_mm": np.abs(places[:, 0])}
    whole = np.isfinite(profile).all(axis=1) & np.isfinite(measures["thickness_mm"])
    section = np.unique(obs["section_id"].to_numpy(str), return_inverse=True)[1].astype(np.int64)
    kept = np.flatnonzero(whole)
    features = {EMBEDDING: np.asarray(known.X, dtype=np.float64)[rows], PROFILE: profile}
    chosen = Measured(features, {name: one for name, one in measures.items() if _varies(one[kept])}, section)
    chosen = chosen.chosen(kept)
    depths = chosen.features[PROFILE]
    spread = depths.std(axis=0)
    scaled = (depths - depths.mean(axis=0)) / np.where(spread > 0, spread, 1)
    return Measured({**chosen.features, PROFILE: scaled}, chosen.measures, chosen.section), len(rows) - len(kept), said


def _layers(columns: Sequence[Columns], names: Mapping[int, str]) -> tuple[dict[str, Float64], str]:
    """Thickness and density of cells of each label, if the labels are layers; and a sentence on that."""
    depths: dict[int, list[float]] = {}
    for part in columns:
        for one, depth in zip(part.layers.tolist(), part.layer_depth.tolist(), strict=True):
            depths.setdefault(one, []).append(depth)
    ids = sorted(one for one, each in depths.items() if np.mean(each) < BEYOND)
    if not ids:
        return {}, "no labels"

    def spread(part: Columns, values: Float64, blank: float) -> Float64:
        full = np.full((len(values), len(ids)), blank)
        for at, one in enumerate(part.layers.tolist()):
            if one in ids:
                full[:, ids.index(one)] = values[:, at]
        return full

    thick = np.concatenate([spread(one, one.layer_mm, 0.0) for one in columns])
    dense = np.concatenate([spread(one, one.cells_per_mm2, math.nan) for one in columns])
    whole = np.isfinite(thick).all(axis=1)
    least = LEAST_SHARE * thick.sum(axis=1, keepdims=True)
    crossed = float(np.median((thick[whole] > least[whole]).sum(axis=1))) if whole.any() else 0.0
    if crossed < CROSSED:
        return {}, f"labels are no layers: half of the columns cross {crossed:g} of them at most"
    found = {}
    for at, one in enumerate(ids):
        if (thick[whole, at] > least[whole, 0]).mean() >= 0.5:
            name = names.get(one, str(one))
            found[f"thickness_mm of {name}"] = thick[:, at]
            found[f"cells_per_mm2 of {name}"] = dense[:, at]
    return found, f"labels are layers: half of the columns cross {crossed:g} of them or more"


def _further(obs: Any) -> dict[str, Float64]:
    """Columns of numbers that the table of points has of its own, and the angle at which the cortex was cut."""
    own = {one.name for one in SCHEMA} - {"cut_angle_deg"} | {"point", "draw", "beside_mm"}
    numbers = obs.select_dtypes("number")
    return {str(name): numbers[name].to_numpy(np.float64) for name in numbers if name not in own}


def _varies(values: Float64) -> bool:
    known = values[np.isfinite(values)]
    return len(known) > 1 and bool(known.std() > 0)


def best_of(scores: Sequence[StructureScore]) -> dict[str, float]:
    """The best R2 of every measure over numbers of components, by features and folds."""
    best: dict[str, float] = {}
    for one in scores:
        name = f"{one.measure}/{one.features}/{one.folds_of}"
        if math.isfinite(one.r2):
            best[name] = max(best.get(name, -math.inf), round(one.r2, 6))
    return best


def packed(points: Measured) -> bytes:
    """The points as npz, without pickles."""
    held = io.BytesIO()
    arrays: dict[str, NDArray[Any]] = {
        f"feature/{name}": one.astype(np.float32) for name, one in points.features.items()
    }
    arrays |= {f"measure/{name}": one for name, one in points.measures.items()}
    np.savez(held, allow_pickle=False, section=points.section, **arrays)
    return held.getvalue()


def unpacked(path: Path) -> Measured:
    """The points of a file. Raises StoreError if it is damaged."""
    held = arrays_of(path, error=StoreError)
    if "section" not in held:
        raise StoreError(f"{path} is damaged: it says nothing of sections; run verify")
    parts = {kind: {name.partition("/")[2]: held[name].astype(np.float64) for name in held if name.startswith(kind)}
             for kind in ("feature/", "measure/")}  # fmt: skip
    return Measured(parts["feature/"], parts["measure/"], held["section"])


def table_of(names: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    """Rows as CSV; numbers with six digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([f"{one:.6g}" if isinstance(one, float) else one for one in row] for row in rows)
    return text.getvalue().encode()
