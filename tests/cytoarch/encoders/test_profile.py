"""Intensity profiles: they run across the layers, whichever way these lie, and know their own place only."""

import numpy as np
import pytest

from cytoarch.encoders.profile import HALO_PX, OFFSETS, TOKEN_PX, ProfileEncoder
from cytoarch.encoders.registry import EncoderSettings, load_encoder
from cytoarch.errors import ModelError

MIDDLE = OFFSETS.index(0)


def bands(size: int = 256) -> np.ndarray:
    """Smooth bands from dark to bright along y, (1, 1, size, size)."""
    y = np.linspace(0, 1, size, dtype=np.float32)
    return np.broadcast_to((0.2 + 0.6 * y**2)[:, None], (size, size))[None, None].copy()


@pytest.mark.parametrize("channels", [1, 3])
def test_tokens_are_four_pixels_with_17_samples_a_channel(channels: int) -> None:
    encoder = load_encoder(EncoderSettings(encoder="profile"))
    tiles = np.random.default_rng(0).random((2, channels, 96, 112), dtype=np.float32)
    (layer,) = encoder.encode(tiles)
    assert layer.shape == (2, 17 * channels, 24, 28)
    assert layer.dtype == np.float32
    assert encoder.dims(channels) == (17 * channels,)
    assert encoder.embed(tiles[..., :96]).shape == (2, encoder.patch_dims(channels))


def test_a_profile_follows_the_slope_token_by_token() -> None:
    (layer,) = ProfileEncoder().encode(bands())
    tokens = bands().reshape(64, TOKEN_PX, 256)[..., 0].mean(axis=1)
    for sample, offset in enumerate(OFFSETS):
        np.testing.assert_allclose(layer[0, sample, 30, 30], tokens[30 + offset], atol=0.01)


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_turned_layers_have_the_same_profiles(turn: int) -> None:
    (straight,) = ProfileEncoder().encode(bands())
    (turned,) = ProfileEncoder().encode(np.rot90(bands(), turn, axes=(2, 3)).copy())
    np.testing.assert_allclose(np.rot90(straight, turn, axes=(2, 3)), turned, atol=1e-5)


def test_nothing_beyond_the_halo_is_seen_and_tiles_do_not_matter() -> None:
    image = np.random.default_rng(1).random((1, 1, 512, 512), dtype=np.float32)
    (whole,) = ProfileEncoder().encode(image)
    start, size = 64, 320
    (part,) = ProfileEncoder().encode(image[..., start : start + size, start : start + size].copy())
    halo, first = HALO_PX // TOKEN_PX, start // TOKEN_PX
    inside = slice(halo, size // TOKEN_PX - halo)
    there = slice(first + halo, first + size // TOKEN_PX - halo)
    np.testing.assert_array_equal(part[..., inside, inside], whole[..., there, there])


def test_an_even_image_has_an_even_profile() -> None:
    (layer,) = ProfileEncoder().encode(np.full((1, 1, 64, 64), 0.25, dtype=np.float32))
    np.testing.assert_allclose(layer, 0.25, atol=1e-6)
    assert layer[0, MIDDLE].shape == (16, 16)


def test_what_does_not_fit_or_cannot_be_set_is_refused() -> None:
    with pytest.raises(ModelError, match="the encoder profile; needed"):
        ProfileEncoder().encode(np.zeros((1, 1, 100, 100), dtype=np.float32))
    with pytest.raises(ModelError, match="the encoder profile has no blocks to set"):
        load_encoder(EncoderSettings(encoder="profile", blocks=(3,)))
