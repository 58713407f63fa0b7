"""Augmented draws: the geometry is exact where numpy has an exact answer, the numbers are those published."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from cytoarch.augmentation import SHIFT_MM, Augmentation, window_px

PLAIN = Augmentation(
    angle=0.0, shift_px=(0.0, 0.0), mirrored=False, alpha=1.0, beta=0.0, gamma=1.0, blur_px=None, sharpen=None
)
PATCH = 8
CENTRE = (20.0, 24.0)
WINDOW = np.random.default_rng(0).random((2, 40, 48), dtype=np.float32)
SEEN = WINDOW[:, 16:24, 20:28]


def draws(count: int, size_um: float = 2.0, seed: int = 0) -> list[Augmentation]:
    return [Augmentation.draw(np.random.default_rng([seed, one]), size_um) for one in range(count)]


def taken(augmentation: Augmentation, window: np.ndarray = WINDOW) -> np.ndarray:
    return augmentation.patch(window, CENTRE, PATCH)


def test_a_draw_that_changes_nothing_is_the_patch_itself():
    patch = taken(PLAIN)
    assert patch.shape == (2, PATCH, PATCH)
    assert patch.dtype == np.float32
    np.testing.assert_allclose(patch, SEEN, atol=1e-5)


@pytest.mark.parametrize("quarters", [1, 2, 3])
@pytest.mark.parametrize("mirrored", [False, True])
def test_turns_by_right_angles_and_mirroring_are_those_of_numpy(quarters: int, mirrored: bool):
    patch = taken(replace(PLAIN, angle=quarters * math.pi / 2, mirrored=mirrored))
    turned = np.rot90(SEEN, quarters, axes=(1, 2))
    np.testing.assert_allclose(patch, turned[:, ::-1] if mirrored else turned, atol=1e-4)


def test_mirroring_turns_top_and_bottom():
    np.testing.assert_allclose(taken(replace(PLAIN, mirrored=True)), SEEN[:, ::-1], atol=1e-5)


@pytest.mark.parametrize("shift", [(3, -5), (-2, 7), (0, 1)])
def test_whole_shifts_move_the_patch_down_and_to_the_right(shift):
    y, x = 16 + shift[0], 20 + shift[1]
    found = taken(replace(PLAIN, shift_px=(float(shift[0]), float(shift[1]))))
    np.testing.assert_allclose(found, WINDOW[:, y : y + PATCH, x : x + PATCH], atol=1e-5)


def test_halves_are_interpolated():
    found = taken(replace(PLAIN, shift_px=(0.5, 0.0)))
    np.testing.assert_allclose(found, (WINDOW[:, 16:24, 20:28] + WINDOW[:, 17:25, 20:28]) / 2, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.floats(-math.pi, math.pi), st.floats(-3, 3), st.floats(-3, 3), st.booleans())
def test_a_plane_stays_a_plane_however_it_is_turned_and_moved(angle, down, right, mirrored):
    """Bilinear interpolation is exact on a plane, so every pixel tells where it was taken."""
    y, x = np.mgrid[:40, :48].astype(np.float32)
    places = taken(replace(PLAIN, angle=angle, shift_px=(down, right), mirrored=mirrored), np.stack([y, x]) / 64) * 64
    offset = np.arange(PATCH) + 0.5 - PATCH / 2
    v, u = np.meshgrid(-offset if mirrored else offset, offset, indexing="ij")
    turned = (v + 1j * u) * np.exp(-1j * angle)  # (y, x) as complex numbers; counter-clockwise with y downwards
    np.testing.assert_allclose(places[0] + 0.5, CENTRE[0] + down + turned.real, atol=2e-3)
    np.testing.assert_allclose(places[1] + 0.5, CENTRE[1] + right + turned.imag, atol=2e-3)


def test_grey_values_follow_alpha_beta_and_gamma():
    found = taken(replace(PLAIN, alpha=0.9, beta=0.05, gamma=1.2))
    np.testing.assert_allclose(found, 0.9 * SEEN**1.2 + 0.05, atol=1e-5)


def test_blurring_and_sharpening_are_those_of_scipy_channel_by_channel():
    found = taken(replace(PLAIN, blur_px=0.8, sharpen=(0.5, 1.5)))
    expected = []
    for channel in SEEN:
        blurred = gaussian_filter(channel, 0.8)
        expected.append(np.clip(blurred + 1.5 * (blurred - gaussian_filter(blurred, 0.5)), 0, 1))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_values_stay_between_zero_and_one():
    window = (np.random.default_rng(1).random((1, 40, 48)) > 0.5).astype(np.float32)
    patches = [taken(replace(one, shift_px=(0.0, 0.0)), window) for one in draws(60)]
    assert all(0 <= patch.min() <= patch.max() <= 1 for patch in patches)
    assert any((patch == 0).any() for patch in patches)
    assert all(np.isfinite(patch).all() for patch in patches)


def test_numbers_are_drawn_from_the_published_ranges():
    found = draws(3000, size_um=2.0)
    gammas = np.array([one.gamma for one in found])
    assert 0.8151 < gammas.min() < 0.83
    assert 1.21 < gammas.max() < 1.2268
    for name, low, high in (("alpha", 0.9, 1.0), ("beta", -0.1, 0.1), ("angle", -math.pi, math.pi)):
        values = np.array([getattr(one, name) for one in found])
        width = high - low
        assert low <= values.min() < low + 0.01 * width
        assert high - 0.01 * width < values.max() <= high
    distances = np.hypot(*np.array([one.shift_px for one in found]).T)
    assert 99 < distances.max() <= SHIFT_MM * 1000 / 2.0 == 100
    assert np.mean(distances) == pytest.approx(50, abs=2)
    assert np.mean([one.mirrored for one in found]) == pytest.approx(0.5, abs=0.03)
    blurred, sharpened = (
        np.array([getattr(one, name) is not None for one in found]) for name in ("blur_px", "sharpen")
    )
    assert blurred.mean() == pytest.approx(0.25, abs=0.03)
    assert sharpened.mean() == pytest.approx(0.25, abs=0.03)
    assert (blurred & sharpened).mean() == pytest.approx(0.0625, abs=0.02)
    assert all(0.125 <= one.blur_px <= 1 for one in found if one.blur_px is not None)
    assert all(0.125 <= one.sharpen[0] <= 1 and 0.5 <= one.sharpen[1] <= 1.5 for one in found if one.sharpen)


@given(st.floats(0, 0.05))
def test_opposite_draws_of_gamma_are_inverse_to_each_other(z: float):
    class Fixed:
        """A generator whose draw for gamma is given."""

        def __init__(self, value: float) -> None:
            self.value = value

        def uniform(self, low: float, high: float) -> float:
            return self.value if (low, high) == (-0.05, 0.05) else (low + high) / 2

        def random(self, size: int | None = None):
            return 0.9 if size is None else np.full(size, 0.9)

    one, other = (Augmentation.draw(Fixed(value), 2.0).gamma for value in (z, -z))  # type: ignore[arg-type]
    assert one * other == pytest.approx(1)
    assert 0.8151 < one <= 1 <= other < 1.2268


def test_a_draw_is_decided_by_its_generator():
    assert draws(5) == draws(5)
    assert len({one.angle for one in draws(50)}) == 50


@pytest.mark.parametrize(("patch_px", "size_um"), [(16, 4.0), (64, 25.0), (33, 300.0)])
def test_the_window_holds_every_draw(patch_px: int, size_um: float):
    """Nothing is taken from beyond the window, not even by the worst corner of the farthest patch."""
    edge = window_px(patch_px, size_um)
    around = np.zeros((1, edge + 40, edge + 40), dtype=np.float32)
    around[:, 20:-20, 20:-20] = 1
    reach = SHIFT_MM * 1000 / size_um
    for fraction in (0.0, 0.49, 0.99):
        centre = (20 + edge / 2 + fraction, 20 + edge / 2 - fraction)
        for turn in range(8):
            angle = turn * math.pi / 4
            shift = (reach * math.sin(angle), reach * math.cos(angle))
            for tilt in (math.pi / 4, 0.1):
                patch = replace(PLAIN, angle=angle + tilt, shift_px=shift).patch(around, centre, patch_px)
                assert patch.min() > 0.999
