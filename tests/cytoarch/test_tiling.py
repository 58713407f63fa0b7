"""Laws of tile plans, windows and blending."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from cytoarch.images.views import mirrored
from cytoarch.tiling import TilePlan, blending_window, map_tiles, partition

Array = NDArray[np.float32]
Read = Callable[[int, int, int, int], Array]

KINDS = ("radial", "gauss", "hann")


def put_together(plan: TilePlan, window: Array, read: Read, compute: Callable[[Array], Array], channels: int, **more):
    """The whole map, after checking that the bands follow each other without gap or overlap."""
    bands, due = [], 0
    for row, band in map_tiles(compute, read, plan, window, channels, **more):
        assert row == due
        assert band.dtype == np.float32
        assert band.shape[0] == channels
        assert band.shape[2] == plan.grid[1]
        due += band.shape[1]
        bands.append(band.copy())
    assert due == plan.grid[0]
    return np.concatenate(bands, axis=1)


def blended_by_hand(plan: TilePlan, window: Array, tile_at: Callable[[int, int], Array], channels: int):
    """The definition, cell by cell in float64: sum of weight x value over sum of weights, and the sum of weights."""
    total = np.zeros((channels, *plan.grid))
    weights = np.zeros(plan.grid)
    n = plan.tile_px // plan.cell_px
    for y in plan.rows:
        for x in plan.columns:
            tile = tile_at(y, x)
            for i in range(n):
                for j in range(n):
                    row, column = y // plan.cell_px + i, x // plan.cell_px + j
                    if 0 <= row < plan.grid[0] and 0 <= column < plan.grid[1]:
                        total[:, row, column] += float(window[i, j]) * tile[:, i, j].astype(np.float64)
                        weights[row, column] += float(window[i, j])
    return total / weights, weights


def mirror_reader(image: Array) -> Read:
    """Windows of an image (c, y, x) that may reach beyond it."""

    def read(y: int, x: int, height: int, width: int) -> Array:
        rows = mirrored(np.arange(y, y + height), image.shape[1])
        columns = mirrored(np.arange(x, x + width), image.shape[2])
        return image[:, rows][:, :, columns]

    return read


def same(tiles: Array) -> Array:
    return tiles


@st.composite
def plans(draw: st.DrawFn) -> TilePlan:
    cell = draw(st.integers(1, 4))
    tile = draw(st.integers(1, 6))
    return TilePlan(
        height=draw(st.integers(1, 40)),
        width=draw(st.integers(1, 40)),
        tile_px=tile * cell,
        step_px=draw(st.integers(1, tile)) * cell,
        margin_px=draw(st.integers(0, 8)) * cell,
        cell_px=cell,
    )


@given(plan=plans(), kind=st.sampled_from(KINDS), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_blending_is_the_weighted_mean_of_the_tiles_cell_by_cell(plan: TilePlan, kind: str, seed: int):
    n = plan.tile_px // plan.cell_px
    window = blending_window(kind, plan.tile_px, plan.cell_px)
    tiles = {
        (y, x): np.random.default_rng([seed, i, j]).random((2, n, n), dtype=np.float32)
        for i, y in enumerate(plan.rows)
        for j, x in enumerate(plan.columns)
    }
    order = iter([tiles[y, x] for y in plan.rows for x in plan.columns])
    expected, weights = blended_by_hand(plan, window, lambda y, x: tiles[y, x], 2)

    def compute(batch: Array) -> Array:
        return np.stack([next(order) for _ in batch])

    def read(y: int, x: int, height: int, width: int) -> Array:
        return np.zeros((1, height, width), dtype=np.float32)

    result = put_together(plan, window, read, compute, 2, batch_size=3)
    assert (weights > 0).all()
    np.testing.assert_allclose(result, expected, rtol=2e-5, atol=2e-6)


@given(plan=plans(), kind=st.sampled_from(KINDS))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_every_cell_lies_in_a_tile_and_the_weights_are_a_partition_of_unity(plan: TilePlan, kind: str):
    window = blending_window(kind, plan.tile_px, plan.cell_px)
    n = plan.tile_px // plan.cell_px
    assert plan.rows[0] == plan.columns[0] == -plan.margin_px
    assert plan.rows[-1] + plan.tile_px >= plan.grid[0] * plan.cell_px + plan.margin_px
    assert plan.tile_count == len(plan.rows) * len(plan.columns)

    def ones(batch: Array) -> Array:
        return np.ones((len(batch), 1, n, n), dtype=np.float32)

    def read(y: int, x: int, height: int, width: int) -> Array:
        return np.zeros((1, height, width), dtype=np.float32)

    np.testing.assert_allclose(put_together(plan, window, read, ones, 1), 1, atol=1e-6)


@given(plan=plans(), kind=st.sampled_from(KINDS), batch=st.integers(1, 5))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_tiles_cut_from_a_fixed_field_reproduce_it(plan: TilePlan, kind: str, batch: int):
    margin = plan.margin_px // plan.cell_px
    n = plan.tile_px // plan.cell_px
    size = [len(starts) * plan.step_px // plan.cell_px + n for starts in (plan.rows, plan.columns)]
    field = np.random.default_rng(1).random((3, *size), dtype=np.float32)

    def read(y: int, x: int, height: int, width: int) -> Array:
        row, column = y // plan.cell_px + margin, x // plan.cell_px + margin
        return field[:, row : row + n, column : column + n]

    window = blending_window(kind, plan.tile_px, plan.cell_px)
    result = put_together(plan, window, read, same, 3, batch_size=batch)
    expected = field[:, margin : margin + plan.grid[0], margin : margin + plan.grid[1]]
    np.testing.assert_allclose(result, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_stays_that_constant(kind: str):
    plan = TilePlan(300, 417, 128, 64, 32, 4)

    def constant(batch: Array) -> Array:
        return np.full((len(batch), 1, 32, 32), 0.7, dtype=np.float32)

    read = mirror_reader(np.zeros((1, 300, 417), dtype=np.float32))
    result = put_together(plan, blending_window(kind, 128, 4), read, constant, 1)
    np.testing.assert_allclose(result, 0.7, rtol=1e-6)


def test_a_single_tile_gives_what_computing_it_directly_gives():
    image = np.random.default_rng(2).random((2, 30, 22), dtype=np.float32)
    plan = TilePlan(30, 22, 32, 16, 0, 1)
    assert plan.tile_count == 1
    result = put_together(plan, blending_window("radial", 32), mirror_reader(image), np.sqrt, 2)
    np.testing.assert_allclose(result, np.sqrt(image), rtol=1e-6)


def test_blended_probabilities_stay_in_the_simplex():
    rng = np.random.default_rng(3)
    plan = TilePlan(70, 90, 32, 16, 8, 2)

    def softmaxed(batch: Array) -> Array:
        powers = np.exp(rng.normal(0, 3, (len(batch), 5, 16, 16)))
        return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)

    read = mirror_reader(np.zeros((1, 70, 90), dtype=np.float32))
    result = put_together(plan, blending_window("radial", 32, 2), read, softmaxed, 5)
    assert result.min() >= 0
    np.testing.assert_allclose(result.sum(axis=0), 1, atol=1e-5)


def seam_ratio(kind: str | None) -> float:
    """Mean |gradient| at tile edges over that elsewhere, for tiles that disagree by a random multiple of r^2."""
    tile, step = 128, 64
    plan = TilePlan(300, 417, tile, step, tile // 4, 1)
    at = np.arange(tile) + 0.5 - tile / 2
    r2 = ((at[:, None] ** 2 + at[None] ** 2) / (tile / 2) ** 2).astype(np.float32)

    def read(y: int, x: int, height: int, width: int) -> Array:
        multiple = np.random.default_rng([7, y + tile, x + tile]).uniform(-1, 1)
        return np.full((1, height, width), multiple, dtype=np.float32)

    window = np.ones((tile, tile), dtype=np.float32) if kind is None else blending_window(kind, tile)
    result = put_together(plan, window, read, lambda tiles: tiles * r2, 1)[0]
    across = np.abs(np.diff(result, axis=1)).mean(axis=0)
    edges = [x - 1 for x in plan.columns if 0 < x < plan.width]
    edges += [x + tile - 1 for x in plan.columns if 0 < x + tile < plan.width]
    at_edges = np.isin(np.arange(len(across)), edges)
    return float(across[at_edges].mean() / across[~at_edges].mean())


@pytest.mark.parametrize("kind", KINDS)
def test_windows_that_fade_leave_no_seams(kind: str):
    assert seam_ratio(kind) <= 1


def test_uniform_weights_leave_seams_far_above_the_rest():
    assert seam_ratio(None) > 20


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("tile", "cell"), [(128, 1), (512, 4), (64, 16)])
def test_windows_are_symmetric_positive_and_largest_at_the_centre(kind: str, tile: int, cell: int):
    window = blending_window(kind, tile, cell)
    assert window.shape == (tile // cell, tile // cell)
    assert window.dtype == np.float32
    assert window.min() > 0
    np.testing.assert_array_equal(window, window.T)
    np.testing.assert_allclose(window, window[::-1], rtol=1e-5)
    middle = window.shape[0] // 2
    assert window[middle, middle] == window.max()


def test_the_radial_window_has_all_but_vanished_on_the_inscribed_circle():
    tile = 256
    window = blending_window("radial", tile)
    at = np.arange(tile) + 0.5 - tile / 2
    radius = np.hypot(at[:, None], at[None])
    assert window[radius >= tile / 2].max() <= 1e-6
    assert window[radius >= tile / 2].min() > 0
    order = np.argsort(radius.ravel())
    assert (np.diff(window.ravel()[order]) <= 1e-6).all()
    np.testing.assert_allclose(window[tile // 2, tile // 2 + tile // 4], 0.5, atol=0.02)


@pytest.mark.parametrize(("height", "width"), [(37, 53), (64, 64), (5, 90), (1, 1)])
def test_a_local_filter_gives_the_same_tiled_with_cores_as_untiled(height: int, width: int):
    halo, tile = 3, 20
    kernel = np.random.default_rng(5).random((2 * halo + 1, 2 * halo + 1), dtype=np.float32)
    image = np.random.default_rng(4).random((1, height, width), dtype=np.float32)

    def filtered(tiles: Array) -> Array:
        return np.stack([ndimage.correlate(tile[0], kernel, mode="nearest")[None] for tile in tiles])

    plan = TilePlan(height, width, tile, tile - 2 * halo, halo, 1)
    result = put_together(plan, blending_window("core", tile, 1, halo), mirror_reader(image), filtered, 1, batch_size=2)
    np.testing.assert_array_equal(result[0], ndimage.correlate(image[0], kernel, mode="mirror"))


def test_the_core_window_is_one_inside_the_halo_and_zero_in_it():
    window = blending_window("core", 40, 4, 8)
    expected = np.zeros((10, 10))
    expected[2:8, 2:8] = 1
    np.testing.assert_array_equal(window, expected)


def test_skipped_tiles_count_as_empty_and_are_never_read():
    plan = TilePlan(48, 48, 16, 8, 4, 2)
    window = blending_window("radial", 16, 2)
    empty = np.array([0.25, 0.75], dtype=np.float32)
    seen = []

    def skip(y: int, x: int, height: int, width: int) -> bool:
        assert (height, width) == (16, 16)
        return (y // 8 + x // 8) % 3 == 0

    def read(y: int, x: int, height: int, width: int) -> Array:
        seen.append((y, x))
        return np.random.default_rng([y + 16, x + 16]).random((2, 8, 8), dtype=np.float32)

    result = put_together(plan, window, read, same, 2, skip=skip, empty=empty, batch_size=2)
    assert sorted(seen) == [(y, x) for y in plan.rows for x in plan.columns if not skip(y, x, 16, 16)]

    def tile_at(y: int, x: int) -> Array:
        if skip(y, x, 16, 16):
            return np.broadcast_to(empty[:, None, None], (2, 8, 8))
        return np.random.default_rng([y + 16, x + 16]).random((2, 8, 8), dtype=np.float32)

    np.testing.assert_allclose(result, blended_by_hand(plan, window, tile_at, 2)[0], rtol=1e-4, atol=1e-6)


def test_where_all_tiles_are_skipped_the_map_is_empty():
    plan = TilePlan(20, 30, 8, 4, 0, 1)

    def refuse(*_: object) -> Array:
        raise AssertionError("nothing is to be read or computed")

    result = put_together(plan, blending_window("hann", 8), refuse, refuse, 3, skip=lambda *_: True)
    np.testing.assert_array_equal(result, 0)


@given(plan=plans(), batch=st.integers(2, 9))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_the_batch_size_changes_nothing(plan: TilePlan, batch: int):
    window = blending_window("radial", plan.tile_px, 1)
    whole = TilePlan(plan.height, plan.width, plan.tile_px, plan.step_px, plan.margin_px, 1)
    read = mirror_reader(np.random.default_rng(8).random((1, plan.height, plan.width), dtype=np.float32))
    one = put_together(whole, window, read, np.square, 1)
    several = put_together(whole, window, read, np.square, 1, batch_size=batch)
    np.testing.assert_array_equal(one, several)


@given(plan=plans(), kind=st.sampled_from(KINDS), edge=st.integers(1, 30))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_strips_side_by_side_are_the_whole_to_the_bit(plan: TilePlan, kind: str, edge: int):
    whole = TilePlan(plan.height, plan.width, plan.tile_px, plan.step_px, plan.margin_px, 1)
    window = blending_window(kind, plan.tile_px)
    read = mirror_reader(np.random.default_rng(5).random((1, plan.height, plan.width), dtype=np.float32))
    seen = []
    parts = [
        np.concatenate([band for _, band in map_tiles(np.square, read, whole, window, 1, strip=(x, x + w))], axis=1)
        for _, x, _, w in partition(1, plan.width, edge)
    ]
    np.testing.assert_array_equal(np.concatenate(parts, axis=2), put_together(whole, window, read, np.square, 1))
    strip = (0, min(edge, plan.width))
    list(map_tiles(np.square, read, whole, window, 1, strip=strip, on_progress=lambda *at: seen.append(at)))
    columns = whole.columns_over(*strip)
    assert seen[-1] == (len(whole.rows) * len(columns),) * 2


@given(plan=plans(), kind=st.sampled_from(KINDS), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_the_order_in_which_tiles_are_added_changes_nothing_to_speak_of(plan: TilePlan, kind: str, seed: int):
    """Turned by half a circle, an image is blended from its last tile to its first."""
    even = TilePlan(plan.step_px * 3 + plan.tile_px, plan.step_px * 4 + plan.tile_px, plan.tile_px, plan.step_px, 0, 1)
    image = np.random.default_rng(seed).random((1, even.height, even.width), dtype=np.float32)
    window = blending_window(kind, plan.tile_px)
    one = put_together(even, window, mirror_reader(image), np.square, 1)
    turned = put_together(even, window, mirror_reader(np.ascontiguousarray(image[:, ::-1, ::-1])), np.square, 1)
    np.testing.assert_allclose(turned[:, ::-1, ::-1], one, rtol=1e-6, atol=1e-6)


def test_progress_counts_every_tile_up_to_all_of_them():
    plan = TilePlan(40, 40, 16, 8, 8, 1)
    seen = []
    read = mirror_reader(np.zeros((1, 40, 40), dtype=np.float32))
    put_together(plan, blending_window("hann", 16), read, same, 1, on_progress=lambda *at: seen.append(at))
    assert seen == [(i + 1, plan.tile_count) for i in range(plan.tile_count)]


def test_no_more_than_a_band_of_tile_rows_is_held_in_memory():
    plan = TilePlan(400, 40, 16, 8, 8, 1)
    read = mirror_reader(np.zeros((1, 400, 40), dtype=np.float32))
    for _, band in map_tiles(same, read, plan, blending_window("hann", 16), 1):
        assert band.shape[1] <= 16


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (1, 2, 8, 7), (2, 2, 8, 8), (1, 2, 1, 1)])
def test_a_result_of_another_shape_is_refused(shape: tuple[int, ...]):
    plan = TilePlan(8, 8, 8, 8, 0, 1)
    read = mirror_reader(np.zeros((1, 8, 8), dtype=np.float32))
    with pytest.raises(ValueError, match=r"is needed"):
        list(map_tiles(lambda _: np.zeros(shape, np.float32), read, plan, blending_window("hann", 8), 2))


def test_cells_that_no_core_covers_are_refused():
    plan = TilePlan(64, 64, 16, 16, 0, 1)
    read = mirror_reader(np.zeros((1, 64, 64), dtype=np.float32))
    with pytest.raises(ValueError, match="without weight"):
        list(map_tiles(same, read, plan, blending_window("core", 16, 1, 4), 1))


@pytest.mark.parametrize(
    "wrong",
    [
        {"height": 0},
        {"tile_px": 30},
        {"step_px": 3},
        {"margin_px": 6},
        {"step_px": 0},
        {"step_px": 36},
        {"cell_px": 0},
    ],
)
def test_impossible_plans_are_refused(wrong: dict[str, int]):
    sizes = {"height": 50, "width": 60, "tile_px": 32, "step_px": 16, "margin_px": 8, "cell_px": 4}
    with pytest.raises(ValueError, match=r"no tiles|no multiple|must lie"):
        TilePlan(**(sizes | wrong))


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 25))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_a_partition_covers_every_pixel_once(height: int, width: int, edge: int):
    covered = np.zeros((height, width), dtype=int)
    places = list(partition(height, width, edge))
    for y, x, h, w in places:
        assert 0 < h <= edge
        assert 0 < w <= edge
        covered[y : y + h, x : x + w] += 1
    assert (covered == 1).all()
    assert places == sorted(places)
