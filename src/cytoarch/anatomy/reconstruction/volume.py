"""The volume of a reconstructed brain: each plane shows the section nearest to it."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cytoarch.anatomy.reconstruction.likeness import MOST, Overview, likeness
from cytoarch.anatomy.reconstruction.placed import PlacedSection, Reconstruction
from cytoarch.errors import StoreError
from cytoarch.geometry import Grid, Transform
from cytoarch.images.volumes import CHUNK, VolumeGrid
from cytoarch.settings import Settings

UInt8 = NDArray[np.uint8]
FULL = 255.0
REACH = 0.75
"""A plane shows a section that is no farther than this share of the usual distance between sections."""
MOST_VOXELS = 1 << 33


class VolumeSettings(Settings):
    """How the volume of a reconstructed brain is made."""

    CONDUCT: ClassVar[tuple[str, ...]] = ()

    voxel_um: float = Field(default=300.0, ge=10, le=5000, description="Edge of a voxel (um).")


def volume_grid(brain: Reconstruction, voxel_um: float) -> VolumeGrid:
    """The voxels that hold all linked sections. Raises StoreError where no place along the cutting axis is known."""
    chosen = shown(brain)
    corners = np.concatenate([one.plane(one.grid.corners_um) for one in chosen])
    low, high = corners.min(axis=0), corners.max(axis=0)
    half = _reach_um(chosen)
    first, last = float(chosen[0].z_um or 0) - half, float(chosen[-1].z_um or 0) + half
    z, y, x = (max(1, int(np.ceil(length / voxel_um))) for length in (last - first, *(high - low)))
    if z * y * x > MOST_VOXELS:
        raise StoreError(
            f"{brain.brain_id}: {z} x {y} x {x} voxels of {voxel_um:g} um are too many; make voxel_um larger"
        )
    plane = Grid.at_corner((y, x), voxel_um, (float(low[0]), float(low[1])))
    along = Grid.at_corner((z, 1), voxel_um, (first, 0.0))
    return VolumeGrid((z, y, x), voxel_um, (along.origin_um[0], *plane.origin_um))


def shown(brain: Reconstruction) -> list[PlacedSection]:
    """The sections that a volume shows, along the cutting axis: those whose place is known."""
    chosen = [one for one in brain if one.linked and one.z_um is not None]
    if not chosen:
        raise StoreError(
            f"{brain.brain_id}: no linked section has a place along the cutting axis; state position_um or "
            "thickness_um in the manifest, or spacing_um"
        )
    return sorted(chosen, key=lambda one: one.z_um or 0.0)


def slabs(brain: Reconstruction, overviews: Mapping[str, Overview], grid: VolumeGrid) -> Iterator[UInt8]:
    """The planes of the volume (z, y, x) uint8, a chunk's depth at a time: stain, 0 on the slide and between sections.

    The median of a section's tissue becomes 159, so that unevenly stained sections look alike.
    """
    chosen = shown(brain)
    places = np.array([one.z_um for one in chosen])
    reach = max(_reach_um(chosen), grid.voxel_um / 2)
    plane = Grid(grid.shape[1:], grid.voxel_um, grid.origin_um[1:])
    at, drawn = -1, np.zeros(plane.shape, np.uint8)
    for first in range(0, grid.shape[0], CHUNK[0]):
        slab = np.zeros((min(CHUNK[0], grid.shape[0] - first), *plane.shape), np.uint8)
        for z in range(len(slab)):
            here = grid.origin_um[0] + (first + z) * grid.voxel_um
            nearest = int(np.abs(places - here).argmin())
            if abs(places[nearest] - here) > reach:
                continue
            if nearest != at:
                at, drawn = nearest, _drawn(chosen[nearest], overviews, plane)
            slab[z] = drawn
        yield slab


def _drawn(section: PlacedSection, overviews: Mapping[str, Overview], plane: Grid) -> UInt8:
    overview = overviews[section.section_id]
    seen = likeness(section.section_id, overview, overview.grid.cell_um)
    if seen is None:
        return np.zeros(plane.shape, np.uint8)
    blur = max(0.0, plane.cell_um / overview.grid.cell_um - 1) / 2
    way: Transform = section.plane.inverse()
    return np.asarray(seen.plane.smoothed(blur).on(plane, way) / MOST * FULL, dtype=np.uint8)


def _reach_um(chosen: list[PlacedSection]) -> float:
    places = np.array([one.z_um for one in chosen])
    return REACH * float(np.median(np.diff(places))) if len(places) > 1 else 0.0
