"""Grids against exact fractions, transforms against numpy's flips and turns."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cytoarch.geometry import (
    Grid,
    Transform,
    centres,
    first_around,
    scan_to_section,
    section_to_brain,
)

SIZES = [Fraction(text) for text in ("1", "1.7", "2", "0.1", "0.3", "25", "64", "7.5")]
CORNERS = [Fraction(text) for text in ("0", "-0.85", "-3.2", "41.3")]
sizes, corners, counts = st.sampled_from(SIZES), st.sampled_from(CORNERS), st.integers(1, 40)
laws = settings(max_examples=150, deadline=None, derandomize=True)


def grid_of(shape: tuple[int, int], size: Fraction, corner: tuple[Fraction, Fraction]) -> Grid:
    return Grid.at_corner(shape, float(size), (float(corner[0]), float(corner[1])))


def centres_by_hand(count: int, size: Fraction, corner: Fraction) -> list[Fraction]:
    return [corner + (2 * i + 1) * size / 2 for i in range(count)]


# -- one grid ----------------------------------------------------------------------------------------------------------


@laws
@given(height=counts, width=counts, size=sizes, y=corners, x=corners)
def test_the_centres_of_cells_lie_half_a_cell_from_their_edges(height, width, size, y, x):
    grid = grid_of((height, width), size, (y, x))
    for found, count, corner in zip(grid.centres_um(), (height, width), (y, x), strict=True):
        np.testing.assert_allclose(found, [float(one) for one in centres_by_hand(count, size, corner)], atol=1e-9)
    np.testing.assert_allclose(grid.corner_um, (float(y), float(x)), atol=1e-9)
    np.testing.assert_allclose(grid.extent_um, (float(height * size), float(width * size)))
    np.testing.assert_allclose(grid.centre_um, (float(y + height * size / 2), float(x + width * size / 2)), atol=1e-9)
    assert grid.origin_um == tuple(one[0] for one in grid.centres_um())


@laws
@given(size=sizes, y=corners, x=corners, cell=st.tuples(st.floats(-50, 50), st.floats(-50, 50)))
def test_um_and_cells_are_each_others_inverse_in_every_spelling(size, y, x, cell):
    grid = grid_of((7, 9), size, (y, x))
    place = np.array([cell, cell[::-1]])
    um = grid.um(place)
    np.testing.assert_allclose(
        um[0], [float(y + size / 2) + cell[0] * float(size), float(x + size / 2) + cell[1] * float(size)]
    )
    np.testing.assert_allclose(grid.cells(um), place, atol=1e-6)
    np.testing.assert_allclose(grid.from_corner(um), place + 0.5, atol=1e-6)
    np.testing.assert_allclose(grid.transform(place), um, atol=1e-6)


def test_a_grid_holds_what_lies_between_its_edges():
    grid = Grid.at_corner((3, 5), 1.7, (-0.85, 10.0))
    assert grid.holds(np.array([[-0.85, 10.0], [-0.85 + 3 * 1.7, 18.5], [0.0, 12.0]])).tolist() == [True] * 3
    beside = [[-0.86, 12.0], [4.26, 12.0], [0.0, 9.99], [0.0, 18.51], [12.0, 0.0]]
    assert grid.holds(np.array(beside)).tolist() == [False] * 5
    assert grid.holds(np.array([0.0, 12.0])).shape == ()


@pytest.mark.parametrize(
    ("shape", "size"), [((0, 3), 1.0), ((3, 0), 1.0), ((3, 3), 0.0), ((3, 3), -1.0), ((3, 3), np.nan), ((3, 3), np.inf)]
)
def test_grids_without_cells_are_refused(shape, size):
    with pytest.raises(ValueError, match="needed"):
        Grid(shape, size, (0.0, 0.0))


def test_a_grid_of_one_cell_is_one():
    assert Grid((1, 1), 1e-3, (0.0, 0.0)).shape == (1, 1)


# -- grids at the same corner ------------------------------------------------------------------------------------------


@laws
@given(height=counts, width=counts, size=sizes, other=sizes, y=corners, x=corners)
def test_a_grid_of_other_cells_shares_the_corner_and_covers_with_less_than_a_cell_to_spare(
    height, width, size, other, y, x
):
    grid = grid_of((height, width), size, (y, x))
    found = grid.covered_by(float(other))
    assert found.cell_um == float(other)
    np.testing.assert_allclose(found.corner_um, grid.corner_um, atol=1e-9)
    assert found.shape == tuple(-int(-(count * size) // other) for count in (height, width))


@laws
@given(height=counts, width=counts, size=sizes, y=corners, x=corners, count=st.integers(1, 9))
def test_grouping_and_splitting_keep_the_corner(height, width, size, y, x, count):
    grid = grid_of((height, width), size, (y, x))
    grouped, split = grid.grouped(count), grid.split(count)
    assert grouped.shape == (-(-height // count), -(-width // count))
    assert split.shape == (height * count, width * count)
    np.testing.assert_allclose([grouped.cell_um, split.cell_um], [float(size * count), float(size / count)])
    for one in (grouped, split):
        np.testing.assert_allclose(one.corner_um, grid.corner_um, atol=1e-9)
    assert split.grouped(count).shape == grid.shape
    rows, columns = split.places_in(grid)
    np.testing.assert_array_equal(rows, np.arange(height * count) // count)
    np.testing.assert_array_equal(columns, np.arange(width * count) // count)


def test_grids_of_the_same_cells_are_the_same_to_the_bit():
    grid = Grid((61, 77), 1.7, (11.65, 11.65))
    assert grid.grouped(1) == grid.split(1) == grid.covered_by(1.7) == grid.window(0, 0, 61, 77) == grid


def test_the_cells_of_a_window_lie_where_they_lay():
    grid = Grid((20, 30), 1.7, (3.1, -7.9))
    part = grid.window(4, -2, 5, 6)
    assert part.shape == (5, 6)
    np.testing.assert_allclose(part.centres_um()[0], grid.centres_um()[0][4:9])
    np.testing.assert_allclose(part.centres_um()[1][2:], grid.centres_um()[1][:4])


# -- two grids ---------------------------------------------------------------------------------------------------------


@laws
@given(
    fine=sizes,
    coarse=sizes,
    n=st.tuples(counts, counts),
    m=st.tuples(counts, counts),
    a=st.tuples(corners, corners),
    b=st.tuples(corners, corners),
)
def test_a_centre_lies_in_the_cell_whose_edges_enclose_it(fine, coarse, n, m, a, b):
    one, other = grid_of(n, fine, a), grid_of(m, coarse, b)
    by_hand = [
        [(at - corner) // coarse for at in centres_by_hand(count, fine, start)]
        for count, start, corner in zip(n, a, b, strict=True)
    ]
    for found, expected in zip(one.places_in(other), by_hand, strict=True):
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, np.array(expected, dtype=np.int64))
    for found, expected, count in zip(one.nearest_in(other), by_hand, m, strict=True):
        np.testing.assert_array_equal(found, np.clip(np.array(expected, dtype=np.int64), 0, count - 1))


@laws
@given(
    fine=sizes,
    coarse=sizes,
    n=st.tuples(counts, counts),
    m=st.tuples(counts, counts),
    a=st.tuples(corners, corners),
    b=st.tuples(corners, corners),
)
def test_the_overlap_is_of_the_cells_that_share_more_than_an_edge(fine, coarse, n, m, a, b):
    one, other = grid_of(n, fine, a), grid_of(m, coarse, b)
    for found, count, start, size, corner in zip(one.overlap(other), n, a, m, b, strict=True):
        shared = [
            i for i in range(count) if start + i * fine < corner + size * coarse and start + (i + 1) * fine > corner
        ]
        np.testing.assert_array_equal(np.arange(count)[found], shared)


def test_windows_around_a_place_are_centred_on_it_as_well_as_whole_cells_allow():
    for count in (1, 4, 5, 224):
        for centre in np.arange(-9.0, 9.0, 0.3):
            first = first_around(float(centre), count)
            assert abs(first + count / 2 - centre) <= 0.5 + 1e-9
    assert [first_around(at, 4) for at in (2.5, 3.5, 4.5)] == [1, 2, 3], "a tie goes the same way everywhere"


def test_equal_parts_of_a_length_have_these_centres():
    np.testing.assert_allclose(centres(3, 12, 4), [4.125, 6.375, 8.625, 10.875])
    np.testing.assert_allclose(centres(5.0, 5.0, 2), [5.0, 5.0])
    assert centres(0, 1, 3).dtype == np.float64


# -- transforms --------------------------------------------------------------------------------------------------------

FLIPS = ("none", "horizontal", "vertical")
PLACES = np.array([[0.0, 0.0], [12.5, -3.0], [-700.0, 41.0]])


def transforms(seed: int, axes: int = 2) -> Transform:
    rng = np.random.default_rng(seed)
    return Transform.of(rng.normal(0, 1, (axes, axes)), rng.normal(0, 10, axes))


@pytest.mark.parametrize("seed", range(5))
def test_following_another_is_applying_one_after_the_other(seed):
    one, other, third = (transforms(seed * 3 + i) for i in range(3))
    np.testing.assert_allclose(one.then(other)(PLACES), other(one(PLACES)))
    np.testing.assert_allclose(one.then(other).then(third)(PLACES), one.then(other.then(third))(PLACES))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("axes", [2, 3])
def test_the_inverse_leads_back(seed, axes):
    one = transforms(seed, axes)
    places = np.random.default_rng(seed).normal(0, 50, (4, axes))
    np.testing.assert_allclose(one.inverse()(one(places)), places, atol=1e-8)
    np.testing.assert_allclose(one(one.inverse()(places)), places, atol=1e-8)


def test_what_maps_different_places_to_one_has_no_inverse():
    with pytest.raises(ValueError, match="no inverse"):
        Transform.scaling((1.0, 0.0)).inverse()
    with pytest.raises(ValueError, match="no inverse"):
        Transform.of(np.ones((2, 3)), np.zeros(2)).inverse()


def test_transforms_are_values():
    assert Transform.shift((1.0, 2.0)) == Transform.shift((1.0, 2.0)) != Transform.shift((2.0, 1.0))
    assert hash(Transform.scaling((1.0, 2.0))) == hash(Transform.scaling((1.0, 2.0)))
    assert Transform.scaling((2.0, 3.0))(np.array([10.0, 10.0])).tolist() == [20.0, 30.0]
    assert Transform.shift((2.0, 3.0))(np.array([10.0, 10.0])).tolist() == [12.0, 13.0]


@pytest.mark.parametrize("flip", FLIPS)
@pytest.mark.parametrize("turns", [-1, 0, 1, 2, 3])
def test_orientation_moves_pixels_as_numpy_flips_and_turns_the_image(flip, turns):
    pixels = np.zeros((5, 9))
    pixels[1, 7] = 1
    turned = {"none": pixels, "horizontal": pixels[:, ::-1], "vertical": pixels[::-1]}[flip]
    turned = np.rot90(turned, turns)
    before, after = Grid(pixels.shape, 1.0, (0.0, 0.0)), Grid(turned.shape, 1.0, (0.0, 0.0))
    place = Transform.orientation(flip, 90.0 * turns)(np.array([1.0, 7.0]) - before.centre_um) + after.centre_um
    np.testing.assert_allclose(place, np.argwhere(turned)[0], atol=1e-9)


@pytest.mark.parametrize("flip", FLIPS)
@pytest.mark.parametrize("degrees", [0.0, 12.5, 90.0, -200.0])
def test_a_section_lies_in_its_brain_and_back(flip, degrees):
    image = Grid((101, 57), 1.7, (0.0, 0.0))
    forth = section_to_brain(image, flip, degrees, -2500.0)
    np.testing.assert_allclose(forth(np.array(image.centre_um)), (0.0, 0.0, -2.5), atol=1e-12)
    places = image.um(np.array([[3.0, 50.0], [99.0, 1.0]]))
    np.testing.assert_allclose(forth.inverse()(forth(places)), places, atol=1e-6)
    np.testing.assert_allclose(forth.inverse()(forth(places) + np.array([0, 0, 7.0])), places, atol=1e-6)
    flat = section_to_brain(image, flip, degrees, None)
    np.testing.assert_allclose(flat(places), forth(places)[:, :2], atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(flat(places)[0] - flat(places)[1]), np.hypot(96, 49) * 1.7e-3)


def test_the_right_of_a_section_is_the_right_of_its_brain():
    image = Grid((3, 3), 1000.0, (0.0, 0.0))
    assert section_to_brain(image, "none", 0.0, 5000.0)(np.array([1000.0, 2000.0])).tolist() == [1.0, 0.0, 5.0]
    assert section_to_brain(image, "none", 0.0, None)(np.array([2000.0, 1000.0])).tolist() == [0.0, 1.0]


def test_pixels_of_a_scan_are_counted_from_the_region_that_a_section_is_cut_from():
    image = Grid((50, 60), 1.7, (0.0, 0.0))
    places = np.array([[100.0, 300.0], [104.5, 302.0]])
    np.testing.assert_allclose(scan_to_section(image, (100, 150, 300, 360))(places), [[0.0, 0.0], [7.65, 3.4]])
    np.testing.assert_allclose(scan_to_section(image, None)(places), places * 1.7)
