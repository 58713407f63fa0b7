"""Total variation taken out of images, as scikit-image does it."""

import numpy as np
import pytest
from scipy import ndimage
from skimage.restoration import denoise_tv_chambolle

from cytoarch.variation import ITERATIONS, denoised


@pytest.mark.parametrize("weight", [0.02, 0.15, 2.0])
@pytest.mark.parametrize("shape", [(57, 83), (1, 40), (40, 1)])
def test_the_numbers_are_those_of_scikit_image(weight: float, shape: tuple[int, int]):
    image = ndimage.gaussian_filter(np.random.default_rng(0).random(shape), 1).astype(np.float32)
    expected = denoise_tv_chambolle(image, weight=weight, eps=0, max_num_iter=ITERATIONS)
    np.testing.assert_allclose(denoised(image, weight), expected, atol=2e-6)


def test_more_iterations_leave_the_map_as_it_is():
    """Eight classes in smooth regions under noise: a map of ten times as many iterations, away from ties."""
    rng = np.random.default_rng(3)
    logits = 4 * ndimage.gaussian_filter(rng.normal(0, 20, (8, 128, 128)), (0, 12, 12)) + rng.normal(
        0, 0.7, (8, 128, 128)
    )
    shares = (np.exp(logits) / np.exp(logits).sum(axis=0)).astype(np.float32)
    ours = np.stack([denoised(one, 0.15) for one in shares])
    far = denoise_tv_chambolle(shares, weight=0.15, eps=0, max_num_iter=10 * ITERATIONS, channel_axis=0)
    best = np.partition(far, -2, axis=0)[-2:]
    ahead = best[1] - best[0] > 0.01
    assert ahead.mean() > 0.9
    assert (ours.argmax(axis=0) == far.argmax(axis=0))[ahead].mean() > 0.999


@pytest.mark.parametrize("width", [1, 2, 4])
def test_a_strip_loses_twice_the_weight_over_its_width(width: int):
    image = np.zeros((60, 40), dtype=np.float32)
    image[:, 20 : 20 + width] = 0.6
    height = np.ptp(denoised(image, 0.05)[30])
    # what it loses is spread over all that lies beside it
    assert height == pytest.approx(0.6 - 2 * 0.05 / width - 2 * 0.05 / (40 - width), abs=0.01)


def test_the_image_is_left_as_it_was():
    image = np.random.default_rng(1).random((9, 9)).astype(np.float32)
    before = image.copy()
    denoised(image, 0.5)
    np.testing.assert_array_equal(image, before)
