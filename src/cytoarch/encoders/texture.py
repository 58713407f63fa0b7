"""The weight-free encoder: a multi-scale bank of rotation-invariant filters.

Intensity, edge strength and the two Hessian eigenvalues (bright and dark blobs and ridges) at each scale, as
`skimage.feature.multiscale_basic_features` gives them, on the image and on two coarser copies of it, plus the local
contrast at the finest scale. Sigmas reach from 1 to 64 pixels; nothing is learned, so it serves any stain at once.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
from skimage.feature import multiscale_basic_features
from skimage.measure import block_reduce

from cytoarch.digests import content_digest
from cytoarch.encoders.protocol import Float32, TileShape
from cytoarch.encoders.versions import releases
from cytoarch.errors import ModelError

METHOD = "texture-1"
"""Version of the bank; raised whenever its numbers change, as it is what marks results."""
LIBRARIES = ("numpy", "scipy", "scikit-image")
"""Packages whose functions compute the bank."""
TOKEN_PX = 4
ALIGN_PX = 16
"""Cells of the coarsest copy: a tile that begins elsewhere would see other averages."""
FEATURES = 26
OCTAVES = ((1, (1.0,)), (4, (1.0, 2.0)), (16, (1.0, 2.0, 4.0)))
"""(reduction, sigmas in reduced pixels)"""
HALO_PX = 320
"""Reach of the coarsest filter: 4 sigma, the Hessian's differences, the interpolation: 20 cells of 16 px."""


@dataclass(frozen=True)
class TextureEncoder:
    """Multi-scale filter bank; `dims(c)` = 26 c. Tokens of 4 px; tiles must be multiples of 16 px."""

    encoder_id: str = "texture"
    pixel_size_um: float | None = None
    channels: Literal[1, 3] | None = None
    layers: tuple[str, ...] = ("bank",)
    tiles: TileShape = TileShape(tile_px=2048, token_px=TOKEN_PX, halo_px=HALO_PX, align_px=ALIGN_PX)

    @property
    def digest(self) -> str:
        """sha256 of the version of the bank and the releases of the libraries that compute it; it has no weights."""
        return content_digest({"method": METHOD} | releases(*LIBRARIES))

    def dims(self, channels: int) -> tuple[int, ...]:
        """26 features a channel."""
        return (FEATURES * channels,)

    def patch_dims(self, channels: int) -> int:
        """26 features a channel."""
        return FEATURES * channels

    def encode(self, tiles: Float32) -> list[Float32]:
        """(b, c, T, T) float32 in [0, 1] -> one layer (b, 26 c, T/4, T/4) float32.

        Raises ModelError unless T is a multiple of 16.
        """
        if tiles.ndim != 4 or not tiles.size or tiles.shape[2] % ALIGN_PX or tiles.shape[3] % ALIGN_PX:
            raise ModelError(
                f"tiles of shape {tiles.shape} do not fit the encoder texture; needed: (b, c, T, T) with T a multiple "
                f"of {ALIGN_PX}"
            )
        count, channels, height, width = tiles.shape
        planes = tiles.reshape(count * channels, height, width)
        with ThreadPoolExecutor(min(os.cpu_count() or 1, len(planes))) as pool:
            banks = list(pool.map(_bank, planes))
        return [np.stack(banks).reshape(count, channels * FEATURES, height // TOKEN_PX, width // TOKEN_PX)]

    def embed(self, patches: Float32) -> Float32:
        """(b, c, T, T) float32 in [0, 1], T any multiple of 16 -> (b, 26 c) float32: the mean of the bank."""
        (layer,) = self.encode(patches)
        return np.asarray(layer.mean(axis=(2, 3), dtype=np.float64), dtype=np.float32)


def _bank(plane: Float32) -> Float32:
    """(T, T) -> (26, T/4, T/4)."""
    if min(plane.shape) <= ALIGN_PX:
        # a single cell of the coarsest copy has no gradient
        margin = ALIGN_PX // TOKEN_PX
        return _bank(np.pad(plane, ALIGN_PX, mode="symmetric"))[:, margin:-margin, margin:-margin]
    mean = block_reduce(plane, (TOKEN_PX, TOKEN_PX), np.mean)
    square = block_reduce(plane**2, (TOKEN_PX, TOKEN_PX), np.mean)
    contrast = np.sqrt(np.maximum(square - mean**2, 0))
    features = [mean[None], 4 * contrast[None]]
    for reduction, sigmas in OCTAVES:
        reduced = block_reduce(plane, (reduction, reduction), np.mean) if reduction > 1 else plane
        for sigma in sigmas:
            at_sigma = multiscale_basic_features(reduced, sigma_min=sigma, sigma_max=sigma, num_sigma=1, workers=1)
            features.append(_on_tokens(np.moveaxis(at_sigma, -1, 0), reduction))
    return np.concatenate(features).astype(np.float32)


def _on_tokens(features: Float32, reduction: int) -> Float32:
    """Features of an image reduced by 1, 4 or 16, averaged or linearly interpolated onto the token grid."""
    if reduction < TOKEN_PX:
        ratio = TOKEN_PX // reduction
        return np.asarray(block_reduce(features, (1, ratio, ratio), np.mean))
    ratio = reduction // TOKEN_PX
    return _enlarged(_enlarged(features, ratio, axis=1), ratio, axis=2) if ratio > 1 else features


def _enlarged(features: Float32, ratio: int, axis: int) -> Float32:
    size = features.shape[axis]
    position = np.clip((np.arange(size * ratio) + 0.5) / ratio - 0.5, 0, size - 1)
    lower = np.minimum(position.astype(np.int64), max(size - 2, 0))
    shape = [1] * features.ndim
    shape[axis] = -1
    fraction = (position - lower).astype(np.float32).reshape(shape)
    below, above = np.take(features, lower, axis), np.take(features, np.minimum(lower + 1, size - 1), axis)
    return np.asarray(below + (above - below) * fraction, dtype=np.float32)
