"""Volumes (z, y, x) as NGFF images with all their levels, written one slab of planes after the other."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from cytoarch.geometry import HALF
from cytoarch.images.layout import Journal
from cytoarch.images.ngff import NGFF_VERSION
from cytoarch.images.pyramids import write_group
from cytoarch.images.store_folders import read_json
from cytoarch.images.zarr_arrays import open_array
from cytoarch.store.disk import writing

CHUNK = (16, 128, 128)
"""Voxels of a chunk; a slab is as deep as a chunk."""
SMALLEST = 64
"""Levels are added until the longest edge is no longer than this."""
Voxels = NDArray[Any]
"""(z, y, x) unsigned."""


@dataclass(frozen=True)
class VoxelGrid:
    """Voxels, whose edges may differ by axis, at a stated place; all triples are (z, y, x)."""

    shape: tuple[int, int, int]
    edges_um: tuple[float, float, float]
    origin_um: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """The centre of the first voxel."""

    @property
    def factors(self) -> tuple[int, int, int]:
        """Voxels that the next level joins along each axis: 2, but 1 where they are twice as long as the shortest."""
        z, y, x = (2 if edge < 2 * min(self.edges_um) else 1 for edge in self.edges_um)
        return z, y, x

    @property
    def coarser(self) -> "VoxelGrid":
        """Joined voxels at the same corner; what is left over at the far sides gets voxels, too."""
        parts = zip(self.shape, self.edges_um, self.origin_um, self.factors, strict=True)
        along = [(-(-size // by), by * edge, at + HALF * (by - 1) * edge) for size, edge, at, by in parts]
        (z, dz, oz), (y, dy, oy), (x, dx, ox) = along
        return VoxelGrid((z, y, x), (dz, dy, dx), (oz, oy, ox))

    @property
    def levels(self) -> "tuple[VoxelGrid, ...]":
        """The grid itself and the coarser ones that are kept beside it."""
        found = [self]
        while max(found[-1].shape) > SMALLEST and found[-1].coarser.shape != found[-1].shape:
            found.append(found[-1].coarser)
        return tuple(found)


@dataclass(frozen=True)
class VolumeGrid:
    """Cubic voxels at a stated place."""

    shape: tuple[int, int, int]
    """(z, y, x)."""
    voxel_um: float
    origin_um: tuple[float, float, float]
    """(z, y, x) of the centre of the first voxel."""

    @property
    def voxels(self) -> VoxelGrid:
        """The same voxels, their edge stated for every axis."""
        return VoxelGrid(self.shape, (self.voxel_um,) * 3, self.origin_um)


def planes_there(journal: Journal, grid: VoxelGrid) -> int:
    """Planes of the full resolution, from the first on, that an interrupted run has finished: whole slabs."""
    slabs = 0
    if journal.has(_metadata("0")):
        while slabs * CHUNK[0] < grid.shape[0] and all(map(journal.has, _chunks_of(grid, slabs))):
            slabs += 1
    return min(slabs * CHUNK[0], grid.shape[0])


def write_volume(
    journal: Journal,
    grid: VoxelGrid,
    slabs: Iterable[Voxels],
    name: str,
    dtype: type[np.unsignedinteger[Any]] = np.uint8,
    there: int = 0,
) -> None:
    """Write an NGFF 0.5 image (z, y, x); `slabs` are its planes in order, `CHUNK[0]` of them at a time.

    Each slab is finished before the next is asked for. With `there`, of `planes_there`, the planes before are kept and
    `slabs` begin with that one. Coarser levels are means of 2 x 2 x 2 voxels (of fewer where voxels are long), read
    back from the level before: memory is that of two slabs.
    """
    levels = grid.levels
    kept = [_array(journal, "0", grid, dtype, kept=there > 0)]
    arrays = kept + [_array(journal, str(number), level, dtype) for number, level in enumerate(levels) if number]
    depth = CHUNK[0]
    for number, slab in enumerate(slabs, start=there // depth):
        with writing(journal.path):
            arrays[0][number * depth : number * depth + len(slab)] = slab
        for key in _chunks_of(grid, number):
            journal.seal(key)
    for (finer, coarser), level in zip(pairwise(arrays), levels, strict=False):
        by = level.factors
        for z in range(0, coarser.shape[0], depth):
            block = np.asarray(finer[by[0] * z : by[0] * (z + depth)])
            with writing(journal.path):
                coarser[z : z + -(-len(block) // by[0])] = joined(block, by)
    for one in sorted(journal.path.glob("[1-9]*/**/*")):
        key = one.relative_to(journal.path).as_posix()
        if one.is_file() and journal.has(key):  # sealed by a run that was interrupted, and written again since
            journal.seal(key)
    write_group(journal, "", {"ome": {"version": NGFF_VERSION, "multiscales": [_multiscales(name, levels)]}})


def _metadata(level: str) -> str:
    return f"{level}/zarr.json"


def _chunks_of(grid: VoxelGrid, slab: int) -> list[str]:
    """The keys of the chunks of a slab of the full resolution."""
    rows, columns = (-(-size // edge) for size, edge in zip(grid.shape[1:], CHUNK[1:], strict=True))
    return [f"0/c/{slab}/{row}/{column}" for row in range(rows) for column in range(columns)]


def joined(block: Voxels, factors: tuple[int, int, int] = (2, 2, 2)) -> Voxels:
    """Rounded means of so many voxels along (z, y, x); the outermost are repeated where an edge is no multiple."""
    padded = np.pad(block, [(0, -edge % by) for edge, by in zip(block.shape, factors, strict=True)], mode="edge")
    z, y, x = (edge // by for edge, by in zip(padded.shape, factors, strict=True))
    fz, fy, fx = factors
    sums = padded.reshape(z, fz, y, fy, x, fx).sum(axis=(1, 3, 5), dtype=np.uint32)
    count = fz * fy * fx
    return np.asarray((sums + count // 2) // count, dtype=block.dtype)


def _array(
    journal: Journal, key: str, grid: VoxelGrid, dtype: type[np.unsignedinteger[Any]], kept: bool = False
) -> "zarr.Array[Any]":
    """The array of a level: what an interrupted run left of it is written again, or gone on with where it is kept."""
    # a chunk that is absent is a fault, never "nothing there"
    if kept:
        return zarr.open_array(journal.path / key, mode="r+").with_config({"write_empty_chunks": True})
    with writing(journal.path / key):
        made = zarr.create_array(
            store=journal.path / key,
            shape=grid.shape,
            dtype=dtype,
            chunks=tuple(min(edge, size) for edge, size in zip(CHUNK, grid.shape, strict=True)),
            compressors=(BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"), Crc32cCodec()),
            fill_value=0,
            overwrite=True,
            dimension_names=list("zyx"),
            config={"write_empty_chunks": True},
        )
    journal.seal(_metadata(key))
    return made


def _multiscales(name: str, levels: tuple[VoxelGrid, ...]) -> dict[str, Any]:
    return {
        "name": name,
        "type": "mean",
        "axes": [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"],
        "datasets": [
            {
                "path": str(number),
                "coordinateTransformations": [
                    {"type": "scale", "scale": list(level.edges_um)},
                    {"type": "translation", "translation": list(level.origin_um)},
                ],
            }
            for number, level in enumerate(levels)
        ],
    }


@dataclass(frozen=True)
class StoredVolume:
    """A volume of the store, opened; its pixels are read where they are asked for."""

    pixels: Any
    """(z, y, x) of the full resolution, read by slices."""
    grid: VoxelGrid

    @classmethod
    def open(cls, folder: Path) -> "StoredVolume":
        """The volume in a folder that `write_volume` wrote."""
        stated = read_json(folder, folder / "zarr.json")["attributes"]["ome"]["multiscales"][0]
        array, _ = open_array(folder, folder / "0")
        scale, shift = stated["datasets"][0]["coordinateTransformations"]
        return cls(array, VoxelGrid(array.shape, tuple(scale["scale"]), tuple(shift["translation"])))
