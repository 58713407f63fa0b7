"""Sampling points along the cortex: of a section, and of a whole brain as a table with a stated schema."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cytoarch.anatomy.depth_maps import WHITE_MATTER, DepthMap
from cytoarch.anatomy.matter import GREY
from cytoarch.anatomy.midline import (
    Line,
    MidlineSettings,
    depth_lines,
    moved_to_middle,
    points_along,
    skeleton_lines,
    smoothed,
    tissue_shares,
)
from cytoarch.anatomy.ribbons import BACKGROUND, Float64, Int64, Mask
from cytoarch.anatomy.surfaces import Mesh, cut, cut_angles
from cytoarch.errors import SectionError
from cytoarch.geometry import Grid, Transform

SKELETON_SMOOTHING_CELLS = 2.0
"""Lines of a skeleton go from cell to cell; this takes the steps out of them."""


class Column(NamedTuple):
    """A column of the table of points."""

    name: str
    kind: str
    """text, or a number: int64, float64."""
    meaning: str


SCHEMA = (
    Column("section_id", "text", "Section of the manifest."),
    Column("y_px", "float64", "Row in pixels of the scan; the centre of the first one is 0."),
    Column("x_px", "float64", "Column in pixels of the scan."),
    Column("hemisphere", "text", "left or right: as the manifest states it; of sections of both, by x in the brain."),
    Column("x_mm", "float64", "Place in the brain (mm); the three are left out where the brain's are not known."),
    Column("y_mm", "float64", "Place in the brain (mm)."),
    Column("z_mm", "float64", "Place in the brain (mm)."),
    Column("depth", "float64", "Depth in the cortex, 0 pial to 1 white; blank where there is no depth."),
    Column("tissue_share", "float64", "Share of the patch around it that is tissue."),
    Column("line", "int64", "Line of the section that it lies on."),
    Column("along_mm", "float64", "Place along that line (mm)."),
    Column(
        "cut_angle_deg",
        "float64",
        "Between the normal of the cortex and that of the section: 90 where it was cut "
        "straight across, 0 along its surface; blank without a surface in 3D.",
    ),
)
"""The columns of a table of points, in their order; `embed-points` takes the table as it is."""


@dataclass(frozen=True)
class SectionMidline:
    """The middle of the cortex of a section, and points along it."""

    lines_um: tuple[Float64, ...]
    """Lines (n, 2) y, x um in the frame of the section."""
    places_um: Float64
    """(n, 2) points, y, x um."""
    line: Int64
    """(n,) which line."""
    along_um: Float64
    """(n,) from the beginning of its line."""
    depth: Float64
    """(n,) NaN where depth is not known."""
    tissue_share: Float64
    """(n,)."""
    cut_angle_deg: Float64
    """(n,) between the normals of cortex and section; NaN without a surface."""

    def chosen(self, keep: NDArray[np.bool_]) -> Self:
        """The same lines with some of the points."""
        arrays = {one.name: getattr(self, one.name)[keep] for one in fields(self) if one.name != "lines_um"}
        return type(self)(self.lines_um, **arrays)


def section_midline(
    classes: NDArray[np.uint8],
    depth: DepthMap,
    grid: Grid,
    settings: MidlineSettings,
    surface: tuple[Mesh, Transform] | None = None,
) -> SectionMidline:
    """The middle of the cortex in tissue classes (y, x) on a grid, and the points along it that are kept.

    A point is kept if its patch holds enough tissue and it lies in cortex itself; where there is no depth, all grey
    matter counts as cortex. `surface` is the middle surface and the way from um in the section to mm in the brain,
    where lines are to be cut from it. Raises SectionError if they are and it is not given.
    """
    cortex = depth.cortex if depth.cortex.any() else classes == GREY
    lines = _lines(cortex, depth, grid, settings, surface)
    places, number = points_along(lines, settings.spacing_um / grid.cell_um)
    places_um = grid.um(places)
    rows, columns = np.clip(np.rint(places).astype(np.int64), 0, np.array(grid.shape) - 1).T
    share = tissue_shares(classes != BACKGROUND, grid, places_um, settings.patch_um)
    found = SectionMidline(
        tuple(grid.um(one.places) for one in lines),
        places_um,
        number,
        _counted(number, settings.spacing_um, lines, grid.cell_um),
        np.where(depth.cortex[rows, columns], depth.depth[rows, columns], np.nan).astype(np.float64),
        share,
        np.full(len(places), np.nan) if surface is None else cut_angles(*surface, places_um),
    )
    return found.chosen(cortex[rows, columns] & (share >= settings.tissue_share))


def _lines(
    cortex: Mask, depth: DepthMap, grid: Grid, settings: MidlineSettings, surface: tuple[Mesh, Transform] | None
) -> list[Line]:
    """The lines of the middle, in cells."""
    shortest = settings.shortest_um / grid.cell_um
    white = depth.ribbon == WHITE_MATTER
    if settings.line == "skeleton":
        return [smoothed(one, SKELETON_SMOOTHING_CELLS) for one in skeleton_lines(cortex, shortest)]
    if settings.line == "depth":
        return depth_lines(depth.depth, depth.cortex, white, shortest)
    if surface is None:
        raise SectionError("no surface was made that the section could cut; run reconstruct-brain first")
    lines = []
    for line in cut(*surface):
        moved, _ = moved_to_middle(
            grid.cells(line), depth.depth, depth.cortex, white, settings.farthest_um / grid.cell_um
        )
        lines.append(Line(moved, bool(np.array_equal(line[0], line[-1]))))
    return [one for one in lines if one.length() >= shortest]


def _counted(number: Int64, spacing_um: float, lines: Sequence[Line], cell_um: float) -> Float64:
    """How far along its line every point lies (um): the first one half a spacing from the beginning."""
    first = np.searchsorted(number, np.arange(len(lines)))
    order = np.arange(len(number)) - first[number] if len(number) else np.empty(0)
    starts = np.array([min(spacing_um, one.length() * cell_um) for one in lines])
    return np.asarray(order * spacing_um + (starts[number] / 2 if len(number) else 0), dtype=np.float64)


class Placed(NamedTuple):
    """Where a section lies: from um in its frame to pixels of its scan, and to the brain."""

    to_scan: Transform
    """(y, x) um -> (y, x) pixels of the scan."""
    to_brain: Transform
    """(y, x) um -> (x, y, z) mm, or (x, y) where its place along the cutting axis is not known."""
    hemisphere: str
    """left, right or both: what the section holds; both are told apart by x in the brain."""


def points_table(midlines: Mapping[str, SectionMidline], placed: Mapping[str, Placed]) -> pd.DataFrame:
    """The points of a brain, one a row, with the columns of `SCHEMA`; places in the brain where all have one."""
    parts = [_rows(one, midline, placed[one]) for one, midline in midlines.items()]
    names = [column.name for column in SCHEMA]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=names)
    if table["z_mm"].isna().any():
        table = table.drop(columns=["x_mm", "y_mm", "z_mm"])
    return table


def _rows(section_id: str, midline: SectionMidline, placed: Placed) -> pd.DataFrame:
    y_px, x_px = placed.to_scan(midline.places_um).T
    brain = placed.to_brain(midline.places_um)
    z = brain[:, 2] if brain.shape[1] > 2 else np.full(len(brain), np.nan)
    sides = np.where(brain[:, 0] < 0, "left", "right") if placed.hemisphere == "both" else placed.hemisphere
    values = {
        "section_id": section_id,
        "y_px": y_px.round(3),
        "x_px": x_px.round(3),
        "hemisphere": sides,
        "x_mm": brain[:, 0].round(6),
        "y_mm": brain[:, 1].round(6),
        "z_mm": z.round(6),
        "depth": midline.depth.round(5),
        "tissue_share": midline.tissue_share.round(5),
        "line": midline.line,
        "along_mm": (midline.along_um / 1000).round(5),
        "cut_angle_deg": midline.cut_angle_deg.round(3),
    }
    return pd.DataFrame(values, index=range(len(brain)))
