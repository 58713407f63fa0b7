"""Boundaries of all classes of maps: worked numbers, brute force, and what holds over several images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from cytoarch.measures import class_boundaries
from cytoarch.measures.class_boundaries import ClassBoundaries, MapPair, joined_boundaries

Map = NDArray[np.int64]
Distances = NDArray[np.float64] | None
maps = arrays(np.int64, (11, 14), elements=st.integers(-1, 3))


def paired(truth: Map, drawn: Map) -> MapPair:
    pair = MapPair.blank(*truth.shape)
    pair.put(0, 0, truth, drawn)
    return pair


def worked(mask: NDArray[np.bool_], known: NDArray[np.bool_]) -> Map:
    """The cells (n, 2) of a mask beside a known cell that is not in it."""
    found = [
        (y, x)
        for y, x in np.argwhere(mask).tolist()
        for j, i in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
        if 0 <= j < mask.shape[0] and 0 <= i < mask.shape[1] and known[j, i] and not mask[j, i]
    ]
    return np.unique(np.array(found, dtype=np.int64).reshape(-1, 2), axis=0)


def brute(one: NDArray[np.bool_], other: NDArray[np.bool_], known: NDArray[np.bool_], cell_um: float) -> Distances:
    """From all boundary cells of either mask to the nearest of the other, um; None if one of them has none."""
    edges = [worked(mask, known) for mask in (one, other)]
    if not all(map(len, edges)):
        return None if any(map(len, edges)) or one.any() != other.any() else np.zeros(0)
    far = np.linalg.norm(edges[0][:, None] - edges[1][None], axis=2) * cell_um
    return np.concatenate([far.min(axis=1), far.min(axis=0)])


def square(y: slice, x: slice) -> Map:
    found = np.zeros((64, 64), dtype=np.int64)
    found[y, x] = 1
    return found


def test_a_square_that_grew_on_one_side_at_4_um() -> None:
    truth, drawn = square(slice(12, 52), slice(12, 52)), square(slice(12, 52), slice(12, 56))
    far = paired(truth, drawn).boundaries(4.0)[1]
    assert far.hd95_um == (16.0,)
    assert far.assd_um == pytest.approx((3.900,), abs=5e-4)
    assert far.pooled_hd95_um == pytest.approx(16, rel=0.01)
    assert far.pooled_assd_um == pytest.approx(far.assd_um[0])
    assert far.missing == 0


def test_three_false_islands_at_4_um() -> None:
    """The worked numbers of medpy (pooled) and of the mean of means for islands away from a square."""
    truth = square(slice(12, 52), slice(12, 52))
    drawn = truth.copy()
    for y, x in ((2, 2), (2, 58), (58, 2)):
        drawn[y : y + 3, x : x + 3] = 1
    medpy = pytest.importorskip("medpy.metric.binary", reason="medpy is not installed")
    far = paired(truth, drawn).boundaries(4.0)[1]
    assert far.hd95_um[0] == pytest.approx(medpy.hd95(drawn == 1, truth == 1, voxelspacing=(4.0, 4.0)), abs=1e-3)
    assert far.assd_um[0] == pytest.approx(medpy.assd(drawn == 1, truth == 1, voxelspacing=(4.0, 4.0)), abs=1e-3)


@given(maps, maps)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_every_class_is_compared_where_the_truth_is_known(truth: Map, drawn: Map) -> None:
    found = paired(truth, drawn).boundaries(3.0)
    known = truth >= 0
    present = sorted(set(truth[known]) | set(drawn[known & (drawn >= 0)]))
    assert sorted(found) == present
    for one in present:
        far, own = brute((drawn == one) & known, truth == one, known, 3.0), found[one]
        assert own.missing == int(far is None)
        if far is not None and len(far):
            assert own.hd95_um == pytest.approx((np.percentile(far, 95),))
            assert own.pooled_assd_um == pytest.approx(far.mean())
        else:
            assert own.hd95_um == own.assd_um == ()


@given(st.lists(st.tuples(maps, maps), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_over_several_images_distances_are_pooled(images: list[tuple[Map, Map]]) -> None:
    together = joined_boundaries(paired(*one).boundaries(7.0) for one in images)
    for one, own in together.items():
        each = [brute((drawn == one) & (truth >= 0), truth == one, truth >= 0, 7.0) for truth, drawn in images]
        given_ = [far for far in each if far is not None]
        pooled = np.concatenate([np.zeros(0), *given_])
        assert own.missing == len(each) - len(given_)
        assert len(own.assd_um) == sum(len(far) > 0 for far in given_)
        assert ClassBoundaries.from_facts(own.facts()).missing == own.missing
        if len(pooled):
            assert own.pooled_assd_um == pytest.approx(pooled.mean())
            assert own.pooled_hd95_um == pytest.approx(np.percentile(pooled, 95, method="lower"), rel=0.0101, abs=1)
            assert ClassBoundaries.from_facts(own.facts()).pooled_hd95_um == own.pooled_hd95_um
        else:
            assert np.isnan([own.pooled_hd95_um, own.pooled_assd_um]).all()


def test_the_rim_of_a_labelled_patch_is_no_boundary_that_both_maps_have() -> None:
    """A patch of two classes with one border between them, 10 cells of 10 um off everywhere."""
    truth, drawn = np.full((60, 60), -1), np.zeros((60, 60), dtype=np.int64)
    truth[10:50, 10:50] = 0
    truth[10:50, 30:50] = 1
    drawn[:, 40:] = 1
    found = paired(truth, drawn).boundaries(10.0)
    for one in (0, 1):
        assert found[one].assd_um == found[one].hd95_um == (100.0,)
        assert found[one].pooled_hd95_um == pytest.approx(100, rel=0.01)


def test_a_boundary_that_only_one_map_has_is_counted_as_missing() -> None:
    truth, drawn = np.full((20, 20), -1), np.zeros((20, 20), dtype=np.int64)
    truth[5:15, 5:15] = 0
    drawn[8:10, 8:10] = 1
    found = paired(truth, drawn).boundaries(10.0)
    assert [(one.missing, one.assd_um) for one in found.values()] == [(1, ()), (1, ())]


def test_a_large_map_is_compared_on_every_so_many_th_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_boundaries, "MOST_CELLS", 16 * 16)
    truth, drawn = square(slice(0, 64), slice(0, 32)), square(slice(0, 64), slice(0, 40))
    pair = MapPair.blank(64, 64)
    for y in range(0, 64, 10):  # windows that begin between the cells that are kept
        for x in range(0, 64, 7):
            pair.put(y, x, truth[y : y + 10, x : x + 7], drawn[y : y + 10, x : x + 7])
    assert pair.stride == 4
    np.testing.assert_array_equal(pair.truth, truth[::4, ::4])
    np.testing.assert_array_equal(pair.drawn, drawn[::4, ::4])
    assert pair.boundaries(5.0)[1].hd95_um == (40.0,)
    assert pair.touches() == {(0, 1): 16}
