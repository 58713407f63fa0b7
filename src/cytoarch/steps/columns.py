"""What is measured across the cortex at the embedded points of a section, for judging embeddings by."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cytoarch.anatomy.columns import (
    along,
    bending,
    cell_density,
    layer_lengths,
    layer_means,
    part_lengths,
    slant,
)
from cytoarch.anatomy.depth_maps import OUTSIDE, WHITE_MATTER, DepthMap
from cytoarch.anatomy.midline import depth_field
from cytoarch.anatomy.traverses import profiles_along, traverses
from cytoarch.brains import stated_section
from cytoarch.embeddings.places import SectionPoints
from cytoarch.embeddings.sampled import open_points
from cytoarch.geometry import centres, scan_to_section
from cytoarch.images.views import StoredImage
from cytoarch.settings import Settings
from cytoarch.steps.arrays import arrays_of
from cytoarch.steps.depth import DepthStep
from cytoarch.steps.points import PointsStep, PointTable
from cytoarch.steps.sections import LABELS, SECTION
from cytoarch.steps.sources import Maybe, Row
from cytoarch.steps.step import Facts, Inputs, Place, Step, Stored
from cytoarch.store.staging import Staging

if TYPE_CHECKING:
    import pandas as pd

COLUMNS_FILE = "columns.npz"
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


class ColumnSettings(Settings):
    """How the cortex is measured at a point."""

    samples: int = Field(default=200, ge=10, le=2000, description="Depths at which a profile is read.")
    pixel_size_um: float = Field(default=20.0, ge=1, le=500, description="Pixel size that profiles are read at.")
    thickest_um: float = Field(default=8000.0, ge=100, le=100_000, description="Longest way to either side (um).")
    bend_um: float = Field(default=300.0, ge=10, le=10_000, description="Gaussian that curvature is measured over.")
    cells_um: float = Field(
        default=100.0, ge=10, le=5000, description="Gaussian that the density of cells is measured over."
    )


class Columns(NamedTuple):
    """The columns of cortex at the points of a section, n of them, in the order of their table."""

    thickness_mm: Float64
    """(n,) NaN, as all else, where the way to one of the sides breaks off."""
    curvature_per_mm: Float64
    """(n,) in the section, positive on crowns of gyri."""
    profile: Float64
    """(n, samples) grey values from the pial to the white side."""
    layers: Int64
    """(k,) labels that columns cross."""
    layer_depth: Float64
    """(k,) depth that each lies at in the mean, 0 pial to 1 white."""
    layer_mm: Float64
    """(n, k) how thick each is."""
    cells_per_mm2: Float64
    """(n, k) how dense cells lie in each; NaN where no cells are known."""


@dataclass(frozen=True)
class CellTable(PointTable):
    """The middles of cells in a table outside the store; a section that it does not name has none."""

    def open(self, place: Place) -> SectionPoints:
        """The section's cells."""
        known = self.table(place.brain).sections
        return known.get(place.section_id, SectionPoints(rows=(), places_px=(), columns={}))


@dataclass(frozen=True)
class ColumnsStep(Step[Columns]):
    """Thickness, curvature, profile, layers and density of cells at the embedded points of a section."""

    step: ClassVar[str] = "columns"
    verb: ClassVar[str] = "measure columns"

    points: Stored[Path]
    depth: Stored[DepthMap]
    measured: ColumnSettings
    cells: CellTable | None = None
    section: Stored[StoredImage] = SECTION
    labels: Maybe[StoredImage] = Maybe(LABELS)
    placed: Row = Row(("region_px",))

    @classmethod
    def of(cls, points: str, depth: str, measured: ColumnSettings, cells: CellTable | None) -> "ColumnsStep":
        """The columns of points that were embedded under a name, across a kind of depth."""
        return cls(Stored(PointsStep, points), Stored(DepthStep, depth), measured, cells)

    @property
    def name(self) -> str:
        """That of the points."""
        return self.points.name

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Follow the columns of all points and measure along them."""
        depth, image, labels = inputs[self.depth], inputs[self.section], inputs[self.labels]
        known, grid, asked = first_draws(inputs[self.points]), depth.grid, self.measured
        to_section = scan_to_section(image.grid, stated_section(inputs.name, inputs[self.placed]).region_px)
        places = grid.cells(to_section(known[["y_px", "x_px"]].to_numpy(np.float64)))
        field = depth_field(depth.depth, depth.cortex, depth.ribbon == WHITE_MATTER)
        ways = traverses(places, field, asked.samples, asked.thickest_um / grid.cell_um)
        angle = known["cut_angle_deg"].to_numpy(np.float64) if "cut_angle_deg" in known else np.full(len(known), np.nan)
        cell_mm = grid.cell_um / 1000
        parts = part_lengths(ways) * cell_mm * slant(angle)[:, None]
        whole = np.asarray(np.isfinite(parts).all(axis=1))
        um = grid.um(ways)
        shown = np.full(ways.shape[:2], np.nan) if labels is None else labelled(labels, um, asked.pixel_size_um)
        ids = np.unique(shown[shown > 0]).astype(np.int64)
        dense = np.full(ways.shape[:2], np.nan)
        if self.cells is not None:
            middles = to_section(np.array(inputs[self.cells].places_px, dtype=np.float64).reshape(-1, 2))
            per_cell = cell_density(grid.cells(middles), depth.ribbon != OUTSIDE, asked.cells_um / grid.cell_um)
            dense = profiles_along(per_cell.astype(np.float32), ways) / cell_mm**2
        bent = bending(field, places, asked.bend_um / grid.cell_um) / cell_mm
        found = Columns(
            thickness_mm=np.where(whole, parts.sum(axis=1), np.nan),
            curvature_per_mm=np.where(whole, bent, np.nan),
            profile=profiles(image, um, asked.pixel_size_um),
            layers=ids,
            layer_depth=mean_depths(shown, ids),
            layer_mm=np.where(whole[:, None], layer_lengths(shown, parts, ids), np.nan),
            cells_per_mm2=layer_means(dense, shown, parts, ids),
        )
        held = io.BytesIO()
        np.savez(held, allow_pickle=False, **found._asdict())
        staging.write(COLUMNS_FILE, held.getvalue())
        return {"points": len(known), "whole": int(whole.sum())}

    @classmethod
    def opened(cls, folder: Path) -> Columns:
        """The columns. Raises SectionError if they are damaged."""
        return Columns(**arrays_of(folder / COLUMNS_FILE, Columns._fields))


def mean_depths(shown: Float64, ids: Int64) -> Float64:
    """The depth (k,) that labels of columns (n, count) lie at, in the mean."""
    depth = np.broadcast_to(centres(0.0, 1.0, shown.shape[1]), shown.shape)
    return np.array([depth[shown == one].mean() for one in ids], dtype=np.float64)


def first_draws(folder: Path) -> "pd.DataFrame":
    """What is known of the embedded points of a section; of several draws of a point the first."""
    known: pd.DataFrame = open_points([folder]).obs
    return known.loc[known["draw"] == 0]


def profiles(image: StoredImage, um: Float64, pixel_size_um: float) -> Float64:
    """Grey values (n, count), the mean of channels, at places (n, count, 2) um of a section; NaN where one is none."""
    view = image.at(max(pixel_size_um, image.pixel_size_um))
    return along(
        lambda top, rows: view.read(top, 0, rows, view.width).mean(axis=0), view.grid.shape, view.grid.cells(um), 1
    )


def labelled(labels: StoredImage, um: Float64, pixel_size_um: float) -> Float64:
    """Labels (n, count) at places (n, count, 2) um of a section; NaN where a place is none."""
    level = labels.level_for(pixel_size_um)
    return along(lambda top, rows: level.pixels(slice(top, top + rows)), level.size, level.grid.cells(um), 0)
