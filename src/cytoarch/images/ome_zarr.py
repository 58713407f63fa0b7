"""Images in OME-Zarr stores, version 0.4 (Zarr v2) and 0.5 (Zarr v3), read by window from the full-resolution level.

A store is a folder. Nothing outside it is read: dataset paths stay below it, links that leave it are refused. Its
metadata are read from its own files, never from consolidated copies, and are checked before Zarr sees them.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cytoarch.errors import ScanError
from cytoarch.images.pixel_size import may_be_pixel_size
from cytoarch.images.planes import Kind, Scan, StatedPixelSize, check_size, reading
from cytoarch.images.store_folders import Metadata, folder_below, read_json
from cytoarch.images.zarr_arrays import absent_chunks, array_metadata, check_chunk_area, open_array

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
_RGB = ["FF0000", "00FF00", "0000FF"]
_LISTED = 16
"""Choices an error lists."""


def open_ome_zarr(path: Path, plane_index: int | None) -> Scan:
    """A plane of the image in an OME-Zarr store (a folder), open for reading by window.

    Axes other than c, y, x are counted through by `plane_index` in the order they are stored, the last fastest. Of
    several multiscales the first is taken, as the format wants it, unless another one is larger; of its levels the
    largest; a bioformats2raw collection of one image is that image. Chunks that are
    absent read as the fill value, as the format wants it, and so do chunks whose file was lost: a remark counts them,
    and a plane without any chunk is refused. Chunks absent inside a shard are not counted. Raises ScanError if the
    store is no such image, links out of itself, has codecs that are not known to keep pixels, or too large chunks, or
    if `plane_index` is needed or too large; reading raises it where a chunk is damaged.
    """
    with reading(path, "an OME-Zarr image"):
        folder, ome = _image(path, path)
        multiscale, dataset, picked = _full_resolution(path, folder, ome["multiscales"])
        level = folder_below(path, folder, dataset["path"])
        array, metadata = open_array(path, level)
        names = _axis_names(multiscale, array.ndim)
        sizes = dict(zip(names, array.shape, strict=True))
        shape = (sizes.get("c", 1), sizes["y"], sizes["x"])
        check_size(*shape)
        check_chunk_area(dict(zip(names, array.chunks, strict=True)), shape)
        picks = _picks(names, array.shape, plane_index)
        dtype = array.dtype.newbyteorder("=")
        remarks = absent_chunks(path, level, metadata, array, [picks.get(name) for name in names])
        remarks = (*remarks, *picked)
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


def _ome(root: Path, folder: Path) -> Metadata:
    """The OME attributes of a group. Raises ScanError if it is none, or of another version than 0.4 and 0.5."""
    if (folder / "zarr.json").is_file():
        ome = read_json(root, folder / "zarr.json").get("attributes", {}).get("ome", {})
        version, known = str(ome.get("version")), ("0.5",)
    elif (folder / ".zattrs").is_file():
        ome = read_json(root, folder / ".zattrs")
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
    image = folder_below(root, folder, series[0])
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


def _full_resolution(
    root: Path, folder: Path, multiscales: Sequence[Metadata]
) -> tuple[Metadata, Metadata, tuple[str, ...]]:
    """The multiscale that is meant, its level of full resolution, and remarks on both.

    Raises ScanError, which lists them, if the first multiscale is smaller than another but too large to be its
    thumbnail (more than a quarter of the pixels).
    """
    sizes = [[_level_size(root, folder, one, level) for level in one["datasets"]] for one in multiscales]
    largest = [max(each, key=math.prod, default=(0, 0)) for each in sizes]
    number = largest.index(max(largest, key=math.prod))
    if not sizes[0] or math.prod(sizes[0][0]) == 0:  # what is wrong with it is told where it is opened
        number = 0
    height, width = largest[number]
    if number and 4 * math.prod(largest[0]) > (height + 1) * (width + 1):
        listed = ", ".join("{} x {}".format(*size) for size in largest[:_LISTED])
        raise ScanError(
            f"holds {len(multiscales)} multiscales of {listed} pixels, and not the first of them is the largest; put "
            "the one that is meant first in its metadata"
        )
    level = sizes[number].index(largest[number]) if math.prod(largest[number]) and math.prod(sizes[number][0]) else 0
    named = "first" if number == 0 else f"largest (number {number}, from 0)"
    remarks = [f"{named} of {len(multiscales)} multiscales"] if len(multiscales) > 1 else []
    if level:
        remarks.append(f"its levels are not in order: level {level} is the full resolution")
    return multiscales[number], multiscales[number]["datasets"][level], tuple(remarks)


def _level_size(root: Path, folder: Path, multiscale: Metadata, dataset: Metadata) -> tuple[int, int]:
    """(y, x) of a level; (0, 0) where it cannot be told."""
    try:
        shape = array_metadata(root, folder_below(root, folder, dataset["path"]))["shape"]
        sizes = dict(zip(_axis_names(multiscale, len(shape)), map(int, shape), strict=True))
    except (ScanError, KeyError, TypeError, ValueError, OSError, RecursionError):
        return 0, 0
    return max(0, sizes["y"]), max(0, sizes["x"])


def _axis_names(multiscale: Metadata, count: int) -> list[str]:
    """The letters of the axes, y and x among them."""
    names = [str(axis["name"]).lower() for axis in multiscale["axes"]]
    if len(names) != count or len(set(names)) != count or not {"y", "x"} <= set(names) <= set("tczyx"):
        raise ScanError(
            f"has axes {', '.join(names)} for an array of {count}; y and x, with t, c, z or not, are needed"
        )
    return names


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
    if abs(x_um - y_um) > 0.01 * x_um and any(map(may_be_pixel_size, (x_um, y_um))):
        raise ScanError(f"its pixels are not square ({y_um:g} x {x_um:g} um by its metadata); resample it")
    return (StatedPixelSize("ngff", x_um),)


# -- volumes -----------------------------------------------------------------------------------------------------------


def full_resolution(path: Path) -> tuple[Any, list[str], tuple[Metadata, Metadata]]:
    """The array of a store's full resolution, the letters of its axes, and what says how large its voxels are.

    Raises ScanError as `open_ome_zarr` does.
    """
    with reading(path, "an OME-Zarr image"):
        folder, ome = _image(path, path)
        multiscale, dataset, _ = _full_resolution(path, folder, ome["multiscales"])
        array, _ = open_array(path, folder_below(path, folder, dataset["path"]))
        return array, _axis_names(multiscale, array.ndim), (multiscale, dataset)


def um_per_index(stated: tuple[Metadata, Metadata], names: Sequence[str]) -> tuple[float, float, float] | None:
    """Edges (z, y, x) of a voxel in um; None where a unit is missing or unknown, or there is no z."""
    multiscale, dataset = stated
    units = {str(axis["name"]).lower(): axis.get("unit") for axis in multiscale["axes"]}
    if any(units.get(name) not in _UM_PER_UNIT for name in "zyx"):
        return None
    factors = np.ones(len(names))
    for transform in (*(multiscale.get("coordinateTransformations") or ()), *dataset["coordinateTransformations"]):
        if transform["type"] == "scale":
            factors = factors * np.asarray(transform["scale"], dtype=float)
    z, y, x = (float(factors[names.index(name)]) * _UM_PER_UNIT[units[name]] for name in "zyx")
    return (z, y, x) if all(0 < one < math.inf for one in (z, y, x)) else None
