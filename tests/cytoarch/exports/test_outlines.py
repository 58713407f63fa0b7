"""Outlines keep areas, borders and holes of the label map they are drawn from."""

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cytoarch.exports.outlines import LARGEST_AREA_ERROR, outlines_of


def blobs(seed: int, edge: int = 160, classes: int = 5, sigma: float = 9.0) -> NDArray[np.uint8]:
    """A map of smooth areas with ground around them, some single cells among them."""
    rng = np.random.default_rng(seed)
    fields = np.stack([gaussian_filter(rng.normal(size=(edge, edge)), sigma) for _ in range(classes)])
    values = fields.argmax(axis=0).astype(np.uint8)
    noisy = rng.random(values.shape) < 0.004
    values[noisy] = rng.integers(0, classes, int(noisy.sum()))
    return values


@pytest.mark.parametrize("tolerance", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_areas_borders_and_labels_survive(seed: int, tolerance: float) -> None:
    values = blobs(seed)
    found = outlines_of(values, tolerance)
    exact = outlines_of(values, 0.0)
    counts = np.bincount(values.ravel())
    assert found.shapes.keys() == {int(one) for one in np.flatnonzero(counts) if one}
    for value, shape in found.shapes.items():
        assert shape.is_valid
        assert shape.area == pytest.approx(counts[value], rel=LARGEST_AREA_ERROR)
        corners = shapely.points(shapely.get_coordinates(exact.shapes[value]))
        assert shapely.distance(shapely.boundary(shape), corners).max() <= tolerance + 1e-6
    shapes = list(found.shapes.values())
    together = shapely.union_all(shapes)
    assert together.area == pytest.approx(sum(one.area for one in shapes), rel=1e-9)  # they do not overlap


def test_without_tolerance_every_cell_is_in_the_outline_of_its_label() -> None:
    values = blobs(3, edge=60)
    found = outlines_of(values, 0.0)
    for value, shape in found.shapes.items():
        rows, columns = np.nonzero(values == value)
        assert shape.area == len(rows)
        assert shapely.contains_xy(shape, columns + 0.5, rows + 0.5).all()


def test_simplification_leaves_out_corners() -> None:
    values = blobs(1, edge=300, sigma=20.0)
    exact, found = outlines_of(values, 0.0), outlines_of(values, 2.0)
    corners = [sum(map(shapely.get_num_coordinates, one.shapes.values())) for one in (exact, found)]
    assert corners[1] < corners[0] / 2


def test_a_hole_is_a_hole_and_what_is_in_it_an_outline_of_its_own() -> None:
    values = np.zeros((30, 30), dtype=np.uint16)
    values[5:25, 5:25] = 300
    values[10:20, 10:20] = 7
    values[14:16, 14:16] = 0
    found = outlines_of(values, 0.5)
    assert [len(one.geoms[0].interiors) for one in (found.shapes[300], found.shapes[7])] == [1, 1]
    assert {value: shape.area for value, shape in found.shapes.items()} == {300: 300.0, 7: 96.0}


def test_a_map_of_ground_has_no_outline() -> None:
    assert outlines_of(np.zeros((4, 4), dtype=np.uint8), 1.0).shapes == {}


def test_ids_of_nine_digits_have_the_outlines_of_small_ones() -> None:
    small = np.zeros((30, 40), dtype=np.uint8)
    small[4:20, 5:17], small[4:20, 17:30] = 1, 2
    large = np.array([0, 614_454_277, 5], dtype=np.uint32)[small]
    one, other = outlines_of(small, 1.0), outlines_of(large, 1.0)
    assert other.cells == {5: one.cells[2], 614_454_277: one.cells[1]}
    assert other.shapes[614_454_277].equals(one.shapes[1])
    assert other.shapes[5].equals(one.shapes[2])
