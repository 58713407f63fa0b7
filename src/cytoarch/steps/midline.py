"""The middle of the cortex of a section, and the points along it of a whole brain as one table."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from cytoarch.anatomy.class_volume import brain_midsurface
from cytoarch.anatomy.depth_maps import DepthMap
from cytoarch.anatomy.midline import MidlineSettings
from cytoarch.anatomy.points import SCHEMA, Placed, SectionMidline, points_table, section_midline
from cytoarch.anatomy.reconstruction import Reconstruction
from cytoarch.anatomy.surfaces import Mesh, SurfaceSettings
from cytoarch.anatomy.tissue import TissueMask
from cytoarch.brains import Section, stated_section
from cytoarch.digests import canonical_json
from cytoarch.errors import SectionError
from cytoarch.geometry import scan_to_section, section_to_brain
from cytoarch.images.views import StoredImage
from cytoarch.reporting.cortex import cortex_picture
from cytoarch.reporting.surface import surface_picture
from cytoarch.steps.arrays import arrays_of
from cytoarch.steps.depth import DepthStep
from cytoarch.steps.reconstruction import RECONSTRUCTION
from cytoarch.steps.sections import SECTION
from cytoarch.steps.sources import Each, Maybe, Row
from cytoarch.steps.step import Facts, Inputs, Step, Stored
from cytoarch.steps.tissue import TISSUE
from cytoarch.store.staging import Staging

MIDLINE_FILE = "midline.npz"
ARRAYS = ("places_um", "line", "along_um", "depth", "tissue_share", "cut_angle_deg")
SURFACE_FILE = "mid.surf.gii"
PICTURE_FILE = "cortex.png"
SURFACE_PICTURE = "midsurface.png"
TABLE_FILE, PARQUET_FILE, SCHEMA_FILE = "points.csv", "points.parquet", "schema.json"


@dataclass(frozen=True)
class MidsurfaceStep(Step[Mesh]):
    """The middle of a brain's cortex as a surface in 3D, as GIFTI."""

    step: ClassVar[str] = "midsurface"
    version: ClassVar[int] = 3
    scope: ClassVar = "brain"
    verb: ClassVar[str] = "make the surface"

    made: SurfaceSettings = field(default_factory=SurfaceSettings)
    brain: Stored[Reconstruction] = RECONSTRUCTION
    tissues: Each[TissueMask] = Each(TISSUE)

    @property
    def name(self) -> str:
        """The edge of its voxels."""
        return f"{self.made.voxel_um:g}um"

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Measure depth in 3D and write its middle."""
        mesh, grid = brain_midsurface(inputs[self.brain], inputs[self.tissues], self.made)
        staging.write(SURFACE_FILE, gifti(mesh))
        facts = {"vertices": len(mesh.vertices_mm), "area_mm2": round(mesh.area_mm2, 3)}
        return {**facts, "voxels": list(grid.shape), "edge_mm": round(float(np.median(mesh.edges_mm())), 4)}

    @classmethod
    def opened(cls, folder: Path) -> Mesh:
        """The mesh, mm in the brain."""
        import nibabel

        vertices, triangles = (one.data for one in nibabel.load(folder / SURFACE_FILE).darrays)
        return Mesh.of(vertices, triangles)


def gifti(mesh: Mesh) -> bytes:
    """A mesh as GIFTI, mm."""
    from nibabel.gifti import GiftiDataArray, GiftiImage

    points = GiftiDataArray(mesh.vertices_mm.astype(np.float32), intent="NIFTI_INTENT_POINTSET")
    faces = GiftiDataArray(mesh.triangles.astype(np.int32), intent="NIFTI_INTENT_TRIANGLE")
    return bytes(GiftiImage(darrays=[points, faces]).to_bytes())


@dataclass(frozen=True)
class SurfacePictureStep(Step[Path]):
    """The picture of a brain's midsurface from four sides."""

    step: ClassVar[str] = "surface-picture"
    scope: ClassVar = "brain"
    view: ClassVar[bool] = True
    verb: ClassVar[str] = "draw the surface"

    surface: Stored[Mesh]

    @property
    def name(self) -> str:
        """That of the surface."""
        return self.surface.name

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Draw it."""
        mesh = inputs[self.surface]
        staging.write(SURFACE_PICTURE, surface_picture(mesh, f"middle of the cortex, {mesh.area_mm2:,.0f} mm2"))
        return {}

    @classmethod
    def opened(cls, folder: Path) -> Path:
        """The picture."""
        return folder / SURFACE_PICTURE


@dataclass(frozen=True)
class MidlineStep(Step[SectionMidline]):
    """The middle of a section's cortex as lines, and points along it."""

    step: ClassVar[str] = "midline"
    verb: ClassVar[str] = "trace"

    depth: Stored[DepthMap]
    traced: MidlineSettings = field(default_factory=MidlineSettings)
    tissue: Stored[TissueMask] = TISSUE
    surface: Stored[Mesh] | None = None
    brain: Stored[Reconstruction] | None = None

    @classmethod
    def of(cls, depth: DepthStep, traced: MidlineSettings, surface: "MidsurfaceStep | None" = None) -> "MidlineStep":
        """The middle by a way of measuring depth, or where sections cut a surface."""
        if surface is None:
            return cls(depth.stored, traced)
        return cls(depth.stored, traced, surface=surface.stored, brain=surface.brain)

    @property
    def name(self) -> str:
        """The kind of line, and of depth."""
        return f"{self.traced.line}-{self.depth.name}-{self.traced.spacing_um:g}um"

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Trace the middle and keep it; the facts count it."""
        tissue = inputs[self.tissue]
        surface = None
        if self.surface is not None and self.brain is not None:
            surface = inputs[self.surface], inputs[self.brain][inputs.name].to_brain
        found = section_midline(tissue.classes, inputs[self.depth], tissue.grid, self.traced, surface)
        held = io.BytesIO()
        lines = {f"line_{number}": line for number, line in enumerate(found.lines_um)}
        arrays = {one: getattr(found, one) for one in ARRAYS}
        np.savez(held, allow_pickle=False, **lines, **arrays)
        staging.write(MIDLINE_FILE, held.getvalue())
        length = sum(float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum()) for line in found.lines_um)
        return {"points": len(found.line), "lines": len(found.lines_um), "length_mm": round(length / 1000, 4)}

    @classmethod
    def opened(cls, folder: Path) -> SectionMidline:
        """Lines and points. Raises SectionError if they are damaged."""
        held = arrays_of(folder / MIDLINE_FILE)
        lines = [name for name in held if name.startswith("line_")]
        lost = [name for name in (*ARRAYS, *(f"line_{number}" for number in range(len(lines)))) if name not in held]
        if lost:
            raise SectionError(f"{folder / MIDLINE_FILE} is damaged: {', '.join(lost)} are not in it; run verify")
        ordered = tuple(held[f"line_{number}"] for number in range(len(lines)))
        return SectionMidline(ordered, **{one: held[one] for one in ARRAYS})


@dataclass(frozen=True)
class CortexPictureStep(Step[Path]):
    """The picture of a section's outline, grey and white matter, depth, middle and points."""

    step: ClassVar[str] = "cortex-picture"
    view: ClassVar[bool] = True
    verb: ClassVar[str] = "draw the cortex"

    depth: Stored[DepthMap]
    midline: Stored[SectionMidline]
    section: Stored[StoredImage] = SECTION
    tissue: Stored[TissueMask] = TISSUE

    @property
    def name(self) -> str:
        """That of the middle."""
        return self.midline.name

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Draw it."""
        image, tissue = inputs[self.section], inputs[self.tissue]
        staging.write(PICTURE_FILE, cortex_picture(image, tissue, inputs[self.depth], inputs[self.midline]))
        return {}

    @classmethod
    def opened(cls, folder: Path) -> Path:
        """The picture."""
        return folder / PICTURE_FILE


class PointsTable(NamedTuple):
    """The points of a brain, as files."""

    csv_path: Path
    """What `embed-points` takes."""
    parquet_path: Path


@dataclass(frozen=True)
class CortexPointsStep(Step[PointsTable]):
    """The points along the cortex of a brain as a table: CSV and Parquet, with its schema beside them."""

    step: ClassVar[str] = "cortex-points"
    scope: ClassVar = "brain"
    verb: ClassVar[str] = "gather points"

    midlines: Each[SectionMidline]
    images: Each[StoredImage]
    placed: Each[Mapping[str, Any]]
    brain: Maybe[Reconstruction] = Maybe(RECONSTRUCTION)

    @classmethod
    def of(cls, midline: Stored[SectionMidline]) -> "CortexPointsStep":
        """The points along one kind of middle."""
        traced = (midline,)
        columns = ("flip", "rotation", "position_um", "region_px", "hemisphere")
        return cls(Each(midline, traced), Each(SECTION, traced), Each(Row(columns), traced))

    @property
    def name(self) -> str:
        """That of the middle."""
        source = self.midlines.source
        return source.name if isinstance(source, Stored) else "points"

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Gather the points of all sections."""
        midlines, images, stated = inputs[self.midlines], inputs[self.images], inputs[self.placed]
        brain = inputs[self.brain]
        placed = {one: placed_section(images[one], stated_section(one, stated[one]), brain) for one in midlines}
        table = points_table(midlines, placed)
        staging.write(TABLE_FILE, table.to_csv(index=False).encode())
        staging.write(PARQUET_FILE, table.to_parquet(None, index=False))
        columns = [column._asdict() for column in SCHEMA if column.name in table.columns]
        staging.write(SCHEMA_FILE, canonical_json({"columns": columns}).encode())
        return {"points": len(table), "sections": int(table["section_id"].nunique())}

    @classmethod
    def opened(cls, folder: Path) -> PointsTable:
        """The files of the table."""
        return PointsTable(folder / TABLE_FILE, folder / PARQUET_FILE)


def schema_of(folder: Path) -> list[dict[str, str]]:
    """The columns of a committed table: name, kind, meaning."""
    columns: list[dict[str, str]] = json.loads((folder / SCHEMA_FILE).read_text())["columns"]
    return columns


def placed_section(image: StoredImage, section: Section, brain: Reconstruction | None) -> Placed:
    """Where a section lies: in the reconstructed brain where there is one, else by what the manifest states."""
    to_section = scan_to_section(image.grid, section.region_px)
    to_brain = section_to_brain(image.grid, section.flip, section.rotation, section.position_um)
    if brain is not None and section.section_id in brain.sections:
        to_brain = brain[section.section_id].to_brain
    return Placed(to_section.inverse(), to_brain, section.hemisphere)
