"""Measures of how good a scan is: what is planted is found, what does not matter changes nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from cytoarch.measures.quality import (
    FULL_SCALES,
    clipped,
    contrast,
    detail_px,
    edge_share,
    expected_from_neighbours,
    full_scale,
    pooled_sharpness,
    robust_z,
    roughness,
    separation,
    sharpness,
)


def texture(width_px: float, size: int = 256, seed: int = 0) -> np.ndarray:
    """Noise blurred by `width_px`, of mean 100 and standard deviation 10."""
    noise = np.random.default_rng(seed).normal(size=(size, size))
    smooth = ndimage.gaussian_filter(noise, width_px, mode="wrap") if width_px else noise
    return (100 + 10 * (smooth - smooth.mean()) / smooth.std()).astype(np.float32)


# -- sharpness ---------------------------------------------------------------------------------------------------------


@given(width=st.floats(0, 6), blur=st.floats(0.7, 5), seed=st.integers(0, 50))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_blurring_lowers_sharpness_in_every_cell(width: float, blur: float, seed: int):
    image = texture(width, seed=seed)
    blurred = ndimage.gaussian_filter(image, blur, mode="wrap")
    whole = np.ones(image.shape, dtype=bool)
    assert pooled_sharpness(blurred, whole, 64) < pooled_sharpness(image, whole, 64)
    if blur > width:
        assert (sharpness(blurred, 64) < sharpness(image, 64)).all()


@given(gain=st.floats(0.01, 300), offset=st.floats(0, 1000))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_brightness_and_contrast_do_not_change_sharpness(gain: float, offset: float):
    image = texture(2.0).astype(np.float64)
    changed = (gain * image + offset * gain).astype(np.float32)
    np.testing.assert_allclose(sharpness(changed, 64), sharpness(image, 64), rtol=1e-3)


def test_a_turned_or_mirrored_image_is_as_sharp():
    image = texture(1.5)
    np.testing.assert_allclose(sharpness(np.rot90(image), 64), np.rot90(sharpness(image, 64)), rtol=1e-4)
    np.testing.assert_allclose(sharpness(image[::-1], 64), sharpness(image, 64)[::-1], rtol=1e-4)


def test_noise_has_sharpness_one():
    assert sharpness(texture(0), 64).mean() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("width", [1.5, 2.0, 3.0, 4.0])
def test_the_width_of_a_blur_is_found(width: float):
    whole = np.ones((512, 512), dtype=bool)
    found = detail_px(pooled_sharpness(texture(width, 512), whole, 64))
    assert found == pytest.approx(width, rel=0.12)


def test_camera_noise_does_not_make_a_blurred_image_look_sharp():
    noise = np.random.default_rng(1).normal(0, 4, (256, 256)).astype(np.float32)
    whole = np.ones((256, 256), dtype=bool)
    sharp, blurred = (pooled_sharpness(texture(width) + noise, whole, 64) for width in (2.0, 5.0))
    assert blurred < 0.6 * sharp


def test_cells_without_structure_have_no_sharpness_and_do_not_count():
    image = texture(2.0)
    image[:, :128] = 7
    found = sharpness(image, 64)
    assert np.isnan(found[:, :2]).all()
    assert np.isfinite(found[:, 2:]).all()
    whole = np.ones(image.shape, dtype=bool)
    alone = pooled_sharpness(image[:, 128:], whole[:, 128:], 64)
    assert pooled_sharpness(image, whole, 64) == pytest.approx(alone)
    assert np.isnan(pooled_sharpness(image[:, :128], whole[:, :128], 64))


def test_only_cells_that_lie_wholly_inside_count():
    image = texture(4.0)
    image[:100] = texture(0)[:100]
    inside = np.zeros(image.shape, dtype=bool)
    inside[120:] = True
    alone = pooled_sharpness(image[128:], inside[128:], 64)
    assert pooled_sharpness(image, inside, 64) == alone
    assert np.isnan(pooled_sharpness(image, np.zeros_like(inside), 64))


@pytest.mark.parametrize(("shape", "cells"), [((130, 200), (2, 3)), ((63, 200), (0, 3)), ((64, 64), (1, 1))])
def test_there_is_a_value_for_every_whole_cell(shape: tuple[int, int], cells: tuple[int, int]):
    assert sharpness(np.zeros(shape, dtype=np.float32), 64).shape == cells


# -- clipping, contrast, edge ------------------------------------------------------------------------------------------


@given(dark=st.integers(0, 300), bright=st.integers(0, 300), end=st.sampled_from(FULL_SCALES[:4]))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_the_clipped_share_is_the_planted_one(dark: int, bright: int, end: int):
    values = np.concatenate([np.zeros(dark, int), np.full(bright, end), np.full(400, end // 2)])
    counts = np.bincount(values, minlength=65536)[None]
    low, high = clipped(counts, end)
    assert low[0] == pytest.approx(dark / len(values))
    assert high[0] == pytest.approx(bright / len(values))


def test_without_pixels_nothing_is_clipped():
    low, high = clipped(np.zeros((2, 256), dtype=np.int64), 255)
    assert low.tolist() == high.tolist() == [0, 0]


@given(st.integers(0, 65535))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_a_cameras_range_holds_what_it_gave(largest: int):
    assert full_scale(largest) >= largest
    assert full_scale(full_scale(largest)) == full_scale(largest)


def test_contrast_changes_its_sign_with_the_polarity():
    assert contrast(20, 200) == -contrast(200, 20) > 0


def test_tissue_and_slide_are_as_far_apart_as_planted_whatever_the_scale():
    rng = np.random.default_rng(0)
    slide, tissue = rng.normal(0, 2, 5000), rng.normal(9, 4, 5000)
    assert separation(tissue, slide) == pytest.approx(3, rel=0.05)
    assert separation(7 * slide - 3, 7 * tissue - 3) == pytest.approx(separation(tissue, slide))
    assert separation(slide, slide) == separation(slide[:0], slide) == separation(slide, slide[:0]) == 0
    assert separation(np.zeros(3), np.ones(3)) == pytest.approx(1000)


def test_the_share_of_the_edge():
    mask = np.zeros((10, 10), dtype=bool)
    mask[2:8, 2:8] = True
    assert edge_share(mask) == 0
    mask[0] = True
    assert edge_share(mask) == pytest.approx(12 / 40)
    assert edge_share(np.ones((3, 4), dtype=bool)) == 1


# -- standing out ------------------------------------------------------------------------------------------------------


def test_the_robust_z_score_is_scipys():
    values = np.random.default_rng(0).normal(5, 3, 101)
    spread = stats.median_abs_deviation(values, scale="normal")
    np.testing.assert_allclose(robust_z(values), (values - np.median(values)) / spread, rtol=1e-6)


def test_among_equals_all_others_stand_out():
    assert robust_z(np.array([2.0, 2, 2, 2, 1, 9])).tolist() == [0, 0, 0, 0, -np.inf, np.inf]
    assert robust_z(np.full(4, 3.0)).tolist() == [0] * 4


@pytest.mark.parametrize("slope", [0.0, 1.0, -3.5])
def test_a_straight_series_is_expected_to_its_ends(slope: float):
    values = 40 + slope * np.arange(12.0)
    np.testing.assert_allclose(expected_from_neighbours(values), values)


def test_what_departs_from_a_straight_series_is_expected_on_it():
    values = 40 + 2 * np.arange(12.0)
    for place in range(12):
        planted = values.copy()
        planted[place] += 100
        expected = expected_from_neighbours(planted)
        assert planted[place] - expected[place] == pytest.approx(100, abs=12)
        others = np.arange(12) != place
        assert np.abs(planted - expected)[others].max() < 8


@pytest.mark.parametrize("count", [0, 1, 2])
def test_short_series_expect_what_they_have(count: int):
    values = np.arange(float(count))
    assert expected_from_neighbours(values).shape == values.shape
    assert np.isfinite(expected_from_neighbours(values)).all()


def test_the_expected_value_lies_between_scipys_line_and_the_median():
    """Theil and Sen's line through up to four neighbours on either side, by scipy."""
    values = np.random.default_rng(3).gamma(2, 10, 23)
    for index, found in enumerate(expected_from_neighbours(values)):
        place = np.array([at for at in range(index - 4, index + 5) if at != index and 0 <= at < len(values)])
        _, line, *_ = stats.theilslopes(values[place], place - index, method="joint")
        middle = np.median(values[place])
        assert found == pytest.approx(np.clip(values[index], min(line, middle), max(line, middle)))


# -- sharpness and roughness, by hand ----------------------------------------------------------------------------------


def test_sharpness_is_gearys_ratio_of_two_by_two_means():
    grey = np.random.default_rng(0).gamma(2, 10, (17, 26)).astype(np.float32)
    found_rough, found_spread = roughness(grey, 8)
    assert found_rough.shape == (2, 3)
    for row, column in np.ndindex(2, 3):
        cell = grey[8 * row : 8 * row + 8, 8 * column : 8 * column + 8].astype(np.float64)
        small = cell.reshape(4, 2, 4, 2).mean(axis=(1, 3))
        down = np.mean([(small[y + 1, x] - small[y, x]) ** 2 for y in range(3) for x in range(4)])
        across = np.mean([(small[y, x + 1] - small[y, x]) ** 2 for y in range(4) for x in range(3)])
        assert found_spread[row, column] == pytest.approx(small.var())
        assert found_rough[row, column] == pytest.approx((down / 2 + across / 2) / 2)
        assert sharpness(grey, 8)[row, column] == pytest.approx((down + across) / 4 / small.var(), rel=1e-5)


@pytest.mark.parametrize(("relative", "flat"), [(0.9e-9, True), (1.2e-9, False)])
def test_what_varies_by_less_than_a_rounding_error_is_flat(relative: float, flat: bool):
    level = 1000.0
    waves = np.sqrt(relative) * level * np.sign((np.indices((8, 8)) // 2).sum(axis=0) % 2 - 0.5)
    rough, spread = roughness((level + waves).astype(np.float64), 8)
    assert (spread == 0).all() == (rough == 0).all() == flat


def test_the_width_of_a_blur_is_bounded_at_both_ends():
    assert detail_px(1.0) == detail_px(0.99) == pytest.approx(2 * np.sqrt(0.25 / -np.log(0.01)))
    assert detail_px(0.0) == detail_px(1e-6) == pytest.approx(1000, rel=1e-3)


def test_the_distance_of_samples_is_in_the_mean_of_their_spreads():
    tissue, slide = np.array([0.0, 1, 2, 3, 4]), np.array([10.0, 10, 14, 16, 22])
    # medians 2 and 14, median absolute deviations 1 and 4
    assert separation(tissue, slide) == pytest.approx(12 / (1.4826 * 2.5))


@pytest.mark.parametrize("turns", range(4))
def test_every_edge_of_a_mask_counts_and_nothing_beside_it(turns: int):
    mask = np.zeros((5, 5), dtype=bool)
    mask[-1, 1:4] = True
    assert edge_share(np.rot90(mask, turns)) == 3 / 20
    inner = np.zeros((5, 5), dtype=bool)
    inner[1:4, 1:4] = True
    assert edge_share(inner) == 0
    assert edge_share(np.zeros((0, 4), dtype=bool)) == 0


def test_values_that_differ_little_have_scores_all_the_same():
    values = np.array([0.1, 0.2, 0.3, 0.4, 0.9])
    spread = stats.median_abs_deviation(values, scale="normal")
    np.testing.assert_allclose(robust_z(values), (values - 0.3) / spread)


def test_nothing_has_no_contrast():
    assert contrast(0.0, 0.0) == 0.0


def test_of_three_values_each_is_expected_from_the_other_two():
    """On the line through them, on their median, or between."""
    np.testing.assert_allclose(expected_from_neighbours(np.array([1.0, 1.0, 9.0])), [1.0, 5.0, 1.0])
    np.testing.assert_allclose(expected_from_neighbours(np.array([0.0, 7.0, 2.0])), [4.5, 1.0, 3.5])
