"""The texture bank: shapes, reach and position of its features."""

import importlib
import inspect
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from cytoarch.encoders import versions
from cytoarch.encoders.registry import EncoderSettings, load_encoder
from cytoarch.encoders.texture import HALO_PX, TOKEN_PX, TextureEncoder
from cytoarch.encoders.versions import release
from cytoarch.errors import ModelError
from cytoarch.images.views import mirrored
from cytoarch.tiling import TilePlan, blending_window, map_tiles


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_tokens_are_four_pixels_with_26_features_a_channel(channels: int):
    tiles = np.random.default_rng(0).random((2, channels, 96, 96), dtype=np.float32)
    encoder = TextureEncoder()
    (layer,) = encoder.encode(tiles)
    assert layer.shape == (2, 26 * channels, 24, 24)
    assert layer.dtype == np.float32
    assert encoder.dims(channels) == (26 * channels,)
    assert len(encoder.layers) == 1
    assert encoder.tiles.token_px == TOKEN_PX == 4
    assert np.isfinite(layer).all()


def test_the_embedding_of_a_patch_is_the_mean_of_its_tokens():
    patches = np.random.default_rng(6).random((3, 2, 96, 96), dtype=np.float32)
    encoder = TextureEncoder()
    embedded = encoder.embed(patches)
    assert embedded.shape == (3, encoder.patch_dims(2)) == (3, 52)
    assert embedded.dtype == np.float32
    np.testing.assert_allclose(embedded, encoder.encode(patches)[0].mean(axis=(2, 3)), rtol=1e-5)


@pytest.mark.parametrize("size", [16, 32, 48, 80, 304])
def test_patches_of_any_multiple_of_16_px_have_an_embedding(size: int):
    patch = np.random.default_rng(7).random((1, 1, size, size), dtype=np.float32)
    embedded = TextureEncoder().embed(patch)
    assert np.isfinite(embedded).all()
    np.testing.assert_allclose(embedded[0, 0], patch.mean(), rtol=1e-4)
    assert TextureEncoder().encode(patch)[0].shape == (1, 26, size // 4, size // 4)


@pytest.mark.parametrize("shape", [(1, 1, 100, 100), (1, 1, 8, 8), (1, 64, 64), (0, 1, 64, 64)])
def test_tiles_of_another_shape_are_refused(shape: tuple[int, ...]):
    with pytest.raises(ModelError, match="multiple of 16"):
        TextureEncoder().encode(np.zeros(shape, dtype=np.float32))


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch):
    tiles = np.random.default_rng(8).random((3, 2, 64, 64), dtype=np.float32)
    (many,) = TextureEncoder().encode(tiles)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    (single,) = TextureEncoder().encode(tiles)
    np.testing.assert_array_equal(many, single)


def test_it_takes_any_number_of_channels_and_tiles_on_its_coarsest_grid():
    encoder = TextureEncoder()
    assert encoder.channels is None
    assert encoder.tiles.align_px == 16


def test_channels_and_tiles_do_not_mix():
    tiles = np.random.default_rng(1).random((2, 2, 64, 64), dtype=np.float32)
    (together,) = TextureEncoder().encode(tiles)
    for tile in range(2):
        for channel in range(2):
            (alone,) = TextureEncoder().encode(tiles[tile : tile + 1, channel : channel + 1])
            np.testing.assert_array_equal(together[tile, 26 * channel : 26 * (channel + 1)], alone[0])


def test_the_first_features_are_mean_and_contrast_of_the_token():
    tile = np.random.default_rng(2).random((1, 1, 64, 64), dtype=np.float32)
    (layer,) = TextureEncoder().encode(tile)
    cells = tile[0, 0].reshape(16, 4, 16, 4).transpose(0, 2, 1, 3).reshape(16, 16, 16)
    np.testing.assert_allclose(layer[0, 0], cells.mean(axis=-1), rtol=1e-5)
    np.testing.assert_allclose(layer[0, 1], 4 * cells.std(axis=-1), rtol=1e-3)


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_a_constant_image_has_its_grey_value_and_no_texture(value: float):
    (layer,) = TextureEncoder().encode(np.full((1, 1, 128, 128), value, dtype=np.float32))
    spread = layer[0].reshape(26, -1)
    np.testing.assert_allclose(spread, np.broadcast_to(spread[:, :1], spread.shape), atol=2e-3)
    levels = spread[:, 0]
    assert np.logical_or(np.isclose(levels, value, atol=2e-3), np.abs(levels) < 2e-3).all()


@pytest.mark.parametrize(("row", "column"), [(5, 9), (20, 2), (31, 31)])
def test_a_bright_square_lands_at_its_token_in_every_scale(row: int, column: int):
    tile = np.zeros((1, 1, 256, 256), dtype=np.float32)
    tile[0, 0, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4] = 1
    (layer,) = TextureEncoder().encode(tile)
    assert np.unravel_index(layer[0, 0].argmax(), layer[0, 0].shape) == (row, column)
    intensities = (2, 6, 10, 14, 18, 22)
    for index in intensities:
        feature = layer[0, index]
        peak = np.argwhere(feature == feature.max()).mean(axis=0)
        # the coarsest copy of the image has cells of four tokens
        assert np.abs(peak - (row, column)).max() <= 2.5


def test_turning_or_mirroring_the_image_turns_or_mirrors_the_features():
    tile = np.random.default_rng(3).random((1, 1, 96, 96), dtype=np.float32)
    (layer,) = TextureEncoder().encode(tile)
    (turned,) = TextureEncoder().encode(np.ascontiguousarray(np.rot90(tile, axes=(2, 3))))
    (flipped,) = TextureEncoder().encode(np.ascontiguousarray(tile[..., ::-1]))
    np.testing.assert_allclose(turned, np.rot90(layer, axes=(2, 3)), atol=2e-4)
    np.testing.assert_allclose(flipped, layer[..., ::-1], atol=2e-4)


def test_an_image_in_tiles_gives_what_it_gives_as_a_whole():
    height, width, tile = 420, 90, 4 * HALO_PX - 320
    image = np.random.default_rng(4).random((1, height, width), dtype=np.float32)

    def read(y: int, x: int, rows: int, columns: int) -> np.ndarray:
        at_y, at_x = mirrored(np.arange(y, y + rows), height), mirrored(np.arange(x, x + columns), width)
        return np.ascontiguousarray(image[:, at_y][:, :, at_x])

    encoder = TextureEncoder()
    plan = TilePlan(height, width, tile, tile - 2 * HALO_PX, HALO_PX, TOKEN_PX)
    assert plan.tile_count == 2
    bands = map_tiles(
        lambda tiles: encoder.encode(tiles)[0], read, plan, blending_window("core", tile, TOKEN_PX, HALO_PX), 26
    )
    tiled = np.concatenate([band for _, band in bands], axis=1)
    whole = read(-HALO_PX, -HALO_PX, 432 + 2 * HALO_PX, 96 + 2 * HALO_PX)
    (untiled,) = encoder.encode(whole[None])
    margin = HALO_PX // TOKEN_PX
    expected = untiled[0, :, margin : margin + plan.grid[0], margin : margin + plan.grid[1]]
    np.testing.assert_allclose(tiled, expected, atol=1e-5)


# -- the bank, computed by others --------------------------------------------------------------------------------------


def reduced(plane: np.ndarray, factor: int) -> np.ndarray:
    height, width = plane.shape
    return plane.reshape(height // factor, factor, width // factor, factor).mean(axis=(1, 3))


def hessian_eigenvalues(plane: np.ndarray) -> list[np.ndarray]:
    """Larger, then smaller eigenvalue of the matrix of second differences."""
    first = np.gradient(plane)
    matrix = np.moveaxis(np.array([np.gradient(one) for one in first]), (0, 1), (-2, -1))
    ascending = np.linalg.eigvalsh((matrix + np.swapaxes(matrix, -1, -2)) / 2)
    return [ascending[..., 1], ascending[..., 0]]


def edge_strength(plane: np.ndarray) -> np.ndarray:
    """Root mean square of the two differences by Sobel, over two pixels."""
    return np.sqrt(sum((ndimage.sobel(plane, axis, mode="reflect") / 4) ** 2 for axis in (0, 1)) / 2)


def bank_by_scipy(plane: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The names of the 26 features and the features (26, T/4, T/4) float64, from scipy's filters alone."""
    plane = plane.astype(np.float64)
    cells = plane.reshape(plane.shape[0] // 4, 4, plane.shape[1] // 4, 4)
    names, features = ["mean", "contrast"], [cells.mean(axis=(1, 3)), 4 * cells.std(axis=(1, 3))]
    for factor, sigmas in ((1, (1,)), (4, (1, 2)), (16, (1, 2, 4))):
        for sigma in sigmas:
            smooth = ndimage.gaussian_filter(reduced(plane, factor), sigma, mode="nearest", truncate=4)
            found = [smooth, edge_strength(smooth), *hessian_eigenvalues(smooth)]
            names += [f"{kind} at {factor} x {sigma} px" for kind in ("grey", "edge", "larger", "smaller")]
            for one in found:
                if factor == 1:
                    features.append(reduced(one, 4))
                else:
                    features.append(ndimage.zoom(one, factor // 4, order=1, mode="nearest", grid_mode=True))
    return names, np.array(features)


@pytest.mark.parametrize("size", [(192, 192), (128, 320)])
def test_every_feature_is_what_scipy_computes_at_its_sigma_and_reduction(size: tuple[int, int]):
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    noise = np.random.default_rng(9).random(size)
    plane = (0.4 + 0.2 * np.sin(x / 7 + y / 31) + 0.2 * np.cos(y / 12) + 0.2 * (noise - 0.5)).astype(np.float32)
    (layer,) = TextureEncoder().encode(plane[None, None])
    names, expected = bank_by_scipy(plane)
    assert layer.shape[1:] == expected.shape
    for name, one, other in zip(names, layer[0], expected, strict=True):
        # float32 throughout; second differences are of the order of 1e-2
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=2e-6, err_msg=name)


def test_each_feature_differs_from_all_others_so_that_none_stands_for_another():
    plane = np.random.default_rng(10).random((192, 192)).astype(np.float32)
    _, expected = bank_by_scipy(plane)
    difference = np.abs(expected[:, None] - expected[None]).max(axis=(2, 3)) + np.eye(len(expected))
    assert difference.min() > 1e-4


@pytest.mark.parametrize("size", [16, 32])
def test_a_patch_of_a_cell_of_the_coarsest_copy_is_seen_as_if_mirrored_at_its_edges(size: int):
    plane = np.random.default_rng(11).random((size, size)).astype(np.float32)
    (layer,) = TextureEncoder().encode(plane[None, None])
    around = np.pad(plane, 16, mode="symmetric")
    expected = bank_by_scipy(around)[1][:, 4:-4, 4:-4] if size == 16 else bank_by_scipy(plane)[1]
    np.testing.assert_allclose(layer[0], expected, rtol=1e-3, atol=2e-6)


# -- what marks its results --------------------------------------------------------------------------------------------


def test_the_bank_is_the_same_every_time_and_says_so_in_its_digest():
    tile = np.random.default_rng(5).random((1, 1, 64, 64), dtype=np.float32)
    np.testing.assert_array_equal(TextureEncoder().encode(tile)[0], TextureEncoder().encode(tile)[0])
    assert TextureEncoder().digest == TextureEncoder().digest
    assert len(TextureEncoder().digest) == 64


def test_a_comment_in_its_source_changes_no_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = Path(inspect.getfile(TextureEncoder)).read_text(encoding="utf-8")
    (tmp_path / "texture_with_a_comment.py").write_text(f"{source}\n# a comment\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    edited = importlib.import_module("texture_with_a_comment")
    assert edited.TextureEncoder().digest == TextureEncoder().digest


def test_another_version_of_the_bank_has_another_digest(monkeypatch: pytest.MonkeyPatch):
    before = TextureEncoder().digest
    monkeypatch.setattr("cytoarch.encoders.texture.METHOD", "texture-0")
    assert TextureEncoder().digest != before


@pytest.mark.parametrize(
    ("package", "decides"), [("scikit-image", True), ("scipy", True), ("numpy", True), ("rich", False)]
)
def test_an_upgrade_of_what_computes_the_bank_changes_the_digest(
    monkeypatch: pytest.MonkeyPatch, package: str, decides: bool
):
    before = TextureEncoder().digest
    monkeypatch.setattr(versions, "release", lambda name: "99.0" if name == package else release(name))
    assert (TextureEncoder().digest != before) is decides


@pytest.mark.parametrize("tile_px", [1300, 1301, 2050])
def test_a_tile_size_the_bank_cannot_use_is_refused_or_made_to_fit(tile_px: int):
    from cytoarch.embeddings import EmbedSettings
    from cytoarch.embeddings.dense import tile_plan

    settings = EmbedSettings(tile_px=tile_px)
    try:
        plan = tile_plan(load_encoder(settings), 3000, 3000, settings)
    except ModelError as error:
        assert "16" in str(error)  # noqa: PT017
    else:
        assert plan.tile_px % 16 == plan.step_px % 16 == plan.margin_px % 16 == 0


def test_settings_refuse_what_they_do_not_know():
    with pytest.raises(ValueError, match="flavour"):
        EncoderSettings(flavour="sweet")
