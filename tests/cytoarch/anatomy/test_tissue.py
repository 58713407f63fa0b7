from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import ome_zarr_models
import pytest
import zarr
from numpy.typing import NDArray
from ome_zarr_models.v05.image_label import ImageLabel
from scipy import ndimage
from skimage.filters import threshold_otsu

from cytoarch.anatomy.tissue import Tissue, TissueMask, TissueSettings, find_tissue, overview, write_tissue
from cytoarch.errors import SectionError
from cytoarch.geometry import Grid
from cytoarch.images.layout import Pyramid
from cytoarch.images.pyramids import write_pyramid
from cytoarch.images.views import StoredImage
from cytoarch.phantoms.rendering import render
from cytoarch.phantoms.sections import PhantomSettings, Stain, Window, cut, make_phantom
from cytoarch.phantoms.truth import truth
from cytoarch.store.staging import Staging

Array = NDArray[Any]
H, W = 200, 260
SETTINGS = TissueSettings(smallest_mm2=0.0, smallest_share=0.0)
GRID = Grid((H, W), 64.0, (31.5, 31.5))
"""The overview of a section with pixels of 1 um."""


def disc(radius: float, y: float = H / 2, x: float = W / 2) -> Array:
    ys, xs = np.mgrid[:H, :W]
    return np.hypot(ys - y, xs - x) < radius


def picture(mask: Array, inside: float, outside: float, noise: float = 4.0) -> Array:
    grey = np.where(mask, inside, outside) + np.random.default_rng(6).normal(0, noise, mask.shape)
    return grey.astype(np.float32)


def dice(a: Array, b: Array) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


# -- finding -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("inside", "outside", "polarity"), [(110, 235, "dark"), (150, 12, "bright")])
@pytest.mark.parametrize("scale", [1.0, 257.0, 1e-3])
def test_tissue_is_found_in_either_polarity_and_in_any_range_of_values(
    inside: float, outside: float, polarity: str, scale: float
) -> None:
    truth = disc(70)
    tissue = find_tissue((picture(truth, inside, outside) * scale).astype(np.float32), 64.0, SETTINGS)
    assert tissue.polarity == polarity
    assert dice(tissue.mask, truth) > 0.98


def test_the_negative_of_a_picture_has_the_same_tissue_in_the_other_polarity() -> None:
    grey = picture(disc(70), 110, 235)
    positive, negative = find_tissue(grey, 64.0, SETTINGS), find_tissue(255 - grey, 64.0, SETTINGS)
    assert (positive.polarity, negative.polarity) == ("dark", "bright")
    assert dice(positive.mask, negative.mask) > 0.999


def test_two_clear_populations_are_told_apart_where_otsu_tells_them_apart() -> None:
    grey = picture(disc(70), 110, 235)
    smooth = ndimage.gaussian_filter(grey, 1.0, mode="nearest")
    assert dice(find_tissue(grey, 64.0, SETTINGS).mask, smooth < threshold_otsu(smooth)) > 0.99


def test_a_stated_polarity_overrules_the_border() -> None:
    grey = picture(disc(70), 110, 235)
    dark = find_tissue(grey, 64.0, SETTINGS.model_copy(update={"polarity": "dark"}))
    bright = find_tissue(grey, 64.0, SETTINGS.model_copy(update={"polarity": "bright"}))
    assert (dark.polarity, bright.polarity) == ("dark", "bright")
    assert dice(dark.mask, disc(70)) > 0.98
    assert dice(bright.mask, ~disc(70)) > 0.98


@pytest.mark.parametrize("sign", [1, -1])
def test_pale_tissue_beside_dense_tissue_is_tissue(sign: int) -> None:
    grey = picture(disc(80), 200, 240, noise=2.0)
    grey[disc(45)] -= 110
    values = grey if sign == 1 else 255 - grey
    assert dice(find_tissue(values, 64.0, SETTINGS).mask, disc(80)) > 0.97


@pytest.mark.parametrize("stain", ["silver", "dapi"])
def test_the_cortex_and_the_white_matter_of_a_phantom_are_tissue(stain: Stain) -> None:
    settings = PhantomSettings(stain=stain, thickness_um=25.0, resolution=48)
    section = cut(make_phantom(settings), 430)
    window = Window(0, 0, *section.size_px(64.0))
    tissue = find_tissue(render(section, window, 64.0).astype(np.float32), 64.0, TissueSettings())
    assert tissue.polarity == ("bright" if stain == "dapi" else "dark")
    assert dice(tissue.mask, truth(section, window, 64.0).tissue > 0) > 0.95


@pytest.mark.parametrize("strength", [10, 30])
def test_a_gradient_of_the_light_is_no_tissue(strength: float) -> None:
    grey = picture(disc(70), 110, 235) + np.linspace(-strength, 0, W, dtype=np.float32)
    assert dice(find_tissue(grey, 64.0, SETTINGS).mask, disc(70)) > 0.97


@pytest.mark.parametrize("value", [0.0, 128.0, 65535.0])
def test_a_flat_picture_has_no_tissue_to_find(value: float) -> None:
    with pytest.raises(SectionError, match="flat"):
        find_tissue(np.full((H, W), value, dtype=np.float32), 64.0, SETTINGS)


def test_a_picture_of_one_pixel_is_flat() -> None:
    with pytest.raises(SectionError):
        find_tissue(np.full((1, 1), 5.0, dtype=np.float32), 64.0, SETTINGS)


def test_tissue_that_touches_one_border_is_still_told_from_the_slide() -> None:
    truth = disc(80, y=0)
    assert dice(find_tissue(picture(truth, 110, 235), 64.0, SETTINGS).mask, truth) > 0.97


def test_pieces_and_holes_smaller_than_asked_for_are_ignored() -> None:
    truth = disc(70) & ~disc(4) | disc(4, y=20, x=20)
    exact = find_tissue(picture(truth, 110, 235), 100.0, SETTINGS)
    cleaned = find_tissue(picture(truth, 110, 235), 100.0, TissueSettings(smallest_mm2=1.0, smallest_share=0))
    assert dice(exact.mask, truth) > 0.98
    assert exact.mask[20, 20]
    assert not exact.mask[H // 2, W // 2]
    assert dice(cleaned.mask, disc(70)) > 0.98
    assert ndimage.label(cleaned.mask)[1] == ndimage.label(~cleaned.mask)[1] == 1


def test_the_area_in_mm2_is_that_of_the_disc_at_any_pixel_size() -> None:
    for pixel_size_um in (10.0, 64.0):
        tissue = find_tissue(picture(disc(70), 110, 235), pixel_size_um, SETTINGS)
        assert tissue.area_mm2 == pytest.approx(np.pi * (70 * pixel_size_um / 1000) ** 2, rel=0.02)
        assert tissue.area_mm2 == pytest.approx(tissue.fraction * H * W * (pixel_size_um / 1000) ** 2)


def test_finding_does_not_change_the_picture() -> None:
    grey = picture(disc(70), 110, 235)
    before = grey.copy()
    find_tissue(grey, 64.0, SETTINGS)
    np.testing.assert_array_equal(grey, before)


# -- overviews ---------------------------------------------------------------------------------------------------------


def image_of(staging: Staging, pixels: Array, pixel_size_um: float, levels: int) -> StoredImage:
    layout = Pyramid(pixels.shape, pixels.dtype, pixel_size_um, "mean", levels=levels)
    write_pyramid(staging, layout, lambda y, x, h, w: pixels[..., y : y + h, x : x + w], name="x")
    return StoredImage.open(staging.path)


def test_an_overview_averages_the_channels_at_the_size_asked_for(staging: Staging) -> None:
    rgb = np.stack([np.full((64, 96), value, np.uint8) for value in (30, 60, 120)])
    grey, grid = overview(image_of(staging, rgb, 16.0, 3), 64.0)
    assert grid == Grid.at_corner((16, 24), 64.0, (-8.0, -8.0))
    assert grey.shape == (16, 24)
    np.testing.assert_allclose(grey, 70.0)


def test_the_overview_of_a_coarse_scan_is_the_scan_itself(staging: Staging) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 40, 50), dtype=np.uint8)
    grey, grid = overview(image_of(staging, pixels, 100.0, 1), 64.0)
    assert grid == Grid((40, 50), 100.0, (0.0, 0.0))
    np.testing.assert_array_equal(grey, pixels[0])


@pytest.mark.parametrize("size_um", [16.0, 20.0, 32.0, 50.0])
def test_an_overview_from_a_much_finer_level_keeps_mean_and_place(staging: Staging, size_um: float) -> None:
    pixels = np.broadcast_to(np.linspace(0, 6000, 240).astype(np.uint16)[:, None], (240, 200)).copy()
    noisy = pixels + np.random.default_rng(0).integers(0, 2000, pixels.shape).astype(np.uint16)
    grey, _ = overview(image_of(staging, noisy, 4.0, 1), size_um)
    rows = (np.arange(grey.shape[0]) + 0.5) * size_um / 4.0 - 0.5
    expected = np.interp(rows, np.arange(240), noisy.mean(axis=1).astype(float))
    inner = slice(2, -2)
    np.testing.assert_allclose(grey.mean(axis=1)[inner], expected[inner], atol=0.06 * 6000)


# -- what is stored ----------------------------------------------------------------------------------------------------


@pytest.fixture
def stored(staging: Staging) -> tuple[Staging, Array]:
    grey = picture(disc(70), 110, 235)
    tissue = find_tissue(grey, 64.0, SETTINGS)
    write_tissue(staging, grey, tissue, GRID)
    return staging, tissue.mask


def test_the_mask_is_stored_as_a_label_of_its_overview(stored: tuple[Staging, Array]) -> None:
    staging, mask = stored
    group = zarr.open_group(staging.path, mode="r")
    image = ome_zarr_models.open_ome_zarr(group)
    label = ImageLabel.from_zarr(group["labels/tissue"])
    assert len(image.ome_attributes.multiscales[0].datasets) == len(label.ome_attributes.multiscales[0].datasets)
    np.testing.assert_array_equal(TissueMask.open(staging.path).mask, mask)
    assert TissueMask.open(staging.path).grid == GRID
    assert TissueMask.open(staging.path).pixel_size_um == 64.0


def test_windows_that_partition_the_section_touch_tissue_where_the_mask_has_any(stored: tuple[Staging, Array]) -> None:
    mask = TissueMask.open(stored[0].path)
    touched = [[mask.touches(GRID.window(y, x, 20, 20)) for x in range(0, W, 20)] for y in range(0, H, 20)]
    held = mask.mask.reshape(H // 20, 20, W // 20, 20).any(axis=(1, 3))
    assert 0 < held.sum() < held.size
    np.testing.assert_array_equal(touched, held)


def test_a_part_of_one_pixel_of_the_mask_is_touched_and_what_lies_beside_it_is_not() -> None:
    pixels = np.zeros((4, 5), dtype=np.bool_)
    pixels[2, 3] = True
    mask = TissueMask(pixels, Grid.at_corner((4, 5), 64.0, (-0.85, -0.85)))  # its tissue: y 127.15 to 191.15, x + 64
    for y, x, expected in [
        (127.15 - 1.7, 200.0, False),  # ends where the tissue begins
        (127.15 - 1.6, 200.0, True),
        (191.15 - 0.1, 200.0, True),
        (191.15, 200.0, False),
        (150.0, 191.15 - 1.7, False),
        (150.0, 191.15 - 1.6, True),
        (150.0, 255.15 - 0.1, True),
        (150.0, 255.15, False),
        (-900.0, 200.0, False),
        (150.0, 900.0, False),
    ]:
        assert mask.touches(Grid.at_corner((1, 1), 1.7, (y, x))) is expected, (y, x)
    assert mask.touches(Grid.at_corner((1, 1), 5000.0, (-2000.0, -2000.0)))


def test_the_mask_on_its_own_grid_is_itself_and_on_finer_grids_each_cell_is_repeated() -> None:
    pixels = np.random.default_rng(1).random((10, 12)) > 0.5
    grid = Grid((10, 12), 64.0, (31.5, 31.5))
    mask = TissueMask(pixels, grid)
    np.testing.assert_array_equal(mask.on_grid(grid), pixels)
    np.testing.assert_array_equal(mask.on_grid(grid.split(4)), np.kron(pixels, np.ones((4, 4), np.bool_)))
    np.testing.assert_array_equal(mask.on_grid(grid.window(-1, -2, 13, 16)), np.pad(pixels, ((1, 2), (2, 2)), "edge"))


def test_the_mask_on_cells_of_another_size_is_that_of_the_pixel_each_centre_lies_in() -> None:
    pixels = np.random.default_rng(2).random((9, 11)) > 0.5
    mask = TissueMask(pixels, Grid.at_corner((9, 11), 64.0, (-0.85, -0.85)))
    cells = Grid.at_corner((23, 28), 25.0, (-0.85, -0.85))
    rows, columns = ([int(Fraction(2 * i + 1, 2) * 25 / 64) for i in range(n)] for n in cells.shape)
    np.testing.assert_array_equal(mask.on_grid(cells), pixels[np.ix_(rows, columns)])


def test_a_damaged_section_or_mask_costs_the_section(stored: tuple[Staging, Array], tmp_path: Path) -> None:
    section = image_of(Staging(tmp_path / "s").open(), np.full((1, 90, 90), 7, np.uint8), 4.0, 1)
    for folder in (section.levels[0].array.store.root, stored[0].path / "labels" / "tissue" / "0"):
        for path in Path(folder, "c").rglob("*"):
            if path.is_file():
                path.write_bytes(b"\xff" * path.stat().st_size)
    for size_um in (4.0, 64.0):
        with pytest.raises(SectionError, match="damaged"):
            overview(section, size_um)
    with pytest.raises(SectionError, match="damaged"):
        TissueMask.open(stored[0].path)


@pytest.mark.parametrize("size_um", [8.1, 13.3, 30.0, 61.0])
def test_an_overview_from_a_much_finer_level_is_the_mean_of_the_pixels_whose_centres_lie_in_a_cell(
    staging: Staging, size_um: float
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 41, 57), dtype=np.uint8)
    grey, grid = overview(image_of(staging, pixels, 3.7, 1), size_um)
    assert grid == Grid.at_corner(grey.shape, size_um, (-1.85, -1.85))
    rows, columns = (
        np.array([int(Fraction(2 * i + 1, 2) * Fraction("3.7") / Fraction(str(size_um))) for i in range(n)])
        for n in (41, 57)
    )
    plane = pixels.mean(axis=0)
    for y, x in np.ndindex(rows.max() + 1, columns.max() + 1):
        expected = plane[np.ix_(rows == y, columns == x)].mean()
        assert grey[y, x] == pytest.approx(expected, rel=1e-5)


def test_a_sliver_of_a_cell_at_the_far_edge_looks_like_the_cell_beside_it(staging: Staging) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 31, 31), dtype=np.uint8)
    grey, _ = overview(image_of(staging, pixels, 1.0, 1), 5.1)  # 31 um are six cells and 0.4 um
    assert grey.shape == (7, 7)
    np.testing.assert_array_equal(grey[6], grey[5])
    np.testing.assert_array_equal(grey[:, 6], grey[:, 5])
    assert grey[5, 5] == pytest.approx(pixels[0, 25:, 25:].mean())


def test_what_is_stored_of_an_overview_spans_its_percentiles(staging: Staging) -> None:
    grey = np.linspace(100, 300, H * W, dtype=np.float32).reshape(H, W)
    grey[0, 0], grey[0, 1] = -1e6, 1e6
    write_tissue(staging, grey, Tissue(np.ones((H, W), np.uint8), 64.0, "dark", 0.0), GRID)
    shown = np.asarray(StoredImage.open(staging.path).levels[0].array)
    low, high = np.percentile(grey, (0.5, 99.5))
    expected = np.clip((grey - low) / (high - low), 0, 1) * 255
    assert np.abs(shown - expected).max() <= 0.51
    label = zarr.open_group(staging.path, mode="r")["labels/tissue"].attrs["ome"]["image-label"]
    assert [one["label-value"] for one in label["colors"]] == [1, 2]


def test_small_pieces_are_those_below_the_area_asked_for() -> None:
    """Discs of known areas on cells of 0.01 mm2."""
    truth = disc(40) | disc(5, y=20, x=20) | disc(8, y=170, x=230)
    areas = {name: mask.sum() * 0.01 for name, mask in (("small", disc(5, y=20, x=20)), ("large", disc(8, 170, 230)))}
    for smallest_mm2, kept in (
        (0.5 * areas["small"], (True, True)),
        (1.3 * areas["small"], (False, True)),
        (1.3 * areas["large"], (False, False)),
    ):
        found = find_tissue(
            picture(truth, 110, 235), 100.0, TissueSettings(smallest_mm2=smallest_mm2, smallest_share=0)
        ).mask
        assert (bool(found[20, 20]), bool(found[170, 230])) == kept
        assert found[H // 2, W // 2]
