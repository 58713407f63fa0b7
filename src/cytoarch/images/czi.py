"""Planes of Zeiss CZI files, read by window through pylibCZIrw, which the optional extra `czi` installs."""

import math
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoarch.errors import ScanError
from cytoarch.images.planes import MAX_TILE_BYTES, Kind, Scan, StatedPixelSize, check_size, reading

_TYPES: dict[str, tuple[np.dtype[Any], int]] = {
    "Gray8": (np.dtype(np.uint8), 1),
    "Gray16": (np.dtype(np.uint16), 1),
    "Bgr24": (np.dtype(np.uint8), 3),
    "Bgr48": (np.dtype(np.uint16), 3),
}
_AXES = ("T", "Z", "R", "I", "H", "V", "B")
"""Axes a plane is picked along, after the scene: time, focus, rotation, illumination, phase, view, block."""
_LISTED = 16
"""Choices an error lists."""


@dataclass(frozen=True)
class _Plane:
    scene: int | None
    box: tuple[int, int, int, int]
    """(y, x, height, width) in the coordinates of the slide, which begin anywhere."""
    channels: tuple[dict[str, int], ...]
    """Where each channel lies along the axes of the file that are longer than 1."""


def open_czi(path: Path, stack: ExitStack, plane_index: int | None) -> Scan:
    """A plane of a CZI file, open for reading by window until `stack` is closed.

    Planes are counted from 0: scene by scene in ascending number, within a scene by T, then Z, then R, I, H, V, B, the
    last counting fastest; channels (C) are no planes unless each of them is a colour image. Pixels are (c, y, x) in
    the order of C, or red, green, blue. What no tile of the mosaic covers reads as white in colour images and as 0 in
    others. Raises ScanError if pylibCZIrw is missing, the file is no CZI or damaged, `plane_index` is needed or there
    is no such plane, or pixels are neither 8- nor 16-bit grey or colour.
    """
    reader = _open_reader(path, stack)
    with reading(path, "a CZI file"):
        names = [reader.get_channel_pixel_type(c) for c in range(reader.total_bounding_box["C"][1])]
        dtype, samples = _pixel_type(path, names)
        plane = _plane(path, reader, samples, plane_index)
        _, _, height, width = plane.box
        shape = (samples * len(plane.channels), height, width)
        check_size(*shape)
        remarks = _mosaic_remarks(path, reader, plane, samples * dtype.itemsize)
        sizes = czi_pixel_sizes(path, reader.raw_metadata)

    background = (1.0, 1.0, 1.0) if samples == 3 else (0.0, 0.0, 0.0)

    def read(y: int, x: int, h: int, w: int) -> NDArray[Any]:
        top, left, _, _ = plane.box
        with reading(path, "a CZI file"):
            blocks = [
                reader.read((left + x, top + y, w, h), channel, plane.scene, None, names[0], background)
                for channel in plane.channels
            ]
            return np.concatenate([block[..., ::-1].transpose(2, 0, 1) for block in blocks])

    kind: Kind = "rgb" if samples == 3 else "grey" if shape[0] == 1 else "multichannel"
    return Scan(shape, dtype, kind, sizes, remarks, read)


def _open_reader(path: Path, stack: ExitStack) -> Any:
    try:
        from pylibCZIrw import czi
    except ImportError:
        raise ScanError(
            f"{path}: reading CZI files needs pylibCZIrw, which is not installed; pip install 'cytoarch[czi]'"
        ) from None
    with path.open("rb") as file:
        if not file.read(16).startswith(b"ZISRAWFILE"):
            raise ScanError(
                f"{path}: is no CZI file by its first bytes; it is damaged or of another format, copy it again"
            )
    with reading(path, "a CZI file"):
        return stack.enter_context(czi.open_czi(str(path)))


def _pixel_type(path: Path, names: list[str]) -> tuple[np.dtype[Any], int]:
    """The type of the pixels and how many samples each of them has (3: colour)."""
    if len(set(names)) != 1 or names[0] not in _TYPES:
        raise ScanError(f"{path}: its channels are {', '.join(names)}; all of one of {', '.join(_TYPES)} are needed")
    return _TYPES[names[0]]


def _plane(path: Path, reader: Any, samples: int, plane_index: int | None) -> _Plane:
    """The plane that is meant."""
    sizes = {axis: stop for axis, (_, stop) in reader.total_bounding_box.items()}
    boxes = reader.scenes_bounding_rectangle_no_pyramid or {None: reader.total_bounding_rectangle_no_pyramid}
    counted: dict[str, list[int | None]] = {"scene": sorted(boxes, key=lambda scene: -1 if scene is None else scene)}
    counted |= {axis: list(range(sizes[axis])) for axis in _AXES if sizes.get(axis, 1) > 1}
    if samples == 3 and sizes["C"] > 1:
        counted["C"] = list(range(sizes["C"]))
    lengths = [len(each) for each in counted.values()]
    count = math.prod(lengths)
    if not 0 <= (plane_index or 0) < count or (plane_index is None and count > 1):
        found = "" if plane_index is None else f", plane_index is {plane_index}"
        raise ScanError(f"{path}: holds {count} plane(s){found}; say which in column plane_index: {_choices(counted)}")
    at = np.unravel_index(plane_index or 0, lengths)
    picked = {axis: each[int(i)] for (axis, each), i in zip(counted.items(), at, strict=True)}
    scene = picked.pop("scene")
    axes = {axis: value for axis, value in picked.items() if value is not None}
    in_stack = samples == 1 and sizes["C"] > 1
    channels = tuple({**axes, "C": c} for c in range(sizes["C"])) if in_stack else (axes,)
    box = boxes[scene]
    return _Plane(scene, (box.y, box.x, box.h, box.w), channels)


def _choices(counted: Mapping[str, list[int | None]]) -> str:
    """The first planes and what each of them is, as an error lists them."""
    picks = list(islice(product(*counted.values()), _LISTED + 1))
    named = [
        ", ".join(f"{axis} {value}" for axis, value in zip(counted, pick, strict=True) if value is not None) or "all"
        for pick in picks[:_LISTED]
    ]
    return "; ".join(f"{at}: {name}" for at, name in enumerate(named)) + ("; ..." if len(picks) > _LISTED else "")


def _mosaic_remarks(path: Path, reader: Any, plane: _Plane, pixel_bytes: int) -> tuple[str, ...]:
    """What is to be said about the tiles of a plane; raises ScanError where one would decode to too much."""
    top, left, height, width = plane.box
    covered = largest = 0
    encodings = set()

    def look(_: int, tile: Any) -> bool:
        nonlocal covered, largest
        covered += tile.logicalRect.w * tile.logicalRect.h
        largest = max(largest, tile.physicalSize.w * tile.physicalSize.h)
        encodings.add(tile.get_compression_mode().name)
        return True

    for channel in plane.channels:
        wanted = channel if plane.scene is None else {**channel, "S": plane.scene}
        reader.enumerate_subblocks_subset(look, plane=wanted or None, only_layer0=True)
    if largest * pixel_bytes > MAX_TILE_BYTES:
        raise ScanError(f"{path}: its tiles decode to {largest * pixel_bytes} bytes each; at most {MAX_TILE_BYTES}")
    if pixel_bytes == 6 and "Zstd1" in encodings:
        # the libCZI in pylibCZIrw 6.1 decodes some of them to other pixels without an error (ZEISS/libczi issue 167)
        raise ScanError(f"{path}: 48-bit colour in zstd1 compression is misread by libCZI; export it as OME-TIFF")
    remarks = (f"mosaic begins at y {top}, x {left} of the slide",) if (top, left) != (0, 0) else ()
    pixels = height * width * len(plane.channels)
    if covered < pixels:
        colour = "white" if pixel_bytes in (3, 6) else "0"
        return (*remarks, f"tiles cover at most {covered / pixels:.1%} of the plane, the rest reads as {colour}")
    return remarks


def czi_pixel_sizes(path: Path, metadata_xml: str) -> tuple[StatedPixelSize, ...]:
    """The pixel size a CZI file's metadata state (they do so in metres), or none.

    >>> czi_pixel_sizes(Path("a.czi"), '<M><Scaling><Items><Distance Id="X"><Value>5e-7</Value></Distance></Items>'
    ...                 '</Scaling></M>')
    (StatedPixelSize(source='vendor', value_um=0.5),)
    """
    try:
        # expat refuses entity bombs and reads no external entities
        root = ET.fromstring(metadata_xml)  # noqa: S314 - see above
    except ET.ParseError:
        return ()
    stated: dict[str, float] = {}
    for distance in root.iterfind(".//Scaling/Items/Distance"):
        try:
            stated[distance.get("Id", "")] = 1e6 * float(distance.findtext("Value", ""))
        except ValueError:
            continue
    x_um = stated.get("X", 0.0)
    y_um = stated.get("Y", x_um)
    if not (0 < x_um < float("inf") and 0 < y_um < float("inf")):
        return ()
    if abs(x_um - y_um) > 0.01 * x_um:
        raise ScanError(f"{path}: its pixels are not square ({y_um:g} x {x_um:g} um by its metadata); resample it")
    return (StatedPixelSize("vendor", x_um),)
