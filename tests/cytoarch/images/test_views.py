import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cytoarch.errors import SectionError, StoreError
from cytoarch.geometry import Grid
from cytoarch.images.layout import Pyramid
from cytoarch.images.pyramids import write_pyramid
from cytoarch.images.views import StoredImage, intensity_range, mirrored
from cytoarch.store.staging import Staging

Array = NDArray[Any]
Store = Callable[..., StoredImage]


@pytest.fixture
def store(staging: Staging) -> Store:
    """Writes pixels as an image of `pixel_size_um` and opens it."""

    def write(pixels: Array, pixel_size_um: float = 2.0, levels: int = 3, origin_um: float = 0.0) -> StoredImage:
        layout = Pyramid(pixels.shape, pixels.dtype, pixel_size_um, "mean", levels=levels, origin_um=origin_um)
        write_pyramid(staging, layout, lambda y, x, h, w: pixels[..., y : y + h, x : x + w], name="x")
        return StoredImage.open(staging.path)

    return write


def noise(*shape: int) -> Array:
    return np.random.default_rng(4).integers(0, 256, shape, dtype=np.uint8)


def ramp(height: int, width: int, pixel_size_um: float) -> Array:
    """(2, y, x) float32 whose values are the y and x of every pixel's centre (um from the corner of the image)."""
    y, x = np.mgrid[:height, :width]
    return ((np.stack([y, x]) + 0.5) * pixel_size_um).astype(np.float32)


# -- mirroring ---------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None, derandomize=True)
@given(size=st.integers(1, 20), before=st.integers(0, 70), after=st.integers(0, 70))
def test_indices_beyond_the_image_are_those_of_numpys_reflection(size: int, before: int, after: int) -> None:
    expected = np.pad(np.arange(size), (before, after), mode="reflect" if size > 1 else "edge")
    np.testing.assert_array_equal(mirrored(np.arange(-before, size + after), size), expected)


@pytest.mark.parametrize("shape", [(3, 40, 30), (40, 30), (1, 5, 60), (1, 1, 7)])
def test_beyond_the_image_the_pixels_are_mirrored_as_numpy_mirrors_them(store: Store, shape: tuple[int, ...]) -> None:
    pixels = noise(*shape)
    planes = pixels if pixels.ndim == 3 else pixels[None]
    _, h, w = planes.shape
    view = store(pixels).at(2.0)
    padded = planes
    for axis in (1, 2):
        pads = [(0, 0)] * 3
        pads[axis] = (50, 50)
        padded = np.pad(padded, pads, mode="reflect" if planes.shape[axis] > 1 else "edge")
    np.testing.assert_array_equal(view.read(-50, -50, h + 100, w + 100), padded)
    np.testing.assert_array_equal(view.read(-50, -20, 10, 15), padded[:, :10, 30:45])
    np.testing.assert_array_equal(view.read(h + 30, w + 31, 7, 5), padded[:, h + 80 : h + 87, w + 81 : w + 86])


# -- sizes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size_um", [0.7, 1.0, 2.0, 2.5, 3.999, 4.0, 7.3, 8.0, 50.0, 1000.0])
def test_a_view_has_exactly_the_pixel_size_asked_for_and_covers_the_image_with_less_than_a_pixel_to_spare(
    store: Store, size_um: float
) -> None:
    image = store(noise(1, 80, 61))
    view = image.at(size_um)
    assert view.pixel_size_um == size_um
    for count, extent_um in zip((view.height, view.width), image.extent_um, strict=True):
        assert -1e-5 * size_um < count * size_um - extent_um < size_um
    assert view.read(0, 0, view.height, view.width).shape == (1, view.height, view.width)


def test_the_coarsest_level_that_is_fine_enough_is_read(store: Store) -> None:
    image = store(noise(1, 80, 61))
    asked = [1.0, 2.0, 3.9, 4.0, 7.9, 8.0, 100.0]
    assert [image.level_for(size).pixel_size_um for size in asked] == [2.0, 2.0, 2.0, 4.0, 4.0, 8.0, 8.0]


def test_a_view_at_the_size_of_a_level_is_that_level(store: Store) -> None:
    image = store(noise(3, 80, 64))
    for level in image.levels:
        view = image.at(level.pixel_size_um)
        assert (view.height, view.width) == level.size
        np.testing.assert_array_equal(view.read(0, 0, *level.size), level.array[...])


def test_extent_and_channels_are_those_of_the_finest_level(store: Store) -> None:
    image = store(noise(3, 80, 61), pixel_size_um=0.5)
    assert image.extent_um == (40.0, 30.5)
    assert (image.channels, image.pixel_size_um) == (3, 0.5)


def test_an_image_without_a_channel_axis_has_one_channel(store: Store) -> None:
    assert store(noise(8, 9)).channels == 1


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size_um", [0.9, 2.0, 2.6, 4.0, 5.3, 11.0])
def test_the_value_of_a_pixel_does_not_depend_on_the_window_it_is_read_in(store: Store, size_um: float) -> None:
    view = store(noise(2, 90, 70)).at(size_um)
    margin = 12
    whole = view.read(-margin, -margin, view.height + 2 * margin, view.width + 2 * margin)
    rng = np.random.default_rng(8)
    for _ in range(40):
        y, x = (int(rng.integers(-margin, n + margin - 1)) for n in (view.height, view.width))
        h, w = (int(rng.integers(1, n + margin - at + 1)) for n, at in ((view.height, y), (view.width, x)))
        part = whole[:, y + margin : y + margin + h, x + margin : x + margin + w]
        np.testing.assert_array_equal(view.read(y, x, h, w), part)


@pytest.mark.parametrize("size_um", [0.5, 1.3, 2.0, 2.7, 4.0, 6.1, 8.0, 9.9])
@pytest.mark.parametrize("origin_um", [0.0, 3.0])
def test_a_linear_ramp_is_resampled_exactly_inside_the_image(store: Store, size_um: float, origin_um: float) -> None:
    view = store(ramp(96, 64, 2.0), origin_um=origin_um).at(size_um)
    border = int(np.ceil(8.0 / size_um))
    found = view.read(0, 0, view.height, view.width)[:, border:-border, border:-border]
    expected = ramp(view.height, view.width, size_um)[:, border:-border, border:-border]
    assert found.size
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("size_um", [0.5, 1.3, 2.7, 6.1])
def test_resampling_stays_within_the_range_of_the_values(store: Store, size_um: float) -> None:
    image = store(noise(1, 60, 50))
    view = image.at(size_um)
    found = view.read(-5, -5, view.height + 10, view.width + 10)
    assert found.dtype == np.float32
    level = np.asarray(view.level.array)
    assert level.min() <= found.min() <= found.max() <= level.max()


def test_a_constant_image_is_constant_at_every_size(store: Store) -> None:
    image = store(np.full((1, 45, 37), 173, np.uint8))
    for size_um in (0.3, 2.0, 3.3, 30.0, 500.0):
        view = image.at(size_um)
        assert (view.read(-3, -3, view.height + 6, view.width + 6) == 173).all()


# -- ranges ------------------------------------------------------------------------------------------------------------


def test_the_intensity_range_is_that_of_numpys_percentiles_of_each_channel(store: Store) -> None:
    pixels = noise(3, 80, 64)
    expected = [np.percentile(plane, (1, 90)).tolist() for plane in pixels]
    assert intensity_range(store(pixels), 1, 90) == expected


def test_the_intensity_range_of_a_large_image_is_taken_from_a_level_that_is_small_enough(store: Store) -> None:
    image = store(noise(1, 80, 64))
    coarse = np.asarray(image.levels[1].array)[0]
    assert intensity_range(image, 1, 90, max_pixels=80 * 64 - 1) == [np.percentile(coarse, (1, 90)).tolist()]


def test_a_constant_channel_has_a_range_of_one_grey_value(store: Store) -> None:
    assert intensity_range(store(np.full((1, 20, 20), 9, np.uint8))) == [[9.0, 10.0]]


# -- grids -------------------------------------------------------------------------------------------------------------


def test_every_level_lies_at_the_corner_of_the_finest(store: Store) -> None:
    image = store(noise(1, 81, 61), pixel_size_um=1.7, origin_um=5.0)
    assert image.grid == image.levels[0].grid
    assert image.grid.shape == (81, 61)
    assert image.grid.corner_um == pytest.approx((4.15, 4.15))
    for number, level in enumerate(image.levels):
        assert level.grid.corner_um == pytest.approx((4.15, 4.15))
        assert level.grid.cell_um == pytest.approx(1.7 * 2**number)
        assert level.grid.shape == level.size


def test_a_view_may_lie_anywhere_on_the_image(store: Store) -> None:
    image = store(ramp(96, 64, 2.0))  # its values are um from the corner, which lies at -1, -1
    grid = Grid((11, 7), 2.6, (31.3, 44.9))
    y, x = image.on(grid).read(0, 0, 11, 7)
    np.testing.assert_allclose(y, np.broadcast_to((32.3 + 2.6 * np.arange(11))[:, None], (11, 7)), rtol=1e-5)
    np.testing.assert_allclose(x, np.broadcast_to(45.9 + 2.6 * np.arange(7), (11, 7)), rtol=1e-5)


def test_a_layout_on_a_grid_lies_there() -> None:
    grid = Grid((81, 61), 1.7, (5.0, 5.0))
    layout = Pyramid.on(grid, np.dtype(np.uint8), "mode", (3,), levels=2, chunk=16)
    assert layout.shape == (3, 81, 61)
    assert (layout.levels, layout.chunk, layout.reduction) == (2, 16, "mode")
    assert layout.grid() == grid
    assert layout.grid(1) == grid.grouped(2)
    assert (layout.level_shape(1), layout.scale_um(1), layout.offset_um(1)) == ((41, 31), 3.4, pytest.approx(5.85))
    with pytest.raises(ValueError, match="same distance"):
        Pyramid.on(grid.window(1, 0, 3, 3), np.dtype(np.uint8), "mean")


@pytest.mark.parametrize("kind", ["scale", "translation"])
def test_an_image_that_is_measured_differently_along_y_and_x_is_refused(store: Store, kind: str) -> None:
    image = store(noise(1, 8, 9))
    path = Path(image.levels[0].array.store.root).parent / "zarr.json"
    content = json.loads(path.read_text())
    for one in content["attributes"]["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]:
        if one["type"] == kind:
            one[kind][-2] += 1.0
    path.write_text(json.dumps(content))
    with pytest.raises(StoreError, match="square pixels"):
        StoredImage.open(path.parent)


# -- what is no image --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["missing", "empty", "array", "group", "damaged"])
def test_a_folder_that_holds_no_image_is_named(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "here"
    if kind != "missing":
        folder.mkdir()
    if kind == "array":
        zarr.create_array(folder / "a", shape=(2, 2), dtype="uint8")
        folder = folder / "a"
    if kind == "group":
        zarr.open_group(folder, mode="w", zarr_format=3)
    if kind == "damaged":
        (folder / "zarr.json").write_bytes(b'{"zarr_format": 3')
    with pytest.raises(StoreError, match="here"):
        StoredImage.open(folder)


def test_pixels_are_found_at_places_and_there_are_none_beyond_the_image(store: Store) -> None:
    labels = noise(40, 50)
    level = store(labels, origin_um=1.0).levels[0]
    cells = np.array([(0, 0), (39, 49), (7, 31), (-1, 3), (40, 3), (3, 50)])
    found = level.at(level.grid.um(cells) + 0.9)
    assert found.tolist() == [labels[0, 0], labels[39, 49], labels[7, 31], 0, 0, 0]


def test_pixels_that_are_damaged_are_no_pixels_at_any_place(store: Store) -> None:
    level = store(noise(40, 50)).levels[0]
    file = next(one for one in Path(level.array.store.root).rglob("*") if "c" in one.parts and one.is_file())  # type: ignore[attr-defined]
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(SectionError, match="the file is damaged"):
        level.at(np.array([[3.0, 3.0]]))
