"""How large the voxels of a TIFF stack are, by what ImageJ or OME wrote into the file."""

import math

import tifffile

from cytoarch.images.ome_xml import UM_PER_UNIT, ome_voxel_um

Triple = tuple[float, float, float]


def stated_voxel_um(tiff: tifffile.TiffFile, shape: tuple[int, int, int]) -> Triple | None:
    """The edges (z, y, x) um of the voxels of a stack of this shape; None unless the file states all three.

    OME-XML goes before what ImageJ says: `spacing` and `unit` in its description, resolutions in the tags.
    """
    by_ome = None if tiff.ome_metadata is None else ome_voxel_um(tiff.ome_metadata, shape)
    return by_ome or _by_imagej(tiff)


def _by_imagej(tiff: tifffile.TiffFile) -> Triple | None:
    stated = tiff.imagej_metadata or {}
    unit = str(stated.get("unit", "")).replace("\\u00B5", "u").replace("\u00b5", "u").replace("\u03bc", "u")
    um = UM_PER_UNIT.get(unit)
    tags = tiff.pages.first.tags
    names = ("YResolution", "XResolution")
    if um is None or "spacing" not in stated or any(name not in tags for name in names):
        return None
    across = [tags[name].value for name in names]  # pixels a unit, as a fraction
    edges = [float(stated["spacing"]), *(below / above if above else math.inf for above, below in across)]
    z, y, x = (um * one for one in edges)
    return (z, y, x) if all(0 < one < math.inf for one in (z, y, x)) else None
