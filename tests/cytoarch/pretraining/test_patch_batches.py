import math

import numpy as np
import pytest
import torch

from cytoarch.augmentation import Augmentation, window_px
from cytoarch.pretraining.augmentation import Draws, changed, linear_of, places_px, taken
from cytoarch.pretraining.patches import PatchBatches, PatchPoints, SectionPixels, cut

PATCH = 32


def single(draws: Draws, index: int, angle: float, mirrored: bool) -> Augmentation:
    """The same draw as the embedding engine takes it."""
    return Augmentation(
        angle=angle,
        shift_px=(float(draws.shift_px[index, 0]), float(draws.shift_px[index, 1])),
        mirrored=mirrored,
        alpha=float(draws.alpha[index]),
        beta=float(draws.beta[index]),
        gamma=float(draws.gamma[index]),
        blur_px=float(draws.blur_px[index]) or None,
        sharpen=(float(draws.sharpen_px[index]), float(draws.strength[index])) if draws.sharpen_px[index] else None,
    )


def smooth_section(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    waves = np.sin(y / 5 + rng.uniform(0, 6)) + np.cos(x / 7 + rng.uniform(0, 6)) + np.sin((x + y) / 3)
    return np.clip(127 + 35 * waves, 0, 255).astype(np.uint8)


def test_a_batch_of_draws_is_what_the_engine_draws_one_by_one() -> None:
    rng = np.random.default_rng(3)
    count, edge = 12, window_px(PATCH, 20.0)
    angle, mirrored = rng.uniform(-math.pi, math.pi, count), np.arange(count) % 2 == 0
    draws = Draws.draw(rng, count, 20.0)
    filters = {"blur_px": np.arange(count) % 3 / 3, "sharpen_px": np.arange(count) % 4 / 4}
    draws = Draws(**{**vars(draws), **filters, "linear": linear_of(angle, mirrored, np.ones(count))})
    windows = np.stack([smooth_section(rng, edge, edge) for _ in range(count)])[:, None]
    middle = np.full((count, 2), edge / 2)
    ours = changed(taken(torch.from_numpy(windows), middle, draws, PATCH), draws).numpy()
    inner = (slice(None), slice(5, -5), slice(5, -5))  # how edges go on differs
    for index in range(count):
        one = single(draws, index, float(angle[index]), bool(mirrored[index]))
        theirs = one.patch(windows[index].astype(np.float32) / 255, (edge / 2, edge / 2), PATCH)
        np.testing.assert_allclose(ours[index][inner], theirs[inner], atol=2e-5)


def test_draws_stay_within_what_is_published() -> None:
    draws = Draws.draw(np.random.default_rng(0), 4000, 2.0)
    assert np.linalg.norm(draws.shift_px, axis=1).max() <= 100
    assert (draws.gamma.min(), draws.gamma.max()) == pytest.approx((0.8152, 1.2267), abs=2e-3)
    assert draws.alpha.min() >= 0.9
    assert np.abs(draws.beta).max() <= 0.1
    assert np.abs(np.linalg.det(draws.linear)) == pytest.approx(1)
    for sigma in (draws.blur_px, draws.sharpen_px):
        assert (sigma > 0).mean() == pytest.approx(0.25, abs=0.03)
    both = ((draws.blur_px > 0) & (draws.sharpen_px > 0)).mean()
    assert both == pytest.approx(0.0625, abs=0.02)  # independent draws


def test_scales_widen_what_a_patch_shows() -> None:
    draws = Draws.draw(np.random.default_rng(0), 500, 2.0, scales=(0.5, 2.0))
    width = np.sqrt(np.abs(np.linalg.det(draws.linear)))
    assert 0.5 <= width.min() < 0.6
    assert 1.8 < width.max() <= 2.0


def test_a_plain_patch_is_the_section_itself() -> None:
    rng = np.random.default_rng(0)
    grey, colour = smooth_section(rng, 90, 70), rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    held = SectionPixels.of([grey, colour], "cpu")
    points = some_points(2, centre=(40.0, 36.0))
    patches = cut(held, points, Draws.plain(2), PATCH).numpy()
    np.testing.assert_allclose(patches[0], np.repeat(grey[None, 24:56, 20:52] / 255, 3, axis=0), atol=1e-5)
    np.testing.assert_allclose(patches[1], np.moveaxis(colour[24:56, 20:52] / 255, 2, 0), atol=1e-5)


def test_places_of_cells_are_where_their_pixels_were_taken() -> None:
    y, x = np.mgrid[:120, :140]
    held = SectionPixels.of([np.stack([y, x], axis=2).astype(np.uint8)], "cpu")
    points = some_points(6, centre=(60.0, 70.0), sections=1)
    draws = Draws.draw(np.random.default_rng(1), 6, 20.0, shift_mm=0.2, scales=(0.7, 1.4))
    patches = cut(held, points, draws, PATCH).numpy() * 255
    every = np.tile(np.arange(PATCH * PATCH), (6, 1))
    where = places_px(points.centre_px, draws, PATCH, PATCH, every).reshape(6, PATCH, PATCH, 2)
    np.testing.assert_allclose(np.moveaxis(patches, 1, -1), where - 0.5, atol=2e-2)  # pixel k has its middle at k + 1/2
    some = np.array([[9, 63]] * 6)  # of 8 x 8 cells
    coarse = places_px(points.centre_px, draws, PATCH, PATCH // 4, some)
    means = where.reshape(6, 8, 4, 8, 4, 2).mean(axis=(2, 4)).reshape(6, 64, 2)
    np.testing.assert_allclose(coarse, means[:, [9, 63]], atol=1e-9)


def test_a_section_goes_on_past_its_edge() -> None:
    section = smooth_section(np.random.default_rng(0), 20, 30)
    window = SectionPixels.of([section], "cpu").windows(np.array([0]), np.array([[-3, 25]]), 8)[0, 0].numpy()
    padded = np.pad(section, 10, mode="edge")
    np.testing.assert_array_equal(window, padded[7:15, 35:43])


def test_halved_sections_are_means_of_four() -> None:
    rng = np.random.default_rng(0)
    sections = [rng.integers(0, 256, (21, 30, 3), dtype=np.uint8), rng.integers(0, 256, (10, 11, 3), dtype=np.uint8)]
    half = SectionPixels.of(sections, "cpu").halved()
    assert half.shape.tolist() == [[10, 15], [5, 5]]
    for index, (height, width) in enumerate(half.shape):
        whole = sections[index][: 2 * height, : 2 * width].astype(float)
        mean = whole.reshape(height, 2, width, 2, 3).mean(axis=(1, 3))
        assert np.abs(half.section(index).numpy() - mean).max() <= 0.5


def some_points(count: int, centre: tuple[float, float] = (30.0, 30.0), sections: int = 2) -> PatchPoints:
    index = np.arange(count)
    positions = np.random.default_rng(5).normal(size=(count, 3))
    return PatchPoints(index % sections, np.tile(centre, (count, 1)), positions, index, index % sections)


def batches(count: int = 10, **more: object) -> PatchBatches:
    rng = np.random.default_rng(0)
    held = SectionPixels.of([smooth_section(rng, 60, 60), smooth_section(rng, 64, 66)], "cpu")
    made: dict = {"pixel_size_um": 20.0, "patch_px": 16, "batch_size": 4, "shift_mm": 0.05, "seed": 7, **more}
    return PatchBatches(held, some_points(count), **made)


def test_a_step_always_gives_the_same_batch() -> None:
    first, again = batches()(5), batches()(5)
    assert torch.equal(first.pixels, again.pixels)
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.pixels, batches()(6).pixels)
    assert not torch.equal(first.pixels, batches(seed=8)(5).pixels)


def test_a_round_shows_no_point_twice() -> None:
    made = batches(12)
    seen = torch.cat([made(step).labels for step in range(3)])
    assert sorted(seen.tolist()) == list(range(12))
    following = torch.cat([made(step).labels for step in range(3, 6)])
    assert sorted(following.tolist()) == list(range(12))
    assert seen.tolist() != following.tolist()


def test_weights_decide_how_often_a_point_is_drawn() -> None:
    weights = np.where(np.arange(10) < 5, 1.0, 0.0)
    made = batches(10, weights=weights)
    labels = torch.cat([made(step).labels for step in range(30)])
    assert set(labels.tolist()) == set(range(5))


def test_dense_cubes_of_a_brain_are_drawn_as_often_as_sparse_ones() -> None:
    position = np.zeros((12, 3))
    position[9:, 0] = 7.0
    position[11, 1] = -0.5  # a cube of its own, and one more in the other brain
    brain = np.arange(12) // 11
    points = PatchPoints(np.zeros(12, np.int64), np.zeros((12, 2)), position, np.zeros(12, np.int64), brain)
    weights = points.balanced(5.0)
    assert weights is not None
    assert [float(weights[part].sum()) for part in (slice(9), slice(9, 11), slice(11, 12))] == pytest.approx([1, 1, 1])
    assert points.balanced(0.0) is None


def test_two_views_show_the_same_points() -> None:
    batch = batches(10, views=2)(0)
    assert batch.pixels.shape == (8, 1, 16, 16)
    assert len(batch.labels) == 4
    assert not torch.equal(batch.pixels[:4], batch.pixels[4:])
    apart = (batch.pixels[:4].mean((1, 2, 3)) - batch.pixels[4:].mean((1, 2, 3))).abs()
    assert float(apart.max()) < 0.3


def test_too_few_points_are_said() -> None:
    with pytest.raises(ValueError, match="needs as many points, there are 3"):
        batches(3)(0)
