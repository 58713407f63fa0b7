"""Segmented volumes of any size: overlapping tiles in three dimensions, blended, in memory that does not grow with z.

A layer of tiles is blended in its planes by `tiling.map_tiles`, its planes standing in for channels; layers are blended
along z. The weights are a product of one in the plane and one along z, so that the result is that of a blending in
three dimensions at once. What waits for the layer below waits in files; where segmented tiles are kept, a run that was
cut off goes on with the first tile that is not there.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from cytoarch.geometry import centres
from cytoarch.neurons.network import MULTIPLE, NeuronNetwork
from cytoarch.neurons.patches import Scale, read_window
from cytoarch.progress import Progress
from cytoarch.tiling import FLOOR, ComputeTiles, ReadTile, TilePlan, blending_window, map_tiles

Float32 = NDArray[np.float32]
Segment = Callable[[Float32], Float32]
"""(b, z, y, x) as the network sees it -> (b, z, y, x) probability of a neuron."""


@dataclass(frozen=True)
class TileShape:
    """How a volume is cut: edges of tiles, and from one tile to the next (voxels)."""

    depth: int
    edge: int
    step: float = 0.5
    """In edges of a tile."""

    def starts(self, size: int, edge: int) -> range:
        """First voxels of the tiles along an axis; the first begins before the volume, the last ends behind it."""
        return self.plan(size, edge).rows

    def plan(self, size: int, edge: int, width: int = 1) -> TilePlan:
        """The tiles along an axis of so many voxels (and a second of `width`)."""
        step = max(MULTIPLE, round(self.step * edge / MULTIPLE) * MULTIPLE)
        margin = -(-(edge - step) // (2 * MULTIPLE)) * MULTIPLE
        return TilePlan(size, width, edge, step, margin, 1)


def segmented_by(network: NeuronNetwork, device: str = "cpu") -> Segment:
    """The probability of a neuron by a fitted network."""
    network.to(device).eval()

    def segment(tiles: Float32) -> Float32:
        with torch.inference_mode():
            logits = network(torch.from_numpy(tiles)[:, None].to(device))[0]
            return np.asarray(logits.float().softmax(dim=1)[:, 1].cpu().numpy())

    return segment


class KeptTiles(Protocol):
    """Where segmented tiles wait until no plane needs them any more."""

    def load(self, layer: int, tile: int) -> Float32 | None:
        """The tile (z, y, x) of a layer, both by their numbers, if it was kept."""

    def save(self, layer: int, tile: int, told: Float32) -> None:
        """Keep a tile (z, y, x)."""

    def drop(self, layer: int, tiles: int) -> None:
        """Forget all tiles of a layer, which are so many."""


class NoTiles:
    """Tiles that are not kept."""

    def load(self, layer: int, tile: int) -> Float32 | None:  # noqa: ARG002 - the protocol passes them
        """None."""
        return None

    def save(self, layer: int, tile: int, told: Float32) -> None:
        """Keeps nothing."""

    def drop(self, layer: int, tiles: int) -> None:
        """There is nothing."""


def waiting_bytes(shape: tuple[int, int, int], tiles: TileShape) -> int:
    """Bytes of what waits in files at most while a volume (z, y, x) is segmented: tiles, and planes being blended.

    >>> waiting_bytes((1000, 2000, 2000), TileShape(64, 96)) // 1_000_000
    9347
    """
    depth, height, width = shape
    layers, plane = tiles.plan(depth, tiles.depth), tiles.plan(height, tiles.edge, width)
    together = min(len(layers.rows), -(-tiles.depth // layers.step_px))
    return 4 * tiles.depth * (together * plane.tile_count * tiles.edge**2 + height * width)


def segment_volume(
    segment: Segment,
    pixels: Any,
    scale: Scale,
    tiles: TileShape,
    scratch: Path,
    batch_size: int = 1,
    on_progress: Progress | None = None,
    kept: KeptTiles | None = None,
    first_plane: int = 0,
) -> Iterator[Float32]:
    """The probability of a neuron in every voxel of a volume (z, y, x), one plane (y, x) float32 after the other.

    A pure function of its arguments but `scratch`, a folder for a file of `tiles.depth` planes of float32, and `kept`:
    batches of which all tiles are there are not segmented again. Tiles are forgotten when the planes that need them
    have been taken, up to a multiple of 16: whoever keeps planes keeps 16 of them before asking for the next, and goes
    on with `first_plane`.
    """
    depth, height, width = pixels.shape
    layers = tiles.plan(depth, tiles.depth)
    plane = tiles.plan(height, tiles.edge, width)
    window = blending_window("gauss", tiles.edge)
    along = np.maximum(np.exp(-8 * centres(-1, 1, tiles.depth) ** 2), FLOOR).astype(np.float32)
    scratch.mkdir(parents=True, exist_ok=True)
    total = np.memmap(scratch / "blending.f32", np.float32, "w+", shape=(tiles.depth, height, width))
    weight = np.zeros(tiles.depth, dtype=np.float32)
    source, dropped = _Tiles(segment, pixels, scale, tiles.depth, plane, kept or NoTiles()), 0
    for index, z in enumerate(layers.rows):
        while dropped < len(layers.rows) and layers.rows[dropped] + tiles.depth <= max(z, first_plane):
            source.kept.drop(dropped, plane.tile_count)
            dropped += 1
        finished = tiles.depth if index == len(layers.rows) - 1 else layers.step_px
        if z + tiles.depth > first_plane:
            done = index * plane.tile_count
            told = _shifted(on_progress, done, len(layers.rows) * plane.tile_count)
            read, compute = source.of(index, z)
            bands = map_tiles(compute, read, plane, window, tiles.depth, batch_size=batch_size, on_progress=told)
            for row, band in bands:
                total[:, row : row + band.shape[1]] += along[:, None, None] * band
            weight += along
        first, stop = max(0, -z), min(finished, depth - z)
        for plane_at in range(max(first, first_plane - z), stop):
            yield np.asarray(total[plane_at]) / weight[plane_at]
        for plane_at in range(tiles.depth):  # one by one: all at once would be copied in memory
            total[plane_at] = total[plane_at + finished] if plane_at + finished < tiles.depth else 0
        weight = np.concatenate([weight[finished:], np.zeros(finished, dtype=np.float32)])
    for index in range(dropped, len(layers.rows)):
        source.kept.drop(index, plane.tile_count)
    del total
    (scratch / "blending.f32").unlink()


@dataclass(frozen=True)
class _Tiles:
    """The tiles of a volume, read and segmented; those that are kept are neither."""

    segment: Segment
    pixels: Any
    scale: Scale
    depth: int
    plane: TilePlan
    kept: KeptTiles

    def of(self, layer: int, z: int) -> tuple[ReadTile, ComputeTiles]:
        """Both halves of a layer's work, for `map_tiles`, which reads the tiles of a batch before computing it."""
        asked: list[tuple[int, int, int, Float32 | None]] = []

        def window(y: int, x: int) -> Float32:
            edge = self.plane.tile_px
            high = z + self.depth, y + edge, x + edge
            return self.scale.shown(read_window(self.pixels, (z, y, x), high, self.scale.black))

        def read(y: int, x: int, _height: int, _width: int) -> Float32:
            tile = self.plane.rows.index(y) * len(self.plane.columns) + self.plane.columns.index(x)
            there = self.kept.load(layer, tile)
            asked.append((tile, y, x, there))
            return window(y, x) if there is None else there

        def compute(batch: Float32) -> Float32:
            missing = [tile for tile, _, _, there in asked if there is None]
            found = batch
            if missing:  # the whole batch: a network's result depends on what it is given together, in the last bits
                given = [
                    window(y, x) if there is not None else own
                    for (_, y, x, there), own in zip(asked, batch, strict=True)
                ]
                found = self.segment(np.stack(given))
            for (tile, *_), told in zip(asked, found, strict=True):
                if tile in missing:
                    self.kept.save(layer, tile, told)
            asked.clear()
            return found

        return read, compute


def _shifted(on_progress: Progress | None, done: int, total: int) -> Progress | None:
    if on_progress is None:
        return None
    return lambda count, _: on_progress(done + count, total)
