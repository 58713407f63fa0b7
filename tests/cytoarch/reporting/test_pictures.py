"""Pictures of sections: orientation, outlines, colours of labels."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.errors import SectionError
from cytoarch.geometry import Grid
from cytoarch.images.layout import Pyramid, level_count
from cytoarch.images.pyramids import write_pyramid
from cytoarch.images.views import Level, StoredImage
from cytoarch.reporting.pictures import (
    OUTLINE,
    colour_picture,
    label_values,
    oriented,
    outlined,
    overlaid,
    painted,
    picture_grid,
    png,
    stain_picture,
)
from cytoarch.store.staging import Staging

GRID = Grid((40, 60), 10.0, (3.0, 3.0))


def random_picture(height: int = 20, width: int = 30, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def stored(folder: Path, pixels: np.ndarray, size_um: float, reduction: str = "mean", **own) -> StoredImage:
    journal = Staging(folder).open()
    pyramid = Pyramid(pixels.shape, pixels.dtype, size_um, reduction, levels=level_count(*pixels.shape[-2:]))
    write_pyramid(
        journal, pyramid, lambda y, x, h, w: pixels[..., y : y + h, x : x + w], name="image", own_attributes=own or None
    )
    return StoredImage.open(journal.path)


# -- orientation -----------------------------------------------------------------------------------------------------


def test_without_flip_or_turn_a_picture_stays_as_it_is():
    np.testing.assert_array_equal(oriented(random_picture(), "none", 0), random_picture())


@pytest.mark.parametrize("flip", ["horizontal", "vertical"])
def test_flipping_twice_brings_the_picture_back(flip: str):
    once = oriented(random_picture(), flip, 0)
    assert not np.array_equal(once, random_picture())
    np.testing.assert_array_equal(oriented(once, flip, 0), random_picture())


def test_both_flips_are_half_a_turn():
    both = oriented(oriented(random_picture(), "horizontal", 0), "vertical", 0)
    np.testing.assert_array_equal(both, oriented(random_picture(), "none", 180))


@pytest.mark.parametrize(("one", "other"), [(90, 90), (90, 180), (270, 180), (-90, 360), (-270, -180)])
def test_quarter_turns_add_up(one: float, other: float):
    twice = oriented(oriented(random_picture(), "none", one), "none", other)
    np.testing.assert_array_equal(twice, oriented(random_picture(), "none", one + other))


def test_a_positive_turn_is_counter_clockwise():
    picture = np.zeros((11, 21, 3), dtype=np.uint8)
    picture[5, 20] = 255  # at the right edge
    assert oriented(picture, "none", 90)[0, 5].tolist() == [255, 255, 255]  # now at the top
    assert oriented(picture, "none", -90)[20, 5].tolist() == [255, 255, 255]


def test_any_other_angle_turns_the_same_way_and_cuts_nothing_off():
    picture = np.full((41, 81, 3), 255, dtype=np.uint8)
    picture[18:23, 70:80] = 0
    for angle in (89.9, 45.0, -30.0, 12.5):
        turned = oriented(picture, "none", angle)
        dark = np.argwhere(turned[..., 0] < 100)
        centre = np.array(turned.shape[:2]) / 2 - 0.5
        offset = dark.mean(axis=0) - centre
        radius = 74.5 - 40
        expected = radius * np.array([-np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))])
        assert np.abs(offset - expected).max() < 1.5
        assert len(dark) == pytest.approx(50, abs=12)
        assert turned.dtype == np.uint8


def test_the_flip_comes_before_the_turn():
    flipped = random_picture()[:, ::-1]
    np.testing.assert_array_equal(oriented(random_picture(), "horizontal", 90), np.rot90(flipped))


# -- outlines and labels ---------------------------------------------------------------------------------------------


def test_the_outline_runs_along_the_border_of_the_tissue_only():
    picture = np.zeros((40, 60, 3), dtype=np.uint8)
    mask = np.zeros(GRID.shape, dtype=bool)
    mask[10:30, 15:45] = True
    result = outlined(picture, TissueMask(mask, GRID), GRID)
    drawn = (result == OUTLINE).all(axis=-1)
    frame = np.zeros_like(mask)
    frame[9:31, 14:46] = True
    frame[11:29, 16:44] = False
    frame[[9, 9, 30, 30], [14, 45, 14, 45]] = False
    np.testing.assert_array_equal(drawn, frame)
    assert (result[~drawn] == 0).all()
    assert (picture == 0).all()


def test_where_all_or_nothing_is_tissue_there_is_no_outline():
    for value in (True, False):
        result = outlined(
            random_picture(), TissueMask(np.full((3, 4), value), GRID.grouped(15)), GRID.window(0, 0, 20, 30)
        )
        np.testing.assert_array_equal(result, random_picture())


def test_values_take_their_colours_and_zero_the_ground():
    values = np.array([[0, 1], [500, 0]])
    result = painted(values, {1: (1, 2, 3), 500: (9, 8, 7), 70_000: (5, 5, 5)}, ground=(250, 250, 250))
    assert result.tolist() == [[[250] * 3, [1, 2, 3]], [[9, 8, 7], [250] * 3]]
    assert painted(np.zeros((0, 0), dtype=np.int64), {}).shape == (0, 0, 3)
    nine_digits = np.array([[0, 614_454_277]])
    assert painted(nine_digits, {614_454_277: (1, 2, 3)}).tolist() == [[[255, 255, 255], [1, 2, 3]]]


def test_labels_leave_the_picture_alone_where_there_are_none():
    values = np.zeros((20, 30), dtype=np.int64)
    values[5:15, 5:20] = 1
    result = overlaid(random_picture(), values, {1: (200, 0, 0)})
    np.testing.assert_array_equal(result[values == 0], random_picture()[values == 0])
    inner = np.zeros_like(values, dtype=bool)
    inner[7:13, 7:18] = True
    expected = random_picture()[inner] * 0.4 + np.array([200, 0, 0]) * 0.6
    np.testing.assert_allclose(result[inner], expected, atol=1)
    edge = (values > 0) & ~ndimage.binary_erosion(values > 0)
    assert (result[edge] == [160, 0, 0]).all(), "a border in its own colour, somewhat darker"


def test_renumbering_labels_and_colours_together_changes_no_picture():
    values = np.random.default_rng(0).integers(0, 4, (20, 30))
    colours = {1: (200, 0, 0), 2: (0, 200, 0), 3: (0, 0, 200)}
    moved = {7: colours[1], 90: colours[2], 4: colours[3]}
    renumbered = np.array([0, 7, 90, 4])[values]
    np.testing.assert_array_equal(painted(renumbered, moved), painted(values, colours))
    np.testing.assert_array_equal(
        overlaid(random_picture(), renumbered, moved), overlaid(random_picture(), values, colours)
    )


def test_label_values_are_never_mixed(tmp_path: Path):
    pixels = np.repeat(np.repeat(np.array([[1, 200], [90, 0]], dtype=np.uint8), 300, axis=0), 300, axis=1)
    labels = stored(tmp_path, pixels, 2.0, "mode")
    values = label_values(labels, labels.grid.covered_by(12.0))
    np.testing.assert_array_equal(values, pixels[3::6, 3::6])


# -- the stain -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "longest"), [((300, 500), 100), ((500, 300), 560), ((20, 7), 40)])
def test_the_longer_edge_of_a_picture_is_as_asked_and_its_pixels_are_square(tmp_path: Path, size, longest: int):
    image = stored(tmp_path, np.zeros((1, *size), dtype=np.uint8), 3.0)
    grid = picture_grid(image, longest)
    (height, width), size_um = grid.shape, grid.cell_um
    assert grid.corner_um == pytest.approx(image.grid.corner_um)
    assert max(height, width) == longest
    assert height * size_um == pytest.approx(size[0] * 3.0, abs=size_um)
    assert width * size_um == pytest.approx(size[1] * 3.0, abs=size_um)


def test_a_colour_section_looks_as_it_was_scanned(tmp_path: Path):
    pixels = np.zeros((3, 200, 300), dtype=np.uint8)
    pixels[:, 50:] = np.array([200, 120, 30])[:, None, None]
    picture = stain_picture(stored(tmp_path, pixels, 4.0, kind="rgb"), 300)
    assert picture.shape == (200, 300, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, np.moveaxis(pixels, 0, -1))


def test_a_grey_section_is_stretched_to_the_whole_range(tmp_path: Path):
    ramp = np.linspace(1000, 9000, 200 * 300).reshape(1, 200, 300).astype(np.uint16)
    picture = stain_picture(stored(tmp_path, ramp, 4.0), 300)
    assert picture.min() == 0
    assert picture.max() == 255
    assert (picture[..., 0] == picture[..., 1]).all()
    assert (np.diff(picture[..., 0].astype(int).ravel()) >= 0).all()


def test_a_colour_map_of_the_store_is_shown_as_it_is():
    array = np.random.default_rng(0).integers(0, 256, (3, 8, 9), dtype=np.uint8)
    colours = StoredImage((Level(array, 16.0, 8.0),), {})
    shown = colour_picture(colours, colours.grid)
    np.testing.assert_array_equal(shown, np.moveaxis(array, 0, -1))


def test_a_png_file_holds_the_picture_exactly_and_is_the_same_every_time():
    content = png(random_picture())
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), random_picture())
    assert content == png(random_picture())


def damaged(image: StoredImage) -> StoredImage:
    """The image, with every file of its pixels spoilt."""
    for level in image.levels:
        for path in Path(level.array.store.root, "c").rglob("*"):
            if path.is_file():
                path.write_bytes(b"\xff" * path.stat().st_size)
    return image


def test_what_is_damaged_costs_the_section(tmp_path: Path):
    colours = damaged(stored(tmp_path, noise_of(3), 4.0, kind="rgb"))
    grid = picture_grid(colours, 50)
    for draw in (lambda: stain_picture(colours, 50), lambda: colour_picture(colours, grid)):
        with pytest.raises(SectionError, match="damaged"):
            draw()
    labels = damaged(stored(tmp_path / "labels", noise_of(1)[0], 4.0, "mode"))
    with pytest.raises(SectionError, match="damaged"):
        label_values(labels, grid)


def noise_of(channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (channels, 70, 90), dtype=np.uint8)


def test_label_values_are_those_of_the_pixel_each_centre_lies_in_on_coarser_levels_too(tmp_path: Path):
    labels = stored(tmp_path, np.random.default_rng(0).integers(0, 9, (301, 290), dtype=np.uint8), 1.7, "mode")
    level = np.asarray(labels.levels[1].array)  # pixels of 3.4 um
    found = label_values(labels, labels.grid.covered_by(5.0))
    rows, columns = (
        [min(int((i + 0.5) * 5.0 / 3.4), n - 1) for i in range(count)]
        for count, n in zip(found.shape, level.shape, strict=True)
    )
    np.testing.assert_array_equal(found, level[np.ix_(rows, columns)])
