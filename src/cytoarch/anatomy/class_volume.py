"""Tissue classes of a reconstructed brain as a volume, and the middle of its cortex as a surface."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cytoarch.anatomy.depth import measure_depth
from cytoarch.anatomy.matter import WHITE
from cytoarch.anatomy.reconstruction import PlacedSection, Reconstruction
from cytoarch.anatomy.reconstruction.volume import shown, volume_grid
from cytoarch.anatomy.ribbons import Ribbon
from cytoarch.anatomy.surfaces import Mesh, SurfaceSettings, midsurface
from cytoarch.anatomy.tissue import TissueMask
from cytoarch.geometry import Grid, Transform
from cytoarch.images.volumes import VolumeGrid


def class_volume(brain: Reconstruction, tissues: Mapping[str, TissueMask], grid: VolumeGrid) -> NDArray[np.uint8]:
    """The classes (z, y, x) at the centres of voxels, each plane as the section nearest to it has them.

    Sections without tissue in `tissues` are passed over: their neighbours stand for them. A place has the middle one of
    the classes that a section, the one before it and the one after it have there (the median along the cutting axis of
    CytoNet's authors), so that a tear or a lost piece of one section makes no hole in the cortex.
    """
    chosen = [one for one in shown(brain) if one.section_id in tissues]
    places = np.array([one.z_um for one in chosen])
    plane = Grid(grid.shape[1:], grid.voxel_um, grid.origin_um[1:])
    um = np.stack(np.meshgrid(*plane.centres_um(), indexing="ij"), axis=-1)
    nearest = [int(np.abs(places - (grid.origin_um[0] + z * grid.voxel_um)).argmin()) for z in range(grid.shape[0])]
    used, of_plane = np.unique(nearest, return_inverse=True)
    seen = np.stack([_seen(chosen[at], tissues[chosen[at].section_id], um) for at in used.tolist()])
    return np.asarray(ndimage.median_filter(seen, size=(3, 1, 1), mode="nearest")[of_plane])


def _seen(section: PlacedSection, tissue: TissueMask, um: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The classes (y, x) of a section at places (y, x, 2) um of the brain's plane; 0 beyond its picture."""
    cells = np.rint(tissue.grid.cells(section.plane.inverse()(um))).astype(np.int64)
    inside = np.asarray(((cells >= 0) & (cells < np.array(tissue.grid.shape))).all(axis=-1))
    held = np.where(inside[..., None], cells, 0)
    return np.where(inside, tissue.classes[held[..., 0], held[..., 1]], 0).astype(np.uint8)


def brain_midsurface(
    brain: Reconstruction, tissues: Mapping[str, TissueMask], settings: SurfaceSettings
) -> tuple[Mesh, VolumeGrid]:
    """The middle of a brain's cortex in 3D, mm, and the voxels that it was measured on.

    The first and the last plane are cuts. Raises StoreError without places along the cutting axis, NoCortexError
    without cortex.
    """
    grid = volume_grid(brain, settings.voxel_um)
    classes = class_volume(brain, tissues, grid)
    found = measure_depth(Ribbon.of(classes, (grid.voxel_um,) * 3), "laplace")
    z_y_x_to_x_y_z = np.eye(3)[::-1] * grid.voxel_um / 1000
    to_mm = Transform.of(z_y_x_to_x_y_z, np.array(grid.origin_um[::-1]) / 1000)
    return midsurface(found.depth, found.cortex, classes == WHITE, to_mm, settings), grid
