"""Sections as grids of embeddings: where tokens lie, what they hold, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from known_sections import MeanEncoder, embedded, noise, stored_section, tissue_on
from skimage.color import rgb2gray

from cytoarch.embeddings import (
    EmbedSettings,
    SectionReader,
    check_same_dims,
    embedding_name,
    working_pixel_size_um,
)
from cytoarch.embeddings.dense import estimated_bytes, tile_plan
from cytoarch.encoders.texture import TextureEncoder
from cytoarch.errors import ModelError, SectionError
from cytoarch.images.views import StoredImage


@pytest.mark.parametrize("section_um", [1.0, 2.0, 4.0, 7.3, 16.0])
@pytest.mark.parametrize("working_um", [4.0, 6.5])
def test_a_bright_square_lands_at_its_physical_place_at_any_pixel_size(
    tmp_path: Path, section_um: float, working_um: float
):
    extent_um = np.array([900.0, 1300.0])
    square_um = np.array([[300.0, 700.0], [380.0, 780.0]])
    height, width = (extent_um / section_um).astype(int)
    pixels = np.zeros((1, height, width), dtype=np.uint8)
    (y0, x0), (y1, x1) = np.round(square_um / section_um).astype(int)
    pixels[:, y0:y1, x0:x1] = 255
    image = stored_section(tmp_path / "section", pixels, section_um)
    found, _ = embedded(tmp_path / "embeddings", image, MeanEncoder(), working_um)
    level = found.layers[0].levels[0]
    values = np.asarray(level.array[0], dtype=np.float64)
    centres = [level.origin_um + np.arange(n) * level.pixel_size_um for n in values.shape]
    place = np.array([(values.sum(axis=1 - axis) * centres[axis]).sum() / values.sum() for axis in (0, 1)])
    # the section's own coordinates start at the centre of its first pixel
    truth = (np.array([y0 + y1, x0 + x1]) / 2 - 0.5) * section_um
    assert np.abs(place - truth).max() < found.token_um / 2


def test_grid_scale_and_translation_are_those_of_tokens_that_share_the_corner_of_the_section(tmp_path: Path):
    image = stored_section(tmp_path / "section", noise(100, 130), 2.0)
    found, facts = embedded(tmp_path / "embeddings", image, MeanEncoder(token_px=8), 4.0)
    assert found.grid == (7, 9)  # 50 x 65 working pixels
    assert facts["grid"] == [7, 9]
    assert found.token_um == 32.0
    for layer in found.layers:
        level = layer.levels[0]
        assert level.origin_um - level.pixel_size_um / 2 == -image.pixel_size_um / 2
        assert level.array.dtype == np.float16
        assert layer.attributes["pixel_size_um"] == 4.0
    assert found.dims == (1, 1)
    assert facts["dims"] == [1, 1]
    assert facts["token_px"] == 8


@pytest.mark.parametrize(("height", "width"), [(64, 64), (65, 70), (33, 127), (3, 5), (1, 1)])
def test_every_token_is_computed_from_its_own_pixels_whatever_the_size(tmp_path: Path, height: int, width: int):
    pixels = noise(height, width, 2)
    image = stored_section(tmp_path / "section", pixels, 4.0)
    found, facts = embedded(tmp_path / "embeddings", image, MeanEncoder(), 4.0)
    low, high = (np.array([bounds[i] for bounds in facts["ranges"]])[:, None, None] for i in (0, 1))
    scaled = np.clip((pixels - low) / (high - low), 0, 1)
    # beyond the image pixels are mirrored about the outermost ones
    whole = np.pad(scaled, ((0, 0), (0, -height % 4), (0, -width % 4)), mode="reflect")
    expected = whole.reshape(2, whole.shape[1] // 4, 4, -1, 4).mean(axis=(2, 4))
    values = found.read(0, 0, *found.grid)
    np.testing.assert_allclose(values[:2], expected, atol=2e-3)
    assert values.shape == (4, -(-height // 4), -(-width // 4))
    np.testing.assert_allclose(values[2:], 2 * values[:2], atol=2e-3)


def test_a_section_that_is_no_multiple_of_the_patch_loses_nothing(tmp_path: Path):
    pixels = np.zeros((1, 70, 101), dtype=np.uint8)
    pixels[:, :40] = 10  # a range of grey values to stretch
    pixels[:, -1, :] = 255
    pixels[:, :, -1] = 255
    image = stored_section(tmp_path / "section", pixels, 4.0)
    values = embedded(tmp_path / "embeddings", image, MeanEncoder(token_px=16), 4.0)[0].read(0, 0, 5, 7)
    assert (values[0, -1] > values[0, -2, 0]).all()
    assert (values[0, :, -1] > values[0, :, -3]).all()


@pytest.mark.parametrize("overlapping", [None, 0])
def test_tiles_of_any_size_give_the_same_for_an_encoder_that_sees_only_its_token(tmp_path: Path, overlapping):
    image = stored_section(tmp_path / "section", noise(150, 210), 4.0)
    one, _ = embedded(tmp_path / "one", image, MeanEncoder(halo_px=overlapping), 4.0)
    other, _ = embedded(tmp_path / "other", image, MeanEncoder(tile_px=512), 4.0)
    np.testing.assert_allclose(one.read(0, 0, *one.grid), other.read(0, 0, *other.grid), atol=1e-3)


def test_the_texture_of_a_section_is_that_of_the_whole_image(tmp_path: Path):
    pixels = noise(96, 128)
    image = stored_section(tmp_path / "section", pixels, 4.0)
    found, facts = embedded(tmp_path / "embeddings", image, TextureEncoder(), 4.0)
    (low, high), halo = facts["ranges"][0], 320
    scaled = np.clip((pixels.astype(np.float32) - np.float32(low)) / np.float32(high - low), 0, 1)
    whole = np.pad(scaled, ((0, 0), (halo, halo), (halo, halo)), mode="reflect")
    (expected,) = TextureEncoder().encode(whole[None])
    np.testing.assert_allclose(found.read(0, 0, 24, 32), expected[0, :, 80:104, 80:112], atol=2e-3)


def test_values_beyond_float16_are_refused(tmp_path: Path):
    image = stored_section(tmp_path / "section", noise(64, 64), 4.0)
    with pytest.raises(SectionError, match="beyond what float16 holds"):
        embedded(tmp_path / "embeddings", image, MeanEncoder(factor=1e6), 4.0)


@pytest.mark.parametrize(("section_um", "working_um", "upsampled"), [(4, 4, False), (2, 4, False), (8, 4, True)])
def test_sections_coarser_than_they_are_read_at_are_marked(
    tmp_path: Path, section_um: float, working_um: float, upsampled: bool
):
    image = stored_section(tmp_path / "section", noise(64, 64), section_um)
    _, facts = embedded(tmp_path / "embeddings", image, MeanEncoder(), working_um)
    assert facts["upsampled"] is upsampled


def test_tiles_without_tissue_are_zero_and_those_with_tissue_are_not(tmp_path: Path):
    image = stored_section(tmp_path / "section", noise(64, 256) | 1, 4.0)
    mask = np.zeros((16, 64), dtype=bool)
    mask[:, :10] = True
    found, _ = embedded(tmp_path / "embeddings", image, MeanEncoder(), 4.0, tissue=tissue_on(image, mask, 16.0))
    values = found.read(0, 0, *found.grid)
    assert (values[:, :, :10] > 0).all()
    assert (values[:, :, 32:] == 0).all()


def test_how_much_is_computed_at_once_changes_nothing(tmp_path: Path):
    image = stored_section(tmp_path / "section", noise(90, 200), 4.0)
    encoder = MeanEncoder(halo_px=None)
    one, _ = embedded(tmp_path / "one", image, encoder, 4.0, batch_size=1)
    other, _ = embedded(tmp_path / "other", image, encoder, 4.0, batch_size=7)
    np.testing.assert_array_equal(one.read(0, 0, *one.grid), other.read(0, 0, *other.grid))


def test_windows_are_parts_of_the_whole(tmp_path: Path):
    image = stored_section(tmp_path / "section", noise(150, 210), 4.0)
    found, _ = embedded(tmp_path / "embeddings", image, MeanEncoder(), 4.0)
    whole = found.read(0, 0, *found.grid)
    np.testing.assert_array_equal(found.read(5, 9, 11, 20), whole[:, 5:16, 9:29])


@pytest.mark.parametrize(
    ("asked", "encoders_own", "sections", "expected"),
    [
        (None, None, [1.0, 2.0], 4.0),
        (None, None, [1.0, 25.0, 3.0], 25.0),
        (None, 4.0, [25.0], 4.0),
        (2.0, 4.0, [25.0], 2.0),
        (0.5, None, [1.0], 0.5),
    ],
)
def test_the_working_pixel_size_is_asked_for_the_encoders_or_the_coarsest_sections(
    asked, encoders_own, sections, expected
):
    encoder = MeanEncoder(pixel_size_um=encoders_own)
    assert working_pixel_size_um(EmbedSettings(pixel_size_um=asked), encoder, sections) == expected


def test_names_tell_apart_what_decides_the_values_and_nothing_else():
    names = {
        embedding_name(EmbedSettings(encoder=name, channels=channels), MeanEncoder(digest=digest), size)
        for name, channels, digest, size in [
            ("mean", (), "a", 4.0),
            ("mean", (1,), "a", 4.0),
            ("mean", (), "b", 4.0),
            ("mean", (), "a", 8.0),
        ]
    }
    assert len(names) == 4
    one, other = (EmbedSettings(device=device, batch_size=size) for device, size in (("cpu", 1), ("cuda", 8)))
    assert embedding_name(one, MeanEncoder(), 4.0) == embedding_name(other, MeanEncoder(), 4.0)


def test_channels_are_picked_repeated_or_refused(tmp_path: Path):
    pixels = noise(32, 32, 3)
    rgb = stored_section(tmp_path / "rgb", pixels, 4.0, "rgb")
    stack = stored_section(tmp_path / "stack", pixels, 4.0, "channels")
    single = stored_section(tmp_path / "single", pixels[:1], 4.0)

    def chosen(image: StoredImage, takes: int | None, channels: tuple[int, ...] = ()) -> tuple[int, ...]:
        encoder = MeanEncoder(channels=takes)
        return SectionReader.open(image, encoder, EmbedSettings(channels=channels), 4.0).channels

    assert chosen(rgb, takes=3) == (0, 1, 2)
    assert chosen(stack, takes=3) == (0,)
    assert chosen(single, takes=3) == (0,)
    assert chosen(stack, takes=3, channels=(2,)) == (2,)
    assert chosen(stack, takes=3, channels=(2, 1, 0)) == (2, 1, 0)
    assert chosen(stack, takes=None) == (0, 1, 2)
    assert chosen(stack, takes=None, channels=(1,)) == (1,)
    assert chosen(stack, takes=1) == (0,)
    with pytest.raises(SectionError, match="channels 0 to 2"):
        chosen(rgb, takes=3, channels=(3,))


def test_an_encoder_of_one_channel_sees_the_luminance_of_colours(tmp_path: Path):
    pixels = noise(32, 32, 3)
    rgb = stored_section(tmp_path / "rgb", pixels, 4.0, "rgb")
    colours = SectionReader.open(rgb, MeanEncoder(channels=3), EmbedSettings(), 4.0)
    grey = SectionReader.open(rgb, MeanEncoder(channels=1), EmbedSettings(), 4.0)
    assert (colours.depth, grey.depth) == (3, 1)
    expected = rgb2gray(np.moveaxis(colours.read(3, 4, 20, 9), 0, -1))
    np.testing.assert_allclose(grey.read(3, 4, 20, 9)[0], expected, atol=1e-6)


def test_channels_are_read_in_the_order_asked_for_each_with_its_own_percentiles(tmp_path: Path):
    rng = np.random.default_rng(3)
    pixels = np.stack([rng.integers(low, high, (60, 70)) for low, high in ((0, 40), (100, 250), (10, 200))])
    image = stored_section(tmp_path / "stack", pixels.astype(np.uint8), 4.0, "channels")
    reader = SectionReader.open(image, MeanEncoder(), EmbedSettings(channels=(2, 0)), 4.0)
    assert (reader.channels, reader.depth) == ((2, 0), 2)
    found = reader.read(0, 0, 60, 70)
    for plane, channel in zip(found, (2, 0), strict=True):
        low, high = np.percentile(pixels[channel], (0.5, 99.5))
        np.testing.assert_allclose(plane, np.clip((pixels[channel] - low) / (high - low), 0, 1), atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 0.5


@pytest.mark.parametrize(("asked", "takes"), [((0, 1), 3), ((0, 1), 1), ((0, 1, 2), 2)])
def test_as_many_channels_are_asked_for_as_the_encoder_takes(tmp_path: Path, asked: tuple[int, ...], takes: int):
    image = stored_section(tmp_path / "stack", noise(32, 32, 4), 4.0, "channels")
    with pytest.raises(SectionError, match=f"the encoder takes 1 or {takes}"):
        SectionReader.open(image, MeanEncoder(channels=takes), EmbedSettings(channels=asked), 4.0)


def test_three_channels_asked_for_of_a_stack_are_no_colours_to_an_encoder_of_one(tmp_path: Path):
    image = stored_section(tmp_path / "stack", noise(32, 32, 4), 4.0, "channels")
    with pytest.raises(SectionError, match="the encoder takes 1 or 1"):
        SectionReader.open(image, MeanEncoder(channels=1), EmbedSettings(channels=(0, 1, 2)), 4.0)
    rgb = stored_section(tmp_path / "rgb", noise(32, 32, 3), 4.0, "rgb")
    picked = SectionReader.open(rgb, MeanEncoder(channels=1), EmbedSettings(channels=(2, 1, 0)), 4.0)
    assert (picked.channels, picked.grey, picked.depth) == ((2, 1, 0), True, 1)
    one = SectionReader.open(rgb, MeanEncoder(channels=3), EmbedSettings(channels=(1,)), 4.0)
    assert (one.channels, one.grey, one.depth) == ((1,), False, 1)


def test_a_tile_is_left_out_only_where_no_tissue_touches_what_it_shows_of_the_section(tmp_path: Path):
    image = stored_section(tmp_path / "section", noise(100, 130), 4.0)
    mask = np.zeros((13, 17), dtype=bool)
    mask[6, 9] = True  # pixels 48 to 55, 72 to 79
    skip = SectionReader.open(image, MeanEncoder(), EmbedSettings(), 4.0).tissue_skip(tissue_on(image, mask, 32.0))
    expected = {
        (0, 0, 48, 130): True,
        (0, 0, 49, 130): False,
        (56, 0, 44, 130): True,
        (55, 0, 44, 130): False,
        (0, 0, 100, 72): True,
        (0, 0, 100, 73): False,
        (0, 80, 100, 60): True,
        (0, 79, 100, 60): False,
        (-64, -64, 64, 64): True,
        (-60, 20, 64, 64): True,
        (-10, -10, 200, 200): False,
        (100, 0, 10, 10): True,
        (0, 130, 10, 10): True,
        (60, 100, 80, 80): True,
    }
    assert {window: skip(*window) for window in expected} == expected


@pytest.mark.parametrize("channels", [(-1,), (0, -3)])
def test_negative_channels_are_refused(tmp_path: Path, channels: tuple[int, ...]):
    image = stored_section(tmp_path / "section", noise(32, 32, 3), 4.0)
    with pytest.raises((SectionError, ValueError), match="channel"):
        SectionReader.open(image, MeanEncoder(), EmbedSettings(channels=channels), 4.0)


def test_what_is_read_lies_between_zero_and_one_with_the_percentiles_at_the_ends(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(100, 40_000, (1, 200, 200), dtype=np.uint16)
    image = stored_section(tmp_path / "section", pixels, 4.0)
    values = SectionReader.open(image, MeanEncoder(), EmbedSettings(), 4.0).read(0, 0, 200, 200)
    assert values.dtype == np.float32
    assert values.min() == 0
    assert values.max() == 1
    low, high = np.percentile(pixels, (0.5, 99.5))
    np.testing.assert_allclose(values[0], np.clip((pixels[0] - low) / (high - low), 0, 1), atol=1e-5)


def test_a_flat_section_is_embedded_without_dividing_by_zero(tmp_path: Path):
    image = stored_section(tmp_path / "section", np.full((1, 40, 40), 9, dtype=np.uint8), 4.0)
    found, _ = embedded(tmp_path / "embeddings", image, MeanEncoder(), 4.0)
    assert np.isfinite(found.read(0, 0, *found.grid)).all()


def test_the_estimate_of_the_size_is_that_of_the_arrays_but_for_tiles_that_jut_out(tmp_path: Path):
    image = stored_section(tmp_path / "section", noise(101, 67, 2), 2.0)
    found, facts = embedded(tmp_path / "embeddings", image, MeanEncoder(tile_px=16), 4.0)
    size = sum(int(np.prod(layer.levels[0].array.shape)) * 2 for layer in found.layers)
    plan = tile_plan(MeanEncoder(tile_px=16), 51, 34, EmbedSettings())
    estimate = estimated_bytes(facts["tiles"], plan, MeanEncoder().dims(2))
    assert size <= estimate <= size * (64 * 48) / (51 * 34)
    assert estimated_bytes(2, plan, (3, 5)) == 2 * 4**2 * 8 * 2


def test_sections_of_different_channels_are_not_mixed(tmp_path: Path):
    opened = {}
    for name, channels in (("one", 1), ("two", 2), ("again", 1)):
        image = stored_section(tmp_path / name, noise(32, 32, channels), 4.0)
        opened[name] = embedded(tmp_path / f"{name}-embeddings", image, MeanEncoder(), 4.0)[0]
    assert check_same_dims([("one", opened["one"]), ("again", opened["again"])]) == (1, 1)
    with pytest.raises(ModelError, match=r"section two has embeddings of \(2, 2\) where one has \(1, 1\)"):
        check_same_dims([("one", opened["one"]), ("two", opened["two"])])


@pytest.mark.parametrize("size", [(40, 60), (3000, 5000)])
def test_tiles_of_an_encoder_of_finite_reach_keep_its_reach_around_their_core(size):
    plan = tile_plan(TextureEncoder(), *size, EmbedSettings())
    assert plan.margin_px >= 320
    assert plan.tile_px - plan.step_px == 640
    assert plan.tile_px % 16 == plan.step_px % 16 == plan.margin_px % 16 == 0
