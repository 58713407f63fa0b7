"""Volumes from outside: TIFF stacks, folders of planes and OME-Zarr, read one plane after the other."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from cytoarch.errors import ScanError
from cytoarch.images.layout import Journal
from cytoarch.images.ome_zarr import full_resolution, is_ome_zarr, um_per_index
from cytoarch.images.planes import check_dtype, reading
from cytoarch.images.volumes import CHUNK, VoxelGrid, write_volume
from cytoarch.images.voxel_size import stated_voxel_um
from cytoarch.measures.greys import grey_range
from cytoarch.progress import Progress

TIFF_SUFFIXES = (".tif", ".tiff")
MAX_PLANE_BYTES = 2 << 30
"""Largest plane that is read."""
DEPTH_AXES = "ZIQ"
"""What TIFF files call the axis of a stack: z, an index, or unknown."""
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Stack:
    """An open volume."""

    shape: tuple[int, int, int]
    """(z, y, x)."""
    dtype: np.dtype[Any]
    stated_um: Triple | None
    """Edges (z, y, x) of a voxel, where the file says them."""
    plane: Callable[[int], NDArray[Any]]
    """z -> (y, x)."""


def write_stack(
    journal: Journal, path: Path, voxel_um: Triple | None, channel: int, name: str, on_progress: Progress | None = None
) -> dict[str, Any]:
    """Write a volume from outside as an NGFF image (z, y, x) as scanned; returns facts for its record.

    Memory is that of a slab of planes, whatever the depth. `voxel_um` is what a person states, which goes before what
    the file states. Raises ScanError if the file is no volume of 8- or 16-bit unsigned voxels, or nobody states their
    size.
    """
    with open_stack(path, channel) as stack:
        edges = voxel_um or stack.stated_um
        if edges is None:
            raise ScanError(
                f"{path.name}: the size of its voxels is not known; state voxel_z_um, voxel_y_um and voxel_x_um in the "
                "table of volumes"
            )
        counts = np.zeros(np.iinfo(stack.dtype).max + 1, dtype=np.int64)
        slabs = _slabs(stack, counts, on_progress)
        write_volume(journal, VoxelGrid(stack.shape, edges), slabs, name, stack.dtype.type)
    black, white = grey_range(counts)
    return {
        "shape": list(stack.shape),
        "dtype": str(stack.dtype),
        "voxel_um": list(edges),
        "black": black,
        "white": white,
        "bright_share": round(float(counts[black + 1 :].sum() / counts.sum()), 6),
    }


def _slabs(stack: Stack, counts: NDArray[np.int64], on_progress: Progress | None) -> Iterator[NDArray[Any]]:
    for first in range(0, stack.shape[0], CHUNK[0]):
        planes = [stack.plane(z) for z in range(first, min(first + CHUNK[0], stack.shape[0]))]
        for plane in planes:
            counts += np.bincount(plane.ravel(), minlength=len(counts))
        yield np.stack(planes)
        if on_progress is not None:
            on_progress(first + len(planes), stack.shape[0])


@contextmanager
def open_stack(path: Path, channel: int = 0) -> Iterator[Stack]:
    """A volume, open to be read plane by plane. Raises ScanError if it is none."""
    with reading(path, "a volume"):
        if is_ome_zarr(path):
            yield _ome_zarr(path, channel)
        elif path.is_dir():
            yield _folder(path)
        elif path.suffix.lower() in TIFF_SUFFIXES:
            with tifffile.TiffFile(path, _multifile=False) as tiff:  # whatever it names, one file is read
                yield _tiff(tiff, channel)
        else:
            raise ScanError("is neither a TIFF stack, a folder of TIFF planes, nor OME-Zarr; save it as one of them")


def volume_files(path: Path) -> list[Path]:
    """The files a volume consists of, sorted. Raises ScanError if there are none."""
    if path.is_dir() and not is_ome_zarr(path):
        return _planes_in(path)
    if not path.exists():
        raise ScanError(f"{path}: is not there; check the path in the table of volumes")
    return [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())


def _tiff(tiff: tifffile.TiffFile, channel: int) -> Stack:
    series = max(tiff.series, key=lambda one: int(np.prod(one.shape)))
    sizes = dict(zip(series.axes, series.shape, strict=True))
    deep = [axis for axis in DEPTH_AXES if sizes.get(axis, 1) > 1]
    others = [axis for axis, size in sizes.items() if axis not in "YXC" and axis not in deep and size > 1]
    if not {"Y", "X"} <= set(sizes) or len(deep) > 1 or others:
        raise ScanError(
            f"has axes {series.axes} {series.shape}; one axis of planes, Y, X, with channels or not, is needed"
        )
    depth = sizes[deep[0]] if deep else 1
    shape = depth, sizes["Y"], sizes["X"]
    _check(shape, series.dtype, channel, sizes.get("C", 1))
    lead = [axis for axis in series.axes if axis not in "YX"]
    if series.axes[-2:] != "YX" or tuple(series.keyframe.shape) != shape[1:]:
        raise ScanError(
            f"keeps its planes as {series.axes} {series.keyframe.shape}; save it with a page for every plane"
        )

    def plane(z: int) -> NDArray[Any]:
        at = [z if axis in deep else channel if axis == "C" else 0 for axis in lead]
        page = series.pages[int(np.ravel_multi_index(at, [sizes[axis] for axis in lead]))] if lead else series.keyframe
        if page is None:
            raise ScanError(f"plane {z} is missing; copy the file again")
        return np.asarray(page.asarray())

    return Stack(shape, series.dtype.newbyteorder("="), stated_voxel_um(tiff, shape), plane)


def _folder(path: Path) -> Stack:
    files = _planes_in(path)
    first = _one_plane(files[0])
    shape = len(files), first.shape[0], first.shape[1]
    _check(shape, first.dtype, 0, 1)

    def plane(z: int) -> NDArray[Any]:
        pixels = _one_plane(files[z])
        if pixels.shape != first.shape or pixels.dtype != first.dtype:
            raise ScanError(
                f"{files[z].name}: is {pixels.dtype} {pixels.shape}, the first plane {first.dtype} {first.shape}"
            )
        return np.asarray(pixels)

    return Stack(shape, first.dtype.newbyteorder("="), None, plane)


def _one_plane(path: Path) -> NDArray[Any]:
    """The plane (y, x) of a file of its own, whatever other files it names. Raises ScanError if it holds more."""
    with tifffile.TiffFile(path, _multifile=False) as tiff:
        pixels = np.asarray(tiff.pages[0].asarray())
        if len(tiff.pages) != 1 or pixels.ndim != 2:
            raise ScanError(
                f"{path.name}: has {len(tiff.pages)} pages of {pixels.shape}; a folder holds one grey plane a file"
            )
    return pixels


def _planes_in(path: Path) -> list[Path]:
    """The TIFF files of a folder, by the numbers in their names."""
    files = [one for one in path.iterdir() if one.suffix.lower() in TIFF_SUFFIXES and one.is_file()]
    if not files:
        raise ScanError(f"{path}: holds no TIFF file; a stack, a folder of planes or OME-Zarr is needed")
    return sorted(
        files, key=lambda one: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", one.name)]
    )


def _ome_zarr(path: Path, channel: int) -> Stack:
    array, names, stated = full_resolution(path)
    sizes = dict(zip(names, array.shape, strict=True))
    shape = sizes.get("z", 1), sizes["y"], sizes["x"]
    _check(shape, array.dtype, channel, sizes.get("c", 1))
    if sizes.get("t", 1) > 1:
        raise ScanError(f"is a series of {sizes['t']} times; save the one that is meant by itself")

    def plane(z: int) -> NDArray[Any]:
        picks: Mapping[str, Any] = {"z": z, "c": channel, "t": 0, "y": slice(None), "x": slice(None)}
        pixels = np.asarray(array[tuple(picks[name] for name in names)])
        return pixels if names.index("y") < names.index("x") else pixels.T

    return Stack(shape, array.dtype.newbyteorder("="), um_per_index(stated, names), plane)


def _check(shape: Sequence[int], dtype: Any, channel: int, channels: int) -> None:
    check_dtype(dtype)
    if not channel < channels:
        raise ScanError(f"channel is {channel}, and it has {channels}, counted from 0; correct the table of volumes")
    if shape[1] * shape[2] * dtype.itemsize > MAX_PLANE_BYTES:
        raise ScanError(
            f"planes of {shape[1]} x {shape[2]} voxels are too large; at most {MAX_PLANE_BYTES} bytes are read"
        )
