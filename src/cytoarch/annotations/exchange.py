"""Scribbles from and for other programs: QuPath's GeoJSON, napari's layers, and label images such as PNG."""

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image

from cytoarch.annotations.drawing import DrawnLabels
from cytoarch.annotations.scribbles import RUBBER, Annotation, Scribble
from cytoarch.brains import LabelTable, Section
from cytoarch.errors import ScanError
from cytoarch.geometry import Transform
from cytoarch.images.outlines import AREAL, outlined, read_outlines
from cytoarch.images.scans import Spooling, open_labels
from cytoarch.palette import class_colours

_IDS = uuid.UUID("9d5a2c6e-31b0-4f43-9c55-3df1f3f6f7a2")
RUBBED = "(rubbed out)"
"""Class that scribbles which rub out have in files: no class of a table is named so."""
LARGEST_PX = 1 << 28
"""Most pixels of a label image that is read or written at once."""


class Drawer(NamedTuple):
    """Who draws, when, in which round and on which section."""

    section_id: str
    author: str
    time: str
    round: int = 1

    def line(self, label: int, path: NDArray[Any], width_px: float) -> Scribble:
        """A stroke along places (n, 2) y, x in pixels of the scan from its corner."""
        return self._scribble(label, "line", [path], width_px)

    def area(self, label: int, outline: NDArray[Any], holes: Sequence[NDArray[Any]] = ()) -> Scribble:
        """An outline (n, 2) y, x and its holes, in pixels of the scan from its corner."""
        return self._scribble(label, "area", [outline, *holes], 1.0)

    def areas(self, label: int, shape: Any) -> list[Scribble]:
        """The polygons of a shapely geometry in pixels (x, y)."""
        polygons = getattr(shape, "geoms", [shape])
        return [self.area(label, _places(one.exterior), [_places(ring) for ring in one.interiors]) for one in polygons]

    def _scribble(self, label: int, kind: Literal["line", "area"], paths: Sequence[Any], width_px: float) -> Scribble:
        placed = tuple(tuple((float(y), float(x)) for y, x in path) for path in paths)
        return Scribble(label=label, kind=kind, paths_px=placed, width_px=width_px, **self._asdict())


def _places(ring: Any) -> NDArray[np.float64]:
    """A ring of shapely as (n, 2) y, x without the repeated last place."""
    return np.asarray(ring.coords, dtype=np.float64)[:-1, ::-1]


# -- QuPath ------------------------------------------------------------------------------------------------------------


def features_of(annotation: Annotation, section_id: str) -> dict[str, Any]:
    """A FeatureCollection of the scribbles of a section in their order, as QuPath opens it; nothing of them is lost.

    Lines stay lines, with their width in the metadata. Coordinates are pixels (x, y) of the scan from its corner.
    """
    names, colours = _legend(annotation.table)
    features = []
    for place, one in enumerate(annotation.of(section_id)):
        paths = [[[x, y] for y, x in path] for path in one.paths_px]
        geometry: dict[str, Any]
        if one.kind == "area":
            geometry = {"type": "Polygon", "coordinates": [[*path, path[0]] for path in paths]}
        elif len(paths[0]) == 1:
            geometry = {"type": "Point", "coordinates": paths[0][0]}
        else:
            geometry = {"type": "LineString", "coordinates": paths[0]}
        told = {"author": one.author, "time": one.time, "round": str(one.round), "width_px": repr(one.width_px)}
        properties = {
            "objectType": "annotation",
            "classification": {"name": names[one.label], "color": list(colours[one.label])},
            "metadata": told,
        }
        key = str(uuid.uuid5(_IDS, f"{section_id}/{place}/{one.author}/{one.time}"))
        features.append({"type": "Feature", "id": key, "geometry": geometry, "properties": properties})
    return {"type": "FeatureCollection", "features": features}


def _legend(table: LabelTable) -> tuple[dict[int, str], dict[int, tuple[int, int, int]]]:
    colours = class_colours(table.labels)
    names = {RUBBER: RUBBED} | {one.id: one.name for one in table.labels}
    return names, {RUBBER: (128, 128, 128)} | {
        one.id: colour for one, colour in zip(table.labels, colours, strict=True)
    }


def scribbles_in(path: Path, table: LabelTable, drawer: Drawer, width_px: float) -> tuple[Scribble, ...]:
    """The scribbles in a GeoJSON file, in its order; lines and points that state no width are `width_px` wide.

    What we exported comes back as it was; what others drew is the drawer's. Raises ScanError if the file is no GeoJSON,
    or if classes are not in the table (all are listed).
    """
    drawn = read_outlines(path)
    ids = {RUBBED: RUBBER} | {one.name: one.id for one in table.labels}
    unknown = sorted({one.name for one in drawn} - set(ids))
    if unknown:
        listed = ", ".join(map(repr, unknown[:20]))
        raise ScanError(f"{path}: its classes {listed} are not in the table of classes; add them or rename them")
    found: list[Scribble] = []
    for one in drawn:
        told = one.properties.get("metadata") or {}
        by = _stated(drawer, told)
        width = float(told.get("width_px", width_px))
        if one.shape.geom_type in AREAL:
            found += by.areas(ids[one.name], one.shape)
            continue
        for part in getattr(one.shape, "geoms", [one.shape]):
            found.append(by.line(ids[one.name], np.asarray(part.coords)[:, ::-1], width))
    return tuple(found)


def _stated(drawer: Drawer, told: Mapping[str, Any]) -> Drawer:
    """Who drew something according to its metadata, where that says so in full."""
    if not {"author", "time", "round"} <= set(told):
        return drawer
    return Drawer(drawer.section_id, str(told["author"]), str(told["time"]), int(told["round"]))


# -- label images ------------------------------------------------------------------------------------------------------


def scribbles_of_labels(
    labels: NDArray[Any], drawer: Drawer, first_px: tuple[int, int] = (0, 0), edge_px: float = 1.0
) -> tuple[Scribble, ...]:
    """Areas that give back a label image (y, x) pixel by pixel, as PNG files and napari's label layers hold it.

    `first_px` is the place of its corner on the scan, `edge_px` the edge of its pixels there.
    """
    found: list[Scribble] = []
    for value, shape in outlined(labels, *first_px, edge_px):
        found += drawer.areas(value, shape)
    return tuple(found)


def scribbles_in_image(
    path: Path, table: LabelTable, section: Section, drawer: Drawer, scratch: Path, size: tuple[int, int]
) -> tuple[Scribble, ...]:
    """The scribbles in a label image on the pixels of the whole scan, or of the section of `size` (y, x): PNG, TIFF.

    Raises ScanError if it is no label image, is too large, of another size, or holds ids that are not in the table.
    """
    with open_labels(path, Spooling(scratch, lambda _done, _total: None)) as image:
        height, width = image.shape[1:]
        if height * width > LARGEST_PX:
            raise ScanError(f"{path}: {height} x {width} pixels are too many; export GeoJSON instead")
        labels = image.read(0, 0, height, width)[0]
    unknown = sorted(set(np.unique(labels).tolist()) - {0, *(one.id for one in table.labels)})
    if unknown:
        raise ScanError(f"{path}: holds the ids {unknown[:10]}, which are not in the table of classes")
    y0, y1, x0, x1 = section.region_px or (0, 0, 0, 0)
    is_part = section.region_px is not None and (height, width) == (y1 - y0, x1 - x0)
    fits = (height, width) == size if section.region_px is None else is_part or (height >= y1 and width >= x1)
    if not fits:
        raise ScanError(
            f"{path}: has {height} x {width} pixels, the section {size[0]} x {size[1]}; export it at full resolution"
        )
    return scribbles_of_labels(labels, drawer, (y0, x0) if is_part else (0, 0))


def write_label_image(path: Path, labels: DrawnLabels, largest_id: int) -> None:
    """Write what is drawn on a section as a PNG of ids (8 bit where they fit, else 16) on the section's pixels.

    Raises ScanError if the section is too large for one image, or an id for its pixels.
    """
    height, width = labels.grid.shape
    if largest_id > np.iinfo(np.uint16).max:
        raise ScanError(f"{path}: pixels of a PNG do not hold the id {largest_id}; export GeoJSON instead")
    if height * width > LARGEST_PX:
        raise ScanError(
            f"{path}: a section of {height} x {width} pixels is too large for a PNG; export GeoJSON instead"
        )
    pixels = labels.pixels()
    Image.fromarray(pixels.astype(np.uint8) if largest_id < 256 else pixels).save(path)


# -- napari ------------------------------------------------------------------------------------------------------------


def scribbles_of_shapes(
    data: Sequence[NDArray[Any]],
    kinds: Sequence[str],
    labels: Sequence[int],
    widths: Sequence[float],
    to_scan: Transform,
    drawer: Drawer,
) -> tuple[Scribble, ...]:
    """Scribbles of a napari shapes layer: paths and lines are strokes, all other shapes areas.

    `data` are (n, 2) y, x as the layer holds them, `to_scan` brings these to pixels of the scan from its corner;
    widths are in pixels of the scan. An ellipse, which napari holds as the box around it, is drawn in 64 steps.
    """
    found: list[Scribble] = []
    for places, kind, label, width in zip(data, kinds, labels, widths, strict=True):
        placed = np.asarray(places, dtype=np.float64)[:, -2:]
        if kind == "ellipse":
            turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
            centre = placed.mean(axis=0)
            along, across = (placed[1] - placed[0]) / 2, (placed[3] - placed[0]) / 2
            placed = centre + np.outer(np.cos(turn), along) + np.outer(np.sin(turn), across)
        on_scan = to_scan(placed)
        found.append(drawer.line(label, on_scan, width) if kind in ("path", "line") else drawer.area(label, on_scan))
    return tuple(found)


class Shapes(NamedTuple):
    """What a napari shapes layer is made from."""

    data: list[NDArray[np.float64]]
    shape_type: list[str]
    edge_width: list[float]
    label: list[int]


def shapes_of(scribbles: Iterable[Scribble], from_scan: Transform) -> Shapes:
    """Scribbles as shapes; a shape has no holes, so that an area with holes is cut into pieces without."""
    shapes = Shapes([], [], [], [])
    for one in scribbles:
        for kind, path in _parts(one):
            shapes.data.append(from_scan(np.asarray(path)))
            shapes.shape_type.append(kind)
            shapes.edge_width.append(one.width_px)
            shapes.label.append(one.label)
    return shapes


def _parts(one: Scribble) -> list[tuple[str, NDArray[np.float64]]]:
    """(shape type, places) of a scribble: several where it has holes."""
    paths = [np.asarray(path, dtype=np.float64) for path in one.paths_px]
    if one.kind == "line":
        return [("path", paths[0] if len(paths[0]) > 1 else np.repeat(paths[0], 2, axis=0))]
    if len(paths) == 1:
        return [("polygon", paths[0])]
    triangles = shapely.constrained_delaunay_triangles(shapely.Polygon(paths[0], paths[1:]))
    return [("polygon", np.asarray(one.exterior.coords)[:-1]) for one in triangles.geoms]


def as_json(annotation: Annotation, section_id: str) -> bytes:
    """The GeoJSON of a section as a file."""
    return json.dumps(features_of(annotation, section_id), indent=1).encode()
