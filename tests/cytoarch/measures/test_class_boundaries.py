"""Boundaries of all classes of maps: worked numbers, brute force, and what holds over several images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from cytoarch.measures import class_boundaries
from cytoarch.measures.boundaries import BoundaryDistances
from cytoarch.measures.class_boundaries import ClassBoundaries, MapPair, joined_boundaries

Map = NDArray[np.int64]
maps = arrays(np.int64, (11, 14), elements=st.integers(-1, 3))


def paired(truth: Map, drawn: Map) -> MapPair:
    pair = MapPair.blank(*truth.shape)
    pair.put(0, 0, truth, drawn)
    return pair


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
        far = BoundaryDistances.between((drawn == one) & known, truth == one, (3.0, 3.0))
        own = found[one]
        assert own.missing == int(far.missing)
        assert len(own.hd95_um) == len(own.assd_um) == int(not far.missing)
        if not far.missing:
            assert own.hd95_um == pytest.approx((far.hd95_um,))
            assert own.pooled_assd_um == pytest.approx(far.assd_um)


@given(st.lists(st.tuples(maps, maps), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_over_several_images_distances_are_pooled(images: list[tuple[Map, Map]]) -> None:
    together = joined_boundaries(paired(*one).boundaries(7.0) for one in images)
    for one, own in together.items():
        pairs = [((drawn == one) & (truth >= 0), truth == one) for truth, drawn in images]
        each = [BoundaryDistances.between(*pair, (7.0, 7.0)) for pair in pairs]
        pooled = np.concatenate([np.concatenate([far.there, far.back]) for far in each])
        assert own.missing == sum(far.missing for far in each)
        assert len(own.assd_um) == sum(len(far.there) > 0 for far in each)
        assert ClassBoundaries.from_facts(own.facts()).missing == own.missing
        if len(pooled):
            assert own.pooled_assd_um == pytest.approx(pooled.mean())
            assert own.pooled_hd95_um == pytest.approx(np.percentile(pooled, 95, method="lower"), rel=0.0101, abs=1)
            assert ClassBoundaries.from_facts(own.facts()).pooled_hd95_um == own.pooled_hd95_um
        else:
            assert np.isnan([own.pooled_hd95_um, own.pooled_assd_um]).all()


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
