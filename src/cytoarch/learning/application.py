"""Heads applied to stored embeddings: class probabilities of whole sections, tile by tile."""

import math
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cytoarch.embeddings import SectionEmbeddings
from cytoarch.errors import ModelError
from cytoarch.images.views import mirrored
from cytoarch.learning.heads import Head
from cytoarch.progress import Progress
from cytoarch.tiling import partition

Float32 = NDArray[np.float32]

BAND_BYTES = 1 << 30
"""Two bands, the one in use and the next, take at most so much, or what two rows of tokens take."""
TILE_BYTES = 1 << 30
"""A head computes on at most so much at once, or on the smallest tile."""
TILE_TOKENS = 64
HALO_TOKENS = 4
"""Reach of a head beyond a token: two 3 x 3 convolutions and an interpolation, rounded up; a head may say otherwise."""
BATCH_TILES = 4


class Layout(NamedTuple):
    """How a section is cut, in tokens: the part of a tile that is kept, and how many tiles are computed at once."""

    rows: int
    columns: int
    batch: int


def halo_of(head: Head) -> int:
    """Tokens around a tile that a head must see: its own reach, where it states one."""
    return max(HALO_TOKENS, int(getattr(head, "reach_tokens", 0)))


def layout(head: Head, width: int) -> Layout:
    """How sections of so many tokens along x are cut, so that bands and tiles stay within their bytes.

    The result of a head does not depend on it: what a tile keeps is further from its edge than the head reaches.
    """
    cells, halo = head.card.cells_per_token, halo_of(head)
    row_bytes = 4 * len(head.card.classes) * width * cells**2
    kept = max(TILE_TOKENS - 2 * halo, TILE_TOKENS // 2)
    rows = min(kept, max(1, BAND_BYTES // (2 * row_bytes)))
    tokens = TILE_BYTES // head.bytes_per_token  # that may be computed at once
    edge = max(2 * halo + 1, math.isqrt(tokens))
    rows, columns = min(rows, edge - 2 * halo), min(kept, edge - 2 * halo)
    tile = (rows + 2 * halo) * (columns + 2 * halo)
    return Layout(rows, columns, min(BATCH_TILES, max(1, tokens // tile)))


def predict_bands(
    head: Head, embeddings: SectionEmbeddings, on_progress: Progress | None = None
) -> Iterator[tuple[int, Float32]]:
    """Class probabilities of a whole section from its stored embeddings, as bands (first cell row, (k, rows, gx)).

    Tiled with a halo beyond the head's reach, so that the result equals the untiled one. At most `BAND_BYTES` and
    `TILE_BYTES` are held at once. Raises ModelError if the embeddings are not those the head was trained on, and
    SectionError if they are damaged.
    """
    check_dims(head, embeddings)
    cells, classes = head.card.cells_per_token, len(head.card.classes)
    height, width = embeddings.grid
    shape = layout(head, width)
    strips, steps = -(-height // shape.rows), -(-width // shape.columns)
    for index, (y, _, strip, _) in enumerate(partition(height, 1, shape.rows)):
        band = np.empty((classes, strip * cells, width * cells), dtype=np.float32)
        for _, x, part in _parts(head, embeddings, shape, (y, 0, strip, width)):
            band[:, :, x : x + part.shape[2]] = part
        yield y * cells, band
        if on_progress is not None:
            on_progress((index + 1) * steps, strips * steps)


def predict_window(
    head: Head, embeddings: SectionEmbeddings, window: tuple[int, int, int, int]
) -> Iterator[tuple[int, int, Float32]]:
    """The same for a window (y, x, height, width) of tokens, as parts (first cell row, first cell column, (k, h, w)).

    Parts are at the same places in every window that starts where a part does. Only one of them is held.
    """
    check_dims(head, embeddings)
    yield from _parts(head, embeddings, layout(head, TILE_TOKENS), window)


def check_dims(head: Head, embeddings: SectionEmbeddings) -> None:
    """Raise ModelError if the embeddings are not those the head was trained on."""
    if embeddings.dims != head.card.dims:
        raise ModelError(f"the head needs embeddings {head.card.dims}; these are {embeddings.dims}")


def _parts(
    head: Head, embeddings: SectionEmbeddings, shape: Layout, window: tuple[int, int, int, int]
) -> Iterator[tuple[int, int, Float32]]:
    """A window's tiles in reading order, computed some at once, each without its halo; places are in cells."""
    cells, halo = head.card.cells_per_token, halo_of(head)
    edge = halo * cells
    top, left, height, width = window
    for y, _, h, _ in partition(height, 1, shape.rows):
        columns = [(x, w) for _, x, _, w in partition(1, width, shape.columns)]
        for _, group in groupby(enumerate(columns), key=lambda numbered: numbered[0] // shape.batch):
            at = list(map(itemgetter(1), group))
            tiles = [_with_halo(embeddings, top + y, left + x, shape.rows, shape.columns, halo) for x, _ in at]
            for (x, w), one in zip(at, head.probabilities(np.stack(tiles)), strict=True):
                yield (top + y) * cells, (left + x) * cells, one[:, edge:, edge:][:, : h * cells, : w * cells]


def _with_halo(embeddings: SectionEmbeddings, y: int, x: int, height: int, width: int, halo: int) -> Float32:
    """A window (c, y, x) with the halo around it, mirrored beyond the section; every tile has the same size."""
    rows = mirrored(np.arange(y - halo, y + height + halo), embeddings.grid[0])
    columns = mirrored(np.arange(x - halo, x + width + halo), embeddings.grid[1])
    top, left = int(rows.min()), int(columns.min())
    block = embeddings.read(top, left, int(rows.max()) - top + 1, int(columns.max()) - left + 1)
    return block[:, rows - top][:, :, columns - left]
