"""Volumes (z, y, x) as NGFF images with all their levels, written one slab of planes after the other."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from cytoarch.geometry import HALF
from cytoarch.images.layout import Journal
from cytoarch.images.ngff import NGFF_VERSION
from cytoarch.images.pyramids import write_group
from cytoarch.store.disk import writing

CHUNK = (16, 128, 128)
"""Voxels of a chunk; a slab is as deep as a chunk."""
SMALLEST = 64
"""Levels are added until the longest edge is no longer than this."""
UInt8 = NDArray[np.uint8]


@dataclass(frozen=True)
class VolumeGrid:
    """Cubic voxels at a stated place."""

    shape: tuple[int, int, int]
    """(z, y, x)."""
    voxel_um: float
    origin_um: tuple[float, float, float]
    """(z, y, x) of the centre of the first voxel."""

    @property
    def halved(self) -> "VolumeGrid":
        """Voxels of twice the edge at the same corner; what is left over at the far sides gets voxels, too."""
        z, y, x = (-(-edge // 2) for edge in self.shape)
        oz, oy, ox = (at + HALF * self.voxel_um for at in self.origin_um)
        return VolumeGrid((z, y, x), 2 * self.voxel_um, (oz, oy, ox))

    @property
    def levels(self) -> "tuple[VolumeGrid, ...]":
        """The grid itself and the coarser ones that are kept beside it."""
        found = [self]
        while max(found[-1].shape) > SMALLEST:
            found.append(found[-1].halved)
        return tuple(found)


def write_volume(journal: Journal, grid: VolumeGrid, slabs: Iterable[UInt8], name: str) -> None:
    """Write an NGFF 0.5 image (z, y, x) uint8; `slabs` are its planes in order, `CHUNK[0]` of them at a time.

    Coarser levels are means of 2 x 2 x 2 voxels, read back from the level before: memory is that of two slabs.
    """
    levels = grid.levels
    arrays = [_array(journal, str(number), level) for number, level in enumerate(levels)]
    depth = CHUNK[0]
    for number, slab in enumerate(slabs):
        with writing(journal.path):
            arrays[0][number * depth : number * depth + len(slab)] = slab
    for finer, coarser in pairwise(arrays):
        for z in range(0, coarser.shape[0], depth):
            block = np.asarray(finer[2 * z : 2 * (z + depth)])
            with writing(journal.path):
                coarser[z : z + -(-len(block) // 2)] = halved(block)
    write_group(journal, "", {"ome": {"version": NGFF_VERSION, "multiscales": [_multiscales(name, levels)]}})


def halved(block: UInt8) -> UInt8:
    """Means of 2 x 2 x 2 voxels (z, y, x), rounded; the outermost ones are repeated where an edge is odd."""
    padded = np.pad(block, [(0, edge % 2) for edge in block.shape], mode="edge").astype(np.uint16)
    z, y, x = (edge // 2 for edge in padded.shape)
    sums = padded.reshape(z, 2, y, 2, x, 2).sum(axis=(1, 3, 5), dtype=np.uint16)
    return np.asarray((sums + 4) // 8, dtype=np.uint8)


def _array(journal: Journal, key: str, grid: VolumeGrid) -> "zarr.Array[Any]":
    with writing(journal.path / key):
        return zarr.create_array(
            store=journal.path / key,
            shape=grid.shape,
            dtype=np.uint8,
            chunks=tuple(min(edge, size) for edge, size in zip(CHUNK, grid.shape, strict=True)),
            compressors=(BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"), Crc32cCodec()),
            fill_value=0,
            dimension_names=list("zyx"),
            config={"write_empty_chunks": True},  # a chunk that is absent is a fault, never "nothing there"
        )


def _multiscales(name: str, levels: tuple[VolumeGrid, ...]) -> dict[str, Any]:
    return {
        "name": name,
        "type": "mean",
        "axes": [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"],
        "datasets": [
            {
                "path": str(number),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [level.voxel_um] * 3},
                    {"type": "translation", "translation": list(level.origin_um)},
                ],
            }
            for number, level in enumerate(levels)
        ],
    }
