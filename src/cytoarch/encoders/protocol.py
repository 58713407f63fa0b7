"""What every encoder offers."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Precision = Literal["fp32", "bf16", "fp16"]

LUMINANCE = np.array([0.2125, 0.7154, 0.0721], dtype=np.float32)
"""Shares of red, green and blue in the grey that an encoder of one channel sees (ITU-R BT.709)."""


@dataclass(frozen=True)
class TileShape:
    """How an encoder wants an image cut."""

    tile_px: int
    token_px: int
    """Edge of the image square a token stands for: the stride of the token grid."""
    halo_px: int | None
    """How far beyond a token its value reaches, where that is less than the tile; None: the whole tile."""
    align_px: int = 1
    """Tiles begin at multiples of this, beside those of the token."""
    margin_px: int = 0
    """Where it sees the whole tile: border of the tile whose tokens say nothing and are always thrown away."""

    @property
    def core_px(self) -> int:
        """Edge of the part of a tile whose tokens are its result, but for a margin that is asked for."""
        return self.tile_px - 2 * self.margin_px

    def tile_around(self, core_px: int | None) -> int:
        """Edge of the tile that such a part needs; None: the encoder's own."""
        return (self.core_px if core_px is None else core_px) + 2 * self.margin_px


class Encoder(Protocol):
    """A frozen model: tiles of a section in; token grids of one or several layers, or one embedding a tile, out.

    What comes out for a tile does not depend on the other tiles of the batch (beyond rounding).
    """

    @property
    def encoder_id(self) -> str:
        """The id it was chosen by."""

    @property
    def digest(self) -> str:
        """sha256 of everything that decides its output.

        Weights, configuration, precision, the declared version of the method, and the releases of the libraries that
        compute it; never the text of its source, which changes without the output.
        """

    @property
    def pixel_size_um(self) -> float | None:
        """The pixel size it is meant for; None: it takes sections as they are scanned."""

    @property
    def channels(self) -> Literal[1, 3] | None:
        """How many channels it takes; None: any number. One that takes 3 also takes 1 and repeats it."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers it gives, shallow to deep."""

    def dims(self, channels: int) -> tuple[int, ...]:
        """Length of a token's embedding per layer, for tiles of so many channels."""

    def patch_dims(self, channels: int) -> int:
        """Length of the embedding of a whole tile."""

    @property
    def tiles(self) -> TileShape:
        """How images are cut for it."""

    def encode(self, tiles: Float32) -> list[Float32]:
        """(b, c, T, T) float32 in [0, 1] -> per layer (b, d, T/token, T/token) float32."""

    def embed(self, patches: Float32) -> Float32:
        """(b, c, T, T) float32 in [0, 1] -> (b, d) float32, one embedding for each patch as a whole."""
