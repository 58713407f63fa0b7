"""Label maps as GeoJSON that QuPath reads: polygons in pixels of the whole scan, with names and colours."""

import json
import uuid
from typing import Any

import numpy as np
import shapely

from cytoarch.exports.legends import SectionMap
from cytoarch.exports.outlines import outlines_of
from cytoarch.geometry import Grid, Transform
from cytoarch.images.views import Level

MOST_CELLS = 1 << 26
"""The finest level of so many cells is outlined: 64 million, 256 MiB on the way."""
DECIMALS = 3
"""Of a pixel."""
_IDS = uuid.UUID("5d1f3f0e-2f0b-4b43-8a0a-9f1e1c7f8a11")
"""Names the ids of annotations: the same export gives the same ones."""


def outlined_level(section_map: SectionMap) -> Level:
    """The level of a label map that is outlined."""
    levels = section_map.labels.levels
    return next((one for one in levels if one.size[0] * one.size[1] <= MOST_CELLS), levels[-1])


def qupath_features(
    section_map: SectionMap,
    scan: Grid,
    region_px: tuple[int, int, int, int] | None,
    tolerance_um: float | None,
    subject: str,
) -> dict[str, Any]:
    """A FeatureCollection: for each label of a section one annotation, with holes, in pixels (x, y) of the whole scan.

    As QuPath counts, zero is the corner of the scan's first pixel. `scan` is the finest level of the section,
    `region_px` its place on the scan. No border moves by more than the tolerance (None: one cell of the map) and no
    area changes by more than 1 %. `subject` names the map, so that ids stay the same from export to export.
    Raises SectionError if the map is damaged.
    """
    level = outlined_level(section_map)
    tolerance = 1.0 if tolerance_um is None else tolerance_um / level.pixel_size_um
    found = outlines_of(level.pixels(), tolerance)
    place = level.grid.corners_in(scan)
    first = (0, 0) if region_px is None else (region_px[0], region_px[2])
    place = place.then(Transform.shift((float(first[0]), float(first[1]))))
    cell_mm2 = (level.pixel_size_um / 1000) ** 2
    features = []
    for row in section_map.legend:
        if row.value not in found.shapes:
            continue
        moved = shapely.transform(found.shapes[row.value], lambda xy: np.round(place(xy[:, ::-1])[:, ::-1], DECIMALS))
        features.append(
            {
                "type": "Feature",
                "id": str(uuid.uuid5(_IDS, f"{subject}/{row.value}")),
                "geometry": json.loads(shapely.to_geojson(moved)),
                "properties": {
                    "objectType": "annotation",
                    "name": row.name,
                    "classification": {"name": row.name, "color": list(row.colour)},
                    "isLocked": True,
                    "measurements": {
                        "label": row.value,
                        "cells": found.cells[row.value],
                        "area_mm2": found.cells[row.value] * cell_mm2,
                        "tolerance_um": tolerance * level.pixel_size_um,
                    },
                },
            }
        )
    return {"type": "FeatureCollection", "features": features}
