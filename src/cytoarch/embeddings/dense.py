"""Whole sections, or regions of them, as token grids: one OME-Zarr image (c, y, x) float16 per layer.

A shard of the token grid is made of whole tiles, so that every tile belongs to one shard and no token is computed
twice. Where an encoder reaches beyond its token, a margin of every tile is thrown away.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.embeddings.engine import Report, run_engine
from cytoarch.embeddings.jobs import Float32, Lot, Results
from cytoarch.embeddings.reading import SectionReader
from cytoarch.embeddings.settings import EmbedSettings
from cytoarch.embeddings.stored import COMPUTED
from cytoarch.encoders.protocol import Encoder
from cytoarch.errors import ModelError, SectionError
from cytoarch.geometry import Grid
from cytoarch.images.bands import BandTarget, ShardWriter
from cytoarch.images.layout import Journal, Pyramid
from cytoarch.images.pyramids import write_group, write_pyramid
from cytoarch.images.views import StoredImage
from cytoarch.tiling import TilePlan

Float16 = NDArray[np.float16]
WindowUm = tuple[float, float, float, float]
"""(y, x, height, width) um from the corner of the section"""

SHARD_PX = 2048
"""A shard covers at most so many pixels along an edge: what is read at once."""
SHARD_BYTES = 128 << 20
"""A shard, all layers together, takes at most so many bytes, unless a single tile takes more."""
CHUNK_BYTES = 4 << 20
"""A chunk of a layer takes at most so many bytes where a tile can be halved that far."""
SMALLEST_CHUNK = 8
"""Chunks are not made smaller than so many tokens along an edge."""
LARGEST_FLOAT16 = 65504.0
WRITERS = 4
"""Layers of a shard that are compressed at once, at most."""


def tile_plan(encoder: Encoder, height: int, width: int, settings: EmbedSettings) -> TilePlan:
    """Side-by-side cores of tiles that cover a section of height x width pixels.

    Encoders of finite reach get a margin as wide as that, which makes the result equal the untiled one; the others the
    margin asked for. Raises ModelError if that leaves no core, or is no multiple of the token.
    """
    shape = encoder.tiles
    tile, token = shape.tile_around(settings.tile_px), shape.token_px
    margin = settings.margin_px + shape.margin_px if shape.halo_px is None else shape.halo_px
    if shape.halo_px is not None:
        # small sections need no larger tile than themselves; the size of a tile does not change the result
        align = math.lcm(shape.align_px, token)
        needed = -(-max(height, width) // align) * align + 2 * margin
        tile = max(min(tile // align * align, needed), 4 * margin)
    step = math.lcm(token, shape.align_px)
    if tile - 2 * margin < step or margin % step or tile % step:
        raise ModelError(
            f"tiles of {tile} px with a margin of {margin} px on every side do not fit this encoder: both must be "
            f"multiples of {step} px, and as much must be left between the margins"
        )
    return TilePlan(height, width, tile, tile - 2 * margin, margin, token)


def shard_tiles(plan: TilePlan, dims: Sequence[int]) -> int:
    """How many tiles a shard has along its edge."""
    core_tokens = plan.step_px // plan.cell_px
    bytes_of_tile = core_tokens**2 * sum(dims) * 2
    edge = min(SHARD_PX // plan.step_px, int((SHARD_BYTES / bytes_of_tile) ** 0.5))
    return max(1, min(edge, max(len(plan.rows), len(plan.columns))))


def chunk_tokens(core_tokens: int, width: int) -> int:
    """Edge of a chunk: the tile's core divided evenly until the chunk is small enough, but not below 8 tokens.

    >>> chunk_tokens(32, 768), chunk_tokens(352, 26), chunk_tokens(37, 4096)
    (32, 176, 37)
    """
    for parts in range(1, core_tokens // SMALLEST_CHUNK + 1):
        edge = core_tokens // parts
        if core_tokens % parts == 0 and edge**2 * width * 2 <= CHUNK_BYTES:
            return edge
    return core_tokens


def wanted_tiles(
    plan: TilePlan, grid: Grid, tissue: TissueMask, regions: Sequence[WindowUm] | None = None
) -> NDArray[np.bool_]:
    """The tiles (rows, columns) whose core holds tissue, and touches a region where there are any.

    `grid` is that of the pixels the tiles are cut from.
    """
    edge_um = plan.step_px * grid.cell_um
    found = np.full((len(plan.rows), len(plan.columns)), regions is None)
    for y, x, height, width in regions or ():
        rows, columns = (
            slice(max(0, math.floor(first / edge_um)), max(0, math.ceil((first + length) / edge_um)))
            for first, length in ((y, height), (x, width))
        )
        found[rows, columns] = True
    for row, column in np.argwhere(found):
        top, left = int(row) * plan.step_px, int(column) * plan.step_px
        height, width = (min(plan.step_px, n - at) for n, at in ((plan.height, top), (plan.width, left)))
        found[row, column] = tissue.touches(grid.window(top, left, height, width))
    return found


@dataclass(frozen=True)
class DensePlan:
    """What is computed of one section, decided before any pixel is read."""

    reader: SectionReader
    plan: TilePlan
    dims: tuple[int, ...]
    tissue: TissueMask
    settings: EmbedSettings
    regions: tuple[WindowUm, ...] | None = None
    """Windows to which the work is limited; None: the whole section."""

    @classmethod
    def of(
        cls,
        image: StoredImage,
        tissue: TissueMask,
        encoder: Encoder,
        settings: EmbedSettings,
        pixel_size_um: float,
        regions: tuple[WindowUm, ...] | None = None,
    ) -> "DensePlan":
        """Plan a section. Raises SectionError if it lacks a channel, ModelError if the tiles do not fit."""
        reader = SectionReader.open(image, encoder, settings, pixel_size_um, tissue)
        plan = tile_plan(encoder, reader.view.height, reader.view.width, settings)
        return cls(reader, plan, encoder.dims(reader.depth), tissue, settings, regions)

    @property
    def core_tokens(self) -> int:
        """Edge of a tile without its margin, in tokens."""
        return self.plan.step_px // self.plan.cell_px

    @cached_property
    def shard_tiles(self) -> int:
        """How many tiles a shard has along its edge."""
        return shard_tiles(self.plan, self.dims)

    @cached_property
    def wanted(self) -> NDArray[np.bool_]:
        """The tiles (rows, columns) that are computed."""
        return wanted_tiles(self.plan, self.reader.view.grid, self.tissue, self.regions)

    def shards(self) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
        """Every shard in reading order: its place, and the tiles (row, column) of it that are computed."""
        edge = self.shard_tiles
        rows, columns = self.wanted.shape
        for top in range(0, rows, edge):
            for left in range(0, columns, edge):
                part = self.wanted[top : top + edge, left : left + edge]
                yield top // edge, left // edge, [(top + int(r), left + int(c)) for r, c in np.argwhere(part)]

    def read(self, tiles: Sequence[tuple[int, int]]) -> list[Float32]:
        """Some tiles (c, T, T) float32 that lie close to each other, in one go."""
        step, margin, size = self.plan.step_px, self.plan.margin_px, self.plan.tile_px
        top, left = min(row for row, _ in tiles), min(column for _, column in tiles)
        bottom, right = max(row for row, _ in tiles), max(column for _, column in tiles)
        block = self.reader.read(
            top * step - margin, left * step - margin, (bottom - top) * step + size, (right - left) * step + size
        )
        places = [((row - top) * step, (column - left) * step) for row, column in tiles]
        return [block[:, y : y + size, x : x + size] for y, x in places]


@dataclass
class DenseLot:
    """One shard of a section: all its layers."""

    plan: DensePlan
    writers: Sequence[ShardWriter]
    row: int
    column: int
    places: list[tuple[int, int]]
    blocks: list[Float16] = field(default_factory=list)
    put_count: int = 0

    @property
    def tiles(self) -> int:
        """How many tiles are computed."""
        return len(self.places)

    @property
    def finished(self) -> bool:
        """Whether every layer of the shard is in the journal."""
        return all(writer.journal.has(writer.key(self.row, self.column)) for writer in self.writers)

    def windows(self) -> Sequence["DenseLot"]:
        """The whole shard is read in one go."""
        return (self,)

    @property
    def nbytes(self) -> int:
        """Bytes of the window that holds all its tiles, as float32."""
        plan = self.plan.plan
        edge = self.plan.shard_tiles * plan.step_px + 2 * plan.margin_px
        return 4 * self.plan.reader.depth * edge**2

    def read(self) -> Sequence[Float32]:
        """Its tiles (c, T, T)."""
        return self.plan.read(self.places)

    def put(self, index: int, results: Results) -> None:
        """Cast a tile's embeddings to float16. Raises SectionError where they are not finite in it."""
        import torch

        if not self.blocks:
            self.blocks = self.empty()
        n, edge = self.plan.core_tokens, self.plan.shard_tiles
        margin = self.plan.plan.margin_px // self.plan.plan.cell_px
        row, column = self.places[index]
        y, x = (row - self.row * edge) * n, (column - self.column * edge) * n
        for writer, block, layer in zip(self.writers, self.blocks, results, strict=True):
            height, width = min(n, block.shape[1] - y), min(n, block.shape[2] - x)
            core = layer[:, margin : margin + height, margin : margin + width]
            largest = max(float(core.max()), -float(core.min()))
            if not largest <= LARGEST_FLOAT16:  # false for what is not a number, too
                raise SectionError(
                    f"embeddings of {writer.target.name} in the tile at row {row}, column {column} reach {largest:g}, "
                    "beyond what float16 holds (65,504), or are not numbers; leave this layer out, or set norm"
                )
            # torch casts thirty times as fast as numpy; it warns of arrays that are read-only
            source = torch.from_numpy(core if core.flags.writeable else core.copy())
            torch.from_numpy(block[:, y : y + height, x : x + width]).copy_(source)
        self.put_count += 1

    def close(self) -> None:
        """Write the shard of every layer; they are compressed side by side."""
        if self.put_count != self.tiles:
            raise ValueError(f"a shard of {self.tiles} tiles is closed after {self.put_count}")
        blocks = self.blocks or self.empty()
        pairs = list(zip(self.writers, blocks, strict=True))
        with ThreadPoolExecutor(min(WRITERS, len(pairs))) as pool:
            list(pool.map(lambda pair: pair[0].write(self.row, self.column, pair[1]), pairs))
        self.blocks = []

    def empty(self) -> list[Float16]:
        """Zeros for every layer: what tiles without tissue hold."""
        edge = self.plan.shard_tiles * self.plan.core_tokens
        height, width = (
            min(edge, size - place * edge)
            for size, place in zip(self.plan.plan.grid, (self.row, self.column), strict=True)
        )
        return [np.zeros((d, height, width), dtype=np.float16) for d in self.plan.dims]


@dataclass
class DenseJob:
    """One section to embed: into a journal's folder, then committed."""

    section_id: str
    plan: DensePlan
    writers: Sequence[ShardWriter]
    own_attributes: dict[str, Any]
    committed: bool
    """Whether the product is there already: its tiles only keep their places in the batches."""
    finish: Callable[[dict[str, Any]], Any]
    """Given facts for the record, commits the product."""

    @cached_property
    def tiles(self) -> int:
        """How many tiles hold tissue."""
        return int(self.plan.wanted.sum())

    @property
    def tile_shape(self) -> tuple[int, int, int]:
        """(c, T, T)."""
        return self.plan.reader.depth, self.plan.plan.tile_px, self.plan.plan.tile_px

    def lots(self) -> Iterator[Lot]:
        """The shards that hold tissue; those that hold none are written here."""
        for row, column, places in self.plan.shards():
            lot = DenseLot(self.plan, self.writers, row, column, places)
            if places:
                yield lot
            elif not self.committed and not lot.finished:
                lot.close()

    def commit(self) -> None:
        """Write the marks and the metadata, and commit."""
        if self.committed:
            return
        for writer in self.writers:
            writer.close()
        journal = self.writers[0].journal
        _write_marks(journal, self.plan, self.writers[0].target.pyramid)
        write_group(journal, "", {"cytoarch": self.own_attributes})
        self.finish(self.facts())

    def facts(self) -> dict[str, Any]:
        """What the record says of the embeddings."""
        plan, view = self.plan.plan, self.plan.reader.view
        return {
            "grid": list(plan.grid),
            "tiles": self.tiles,
            "tile_px": plan.tile_px,
            "margin_px": plan.margin_px,
            "dims": list(self.plan.dims),
            "token_px": plan.cell_px,
            "pixel_size_um": view.pixel_size_um,
            "encoder_digest": self.own_attributes["encoder_digest"],
            "embedding": self.plan.settings.model_dump(mode="json", exclude={"device", "batch_size"}),
            "upsampled": view.level.pixel_size_um > 1.001 * view.pixel_size_um,
            "ranges": [list(bounds) for bounds in self.plan.reader.ranges],
        }


def dense_job(
    section_id: str,
    plan: DensePlan,
    encoder: Encoder,
    journal: Journal | None,
    finish: Callable[[dict[str, Any]], Any],
) -> DenseJob:
    """The job that embeds a section into a journal's folder; with None, one that only keeps its places in batches."""
    size_um = plan.reader.view.pixel_size_um
    # not the encoder's id, which may be a path of this machine: the content is the same wherever it is made
    own = {"encoder_digest": encoder.digest, "pixel_size_um": size_um}
    writers = [] if journal is None else [ShardWriter.create(journal, one) for one in _targets(plan, encoder, own)]
    layers = list(encoder.layers)
    return DenseJob(section_id, plan, writers, {**own, "layers": layers}, journal is None, finish)


def _targets(plan: DensePlan, encoder: Encoder, own: dict[str, Any]) -> Iterator[BandTarget]:
    grid = plan.reader.view.grid.grouped(plan.plan.cell_px)
    shard = plan.shard_tiles * plan.core_tokens
    stop = 0
    for layer, width in zip(encoder.layers, plan.dims, strict=True):
        pyramid = Pyramid.on(
            grid,
            np.dtype(np.float16),
            "mean",
            (width,),
            chunk=chunk_tokens(plan.core_tokens, width),
            shard=shard,
            codec="lz4",
        )
        yield BandTarget(layer, layer, pyramid, slice(stop, stop + width), own)
        stop += width


def _write_marks(journal: Journal, plan: DensePlan, pyramid: Pyramid) -> None:
    """Write which tokens were computed as an image (y, x) uint8."""
    n = plan.core_tokens

    def read(y: int, x: int, rows: int, columns: int) -> NDArray[np.uint8]:
        at = np.ix_(np.arange(y, y + rows) // n, np.arange(x, x + columns) // n)
        return plan.wanted[at].astype(np.uint8)

    marks = Pyramid.on(pyramid.grid(), np.dtype(np.uint8), "mode")
    write_pyramid(journal, marks, read, name=COMPUTED, folder=COMPUTED)


def write_embeddings(
    journal: Journal,
    image: StoredImage,
    tissue: TissueMask,
    encoder: Encoder,
    settings: EmbedSettings,
    pixel_size_um: float,
    on_progress: Report | None = None,
) -> dict[str, Any]:
    """Embed one section into the journal's folder, an image per layer; returns facts for its record.

    Tokens of tiles without tissue are zero. Raises SectionError if a value overflows float16.
    """
    plan = DensePlan.of(image, tissue, encoder, settings, pixel_size_um)
    facts: dict[str, Any] = {}
    job = dense_job("section", plan, encoder, journal, facts.update)
    failed, _ = run_engine([job], encoder.encode, settings.batch_size, on_progress, settings.beside)
    if failed:
        raise SectionError(failed["section"])
    return facts


def estimated_bytes(tiles: int, plan: TilePlan, dims: Sequence[int]) -> int:
    """Bytes that the embeddings of so many tiles take before compression."""
    return tiles * (plan.step_px // plan.cell_px) ** 2 * sum(dims) * 2
