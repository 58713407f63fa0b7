"""Class probabilities of whole sections by overlapping tiles, blended; encoder and head stream, nothing is cached."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cytoarch.anatomy.depth_maps import DepthMap, depth_channels
from cytoarch.anatomy.tissue import TissueMask
from cytoarch.embeddings import Scale, SectionEmbeddings, SectionReader
from cytoarch.encoders.protocol import Encoder
from cytoarch.images.bands import BandTarget, write_bands
from cytoarch.images.layout import Journal, Pyramid
from cytoarch.images.views import StoredImage
from cytoarch.learning.application import predict_bands
from cytoarch.learning.heads import Head
from cytoarch.progress import Progress
from cytoarch.settings import Settings
from cytoarch.tiling import ReadTile, TilePlan, WindowKind, blending_window, map_tiles

Float32 = NDArray[np.float32]

DEFAULT_TILE_PX = 512


class ParcellateSettings(Settings):
    """How a head is applied to whole sections."""

    source: Literal["encoder", "cache"] = Field(
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
    window: Literal["radial", "gauss", "hann"] = Field(default="radial", description="Weights of overlapping tiles.")
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
        """Tiles of the encoder's size (512 px where its reach is finite), a quarter of margin, steps of half a tile."""
        shape = encoder.tiles
        tile = (head.card.embedding.tile_px or shape.tile_px) if shape.halo_px is None else DEFAULT_TILE_PX
        grid = math.lcm(shape.align_px, shape.token_px)
        step = max(grid, int(tile * (1 - overlap)) // grid * grid)
        cell = shape.token_px // head.card.cells_per_token
        plan = TilePlan(height, width, tile, step, tile // 4 // grid * grid, cell)
        return cls(plan, blending_window(window, tile, cell))


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
) -> Iterator[tuple[int, Float32]]:
    """Class probabilities of a section, the encoder seeing every tile, blended: bands (first cell row, (k, rows, gx)).

    Tiles that no tissue lies in are not computed: their cells get equal probabilities and are never shown, being
    outside tissue. A cell in tissue is blended from computed tiles only.
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
    """Write a section's probabilities (k + 1, y, x) float32 on the head's grid: outside tissue, then the classes.

    They sum to 1; outside tissue channel 0 is 1, inside it is 0. With `embeddings` the head starts from them;
    without, the encoder sees every tile anew. A head that learned with depth needs that of the section; `scale` is what
    the head measures embeddings in.
    """
    reader = SectionReader.open(image, encoder, head.card.embedding, head.card.pixel_size_um)
    cells = head.card.cells_per_token
    if embeddings is not None:
        grid = embeddings.layers[0].grid.split(cells)
        measured = embeddings.measured_in(scale)
        bands = predict_bands(head, measured if depth is None else measured.joined_by(depth), on_progress)
    else:
        bands = probability_bands(head, encoder, reader, tissue, settings, batch_size, on_progress, depth, scale)
        grid = reader.view.grid.grouped(encoder.tiles.token_px // cells)
    mask = tissue.on_grid(grid)
    if embeddings is not None:
        mask &= np.repeat(np.repeat(embeddings.computed(), cells, 0), cells, 1)

    def masked() -> Iterator[tuple[int, Float32]]:
        for row, band in bands:
            inside = mask[row : row + band.shape[1]]
            yield row, np.concatenate([(~inside)[None].astype(np.float32), band * inside])

    pyramid = Pyramid.on(grid, np.dtype(np.float32), "mean", (len(head.card.classes) + 1,))
    names = ["outside tissue", *(one.name for one in head.card.classes)]
    target = BandTarget("probabilities", "probabilities", pyramid, slice(None), {"channels": names})
    write_bands(journal, [target], masked())
    return {"grid": list(grid.shape), "cell_um": grid.cell_um}
