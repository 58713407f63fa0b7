"""Intensity profiles: grey values along the line that crosses the layers, at every place.

At every token the image's slope, seen coarsely, tells which way the staining changes most; along that line, through the
token, the smoothed intensity is sampled (after the grey level index profiles of Schleicher et al., Anat Embryol 1999,
which follow lines traced across the cortex; here each token has its own, and no tracing is needed). It has no weights:
what other encoders add to plain profiles is seen beside it.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.measure import block_reduce

from cytoarch.digests import content_digest
from cytoarch.encoders.protocol import Float32, TileShape
from cytoarch.encoders.versions import releases
from cytoarch.errors import ModelError

METHOD = "profile-1"
"""Version of the profiles; raised whenever their numbers change, as it is what marks results."""
LIBRARIES = ("numpy", "scipy", "scikit-image")
TOKEN_PX = 4
ALIGN_PX = 16
OFFSETS = tuple(range(-16, 17, 2))
"""Where a profile is sampled: tokens from its own, from dark to bright."""
SMOOTH_TOKENS = 1.0
SLOPE_TOKENS = 4.0
"""Sigma at which the slope is taken: single cells do not turn it."""
EVEN = 1e-4
"""Slope a token (of intensities 0 to 1) that is no slope: there a profile shrinks to the token's own value."""
HALO_PX = 96
"""Reach of a profile: 16 tokens and 5 of smoothing and interpolation; of its direction: 17."""


@dataclass(frozen=True)
class ProfileEncoder:
    """Intensity profiles; `dims(c)` = 17 c. Tokens of 4 px; tiles must be multiples of 16 px."""

    encoder_id: str = "profile"
    pixel_size_um: float | None = None
    channels: Literal[1, 3] | None = None
    layers: tuple[str, ...] = ("profile",)
    tiles: TileShape = TileShape(tile_px=2048, token_px=TOKEN_PX, halo_px=HALO_PX, align_px=ALIGN_PX)

    @property
    def digest(self) -> str:
        """sha256 of the version of the method and the releases of the libraries that compute it; it has no weights."""
        return content_digest({"method": METHOD} | releases(*LIBRARIES))

    def dims(self, channels: int) -> tuple[int, ...]:
        """17 samples a channel."""
        return (len(OFFSETS) * channels,)

    def patch_dims(self, channels: int) -> int:
        """17 samples a channel."""
        return len(OFFSETS) * channels

    def encode(self, tiles: Float32) -> list[Float32]:
        """(b, c, T, T) float32 in [0, 1] -> one layer (b, 17 c, T/4, T/4) float32.

        Raises ModelError unless T is a multiple of 16.
        """
        if tiles.ndim != 4 or not tiles.size or tiles.shape[2] % ALIGN_PX or tiles.shape[3] % ALIGN_PX:
            raise ModelError(
                f"tiles of shape {tiles.shape} do not fit the encoder profile; needed: (b, c, T, T) with T a multiple "
                f"of {ALIGN_PX}"
            )
        count, channels, height, width = tiles.shape
        planes = tiles.reshape(count * channels, height, width)
        with ThreadPoolExecutor(min(os.cpu_count() or 1, len(planes))) as pool:
            found = list(pool.map(_profiles, planes))
        return [np.stack(found).reshape(count, -1, height // TOKEN_PX, width // TOKEN_PX)]

    def embed(self, patches: Float32) -> Float32:
        """(b, c, T, T) float32 in [0, 1], T any multiple of 16 -> (b, 17 c) float32: the mean profile."""
        (layer,) = self.encode(patches)
        return np.asarray(layer.mean(axis=(2, 3), dtype=np.float64), dtype=np.float32)


def _profiles(plane: Float32) -> Float32:
    """(T, T) -> (17, T/4, T/4)."""
    tokens = block_reduce(plane, (TOKEN_PX, TOKEN_PX), np.mean)
    slope = np.stack(np.gradient(gaussian_filter(tokens, SLOPE_TOKENS, mode="nearest")))
    along = slope / (np.sqrt((slope**2).sum(axis=0)) + np.float32(EVEN))
    smooth = gaussian_filter(tokens, SMOOTH_TOKENS, mode="nearest")
    return np.stack([_shifted(smooth, offset * along) for offset in OFFSETS]).astype(np.float32)


def _shifted(image: Float32, by: Float32) -> Float32:
    """An image (y, x) at places `by` (2, y, x) away from its own, linearly interpolated; at its edge beyond it.

    Shifts are cut into whole tokens and parts of one before the place is added: the same bits wherever a tile begins.
    """
    whole = np.floor(by)
    part = by - whole
    height, width = image.shape
    y, x = (whole[axis].astype(np.int64) + np.indices(image.shape)[axis] for axis in (0, 1))
    rows, columns = ([np.clip(at + one, 0, size - 1) for one in (0, 1)] for at, size in ((y, height), (x, width)))
    upper, lower = (image[row, columns[0]] * (1 - part[1]) + image[row, columns[1]] * part[1] for row in rows)
    return np.asarray(upper * (1 - part[0]) + lower * part[0])
