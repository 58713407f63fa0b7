"""Sections with their label maps as OME-Zarr, on one grid, so that every reader lays them in register.

Some readers (napari-ome-zarr 0.10 among them) take the size of a pixel and leave out where the first one lies. Cells
of a map are larger than pixels of its scan: such a reader draws the map half the difference too far up and left.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoarch.exports.legends import SectionMap
from cytoarch.geometry import Grid
from cytoarch.images.layout import Journal, Pyramid, level_count
from cytoarch.images.ngff import NGFF_VERSION, image_label, label_dtype, omero
from cytoarch.images.pyramids import write_group, write_pyramid
from cytoarch.images.views import Level, StoredImage
from cytoarch.store.collection import Image, files_of
from cytoarch.store.disk import write_atomically

COLLECTION = "sections.ome.zarr"


def write_section(
    journal: Journal, section_id: str, image: StoredImage, maps: Sequence[SectionMap], pixel_um: float
) -> Image:
    """Write a section with its maps into the collection in the journal's folder; returns its entry.

    The picture is the coarsest level of the scan that is no coarser than `pixel_um` (0: as scanned). Every map is drawn
    on the pixels of that level, by the label at their centres, with as many levels. Raises SectionError if any is
    damaged.
    """
    level = image.level_for(pixel_um) if pixel_um else image.levels[0]
    folder, levels = f"{COLLECTION}/{section_id}", level_count(*level.size)
    dtype, kind = level.array.dtype, str(image.attributes.get("kind", "grey"))
    full_range = (0.0, float(np.iinfo(dtype).max))
    pyramid = Pyramid.on(level.grid, dtype, "mean", (image.channels,), levels=levels)
    write_pyramid(
        journal,
        pyramid,
        lambda y, x, h, w: level.pixels(slice(y, y + h), slice(x, x + w)),
        name=section_id,
        folder=folder,
        attributes={"omero": omero(image.channels, kind == "rgb", full_range)},
    )
    write_group(journal, f"{folder}/labels", {"ome": {"version": NGFF_VERSION, "labels": [one.kind for one in maps]}})
    for one in maps:
        _write_labels(journal, f"{folder}/labels/{one.kind}", one, level.grid, levels)
    facts = {"shape": [image.channels, *level.size], "dtype": str(dtype), "pixel_size_um": level.pixel_size_um}
    return Image(section_id, facts)


def _write_labels(journal: Journal, folder: str, section_map: SectionMap, grid: Grid, levels: int) -> None:
    source = section_map.labels.level_for(grid.cell_um)
    dtype = label_dtype(max(row.value for row in section_map.legend))
    colours = {row.value: row.colour for row in section_map.legend}
    groups = {row.value: {"group": row.group} for row in section_map.legend if row.group}
    names = {row.value: row.name for row in section_map.legend}
    entry = image_label(names, colours)
    entry["properties"] = [{**one, **groups.get(one["label-value"], {})} for one in entry["properties"]]
    write_pyramid(
        journal,
        Pyramid.on(grid, dtype, "mode", levels=levels),
        lambda y, x, h, w: labels_on(source, grid.window(y, x, h, w)).astype(dtype),
        name=section_map.kind,
        folder=folder,
        attributes={"image-label": entry},
    )


def labels_on(level: Level, grid: Grid) -> NDArray[Any]:
    """The label values (y, x) at the centres of a grid's cells. Raises SectionError if the labels are damaged."""
    rows, columns = grid.nearest_in(level.grid)
    block = level.pixels(slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    return np.asarray(block[np.ix_(rows - rows.min(), columns - columns.min())])


def write_collection(folder: Path, images: Sequence[Image]) -> None:
    """Write what makes the sections in a folder one collection, in the order given."""
    for key, content in files_of(images).items():
        write_atomically(folder / COLLECTION / key, content)
