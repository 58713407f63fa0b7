"""Labels drawn as outlines: GeoJSON, as QuPath writes it, read as a label image on the pixels of a scan."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import shapely
from numpy.typing import NDArray

from cytoarch.brains import LabelTable
from cytoarch.errors import ScanError
from cytoarch.images.outlines import AREAL, Burned, read_outlines
from cytoarch.images.planes import Scan

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
    drawn = read_outlines(path)
    ids = {label.name: label.id for label in table.labels}
    flat = [(one.name, one.shape) for one in drawn if one.name]
    areal = [(name, shape) for name, shape in flat if shape.geom_type in AREAL]
    unknown = Counter(name for name, _ in areal if name not in ids)
    if unknown:
        listed = ", ".join(f"{name!r} ({count})" for name, count in unknown.most_common(_LISTED))
        more = f" and {len(unknown) - _LISTED} more" if len(unknown) > _LISTED else ""
        raise ScanError(f"{path}: its classes {listed}{more} are not in the label table; add them or rename them")
    if not areal:
        raise ScanError(f"{path}: holds no polygon with a class; draw areas and give them classes of the label table")
    remarks = _remarks(len(drawn) - len(flat), len(flat) - len(areal), sum(not shape.is_valid for _, shape in areal))
    polygons = [shape if shape.is_valid else shapely.make_valid(shape) for _, shape in areal]
    values = [ids[name] for name, _ in areal]
    _check_place(path, [name for name, _ in areal], polygons, shape, region_px)
    return _rasterized(polygons, values, shape, region_px, remarks)


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
    burned = Burned(polygons, values)

    def read(y: int, x: int, height: int, width: int) -> NDArray[Any]:
        return burned.read(y + y0, x + x0, height, width)[None]

    return Scan((1, *shape), burned.dtype, "grey", (), remarks, read)
