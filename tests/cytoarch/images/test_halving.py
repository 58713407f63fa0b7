"""Halving: means and modes of 2 x 2 pixels, whatever the size, type and order in memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from known_pyramids import Array, noise
from skimage.transform import downscale_local_mean

from cytoarch.images import halving
from cytoarch.images.halving import halve_mean, halve_mode

even = st.tuples(st.integers(1, 3), st.integers(1, 6).map(lambda n: 2 * n), st.integers(1, 6).map(lambda n: 2 * n))
anysize = st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12))
integers = st.sampled_from(["uint8", "uint16"])
quick = settings(max_examples=100, deadline=None, derandomize=True)


@quick
@given(block=integers.flatmap(lambda dtype: st_numpy.arrays(dtype, even)))
def test_the_mean_of_whole_blocks_is_that_of_scikit_image_rounded_to_nearest(block: Array) -> None:
    expected = np.floor(downscale_local_mean(block.astype(np.float64), (1, 2, 2)) + 0.5)
    np.testing.assert_array_equal(halve_mean(block), expected.astype(block.dtype))
    assert halve_mean(block).dtype == block.dtype


def test_the_mean_of_floats_is_that_of_scikit_image() -> None:
    for dtype, tolerance in (("float32", 1e-6), ("float16", 2e-3)):
        block = noise(2, 10, 12, dtype=dtype)
        expected = downscale_local_mean(block.astype(np.float64), (1, 2, 2))
        np.testing.assert_allclose(halve_mean(block), expected, atol=tolerance)
        assert halve_mean(block).dtype == block.dtype


@quick
@given(block=integers.flatmap(lambda dtype: st_numpy.arrays(dtype, anysize)))
def test_halving_loses_no_row_or_column_and_stays_within_the_range_of_the_values(block: Array) -> None:
    for halve in (halve_mean, halve_mode):
        half = halve(block)
        assert half.shape == (block.shape[0], -(-block.shape[1] // 2), -(-block.shape[2] // 2))
        assert block.min() <= half.min() <= half.max() <= block.max()
        np.testing.assert_array_equal(
            half[:, -1, -1], halve(block[:, block.shape[1] - 1 & ~1 :, block.shape[2] - 1 & ~1 :])[:, 0, 0]
        )


@quick
@given(block=st_numpy.arrays("uint8", anysize, elements=st.integers(0, 3)))
def test_the_mode_is_a_most_frequent_value_of_its_four_pixels_and_ties_go_to_the_first(block: Array) -> None:
    half = halve_mode(block)
    padded = np.pad(block, [(0, 0), (0, block.shape[1] % 2), (0, block.shape[2] % 2)], mode="edge")
    for (c, y, x), value in np.ndenumerate(half):
        four = padded[c, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].ravel().tolist()
        assert value == max(four, key=four.count)


@quick
@given(block=st_numpy.arrays("uint16", anysize, elements=st.integers(0, 5)), seed=st.integers(0, 99))
def test_relabelling_permutes_the_mode(block: Array, seed: int) -> None:
    table = np.random.default_rng(seed).permutation(6).astype(np.uint16)
    np.testing.assert_array_equal(halve_mode(table[block]), table[halve_mode(block)])


def test_a_constant_image_stays_constant() -> None:
    for value in (0, 1, 254, 255):
        block = np.full((1, 7, 9), value, dtype=np.uint8)
        assert (halve_mean(block) == value).all()
        assert (halve_mode(block) == value).all()


def test_the_mean_does_not_overflow() -> None:
    assert halve_mean(np.full((4, 4), 65535, dtype=np.uint16)).tolist() == [[65535] * 2] * 2


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (7, 9), (2, 3, 5), (2, 2, 3, 4)])
def test_the_mean_of_extreme_integers_is_that_of_wide_ones(dtype: str, shape: tuple[int, ...]) -> None:
    most = int(np.iinfo(dtype).max)
    rng = np.random.default_rng(8)
    for values in ([0, most], [most - 1, most], [most], [0, 1, 2, 3], [0, 1, most // 2, most // 2 + 1, most - 1, most]):
        block = rng.choice(np.array(values, dtype=dtype), shape)
        np.testing.assert_array_equal(halve_mean(block), plainly_halved(block))
        assert halve_mean(block).dtype == block.dtype


def plainly_halved(block: Array) -> Array:
    """The mean of four, a half rounded up, in numbers that hold sums of four exactly; edges count twice."""
    odd = [(0, 0)] * (block.ndim - 2) + [(0, size % 2) for size in block.shape[-2:]]
    wide = np.pad(block, odd, mode="edge").astype(np.float64)
    total = sum(wide[..., i::2, j::2] for i in (0, 1) for j in (0, 1))
    return np.floor(total / 4 + 0.5).astype(block.dtype) if block.dtype.kind == "u" else total / 4


@quick
@given(
    block=st.sampled_from(["uint8", "uint16", "uint32"]).flatmap(lambda dtype: st_numpy.arrays(dtype, anysize)),
    order=st.sampled_from(["as it is", "transposed", "every second", "from the end"]),
)
def test_the_mean_is_that_of_a_plain_reference_whatever_the_size_and_the_order_in_memory(
    block: Array, order: str
) -> None:
    if order == "transposed":
        block = block.transpose(0, 2, 1)
    elif order == "every second":
        block = np.repeat(block, 2, axis=2)[:, :, ::2]
    elif order == "from the end":
        block = block[:, ::-1, ::-1]
    before = block.copy()
    np.testing.assert_array_equal(halve_mean(block), plainly_halved(block))
    np.testing.assert_array_equal(block, before)


@pytest.mark.parametrize("dtype", [">u2", ">u4"])
def test_the_order_of_bytes_does_not_change_the_mean(dtype: str) -> None:
    block = noise(2, 8, 8, dtype=np.dtype(dtype).newbyteorder("=").name)
    np.testing.assert_array_equal(halve_mean(block.astype(dtype)), halve_mean(block))


def test_planes_of_more_than_one_band_are_halved_like_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    block = noise(2, 41, 37, dtype="uint16")
    for band_px in (1, 37, 200, 1 << 18):
        monkeypatch.setattr(halving, "BAND_PX", band_px)
        np.testing.assert_array_equal(halve_mean(block), plainly_halved(block))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 1e-3), ("float32", 1e-6), ("float64", 1e-6)])
@pytest.mark.parametrize("shape", [(1, 1), (7, 9), (2, 5, 8)])
def test_the_mean_of_floats_keeps_their_type_at_any_size(dtype: str, tolerance: float, shape: tuple[int, ...]) -> None:
    block = noise(*shape, dtype=dtype)
    half = halve_mean(block)
    assert half.dtype == block.dtype
    np.testing.assert_allclose(half, plainly_halved(block), rtol=0, atol=tolerance * float(np.abs(block).max()))


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint64", "bool", "complex64"])
def test_what_the_mean_of_four_might_not_fit_into_is_refused(dtype: str) -> None:
    with pytest.raises(TypeError, match=dtype):
        halve_mean(np.zeros((2, 4, 4), dtype=dtype))
