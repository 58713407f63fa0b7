"""Distances between boundaries: worked numbers, medpy, brute force, and their laws."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from cytoarch.measures.boundaries import BoundaryDistances, boundary

Mask = NDArray[np.bool_]
masks = arrays(np.bool_, (12, 15))
spacings = st.tuples(st.sampled_from([1.0, 2.0, 5.0]), st.sampled_from([1.0, 3.0]))


def square(y: slice, x: slice, edge: int = 64) -> Mask:
    mask = np.zeros((edge, edge), dtype=np.bool_)
    mask[y, x] = True
    return mask


def test_a_square_that_grew_on_one_side() -> None:
    known, found = square(slice(12, 52), slice(12, 52)), square(slice(12, 52), slice(12, 56))
    far = BoundaryDistances.between(found, known, (4.0, 4.0))
    assert (boundary(known).sum(), boundary(found).sum()) == (156, 164)
    assert far.hd95_um == far.larger_hd95_um == 16
    assert far.assd_um == pytest.approx(3.900, abs=5e-4)
    assert far.mean_of_means_um == pytest.approx(3.892, abs=5e-4)


@pytest.mark.parametrize(("spacing", "hd95"), [((5.0, 1.0), 10), ((1.0, 5.0), 2), ((1.0, 1.0), 2)])
def test_the_sizes_of_cells_go_by_axis(spacing: tuple[float, float], hd95: float) -> None:
    known, moved = square(slice(20, 30), slice(20, 30)), square(slice(22, 32), slice(20, 30))
    assert BoundaryDistances.between(moved, known, spacing).hd95_um == hd95


def test_at_the_rim_of_the_image() -> None:
    half = square(slice(0, 20), slice(0, 10), 20)
    assert boundary(half).sum() == 56
    assert boundary(half, "ignored").sum() == 20


@pytest.mark.parametrize("full", [True, False])
def test_masks_without_cells_have_no_distance(full: bool) -> None:
    empty, other = np.zeros((9, 9), dtype=np.bool_), np.full((9, 9), full)
    for pair in ((empty, other), (other, empty)):
        far = BoundaryDistances.between(*pair, (1.0, 1.0))
        assert np.isnan([far.hd95_um, far.assd_um, far.larger_hd95_um, far.mean_of_means_um]).all()
        assert far.missing is full


@given(masks, masks, spacings)
def test_they_are_those_of_all_pairs_of_boundary_cells(one: Mask, other: Mask, spacing: tuple[float, float]) -> None:
    assume(one.any() and other.any())
    places = [np.argwhere(boundary(mask)) * spacing for mask in (one, other)]
    apart = cdist(*places)
    pooled = np.concatenate([apart.min(axis=1), apart.min(axis=0)])
    far = BoundaryDistances.between(one, other, spacing)
    assert far.hd95_um == pytest.approx(np.percentile(pooled, 95))
    assert far.assd_um == pytest.approx(pooled.mean())
    back = BoundaryDistances.between(other, one, spacing)
    assert (back.hd95_um, back.assd_um) == pytest.approx((far.hd95_um, far.assd_um))
    assert max(far.hd95_um, far.larger_hd95_um) <= pooled.max() + 1e-9
    assert (pooled.max() == 0) == bool((boundary(one) == boundary(other)).all())


@given(masks, masks, spacings)
def test_they_are_those_of_medpy(one: Mask, other: Mask, spacing: tuple[float, float]) -> None:
    binary = pytest.importorskip("medpy.metric.binary", reason="medpy is not installed")
    assume(one.any() and other.any())
    far = BoundaryDistances.between(one, other, spacing)
    assert far.hd95_um == pytest.approx(binary.hd95(one, other, voxelspacing=spacing))
    assert far.assd_um == pytest.approx(binary.assd(one, other, voxelspacing=spacing))
