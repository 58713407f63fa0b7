"""Images in OME-Zarr stores, version 0.4 (Zarr v2) and 0.5 (Zarr v3), read by window from the full-resolution level.

A store is a folder. Nothing outside it is read: dataset paths stay below it, links that leave it are refused. Its
metadata are read from its own files, never from consolidated copies, and are checked before Zarr sees them.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from zarr.storage import LocalStore

from cytoarch.errors import ScanError
from cytoarch.images.planes import MAX_TILE_BYTES, Kind, Scan, StatedPixelSize, check_dtype, check_size, reading

MAX_METADATA_BYTES = 16 << 20
"""Largest metadata file that is read."""
MAX_INNER_CHUNKS = 1 << 20
"""Most chunks of one shard: their index, 16 bytes for each, is read whole."""
MIN_CHUNK_PX = 1024
"""Fewest pixels of a chunk of a larger image: with less, one window is a million chunks."""

_UM_PER_UNIT = {
    "meter": 1e6,
    "centimeter": 1e4,
    "millimeter": 1e3,
    "micrometer": 1.0,
    "nanometer": 1e-3,
    "picometer": 1e-6,
    "angstrom": 1e-4,
    "inch": 25400.0,
}
_V2_COMPRESSORS = ("blosc", "zstd", "zlib", "gzip", "lz4", "bz2", "lzma")
_V3_CODECS = ("bytes", "transpose", "blosc", "zstd", "gzip", "crc32c")
"""Codecs that give back what was written. Metadata can name any other, one that runs code (pickle) among them."""
_RGB = ["FF0000", "00FF00", "0000FF"]
_LISTED = 16
"""Choices an error lists."""

Metadata = Mapping[str, Any]


def open_ome_zarr(path: Path, plane_index: int | None) -> Scan:
    """A plane of the image in an OME-Zarr store (a folder), open for reading by window.

    Axes other than c, y, x are counted through by `plane_index` in the order they are stored, the last fastest. Of
    several multiscales the first is taken; a bioformats2raw collection of one image is that image. Chunks that are
    absent read as the fill value, as the format wants it, and so do chunks whose file was lost: a remark counts them,
    and a plane without any chunk is refused. Chunks absent inside a shard are not counted. Raises ScanError if the
    store is no such image, links out of itself, has codecs that are not known to keep pixels, or too large chunks, or
    if `plane_index` is needed or too large; reading raises it where a chunk is damaged.
    """
    with reading(path, "an OME-Zarr image"):
        folder, ome = _image(path, path)
        multiscale = ome["multiscales"][0]
        dataset = multiscale["datasets"][0]
        level = _below(path, folder, dataset["path"])
        array, metadata = _open_array(path, level)
        names = _axis_names(multiscale, array.ndim)
        sizes = dict(zip(names, array.shape, strict=True))
        shape = (sizes.get("c", 1), sizes["y"], sizes["x"])
        check_size(*shape)
        _check_chunk_area(dict(zip(names, array.chunks, strict=True)), shape)
        picks = _picks(names, array.shape, plane_index)
        dtype = array.dtype.newbyteorder("=")
        remarks = _absent_chunks(path, level, metadata, array, [picks.get(name) for name in names])
        if len(ome["multiscales"]) > 1:
            remarks = (*remarks, f"first of {len(ome['multiscales'])} multiscales")
        sizes_um = _pixel_sizes(multiscale, dataset, names)

    def read(y: int, x: int, height: int, width: int) -> Any:
        window: dict[str, Any] = {"y": slice(y, y + height), "x": slice(x, x + width), "c": slice(None), **picks}
        with reading(path, "an OME-Zarr image"):
            block = np.asarray(array[tuple(window[name] for name in names)])
        kept = [name for name in names if name not in picks]
        block = block.transpose([kept.index(name) for name in ("c", "y", "x") if name in kept])
        return (block if "c" in kept else block[None]).astype(dtype, copy=False)

    return Scan(shape, dtype, _kind(ome, shape[0], dtype), sizes_um, remarks, read)


def is_ome_zarr(path: Path) -> bool:
    """Whether a path is a folder that holds a Zarr group, as a store and each image in a collection does."""
    return path.is_dir() and any((path / name).is_file() for name in ("zarr.json", ".zgroup"))


def store_files(path: Path) -> Iterator[Path]:
    """Every file below a store, sorted within each folder, files before folders, so that its digest can be computed.

    Raises ScanError at a link that leads out of the store or to a folder, at what is neither file nor folder, at a name
    that is no UTF-8, at folders nested too deep, and at a folder that cannot be listed.
    """
    return _files(path, path)


MAX_DEPTH = 32
"""Folders inside folders; a store has a group, an image, a level and a key of five numbers at most."""


def _files(folder: Path, root: Path, depth: int = 0) -> Iterator[Path]:
    if depth > MAX_DEPTH:
        raise ScanError(
            f"{root}: folders are nested more than {MAX_DEPTH} deep; that is no OME-Zarr store, check the path"
        )
    folders = []
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise ScanError(f"{folder}: cannot be listed ({error.strerror}); check its permissions") from None
    for entry in found:
        if not entry.name.isprintable():
            raise ScanError(
                f"{folder}: holds a file named {entry.name!r}; a name of plain text is needed, rename or remove it"
            )
        entry_path = Path(entry.path)
        inside = not entry.is_symlink() or _is_below(entry_path, root)
        if inside and entry.is_file():
            yield entry_path
        elif entry.is_dir(follow_symlinks=False):
            folders.append(entry_path)
        else:
            raise ScanError(
                f"{entry.path}: is a link that leaves the store or leads to a folder, or no file at all; copy the "
                "store together with the files its links lead to"
            )
    for one in folders:
        yield from _files(one, root, depth + 1)


def _is_below(path: Path, root: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # a loop of links
        return False


def _below(root: Path, folder: Path, key: object) -> Path:
    """The folder at a key that metadata state. Raises ScanError unless it lies below the store."""
    parts = key.split("/") if isinstance(key, str) else [""]
    unsafe = any(part in ("", ".", "..") or "\\" in part or ":" in part or "\0" in part for part in parts)
    if unsafe or not _is_below(folder.joinpath(*parts), root):
        raise ScanError(f"its metadata name {key!r}; a path of folders below the store is needed")
    return folder.joinpath(*parts)


def _json(root: Path, file: Path) -> Metadata:
    """The object in a metadata file of the store."""
    if not _is_below(file, root):
        raise ScanError(f"{file}: is a link that leaves the store; copy the store with the files its links lead to")
    with file.open("rb") as opened:
        text = opened.read(MAX_METADATA_BYTES + 1)
    if len(text) > MAX_METADATA_BYTES:
        raise ScanError(f"{file}: holds more than {MAX_METADATA_BYTES} bytes of metadata; at most these are read")
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ScanError(f"{file}: holds no JSON object; copy the store again")
    return value


def _ome(root: Path, folder: Path) -> Metadata:
    """The OME attributes of a group. Raises ScanError if it is none, or of another version than 0.4 and 0.5."""
    if (folder / "zarr.json").is_file():
        ome = _json(root, folder / "zarr.json").get("attributes", {}).get("ome", {})
        version, known = str(ome.get("version")), ("0.5",)
    elif (folder / ".zattrs").is_file():
        ome = _json(root, folder / ".zattrs")
        version, known = str((ome.get("multiscales") or [{}])[0].get("version", "0.4")), ("0.4",)
    else:
        raise ScanError(f"{folder}: holds no zarr.json and no .zattrs; the folder of an OME-Zarr image is needed")
    if version not in known:
        raise ScanError(f"{folder}: is OME-Zarr version {version}; 0.4 in Zarr v2 or 0.5 in Zarr v3 is needed")
    return dict(ome)


def _image(root: Path, folder: Path) -> tuple[Path, Metadata]:
    """The folder and attributes of the image in a store, which may be a collection of one."""
    ome = _ome(root, folder)
    if ome.get("multiscales"):
        return folder, ome
    if ome.get("bioformats2raw.layout") is None:
        raise ScanError(
            f"holds no image (no multiscales; it states {', '.join(map(str, ome)) or 'nothing'}); check the path"
        )
    series = _series(root, folder)
    if len(series) != 1:
        listed = ", ".join(map(str, series[:_LISTED])) + (", ..." if len(series) > _LISTED else "")
        raise ScanError(f"is a collection of {len(series)} images; name the folder of one of them as path: {listed}")
    image = _below(root, folder, series[0])
    ome = _ome(root, image)
    if not ome.get("multiscales"):
        raise ScanError(f"{image}: holds no image (no multiscales); check the path")
    return image, ome


def _series(root: Path, folder: Path) -> list[Any]:
    """The keys of the images of a collection, as its group OME states them, else its numbered folders."""
    if (folder / "OME").is_dir() and any((folder / "OME" / name).is_file() for name in ("zarr.json", ".zattrs")):
        stated = _ome(root, folder / "OME").get("series")
        if stated:
            return list(stated)
    numbered = [one.name for one in folder.iterdir() if one.name.isdecimal() and is_ome_zarr(one)]
    return sorted(numbered, key=int)


def _open_array(root: Path, level: Path) -> tuple[Any, Metadata]:
    """The array of a level and its metadata, once these are known to be harmless."""
    if (level / "zarr.json").is_file():
        metadata = _json(root, level / "zarr.json")
        dtype = _check_array(metadata["data_type"], metadata["shape"])
        grid = metadata["chunk_grid"]["configuration"]["chunk_shape"]
        _check_v3_codecs(metadata["codecs"], grid, dtype.itemsize)
    elif (level / ".zarray").is_file():
        metadata = _json(root, level / ".zarray")
        dtype = _check_array(metadata["dtype"], metadata["shape"])
        compressor = metadata.get("compressor")
        name = None if compressor is None else compressor["id"]
        if metadata.get("filters") or name not in (None, *_V2_COMPRESSORS):
            raise ScanError(f"its chunks are encoded by {name} and filters; {', '.join(_V2_COMPRESSORS)} are read")
        _check_chunk_bytes(metadata["chunks"], dtype.itemsize)
    else:
        raise ScanError(f"{level}: holds no zarr.json and no .zarray; the array of the full resolution is missing")
    zarr_format: Literal[2, 3] = 3 if metadata["zarr_format"] == 3 else 2
    return zarr.open_array(LocalStore(level, read_only=True), mode="r", zarr_format=zarr_format), metadata


def _check_array(stated: object, shape: Sequence[int]) -> np.dtype[Any]:
    """The type of the pixels. Raises ScanError unless it is 8- or 16-bit unsigned and every axis has a length."""
    dtype: np.dtype[Any] = np.dtype(str(stated))
    check_dtype(dtype)
    if not all(isinstance(size, int) and size > 0 for size in shape):
        raise ScanError(f"its shape is {shape}; an image with pixels is needed")
    return dtype


def _check_chunk_bytes(chunk: Sequence[int], item_bytes: int) -> None:
    decoded = math.prod(chunk) * item_bytes
    if not 0 < decoded <= MAX_TILE_BYTES:
        raise ScanError(f"its chunks decode to {decoded} bytes each; at most {MAX_TILE_BYTES} can be read")


def _check_v3_codecs(codecs: Sequence[Metadata], grid: Sequence[int], item_bytes: int) -> None:
    """Refuse codecs not known, and chunks, or inner chunks of shards, that decode to too much."""
    if [codec["name"] for codec in codecs] == ["sharding_indexed"]:
        settings = codecs[0]["configuration"]
        inner = settings["chunk_shape"]
        if math.prod(-(-shard // chunk) for shard, chunk in zip(grid, inner, strict=True)) > MAX_INNER_CHUNKS:
            raise ScanError(f"its shards of {grid} hold more than {MAX_INNER_CHUNKS} chunks of {inner} each")
        grid, codecs = inner, [*settings["codecs"], *settings.get("index_codecs", [])]
    names = [codec["name"] for codec in codecs]
    if not set(names) <= set(_V3_CODECS):
        raise ScanError(f"its chunks are encoded by {', '.join(map(str, names))}; {', '.join(_V3_CODECS)} are read")
    _check_chunk_bytes(grid, item_bytes)


def _axis_names(multiscale: Metadata, count: int) -> list[str]:
    """The letters of the axes, y and x among them."""
    names = [str(axis["name"]).lower() for axis in multiscale["axes"]]
    if len(names) != count or len(set(names)) != count or not {"y", "x"} <= set(names) <= set("tczyx"):
        raise ScanError(
            f"has axes {', '.join(names)} for an array of {count}; y and x, with t, c, z or not, are needed"
        )
    return names


def _check_chunk_area(chunk: Mapping[str, int], shape: tuple[int, int, int]) -> None:
    _, h, w = shape
    if min(chunk["y"], h) * min(chunk["x"], w) < min(h * w, MIN_CHUNK_PX):
        raise ScanError(f"its chunks have {chunk['y']} x {chunk['x']} pixels; at least {MIN_CHUNK_PX} are needed")


def _picks(names: Sequence[str], shape: Sequence[int], plane_index: int | None) -> dict[str, int]:
    """The index along every axis that is not c, y or x."""
    others = {name: size for name, size in zip(names, shape, strict=True) if name not in "cyx"}
    planes = math.prod(others.values())
    if plane_index is None and planes > 1:
        counted = ", ".join(f"{size} along {name}" for name, size in others.items())
        raise ScanError(f"is a stack of {planes} planes ({counted}); say which in column plane_index, from 0")
    if not 0 <= (plane_index or 0) < planes:
        raise ScanError(f"plane_index is {plane_index} but the image holds {planes} plane(s), counted from 0")
    at = np.unravel_index(plane_index or 0, list(others.values())) if others else ()
    return dict(zip(others, map(int, at), strict=True))


def _kind(ome: Metadata, c: int, dtype: np.dtype[Any]) -> Kind:
    """What the `omero` attributes say: RGB is a colour model with channels red, green, blue of 8 bits."""
    omero = ome.get("omero") or {}
    colours = [str(channel.get("color", "")).upper() for channel in omero.get("channels") or ()]
    coloured = (omero.get("rdefs") or {}).get("model") == "color" and colours == _RGB
    if coloured and c == 3 and dtype == np.uint8:
        return "rgb"
    return "grey" if c == 1 else "multichannel"


def _pixel_sizes(multiscale: Metadata, dataset: Metadata, names: Sequence[str]) -> tuple[StatedPixelSize, ...]:
    """The pixel size that scales and units of the axes state, or none where a unit is missing or unknown."""
    units = {str(axis["name"]).lower(): axis.get("unit") for axis in multiscale["axes"]}
    if units["y"] not in _UM_PER_UNIT or units["x"] not in _UM_PER_UNIT:
        return ()
    factors = np.ones(len(names))
    for transform in (*(multiscale.get("coordinateTransformations") or ()), *dataset["coordinateTransformations"]):
        if transform["type"] == "scale":
            if "scale" not in transform:
                return ()
            factors = factors * np.asarray(transform["scale"], dtype=float)
    y_um, x_um = (float(factors[names.index(name)]) * _UM_PER_UNIT[units[name]] for name in "yx")
    if not (0 < y_um < math.inf and 0 < x_um < math.inf):
        return ()
    if abs(x_um - y_um) > 0.01 * x_um:
        raise ScanError(f"its pixels are not square ({y_um:g} x {x_um:g} um by its metadata); resample it")
    return (StatedPixelSize("ngff", x_um),)


def _absent_chunks(
    root: Path, level: Path, metadata: Metadata, array: Any, picks: Sequence[int | None]
) -> tuple[str, ...]:
    """A remark that counts the chunks (or shards) of a plane that are absent; None in `picks` is a whole axis."""
    edges = array.shards or array.chunks
    spans = [
        range(-(-size // edge)) if pick is None else range(pick // edge, pick // edge + 1)
        for size, edge, pick in zip(array.shape, edges, picks, strict=True)
    ]
    expected = math.prod(map(len, spans))
    prefix, separator = _key_encoding(metadata)
    present = 0
    for file in _files(level, root):
        key = file.relative_to(level).as_posix()
        at = key.removeprefix(prefix).split(separator)
        if key.startswith(prefix) and len(at) == len(spans) and all(one.isdecimal() for one in at):
            if not file.stat().st_size:
                raise ScanError(f"{key} of it is empty; the copy is incomplete, copy the store again")
            present += all(str(int(one)) == one and int(one) in span for one, span in zip(at, spans, strict=True))
    if not present:
        raise ScanError("none of its chunks are there; the copy is incomplete or nothing was ever written")
    if present == expected:
        return ()
    name = "shards" if array.shards else "chunks"
    return (f"{expected - present} of {expected} {name} are absent and read as {array.fill_value}",)


def _key_encoding(metadata: Metadata) -> tuple[str, str]:
    """What the keys of chunks begin with, and what separates their numbers."""
    if metadata["zarr_format"] == 2:
        return "", str(metadata.get("dimension_separator", "."))
    encoding = metadata["chunk_key_encoding"]
    default = encoding["name"] == "default"
    separator = str(encoding.get("configuration", {}).get("separator", "/" if default else "."))
    return (f"c{separator}" if default else ""), separator
