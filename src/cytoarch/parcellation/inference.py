"""Class probabilities of whole sections by overlapping tiles, blended; encoder and head stream, nothing is cached."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cytoarch.anatomy.depth_maps import DepthMap, depth_channels
from cytoarch.anatomy.tissue import TissueMask
from cytoarch.embeddings import Scale, SectionEmbeddings, SectionReader
from cytoarch.encoders.protocol import Encoder
from cytoarch.images.layout import Journal
from cytoarch.images.views import StoredImage
from cytoarch.learning.application import predict_window
from cytoarch.learning.heads import Head
from cytoarch.parcellation.sparse import OUTSIDE, Likeliest, Mask, SparseWriter
from cytoarch.progress import Progress
from cytoarch.settings import Settings
from cytoarch.tiling import ReadTile, TilePlan, WindowKind, blending_window, map_tiles, partition

Float32 = NDArray[np.float32]

Inside = Callable[[int, int, int, int], Mask]
"""(y, x, height, width) in cells -> which of them lie in tissue"""

DEFAULT_TILE_PX = 512
STRIP_BYTES = 256 << 20
"""What is blended at once takes about so many bytes, or what a strip as narrow as a shard takes."""


class ParcellateSettings(Settings):
    """How a head is applied to whole sections."""

    source: Literal["encoder", "cache"] = Field(
        title="Where embeddings come from",
        default="encoder",
        description="encoder: see every overlapping tile anew; cache: start from the stored embeddings (faster).",
    )
    overlap: float = Field(
        title="Overlap of tiles",
        default=0.5,
        ge=0.5,
        le=0.9,
        description="Share of a tile that the next one covers again.",
    )
    window: Literal["radial", "gauss", "hann"] = Field(
        title="How overlapping tiles are weighed", default="radial", description="Weights of overlapping tiles."
    )
    kept_classes: int = Field(
        title="Classes kept a cell",
        default=6,
        ge=2,
        le=64,
        description="The most likely classes of a cell whose probabilities are kept, at 3 bytes each (4 beyond 255 "
        "classes); those of all others are kept as one remainder.",
    )
    level: int | None = Field(
        title="Pyramid level of the maps",
        examples=[2],
        default=None,
        ge=0,
        le=20,
        description="Pyramid level of the label maps (the coarsest, where there are fewer); blank: the model's grid.",
    )


@dataclass(frozen=True)
class ParcellationPlan:
    """How one section's tiles are laid out for a head."""

    plan: TilePlan
    window: Float32

    @classmethod
    def of(
        cls, head: Head, encoder: Encoder, height: int, width: int, overlap: float, window: WindowKind
    ) -> "ParcellationPlan":
        """Tiles of the encoder's size (512 px where its reach is finite), a quarter of margin, steps of half a tile.

        A border whose tokens say nothing comes on top, and has no weight.
        """
        shape = encoder.tiles
        core = (head.card.embedding.tile_px or shape.core_px) if shape.halo_px is None else DEFAULT_TILE_PX
        border = shape.margin_px if shape.halo_px is None else 0
        grid = math.lcm(shape.align_px, shape.token_px)
        step = max(grid, int(core * (1 - overlap)) // grid * grid)
        cell = shape.token_px // head.card.cells_per_token
        plan = TilePlan(height, width, core + 2 * border, step, border + core // 4 // grid * grid, cell)
        return cls(plan, np.pad(blending_window(window, core, cell), border // cell))


def probability_bands(
    head: Head,
    encoder: Encoder,
    reader: SectionReader,
    tissue: TissueMask,
    settings: ParcellateSettings,
    batch_size: int,
    on_progress: Progress | None = None,
    depth: DepthMap | None = None,
    scale: Scale | None = None,
    strip: tuple[int, int] | None = None,
) -> Iterator[tuple[int, Float32]]:
    """Class probabilities of a section, the encoder seeing every tile, blended: bands (first cell row, (k, rows, gx)).

    With `strip` (first, stop) only those columns of cells. Tiles that no tissue lies in are not computed: their cells
    get equal probabilities and are never shown, being outside tissue. A cell in tissue is blended from computed tiles
    only.
    """
    layout = ParcellationPlan.of(
        head, encoder, reader.view.height, reader.view.width, settings.overlap, settings.window
    )
    classes = len(head.card.classes)
    token_px = encoder.tiles.token_px

    def compute(tiles: Float32) -> Float32:
        layers = encoder.encode(tiles if depth is None else tiles[:, :-1])
        embeddings = np.concatenate(layers, axis=1)
        if scale is not None:
            embeddings = scale.apply(embeddings)
        if depth is None:
            return head.probabilities(embeddings)
        codes = depth_channels(tiles[:, -1, ::token_px, ::token_px])
        return head.probabilities(np.concatenate([embeddings, np.moveaxis(codes, -1, 1)], axis=1))

    return map_tiles(
        compute,
        reader.read if depth is None else _with_depth(reader, depth, token_px),
        layout.plan,
        layout.window,
        classes,
        batch_size=batch_size,
        skip=reader.tissue_skip(tissue),
        empty=np.full(classes, 1 / classes, dtype=np.float32),
        on_progress=on_progress,
        strip=strip,
    )


def _with_depth(reader: SectionReader, depth: DepthMap, token_px: int) -> ReadTile:
    """Reads windows with depth as a last plane, every pixel that of its token; tiles begin where tokens begin."""
    tokens = reader.view.grid.grouped(token_px)

    def read(y: int, x: int, height: int, width: int) -> Float32:
        codes = depth.codes(tokens.window(y // token_px, x // token_px, height // token_px, width // token_px))
        plane = np.repeat(np.repeat(codes, token_px, 0), token_px, 1)
        return np.concatenate([reader.read(y, x, height, width), plane[None]])

    return read


def write_probabilities(
    journal: Journal,
    image: StoredImage,
    tissue: TissueMask,
    head: Head,
    encoder: Encoder,
    embeddings: SectionEmbeddings | None,
    settings: ParcellateSettings,
    batch_size: int,
    on_progress: Progress | None = None,
    depth: DepthMap | None = None,
    scale: Scale | None = None,
) -> dict[str, Any]:
    """Write a section's probabilities on the head's grid, the most likely classes of every cell (see `sparse`).

    With `embeddings` the head starts from them; without, the encoder sees every tile anew. A head that learned with
    depth needs that of the section; `scale` is what the head measures embeddings in. Beside a tile at most
    `STRIP_BYTES` of dense probabilities are held, and a shard's rows of a strip. What an earlier run finished is kept.
    """
    cells = head.card.cells_per_token
    reader = SectionReader.open(image, encoder, head.card.embedding, head.card.pixel_size_um, tissue)
    if embeddings is not None:
        grid = embeddings.layers[0].grid.split(cells)
    else:
        grid = reader.view.grid.grouped(encoder.tiles.token_px // cells)

    def inside(y: int, x: int, height: int, width: int) -> Mask:
        mask = tissue.on_grid(grid.window(y, x, height, width))
        if embeddings is None:
            return mask
        computed = embeddings.computed((y // cells, x // cells, height // cells, width // cells))
        return np.asarray(mask & np.repeat(np.repeat(computed, cells, 0), cells, 1))

    names = (OUTSIDE, *(one.name for one in head.card.classes))
    writer = SparseWriter.create(journal, grid, names, settings.kept_classes, cells)
    if embeddings is not None:
        measured = embeddings.measured_in(scale)
        _write_cached(writer, inside, head, measured if depth is None else measured.joined_by(depth), on_progress)
    else:

        def bands(strip: tuple[int, int], told: Progress) -> Iterator[tuple[int, Float32]]:
            return probability_bands(head, encoder, reader, tissue, settings, batch_size, told, depth, scale, strip)

        layout = ParcellationPlan.of(
            head, encoder, reader.view.height, reader.view.width, settings.overlap, settings.window
        )
        _write_seen(writer, inside, layout.plan, len(head.card.classes), bands, on_progress)
    writer.close()
    return {"grid": list(grid.shape), "cell_um": grid.cell_um, "kept_classes": writer.kept}


def _write_cached(
    writer: SparseWriter, inside: Inside, head: Head, embeddings: SectionEmbeddings, on_progress: Progress | None
) -> None:
    """Shard by shard, from stored embeddings."""
    cells, edge = head.card.cells_per_token, writer.edge
    shards = list(partition(embeddings.grid[0] * cells, embeddings.grid[1] * cells, edge))
    for done, (y, x, height, width) in enumerate(shards, start=1):
        if not writer.has(y // edge, x // edge):
            kept = Likeliest.empty(writer.kept, height, width)
            tokens = (y // cells, x // cells, height // cells, width // cells)
            for top, left, part in predict_window(head, embeddings, tokens):
                _put(kept, Likeliest.of(part, writer.kept), top - y, left - x)
            writer.write(y // edge, x // edge, kept.masked(inside(y, x, height, width)))
        if on_progress is not None:
            on_progress(done, len(shards))


def _write_seen(
    writer: SparseWriter,
    inside: Inside,
    plan: TilePlan,
    classes: int,
    bands: Callable[[tuple[int, int], Progress], Iterator[tuple[int, Float32]]],
    on_progress: Progress | None,
) -> None:
    """Strip by strip, each as wide as `STRIP_BYTES` allow but of whole shards, from overlapping tiles."""
    edge, (rows, columns) = writer.edge, plan.grid
    row_bytes = 4 * 2 * classes * plan.tile_px // plan.cell_px  # of a column of cells: what is summed, and a band of it
    width = max(1, STRIP_BYTES // (row_bytes * edge)) * edge
    strips = [(x, min(x + width, columns)) for x in range(0, columns, width)]
    for index, (first, stop) in enumerate(strips):

        def told(done: int, total: int, index: int = index) -> None:
            if on_progress is not None:
                on_progress(index * total + done, len(strips) * total)

        shards = [(row, column) for row in range(-(-rows // edge)) for column in range(first // edge, -(-stop // edge))]
        if all(writer.has(*one) for one in shards):
            told(1, 1)
            continue
        _write_strip(writer, inside, rows, (first, stop), bands((first, stop), told))


def _write_strip(
    writer: SparseWriter, inside: Inside, rows: int, strip: tuple[int, int], bands: Iterator[tuple[int, Float32]]
) -> None:
    """The shards of a strip of cells (first, stop column) of so many rows, from bands of it."""
    edge, first, columns = writer.edge, strip[0], strip[1] - strip[0]
    top, held = 0, Likeliest.empty(writer.kept, min(edge, rows), columns)
    for row, band in bands:
        for y, part in _cut(Likeliest.of(band, writer.kept), row, edge):
            _put(held, part, y - top, 0)
            stop = y + part.shares.shape[1]
            if stop == min(top + edge, rows):
                _write_row(writer, held.masked(inside(top, first, stop - top, columns)), top, first)
                top = stop
                held = Likeliest.empty(writer.kept, min(edge, rows - top), columns)


def _cut(cells: Likeliest, row: int, edge: int) -> Iterator[tuple[int, Likeliest]]:
    """Rows of cells that begin at `row`, cut where shards end: the first row of each part, and the part."""
    stop = row + cells.shares.shape[1]
    bounds = [row, *range((row // edge + 1) * edge, stop, edge), stop]
    for y, end in pairwise(bounds):
        yield y, Likeliest(*(one[:, y - row : end - row] for one in cells))


def _put(held: Likeliest, part: Likeliest, y: int, x: int) -> None:
    """Put cells in their place."""
    _, height, width = part.shares.shape
    for own, new in zip(held, part, strict=True):
        own[:, y : y + height, x : x + width] = new


def _write_row(writer: SparseWriter, cells: Likeliest, top: int, first: int) -> None:
    """The shards side by side whose first cell row is `top` and whose first column is `first`."""
    edge = writer.edge
    for x in range(0, cells.shares.shape[2], edge):
        shard = Likeliest(*(one[:, :, x : x + edge] for one in cells))
        writer.write(top // edge, (first + x) // edge, shard)
