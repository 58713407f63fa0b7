"""Borders along the cortex of a section, found in the embeddings of points along its lines."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cytoarch.anatomy.columns import along
from cytoarch.brains import LabelTable
from cytoarch.discovery.borders import (
    BLOCK,
    NOTHING_KNOWN,
    UNKNOWN_AREA,
    Against,
    Borders,
    against_known,
    embedding_borders,
)
from cytoarch.embeddings.sampled import open_points
from cytoarch.errors import SectionError
from cytoarch.images.views import StoredImage
from cytoarch.learning.targets import class_of_id
from cytoarch.settings import Settings
from cytoarch.steps.points import PointsStep
from cytoarch.steps.sections import LABELS
from cytoarch.steps.sources import Maybe, Table
from cytoarch.steps.step import Facts, Inputs, Step, Stored
from cytoarch.store.staging import Staging

if TYPE_CHECKING:
    import pandas as pd

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

BORDERS_FILE = "borders.csv"
COLUMNS = ("line", "along_mm", "y_px", "x_px")
FOUND_COLUMNS = ("line", "stretch", "along_mm", "y_px", "x_px", "area", "signal", "threshold", "border")
"""Of the table of borders; `area` is the name of the label at the point, blank where there is none."""
GAP = 1.5
"""Points further apart than so many times the usual distance are no neighbours: the line is cut there."""


class BorderSettings(Settings):
    """How borders are found."""

    block: int = Field(default=BLOCK, ge=2, le=200, description="Neighbouring points that are averaged on either side.")
    level: float = Field(default=0.05, gt=0, lt=1, description="Chance of a border on a line that has none.")
    shuffles: int = Field(default=200, ge=20, le=10_000, description="Lines without borders that are drawn.")
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of these lines.")
    near_mm: float | None = Field(
        default=None, gt=0, le=100, description="How far a border lies from one of the labels, at most, to be the same "
        "(mm); blank: half a block.",
    )  # fmt: skip


@dataclass(frozen=True)
class BordersStep(Step[Path]):
    """The border signal at every point of a section, which points are borders, and which borders labels have."""

    step: ClassVar[str] = "borders"
    version: ClassVar[int] = 2
    verb: ClassVar[str] = "find borders"

    points: Stored[Path]
    find: BorderSettings
    labels: Maybe[StoredImage] = Maybe(LABELS)
    table: Table = Table()

    @classmethod
    def of(cls, points: str, find: BorderSettings) -> "BordersStep":
        """The borders of points that were embedded under a name."""
        return cls(Stored(PointsStep, points), find)

    @property
    def name(self) -> str:
        """That of the points."""
        return self.points.name

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Look along every line. Raises SectionError if the points lie on no lines."""
        table = open_points([inputs[self.points]])
        missing = [one for one in COLUMNS if one not in table.obs]
        if missing:
            raise SectionError(
                f"the table of points has no column {', '.join(missing)}; embed the points that trace-cortex writes"
            )
        known = table.obs.reset_index(drop=True)
        labels = inputs[self.labels]
        if labels is not None:
            places_um = table.obsm["section_mm"] * 1000 + np.array(labels.grid.corner_um)
            known = known.assign(area=areas_at(labels, inputs[self.table], places_um))
        embeddings, find = np.asarray(table.X), self.find

        def found(rows: Int64) -> Borders:
            return embedding_borders(embeddings[rows], find.block, find.level, find.shuffles, find.seed)

        drawn = borders_along(known, found)
        return kept_borders(staging, drawn, find.near_mm, find.block)

    @classmethod
    def opened(cls, folder: Path) -> Path:
        """The table of borders, with `FOUND_COLUMNS`."""
        return folder / BORDERS_FILE


def areas_at(labels: StoredImage, table: LabelTable | None, places_um: Float64) -> NDArray[Any]:
    """The names (n,) of the labels at places (n, 2) um in the frame of a section; blank where there is none.

    The labels are read at their full resolution, some rows at a time.
    """
    if table is None or not len(places_um):
        return np.full(len(places_um), "", dtype=object)
    classes = table.classes(by_group=False)
    level = labels.levels[0]
    cells = np.floor(level.grid.from_corner(places_um)).astype(np.int64)
    inside = ((cells >= 0) & (cells < np.array(level.size))).all(axis=1)
    ids = along(lambda top, n: level.pixels(slice(top, top + n)), level.size, cells.astype(np.float64), 0)
    index = np.where(inside, class_of_id(classes)[ids.astype(np.int64)], UNKNOWN_AREA)
    names = np.array([*(one.name for one in classes), ""], dtype=object)
    return np.asarray(names[index])


def kept_borders(staging: Staging, found: "pd.DataFrame", near_mm: float | None, block: int) -> Facts:
    """Write a table of borders; the facts count it, and compare it with the labels where there are any."""
    buffer = io.StringIO()
    found.to_csv(buffer, index=False, lineterminator="\n", float_format="%.6g")
    staging.write(BORDERS_FILE, buffer.getvalue().encode())
    facts = {"points": len(found), "borders": int(found["border"].sum()), "lines": int(found["stretch"].nunique())}
    if not (found["area"] != "").any():
        return facts
    spacing_mm = float(found.groupby("stretch")["along_mm"].diff().median())
    reach = block // 2 if near_mm is None or not spacing_mm > 0 else max(1, round(near_mm / spacing_mm))
    compared = {key: round(float(value), 4) for key, value in beside_labels(found, reach)._asdict().items()}
    return {**facts, "against": compared, "near_mm": round(reach * spacing_mm, 4) if spacing_mm > 0 else None}


def beside_labels(found: "pd.DataFrame", reach: int) -> Against:
    """The borders of a table beside those between the labels at its points, near within `reach` points."""
    import pandas as pd

    codes, _ = pd.factorize(found["area"].replace("", None))  # what is missing is -1, which is UNKNOWN_AREA
    total = NOTHING_KNOWN
    for _, part in found.groupby("stretch", sort=True):
        judged = part["signal"].notna().to_numpy()
        total = total + against_known(
            np.flatnonzero(part["border"].to_numpy()), codes[part.index.to_numpy()], judged, reach
        )
    return total


def borders_along(known: "pd.DataFrame", find: Callable[[Int64], Borders]) -> "pd.DataFrame":
    """The points in their order along each line, with the border signal, its threshold, and whether each is a border.

    `known` has the columns of `COLUMNS`; `find` is given its rows on a stretch, in order. Of several draws of a point
    the first counts. Lines are cut into stretches where points are missing.
    """
    import pandas as pd

    table = known.assign(row=np.arange(len(known))).reset_index(drop=True)
    if "area" not in table:
        table["area"] = ""
    if "draw" in table:
        table = table[table["draw"] == 0]
    table = table.astype({"line": np.int64, "along_mm": float}).sort_values(["line", "along_mm"], kind="stable")
    steps = table.groupby("line")["along_mm"].diff()
    usual = steps.median()
    table["stretch"] = (steps.isna() | (steps > GAP * usual)).cumsum() - 1
    parts = []
    for _, part in table.groupby("stretch", sort=True):
        found = find(part["row"].to_numpy())
        is_border = np.zeros(len(part), dtype=bool)
        is_border[found.places] = True
        parts.append(part.assign(signal=found.signal, threshold=found.threshold, border=is_border))
    names = list(FOUND_COLUMNS)
    return pd.concat(parts, ignore_index=True)[names] if parts else pd.DataFrame(columns=names)
