"""Tissue that a person drew: a label image or mask on the scan's pixels, or outlines in GeoJSON.

It replaces what is found. The file comes from outside: it is read in a child process, which writes the classes on the
overview grid of the section.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.draw import polygon

from cytoarch.anatomy.matter import GREY, WHITE, UInt8
from cytoarch.anatomy.tissue import CLASS_COLOURS, CLASS_NAMES
from cytoarch.brains import Section, stated_section
from cytoarch.errors import ScanError
from cytoarch.geometry import Grid, Transform, scan_corner_to_section
from cytoarch.images.layout import Pyramid
from cytoarch.images.ngff import image_label
from cytoarch.images.outlines import AREAL, read_outlines
from cytoarch.images.pyramids import write_pyramid
from cytoarch.images.scans import Spooling, open_labels
from cytoarch.images.sections import fitted_labels
from cytoarch.progress import Progress
from cytoarch.store.staging import Staging

OUTLINE_SUFFIXES = (".geojson", ".json")
LARGEST_OUTLINE_BYTES = 64 << 20
WHITE_NAMES = ("white", "white matter")
"""Classes of outlines that mean white matter, in any case; every other one is grey."""
BAND_PX = 1024
"""Rows of a label image that are read at once."""
MEANINGS = "0 background, 1 grey and 2 white matter, or a mask of 0 and one other value"


def drawn_work(arguments: Mapping[str, Any], on_progress: Progress) -> dict[str, Any]:
    """Contained work: a drawing and a staging folder named as JSON; writes the classes, returns facts."""
    staging = Staging(Path(arguments["staging"])).join()
    image = Grid(tuple(arguments["shape"]), arguments["pixel_size_um"], tuple(arguments["origin_um"]))
    grid = image.covered_by(max(arguments["overview_um"], image.cell_um))
    section = stated_section(arguments["name"], arguments["section"])
    path = Path(arguments["file"])
    if path.suffix.lower() in OUTLINE_SUFFIXES:
        classes = outlined_classes(path, scan_corner_to_section(image, section.region_px), grid)
    else:
        classes = drawn_classes(path, section, image, grid, Spooling(staging.scratch, on_progress))
    if not classes.any():
        raise ScanError(f"{section.tissue_path}: nothing is drawn in it; draw the tissue, or leave the cell blank")
    pyramid = Pyramid.on(grid, classes.dtype, "mode")
    label = image_label(CLASS_NAMES, CLASS_COLOURS)
    write_pyramid(
        staging,
        pyramid,
        lambda y, x, h, w: classes[y : y + h, x : x + w],
        name="tissue",
        attributes={"image-label": label},
    )
    return {
        "origin": "person",
        "area_mm2": float((classes > 0).sum()) * (grid.cell_um / 1000) ** 2,
        "tells_white": bool((classes == WHITE).any()),
    }


def drawn_classes(path: Path, section: Section, image: Grid, grid: Grid, spooling: Spooling) -> UInt8:
    """Classes (y, x) at the centres of a grid, from a label image on the pixels of the scan or of its section."""
    rows, columns = grid.nearest_in(image)
    found: list[NDArray[Any]] = []
    with open_labels(path, spooling) as labels:
        read = fitted_labels(labels, section, section.tissue_path, image.shape)
        for first in range(0, image.shape[0], BAND_PX):
            height = min(BAND_PX, image.shape[0] - first)
            wanted = rows[(rows >= first) & (rows < first + height)]
            if len(wanted):
                found.append(read(first, 0, height, image.shape[1])[np.ix_(wanted - first, columns)])
    values = np.concatenate(found)
    used = [int(one) for one in np.unique(values) if one]
    if used and max(used) <= WHITE:
        return values.astype(np.uint8)
    if len(used) > 1:
        raise ScanError(
            f"{section.tissue_path}: holds the values {', '.join(map(str, used[:10]))}; {MEANINGS}, is needed"
        )
    return (values > 0).astype(np.uint8) * np.uint8(GREY)


def outlined_classes(path: Path, to_section: Transform, grid: Grid) -> UInt8:
    """Classes (y, x) on a grid, from the polygons of a GeoJSON file in pixels (x, y) of the scan.

    Zero is the corner of the scan's first pixel, as QuPath counts; `to_section` begins there. A polygon is grey matter
    unless its class is "white" or "white matter"; inner rings are holes; later ones cover earlier. Raises ScanError if
    the file is no GeoJSON or holds what has no area.
    """
    classes = np.zeros(grid.shape, dtype=np.uint8)
    for rings, value in _polygons(path):
        inside = np.zeros(grid.shape, dtype=np.bool_)
        for number, ring in enumerate(rings):
            cells = grid.cells(to_section(ring[:, ::-1]))
            inside[polygon(cells[:, 0], cells[:, 1], grid.shape)] = number == 0
        classes[inside] = value
    return classes


def _polygons(path: Path) -> list[tuple[list[NDArray[np.float64]], int]]:
    """The rings (n, 2) x, y of every polygon of a GeoJSON file, and the class it stands for."""
    found: list[tuple[list[NDArray[np.float64]], int]] = []
    for one in read_outlines(path, LARGEST_OUTLINE_BYTES):
        if one.shape.geom_type not in AREAL:
            raise ScanError(
                f"{path.name}: holds a {one.shape.geom_type}, which has no area; tissue is drawn as Polygon or "
                "MultiPolygon"
            )
        value = WHITE if one.name.lower() in WHITE_NAMES else GREY
        parts = getattr(one.shape, "geoms", [one.shape])
        found += [([np.asarray(ring.coords) for ring in (part.exterior, *part.interiors)], value) for part in parts]
    return found
