"""Several encoders side by side: what one does not see another may.

Their token grids are brought to the finest of them: between the centres of larger tokens, values are interpolated
linearly. Layers keep their own order, each under the name of its encoder. What an encoder gives is what it gives alone:
one that sees a whole tile is given the middle of a tile with a border as wide as the others reach.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch.nn import functional

from cytoarch.digests import content_digest
from cytoarch.encoders.protocol import LUMINANCE, Encoder, Float32, TileShape
from cytoarch.errors import ModelError

METHOD = "joined-1"
"""Version of how grids are brought together; part of the digest."""
MOST = 4
"""Encoders that are joined, at most."""


@dataclass(frozen=True)
class JoinedEncoder:
    """Encoders side by side on the finest token grid of them; their layers one after the other."""

    encoder_id: str
    parts: tuple[Encoder, ...]
    tiles: TileShape
    pixel_size_um: float | None
    channels: Literal[1, 3] | None

    @property
    def digest(self) -> str:
        """sha256 of the version of the method and the digests of the parts, in order."""
        return content_digest({"method": METHOD, "parts": ", ".join(one.digest for one in self.parts)})

    @property
    def layers(self) -> tuple[str, ...]:
        """Those of the parts, each after the number and the kind of its encoder."""
        kinds = [one.encoder_id.partition(":")[0] for one in self.parts]
        return tuple(
            f"{number}-{kind}-{layer}"
            for number, (kind, one) in enumerate(zip(kinds, self.parts, strict=True), start=1)
            for layer in one.layers
        )

    def dims(self, channels: int) -> tuple[int, ...]:
        """Those of the parts."""
        return tuple(length for one in self.parts for length in one.dims(channels))

    def patch_dims(self, channels: int) -> int:
        """Those of all parts together."""
        return sum(one.patch_dims(channels) for one in self.parts)

    def encode(self, tiles: Float32) -> list[Float32]:
        """(b, c, T, T) float32 in [0, 1] -> the layers of all parts (b, d, T/token, T/token) float32.

        Where a part sees whole tiles, its tokens in the border of `tiles.margin_px` repeat the outermost within.
        Raises ModelError for tiles that do not fit a part.
        """
        return [layer for one in self.parts for layer in self._on_tokens(one, tiles)]

    def embed(self, patches: Float32) -> Float32:
        """(b, c, T, T) float32 in [0, 1] -> (b, d) float32: the embeddings of all parts one after the other."""
        return np.concatenate([one.embed(_seen_by(one, patches)) for one in self.parts], axis=1)

    def _on_tokens(self, part: Encoder, tiles: Float32) -> list[Float32]:
        """The layers of a part on the token grid of all."""
        border = self.tiles.margin_px if part.tiles.halo_px is None else 0
        if min(tiles.shape[2:]) <= 2 * border:
            raise ModelError(
                f"tiles of shape {tiles.shape} do not fit the encoder {self.encoder_id}: more than {2 * border} px are "
                "needed along an edge"
            )
        middle = np.ascontiguousarray(tiles[:, :, border : tiles.shape[2] - border, border : tiles.shape[3] - border])
        token_px, ratio = self.tiles.token_px, part.tiles.token_px // self.tiles.token_px
        around = border // token_px
        return [
            np.pad(_enlarged(layer, ratio), ((0, 0), (0, 0), (around, around), (around, around)), mode="edge")
            if around
            else _enlarged(layer, ratio)
            for layer in part.encode(_seen_by(part, middle))
        ]


def _seen_by(part: Encoder, pixels: Float32) -> Float32:
    """Pixels (b, c, T, T) as a part sees them: one of a single channel sees colour as grey."""
    if part.channels != 1 or pixels.shape[1] != len(LUMINANCE):
        return pixels
    return np.ascontiguousarray(np.tensordot(LUMINANCE, pixels, axes=(0, 1))[:, None])


def _enlarged(layer: Float32, ratio: int) -> Float32:
    """(b, d, y, x) on a grid that is so many times as fine, linearly interpolated between centres of tokens."""
    if ratio == 1:
        return layer
    grid = torch.from_numpy(np.require(layer, np.float32, ["C", "W"]))
    found = functional.interpolate(grid, scale_factor=ratio, mode="bilinear", align_corners=False)
    return np.asarray(found.numpy())


def join(encoder_id: str, parts: Sequence[Encoder]) -> JoinedEncoder:
    """The encoders side by side. Raises ModelError where they cannot see the same tiles."""
    if not 2 <= len(parts) <= MOST:
        raise ModelError(f"the encoder {encoder_id!r} joins {len(parts)} encoders; 2 to {MOST} can be joined")
    sizes = {one.pixel_size_um for one in parts} - {None}
    if len(sizes) > 1:
        raise ModelError(
            f"the encoders of {encoder_id!r} are meant for different pixel sizes "
            f"({', '.join(f'{one:g}' for one in sorted(filter(None, sizes)))} um); they cannot be joined"
        )
    token_px = min(one.tiles.token_px for one in parts)
    odd = [f"{one.encoder_id} {one.tiles.token_px} px" for one in parts if one.tiles.token_px % token_px]
    if odd:
        raise ModelError(
            f"the tokens of the encoders of {encoder_id!r} do not fit into each other: "
            f"{', '.join(odd)} beside {token_px} px; join encoders whose tokens are multiples of the finest"
        )
    return JoinedEncoder(
        encoder_id, tuple(parts), _tiles(encoder_id, parts, token_px), next(iter(sizes), None), _channels(parts)
    )


def _channels(parts: Sequence[Encoder]) -> Literal[1, 3] | None:
    """What all can be given: colour, or one channel, as soon as one of them takes no other number."""
    asked = {one.channels for one in parts}
    if len(asked) == 1:
        return asked.pop()
    return 3


def _tiles(encoder_id: str, parts: Sequence[Encoder], token_px: int) -> TileShape:
    """How images are cut so that every part sees what it sees alone."""
    shapes = [one.tiles for one in parts]
    align = math.lcm(*(math.lcm(one.align_px, one.token_px) for one in shapes))
    halo = -(-max(one.halo_px or one.margin_px for one in shapes) // align) * align
    whole = {one.tile_px - 2 * one.margin_px for one in shapes if one.halo_px is None}
    if not whole:
        return TileShape(max(one.tile_px for one in shapes), token_px, halo, align)
    if len(whole) > 1:
        raise ModelError(
            f"the encoders of {encoder_id!r} see whole tiles of {sorted(whole)} px; only those of one size can be "
            "joined: choose it with tile_px"
        )
    return TileShape(whole.pop() + 2 * halo, token_px, None, align, halo)
