"""Where viewers put the scans of a reconstructed brain: affines for napari, matrices for neuroglancer."""

from typing import Any

import numpy as np

from cytoarch.anatomy.reconstruction.placed import PlacedSection, Reconstruction, zyx_matrix
from cytoarch.geometry import Float64

_M_PER_UM = 1e-6


def napari_affine(section: PlacedSection) -> Float64:
    """(4, 4): the `affine` of a layer (z, y, x) um of one plane, as napari-ome-zarr opens a section with `scale` in um.

    Give the scan an axis z of length 1 in front of (y, x), and this affine: napari applies it after scale and shift.
    """
    to_brain = zyx_matrix(section)
    normal = np.array([[1.0], [0.0], [0.0]])
    return np.vstack([np.hstack([normal, to_brain]), [0.0, 0.0, 0.0, 1.0]])


def napari_affine_2d(section: PlacedSection) -> Float64:
    """(3, 3): the `affine` of a layer (y, x) in um that stays in the plane of its section."""
    return np.vstack([np.array(section.plane.matrix), [0.0, 0.0, 1.0]])


def neuroglancer_transform(section: PlacedSection) -> dict[str, Any]:
    """The `transform` of a neuroglancer source (z, y, x) of one plane: from its pixels to (z, y, x) in the brain.

    Neuroglancer counts in pixels from the corner of the first one, for which the section's overview stands here; its
    matrix leads from units of the input to units of the output, which are the same.
    """
    unit_um = section.grid.cell_um
    to_brain = zyx_matrix(section)
    corner = to_brain[:, :2] @ np.array(section.grid.corner_um) + to_brain[:, 2]
    matrix = np.column_stack([[1.0, 0.0, 0.0], to_brain[:, :2], corner / unit_um])
    dimensions = {axis: [unit_um * _M_PER_UM, "m"] for axis in "zyx"}
    return {"matrix": matrix.tolist(), "inputDimensions": dimensions, "outputDimensions": dimensions}


def viewers(brain: Reconstruction) -> dict[str, Any]:
    """Both for every section, as JSON values."""
    return {
        one.section_id: {
            "napari": {"affine": napari_affine(one).tolist(), "affine_2d": napari_affine_2d(one).tolist()},
            "neuroglancer": {"transform": neuroglancer_transform(one)},
        }
        for one in brain
    }
