"""Images written in bands from top to bottom."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from known_pyramids import SHAPE, Array, level, make_shards_small, noise, shards, tree, window

from cytoarch.errors import ScanError
from cytoarch.images import layout
from cytoarch.images.bands import BandTarget, write_bands
from cytoarch.images.layout import Pyramid
from cytoarch.images.pyramids import write_pyramid
from cytoarch.store.staging import Staging


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    make_shards_small(monkeypatch)


def bands_of(pixels: Array, heights: list[int]) -> Iterator[tuple[int, Array]]:
    row = 0
    while row < pixels.shape[1]:
        height = heights[0] if len(heights) == 1 else heights.pop(0)
        yield row, pixels[:, row : row + height]
        row += height


@pytest.mark.parametrize("heights", [[1], [7], [32], [150], [40, 3, 1, 90, 16]])
@pytest.mark.parametrize("dtype", ["float16", "float32", "uint8"])
def test_an_image_written_in_bands_of_any_height_is_the_one_written_in_windows(
    tmp_path: Path, heights: list[int], dtype: str
) -> None:
    pixels = noise(*SHAPE, dtype=dtype)
    layout = Pyramid(SHAPE, pixels.dtype, 2.0, "mean")
    by_window, by_band = (Staging(tmp_path / name).open() for name in ("window", "band"))
    write_pyramid(by_window, layout, window(pixels), name="image", folder="x", own_attributes={"a": 1})
    target = BandTarget("x", "image", layout, slice(None), {"a": 1})
    write_bands(by_band, [target], bands_of(pixels, list(heights)))
    assert tree(by_band.path) == tree(by_window.path)


def test_each_target_takes_its_channels_in_its_own_type(staging: Staging) -> None:
    pixels = noise(5, 100, 90, dtype="float32")
    targets = [
        BandTarget("first", "a", Pyramid((2, 100, 90), np.dtype("float16"), 2.0, "mean"), slice(0, 2), {}),
        BandTarget("rest", "b", Pyramid((3, 100, 90), np.dtype("float32"), 2.0, "mean"), slice(2, 5), {}),
    ]
    write_bands(staging, targets, bands_of(pixels, [9]))
    np.testing.assert_array_equal(level(staging, 0, "first"), pixels[:2].astype(np.float16))
    np.testing.assert_array_equal(level(staging, 0, "rest"), pixels[2:])


def test_targets_with_shards_of_different_sizes_are_all_written_in_whole_shards(
    staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "CHUNK_PX", 64)
    monkeypatch.setattr(layout, "CHUNK_BYTES", 40_000)
    pixels = noise(42, 300, 140, dtype="float32")
    targets = [
        BandTarget("many", "a", Pyramid((40, 300, 140), np.dtype("float32"), 2.0, "mean"), slice(2, 42), {}),
        BandTarget("few", "b", Pyramid((2, 300, 140), np.dtype("float32"), 2.0, "mean"), slice(0, 2), {}),
    ]
    assert targets[0].pyramid.shard_px() != targets[1].pyramid.shard_px()
    write_bands(staging, targets, bands_of(pixels, [50]))
    for target in targets:
        np.testing.assert_array_equal(level(staging, 0, target.folder), pixels[target.channels])
        edge = target.pyramid.shard_px()
        assert len(shards(staging.path / target.folder)) == -(-300 // edge) * -(-140 // edge)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e5])
def test_bands_that_are_not_finite_in_the_type_of_a_target_are_refused(staging: Staging, value: float) -> None:
    pixels = noise(1, 70, 70, dtype="float32")
    pixels[0, 40, 40] = value
    target = BandTarget("x", "image", Pyramid(pixels.shape, np.dtype("float16"), 2.0, "mean"), slice(None), {})
    with pytest.raises(ScanError, match="not finite"):
        write_bands(staging, [target], bands_of(pixels, [20]))


@pytest.mark.parametrize("starts", [[0, 10, 30], [0, 10], [10, 20], [0, 0, 10, 20], []])
def test_bands_that_do_not_cover_every_row_once_in_order_are_refused(staging: Staging, starts: list[int]) -> None:
    pixels = noise(1, 30, 30, dtype="float32")
    target = BandTarget("x", "image", Pyramid(pixels.shape, pixels.dtype, 2.0, "mean"), slice(None), {})
    with pytest.raises(ValueError, match="row"):
        write_bands(staging, [target], ((start, pixels[:, start : start + 10]) for start in starts))
    assert not staging.has("x/zarr.json")
