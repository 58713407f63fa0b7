"""Drawings in GeoJSON, as QuPath writes them: read once for labels, tissue and scribbles, and burned into pixels.

Everywhere coordinates are pixels (x, y) of the whole scan, and zero is the corner of its first pixel, as QuPath counts.
A pixel is in a shape if its centre is.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize, shapes

from cytoarch.errors import ScanError

MOST_BYTES = 1 << 30
"""Longest file that is read: some ten million corners."""
AREAL = ("Polygon", "MultiPolygon")


@dataclass(frozen=True)
class Outline:
    """One thing that was drawn."""

    name: str
    """Its class, else its name; blank: neither."""
    shape: Any
    """A shapely geometry in pixels (x, y) of the scan."""
    properties: Mapping[str, Any]


def read_outlines(path: Path, most_bytes: int = MOST_BYTES) -> tuple[Outline, ...]:
    """All that is drawn in a file, in its order: a FeatureCollection, a list of features, one feature or one geometry.

    Raises ScanError if the file is too large or no GeoJSON, or if a drawing runs to infinity.
    """
    size = path.stat().st_size
    if size > most_bytes:
        raise ScanError(f"{path}: has {size:,} bytes, more than {most_bytes:,}; simplify the outlines")
    try:
        features = list(_features(json.loads(path.read_bytes())))
        found = tuple(
            Outline(class_name(one.get("properties") or {}), shape_of(one["geometry"]), one.get("properties") or {})
            for one in features
        )
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        RecursionError,
        shapely.GEOSException,
    ) as error:
        raise ScanError(
            f"{path}: is no GeoJSON of annotations ({error}); Polygon, MultiPolygon, LineString or Point geometries in "
            "pixels of the scan are needed: export it from QuPath again"
        ) from None
    if not all(np.isfinite(shapely.get_coordinates(one.shape)).all() for one in found):
        raise ScanError(f"{path}: an outline runs to infinity; coordinates in pixels of the scan are needed")
    return found


def _features(content: Any) -> Iterator[Mapping[str, Any]]:
    """The features in what a file holds."""
    if isinstance(content, dict) and "features" in content:
        content = content["features"]
    if isinstance(content, dict):
        content = [content if "geometry" in content else {"geometry": content}]
    if not isinstance(content, list) or not all(isinstance(one.get("geometry"), dict) for one in content):
        raise TypeError("no list of features with a geometry")
    yield from content


def shape_of(geometry: Mapping[str, Any]) -> Any:
    """A geometry of GeoJSON without whatever stands beside x and y. Raises ValueError, TypeError, KeyError."""
    flat = shapely.force_2d(shapely.geometry.shape(geometry))
    if flat.is_empty:
        raise ValueError("a geometry without coordinates")
    return flat


def class_name(properties: Mapping[str, Any]) -> str:
    """The class of an annotation, else its name; blank: neither.

    >>> class_name({"classification": {"names": ["Cortex", "L4"]}, "name": "a"}), class_name({"class": "white"})
    ('Cortex: L4', 'white')
    """
    named = properties.get("classification") or properties.get("class") or {}
    if isinstance(named, str):
        return named
    names = named.get("names")
    return str(named.get("name") or (": ".join(map(str, names)) if names else "") or properties.get("name") or "")


@dataclass(frozen=True)
class Burned:
    """Shapes with values, as pixels: whatever comes later covers what came before; 0 where there is none."""

    shapes: Sequence[Any]
    """Areal shapely geometries, valid, in pixels (x, y)."""
    values: Sequence[int]

    def __post_init__(self) -> None:
        if len(self.shapes) != len(self.values):
            raise ValueError(f"{len(self.shapes)} shapes have {len(self.values)} values; one each is needed")

    @cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree(self.shapes)

    def touches(self, top: float, left: float, bottom: float, right: float) -> bool:
        """Whether some shape's surrounding box reaches into a window of pixels."""
        return bool(len(self._tree.query(shapely.box(left, top, right, bottom))))

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The type of its pixels: 16 bit where they hold all values."""
        return np.dtype(np.uint16 if max(self.values, default=0) <= np.iinfo(np.uint16).max else np.uint32)

    def read(self, top: int, left: int, height: int, width: int) -> NDArray[Any]:
        """The values (height, width) of the pixels of a window; it may lie anywhere."""
        near = np.sort(self._tree.query(shapely.box(left, top, left + width, top + height)))
        if not len(near):
            return np.zeros((height, width), dtype=self.dtype)
        drawn = [(self.shapes[one], self.values[one]) for one in near]
        place = Affine.translation(left, top)
        return np.asarray(rasterize(drawn, out_shape=(height, width), transform=place, dtype=self.dtype.name))


def outlined(labels: NDArray[Any], top: int = 0, left: int = 0, edge_px: float = 1.0) -> Iterator[tuple[int, Any]]:
    """The pieces of a label image (y, x) that hang together by edges: value and polygon, which burns to them again.

    `top` and `left` are the place of its first pixel on the scan, `edge_px` the edge of its pixels there.
    """
    place = Affine.translation(left, top) @ Affine.scale(edge_px)
    for geometry, value in shapes(labels.astype(np.int32), mask=labels > 0, connectivity=4, transform=place):
        yield int(value), shapely.geometry.shape(geometry)
