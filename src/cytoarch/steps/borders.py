"""Borders along the cortex of a section, found in the embeddings of points along its lines."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cytoarch.discovery.borders import BLOCK, embedding_borders
from cytoarch.embeddings.sampled import open_points
from cytoarch.errors import SectionError
from cytoarch.settings import Settings
from cytoarch.steps.points import PointsStep
from cytoarch.steps.step import Facts, Inputs, Step, Stored
from cytoarch.store.staging import Staging

if TYPE_CHECKING:
    import pandas as pd

BORDERS_FILE = "borders.csv"
COLUMNS = ("line", "along_mm", "y_px", "x_px")
GAP = 1.5
"""Points further apart than so many times the usual distance are no neighbours: the line is cut there."""


class BorderSettings(Settings):
    """How borders are found."""

    block: int = Field(default=BLOCK, ge=2, le=200, description="Neighbouring points that are averaged on either side.")
    level: float = Field(default=0.05, gt=0, lt=1, description="Chance of a border on a line that has none.")
    shuffles: int = Field(default=200, ge=20, le=10_000, description="Lines without borders that are drawn.")
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of these lines.")


@dataclass(frozen=True)
class BordersStep(Step[Path]):
    """The border signal at every point of a section, and which points are borders."""

    step: ClassVar[str] = "borders"
    verb: ClassVar[str] = "find borders"

    points: Stored[Path]
    find: BorderSettings

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
        found = borders_along(table.obs, np.asarray(table.X), self.find)
        buffer = io.StringIO()
        found.to_csv(buffer, index=False, lineterminator="\n", float_format="%.6g")
        staging.write(BORDERS_FILE, buffer.getvalue().encode())
        return {"points": len(found), "borders": int(found["border"].sum()), "lines": int(found["stretch"].nunique())}

    @classmethod
    def opened(cls, folder: Path) -> Path:
        """The table: line, stretch, along_mm, y_px, x_px, signal, threshold, border."""
        return folder / BORDERS_FILE


def borders_along(known: "pd.DataFrame", embeddings: NDArray[np.floating], settings: BorderSettings) -> "pd.DataFrame":
    """The points in their order along each line, with the border signal, its threshold, and whether each is a border.

    `known` has the columns of `COLUMNS`, a row for each embedding (n, c); of several draws of a point the first counts.
    Lines are cut into stretches where points are missing.
    """
    import pandas as pd

    table = known.assign(row=np.arange(len(known))).reset_index(drop=True)
    if "draw" in table:
        table = table[table["draw"] == 0]
    table = table.astype({"line": np.int64, "along_mm": float}).sort_values(["line", "along_mm"], kind="stable")
    steps = table.groupby("line")["along_mm"].diff()
    usual = steps.median()
    table["stretch"] = (steps.isna() | (steps > GAP * usual)).cumsum() - 1
    parts = []
    for _, part in table.groupby("stretch", sort=True):
        found = embedding_borders(
            embeddings[part["row"].to_numpy()], settings.block, settings.level, settings.shuffles, settings.seed
        )
        is_border = np.zeros(len(part), dtype=bool)
        is_border[found.places] = True
        parts.append(part.assign(signal=found.signal, threshold=found.threshold, border=is_border))
    names = ["line", "stretch", "along_mm", "y_px", "x_px", "signal", "threshold", "border"]
    return pd.concat(parts, ignore_index=True)[names] if parts else pd.DataFrame(columns=names)
