"""What every encoder offers."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class TileShape:
    """How an encoder wants an image cut."""

    tile_px: int
    token_px: int
    """Edge of the image square a token stands for: the stride of the token grid."""
    halo_px: int | None
    """How far beyond a token its value reaches, where that is less than the tile; None: the whole tile."""


class Encoder(Protocol):
    """A frozen model: tiles of a section in, token grids of one or several layers out."""

    @property
    def encoder_id(self) -> str:
        """The id it was chosen by."""

    @property
    def digest(self) -> str:
        """sha256 of everything that decides its output: weights, configuration, version of the method."""

    @property
    def pixel_size_um(self) -> float | None:
        """The pixel size it is meant for; None: it takes sections as they are scanned."""

    @property
    def colour(self) -> bool:
        """Whether it needs exactly three channels; others are repeated or picked."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers it gives, shallow to deep."""

    def dims(self, channels: int) -> tuple[int, ...]:
        """Length of an embedding per layer, for tiles of so many channels."""

    @property
    def tiles(self) -> TileShape:
        """How images are cut for it."""

    def encode(self, tiles: Float32) -> list[Float32]:
        """(b, c, T, T) float32 in [0, 1] -> per layer (b, d, T/token, T/token) float32."""
