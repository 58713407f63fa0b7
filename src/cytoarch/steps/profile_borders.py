"""Borders along the cortex of a section by the field's standard: profiles of its stain across the cortex."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from cytoarch.anatomy.columns import part_lengths
from cytoarch.anatomy.depth_maps import WHITE_MATTER, DepthMap
from cytoarch.anatomy.midline import Line, depth_field, depth_lines, points_along
from cytoarch.anatomy.tissue import TissueMask
from cytoarch.anatomy.traverses import area_shares, by_area, curvatures, traverses
from cytoarch.brains import stated_section
from cytoarch.discovery.borders import Borders, ProfileBorders, feature_borders, free_of, profile_features
from cytoarch.geometry import Grid, scan_to_section
from cytoarch.images.views import StoredImage
from cytoarch.palette import class_colours
from cytoarch.reporting.borders import borders_picture
from cytoarch.reporting.pictures import picture_grid, stain_picture
from cytoarch.steps.borders import BORDERS_FILE, BordersStep, areas_at, borders_along, kept_borders
from cytoarch.steps.columns import profiles as profiles_at
from cytoarch.steps.depth import DepthStep
from cytoarch.steps.sections import LABELS, SECTION
from cytoarch.steps.sources import Maybe, Row, Table
from cytoarch.steps.step import Facts, Inputs, Step, Stored
from cytoarch.steps.tissue import TISSUE
from cytoarch.store.staging import Staging

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

PICTURE_FILE = "borders.png"
PROFILES_A_THICKNESS = 16
"""Profiles along a stretch as long as the cortex is thick: some 160 um apart in human cortex, as the field has it."""
MOST_BENT = -0.15, 0.15
"""Bends (radians a cell) beyond these count as these: there the smoothed line tells no more."""
BORDERS_PX = 900
"""Longer edge of the scan on the picture."""


class ProfileBorderSettings(ProfileBorders):
    """How profiles are taken across the cortex, and compared."""

    spacing_um: float | None = Field(
        default=None, ge=10, le=10_000, description="Between profiles, along a line (um); blank: a sixteenth of how "
        "thick the cortex is.",
    )  # fmt: skip
    depths: int = Field(default=40, ge=10, le=500, description="Depths at which a profile is read.")
    is_freed: bool = Field(
        title="Free of thickness and bend",
        default=True,
        description="Take out what thickness and bend of the cortex explain of the profiles of a section, first.",
    )
    thickest_um: float = Field(default=8000.0, ge=100, le=100_000, description="Longest way to either side (um).")
    shortest_um: float = Field(default=1000.0, ge=0, le=100_000, description="Lines below this are left out (um).")
    near_mm: float | None = Field(
        default=None, gt=0, le=100, description="How far a border lies from one of the labels, at most, to be the same "
        "(mm); blank: half a block.",
    )  # fmt: skip


@dataclass(frozen=True)
class ProfileBordersStep(Step[Path]):
    """The distance of neighbouring blocks of profiles along the cortex of a section, and where it shows a border."""

    step: ClassVar[str] = "profile-borders"
    version: ClassVar[int] = 4
    verb: ClassVar[str] = "compare profiles"

    depth: Stored[DepthMap]
    find: ProfileBorderSettings
    section: Stored[StoredImage] = SECTION
    tissue: Stored[TissueMask] = TISSUE
    labels: Maybe[StoredImage] = Maybe(LABELS)
    table: Table = Table()
    placed: Row = Row(("region_px",))

    @classmethod
    def of(cls, depth: str, find: ProfileBorderSettings) -> "ProfileBordersStep":
        """The borders across a kind of depth."""
        return cls(Stored(DepthStep, depth), find)

    @property
    def name(self) -> str:
        """The kind of depth, and how far profiles are apart where that is stated."""
        return self.depth.name + ("" if self.find.spacing_um is None else f"-{self.find.spacing_um:g}um")

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Take profiles along the middle of the cortex and compare neighbouring blocks."""
        depth, image = inputs[self.depth], inputs[self.section]
        grid = depth.grid
        white = depth.ribbon == WHITE_MATTER
        lines = depth_lines(depth.depth, depth.cortex, white, self.find.shortest_um / grid.cell_um)
        thick_um = thickness_um(depth, lines)
        spacing_um = self.find.spacing_um or thick_um / PROFILES_A_THICKNESS
        places, line = points_along(lines, spacing_um / grid.cell_um)
        field = depth_field(depth.depth, depth.cortex, white)
        ways = traverses(places, field, self.find.depths, self.find.thickest_um / grid.cell_um)
        slide = slide_grey(image, inputs[self.tissue], grid)
        stain = np.abs(profiles_at(image, grid.um(ways), thick_um / self.find.depths) - slide)
        profiles = by_area(stain, area_shares(ways, line))
        kept = np.isfinite(profiles).all(axis=1)
        along = _order_along(line) * spacing_um / 1000
        places_um = grid.um(places[kept])
        section = stated_section(inputs.name, inputs[self.placed])
        y_px, x_px = scan_to_section(image.grid, section.region_px).inverse()(places_um).T
        known = pd.DataFrame({"line": line[kept], "along_mm": along[kept], "y_px": y_px, "x_px": x_px})
        labels = inputs[self.labels]
        if labels is not None and len(places_um):
            known["area"] = areas_at(labels, inputs[self.table], places_um)
        features = profile_features(profiles[kept])
        if self.find.is_freed and kept.any():
            bend = np.clip(curvatures(places, line)[kept], *MOST_BENT)
            features = free_of(features, np.stack([np.log(part_lengths(ways[kept]).sum(axis=1)), bend], axis=1))

        def found(rows: Int64) -> Borders:
            return feature_borders(features[rows], self.find)

        return kept_borders(staging, borders_along(known, found), self.find.near_mm, self.find.smallest_block)

    @classmethod
    def opened(cls, folder: Path) -> Path:
        """The table of borders; the signal is the squared Mahalanobis distance, the threshold the votes needed."""
        return folder / BORDERS_FILE


def thickness_um(depth: DepthMap, lines: Sequence[Line]) -> float:
    """How thick the cortex of a section is on average: its area over the length of its middle; a cell at least."""
    length = sum(one.length() for one in lines)
    cells = np.count_nonzero(depth.cortex) / length if length else 1.0
    return float(max(cells, 1.0)) * depth.grid.cell_um


def slide_grey(image: StoredImage, tissue: TissueMask, grid: Grid) -> float:
    """The grey of the slide: what lies outside the tissue, or the brightest percent of a section that fills its scan.

    How much stain there is at a place is how far its grey differs from that.
    """
    pixels = image.on(grid).read(0, 0, *grid.shape).mean(axis=0)
    outside = ~tissue.on_grid(grid)
    return float(np.median(pixels[outside]) if outside.any() else np.quantile(pixels, 0.99))


def _order_along(line: Int64) -> Int64:
    """The place of every point (n,) among those of its line, which lie together."""
    first = np.searchsorted(line, line)
    return np.asarray(np.arange(len(line)) - first, dtype=np.int64)


@dataclass(frozen=True)
class BordersPictureStep(Step[Path]):
    """The picture of a section's borders, however they were found."""

    step: ClassVar[str] = "borders-picture"
    view: ClassVar[bool] = True
    verb: ClassVar[str] = "draw borders"

    embeddings: Maybe[Path] | None
    profiles: Maybe[Path] | None
    section: Stored[StoredImage] = SECTION
    table: Table = Table()
    placed: Row = Row(("region_px",))

    @classmethod
    def of(cls, embeddings: BordersStep | None, profiles: ProfileBordersStep | None) -> "BordersPictureStep":
        """The picture of what was found."""
        return cls(Maybe(embeddings.stored) if embeddings else None, Maybe(profiles.stored) if profiles else None)

    @property
    def name(self) -> str:
        """That of what it shows."""
        sources = [one.source.name for one in (self.embeddings, self.profiles) if one is not None]
        return "-".join(sources)[:64]

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Draw it."""
        given = {"embeddings": self.embeddings, "profiles": self.profiles}
        paths = {name: inputs[one] for name, one in given.items() if one is not None}
        tables = {
            name: pd.read_csv(path, keep_default_na=False, na_values={"signal": [""], "threshold": [""]})
            for name, path in paths.items()
            if path is not None
        }
        image, section = inputs[self.section], stated_section(inputs.name, inputs[self.placed])
        grid = picture_grid(image, BORDERS_PX)
        to_picture = scan_to_section(image.grid, section.region_px).then(grid.transform.inverse())
        known = inputs[self.table]
        classes = known.classes(by_group=False) if known is not None else ()
        colours = dict(zip((one.name for one in classes), class_colours(classes), strict=True))
        staging.write(PICTURE_FILE, borders_picture(stain_picture(image, BORDERS_PX), to_picture, tables, colours))
        return {}

    @classmethod
    def opened(cls, folder: Path) -> Path:
        """The picture."""
        return folder / PICTURE_FILE
