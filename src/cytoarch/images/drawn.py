"""Labels drawn as outlines: GeoJSON, as QuPath writes it, read as a label image on the pixels of a scan."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize

from cytoarch.brains import LabelTable
from cytoarch.errors import ScanError
from cytoarch.images.planes import Scan

MOST_BYTES = 1 << 30
"""Longest file that is read: some ten million corners."""
_LISTED = 20


def drawn_labels(
    path: Path, table: LabelTable, shape: tuple[int, int], region_px: tuple[int, int, int, int] | None
) -> Scan:
    """The label image (1, y, x) of a section whose areas are drawn as polygons in pixels (x, y) of the whole scan.

    A pixel is in a polygon if its centre is; zero is the corner of the scan's first pixel. The class of an annotation,
    or its name where it has none, must be a name of the label table. Where polygons overlap, the later one counts.
    Annotations without class and name, and what has no area (points, lines), are left out with a remark. Raises
    ScanError if the file is no GeoJSON, if names are not in the label table (all are listed), or if a polygon lies
    beside the section.
    """
    features = _features(path)
    ids = {label.name: label.id for label in table.labels}
    named = [(_name(one), one) for one in features]
    flat = [(name, shapely.geometry.shape(one["geometry"])) for name, one in named if name]
    areal = [(name, shape) for name, shape in flat if shape.geom_type in ("Polygon", "MultiPolygon")]
    unknown = Counter(name for name, _ in areal if name not in ids)
    if unknown:
        listed = ", ".join(f"{name!r} ({count})" for name, count in unknown.most_common(_LISTED))
        more = f" and {len(unknown) - _LISTED} more" if len(unknown) > _LISTED else ""
        raise ScanError(f"{path}: its classes {listed}{more} are not in the label table; add them or rename them")
    if not areal:
        raise ScanError(f"{path}: holds no polygon with a class; draw areas and give them classes of the label table")
    remarks = _remarks(len(named) - len(flat), len(flat) - len(areal), sum(not shape.is_valid for _, shape in areal))
    polygons = [shape if shape.is_valid else shapely.make_valid(shape) for _, shape in areal]
    values = [ids[name] for name, _ in areal]
    _check_place(path, [name for name, _ in areal], polygons, shape, region_px)
    return _rasterized(polygons, values, shape, region_px, remarks)


def _features(path: Path) -> Sequence[Mapping[str, Any]]:
    """The features of the file. Raises ScanError if it holds anything else."""
    if path.stat().st_size > MOST_BYTES:
        raise ScanError(f"{path}: has {path.stat().st_size:,} bytes, more than {MOST_BYTES:,}; simplify the outlines")
    try:
        content = json.loads(path.read_bytes())
        found = content["features"] if isinstance(content, dict) else content
        if not isinstance(found, list) or not all(isinstance(one.get("geometry"), dict) for one in found):
            raise TypeError("no list of features with a geometry")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ScanError(f"{path}: is no GeoJSON of annotations ({error}); export it from QuPath again") from None
    return found


def _name(feature: Mapping[str, Any]) -> str:
    """The class of an annotation, else its name; blank: neither."""
    properties = feature.get("properties") or {}
    named = properties.get("classification") or {}
    if isinstance(named, str):
        return named
    names = named.get("names")
    return str(named.get("name") or (": ".join(map(str, names)) if names else "") or properties.get("name") or "")


def _remarks(unnamed: int, lines: int, mended: int) -> tuple[str, ...]:
    told = (
        (unnamed, "annotation(s) without a class were left out"),
        (lines, "points or lines were left out: they have no area"),
        (mended, "outline(s) that cross themselves were mended"),
    )
    return tuple(f"{count} {what}" for count, what in told if count)


def _check_place(
    path: Path,
    names: Sequence[str],
    polygons: Sequence[Any],
    shape: tuple[int, int],
    region_px: tuple[int, int, int, int] | None,
) -> None:
    """Raise ScanError if a polygon lies beside the section, unless the scan holds others, too."""
    if region_px is not None:
        return
    frame = shapely.box(0, 0, shape[1], shape[0])
    outside = [name for name, one in zip(names, polygons, strict=True) if not one.intersects(frame)]
    if outside:
        raise ScanError(
            f"{path}: {len(outside)} outline(s) lie beside the scan of {shape[0]} x {shape[1]} pixels, the first is "
            f"{outside[0]!r}; coordinates must be pixels (x, y) of the scan at full resolution"
        )


def _rasterized(
    polygons: Sequence[Any],
    values: Sequence[int],
    shape: tuple[int, int],
    region_px: tuple[int, int, int, int] | None,
    remarks: tuple[str, ...],
) -> Scan:
    y0, x0 = (0, 0) if region_px is None else (region_px[0], region_px[2])
    tree = shapely.STRtree(polygons)

    def read(y: int, x: int, height: int, width: int) -> NDArray[Any]:
        top, left = y + y0, x + x0
        near = np.sort(tree.query(shapely.box(left, top, left + width, top + height)))
        if not len(near):
            return np.zeros((1, height, width), dtype=np.uint16)
        drawn = [(polygons[one], values[one]) for one in near]
        place = Affine.translation(left, top)
        found: NDArray[Any] = rasterize(drawn, out_shape=(height, width), transform=place, dtype="uint16")
        return found[None]

    return Scan((1, *shape), np.dtype(np.uint16), "grey", (), remarks, read)
