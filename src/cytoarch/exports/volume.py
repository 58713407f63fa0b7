"""Label maps of a brain stacked to a volume: NIfTI with a table of its labels."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from cytoarch.errors import SectionError, StoreError
from cytoarch.exports.legends import Legend
from cytoarch.geometry import Float64, Transform, centres
from cytoarch.images.views import StoredImage

MOST_VOXELS = 1 << 31
"""2 thousand million: 4 GiB of 16-bit labels."""
REACH = 0.75
"""How far a plane may lie from the nearest section, in median spacings; beyond it a section is missing."""


@dataclass(frozen=True)
class PlacedMap:
    """A label map and the way of its section into the brain."""

    section_id: str
    labels: StoredImage
    to_brain: Transform
    """From (y, x) um in the frame of the section to (x, y, z) mm."""


@dataclass(frozen=True)
class Lattice:
    """Where voxels lie: along x, y, z."""

    shape: tuple[int, int, int]
    first_mm: tuple[float, float, float]
    """Centre of the first voxel."""
    size_mm: tuple[float, float, float]

    @property
    def affine(self) -> Float64:
        """(4, 4) from voxels to mm, as NIfTI counts: whole numbers are centres."""
        matrix: Float64 = np.diag([*self.size_mm, 1.0])
        matrix[:3, 3] = self.first_mm
        return matrix

    def along(self, axis: int) -> Float64:
        """The centres of the voxels along an axis (mm)."""
        return np.asarray(self.first_mm[axis] + np.arange(self.shape[axis], dtype=np.float64) * self.size_mm[axis])


def lattice_of(maps: Sequence[PlacedMap], voxel_um: float) -> Lattice:
    """The voxels that hold all sections: of `voxel_um` in the plane, of the sections' median spacing across it.

    Raises StoreError where sections lie at one place, or the volume would have more than `MOST_VOXELS` voxels.
    """
    depths = np.sort([_depth_mm(one) for one in maps])
    gaps = np.diff(depths)
    if len(maps) < 2 or gaps.min() <= 0:
        raise StoreError(
            f"{len(maps)} section(s) at {len(np.unique(depths))} place(s) along the cutting axis make no volume; state "
            "a position_um of its own for every section"
        )
    corners = np.concatenate([one.to_brain(_corners_um(one.labels)) for one in maps])
    size = voxel_um / 1000
    spacing = float(np.median(gaps))
    low, high = corners[:, :2].min(axis=0), corners[:, :2].max(axis=0)
    counts = [max(1, int(np.ceil((high[at] - low[at]) / size - 1e-6))) for at in (0, 1)]
    planes = round(float(depths[-1] - depths[0]) / spacing) + 1
    if counts[0] * counts[1] * planes > MOST_VOXELS:
        raise StoreError(
            f"a volume of {counts[0]} x {counts[1]} x {planes} voxels of {voxel_um:g} um has more than "
            f"{MOST_VOXELS:,}; ask for larger voxels (voxel_um)"
        )
    first = [float(centres(low[at], low[at] + counts[at] * size, counts[at])[0]) for at in (0, 1)]
    shape = (counts[0], counts[1], planes)
    return Lattice(shape, (first[0], first[1], float(depths[0])), (size, size, spacing))


def volume_of(maps: Sequence[PlacedMap], lattice: Lattice, dtype: "np.dtype[Any]") -> NDArray[Any]:
    """The labels (x, y, z) of the nearest section at the centres of voxels, 0 where none is near or holds the place.

    Planes further than `REACH` spacings from every section stay 0: nothing is filled in for missing sections. Raises
    SectionError if a map is damaged or its section lies obliquely.
    """
    volume = np.zeros(lattice.shape, dtype=dtype)
    depths = np.array([_depth_mm(one) for one in maps])
    for plane, z in enumerate(lattice.along(2)):
        nearest = int(np.abs(depths - z).argmin())
        if abs(depths[nearest] - z) <= REACH * lattice.size_mm[2]:
            volume[:, :, plane] = _plane(maps[nearest], lattice)
    return volume


def _plane(placed: PlacedMap, lattice: Lattice) -> NDArray[Any]:
    """The labels (x, y) of one section at the centres of voxels."""
    x, y = np.meshgrid(lattice.along(0), lattice.along(1), indexing="ij")
    linear, added = placed.to_brain.linear, placed.to_brain.added
    if np.abs(linear[2]).max() > 1e-9:
        raise SectionError(f"{placed.section_id}: its section lies obliquely in the brain; planes of voxels do not")
    back = Transform.of(linear[:2], added[:2]).inverse()
    level = placed.labels.level_for(lattice.size_mm[0] * 1000)
    places = np.floor(level.grid.from_corner(back(np.stack([x, y], axis=-1)))).astype(np.int64)
    inside = ((places >= 0) & (places < np.array(level.size))).all(axis=-1)
    found = np.zeros(inside.shape, dtype=level.array.dtype)
    found[inside] = level.pixels()[places[inside, 0], places[inside, 1]]
    return found


def _depth_mm(placed: PlacedMap) -> float:
    return float(placed.to_brain.added[2])


def _corners_um(image: StoredImage) -> Float64:
    (top, left), (height, width) = image.grid.corner_um, image.extent_um
    return np.array([[y, x] for y in (top, top + height) for x in (left, left + width)])


def write_volume(path: Path, volume: NDArray[Any], lattice: Lattice, note: str) -> None:
    """Write labels as NIfTI-1 (.nii.gz) in mm; `note` (80 letters at most) tells how sections were placed."""
    image = nib.Nifti1Image(volume, lattice.affine)
    image.header.set_xyzt_units("mm")
    image.header.set_intent("label")
    image.header["descrip"] = note.encode()[:79]
    image.set_sform(lattice.affine, code="aligned")
    image.set_qform(lattice.affine, code="aligned")
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def label_table(legend: Legend) -> bytes:
    """The labels as BIDS and siibra read them: tab-separated index, name, color, group."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter="\t", lineterminator="\n")
    writer.writerow(("index", "name", "color", "group"))
    writer.writerows((row.value, row.name, row.hex, row.group or "n/a") for row in legend)
    return buffer.getvalue().encode()


def sidecar(lattice: Lattice, placed_by: str, source: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a volume beside its header."""
    return {
        "SpatialReference": "mm in the frame of the brain: x to the right and y downwards as sections are shown, z "
        "along the cutting axis; no anatomical direction is stated",
        "VoxelSizeMm": list(lattice.size_mm),
        "PlacedBy": placed_by,
        **source,
    }
