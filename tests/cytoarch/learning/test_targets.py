"""Labels on the grid of a head, against the definition pixel by pixel."""

import tracemalloc
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cytoarch.brains import Label, LabelClass, LabelTable
from cytoarch.errors import SectionError
from cytoarch.geometry import Grid
from cytoarch.images.views import Level
from cytoarch.learning.targets import TARGET_BYTES, UNLABELLED, class_of_id, target_bands, targets_on_grid

THREE = (LabelClass(name="a", ids=(1,)), LabelClass(name="b", ids=(2, 5)), LabelClass(name="c", ids=(300,)))
VALUES = np.array([0, 1, 2, 5, 300, 9], dtype=np.uint16)


def placed(labels: Level, classes, shape: tuple[int, int], cell_um: float) -> np.ndarray:
    """The targets on a grid at the corner of a label image."""
    return targets_on_grid(labels, classes, Grid.at_corner(shape, cell_um, labels.grid.corner_um))


def majority_by_hand(labels: np.ndarray, size: Fraction, cell: Fraction, grid: tuple[int, int]) -> np.ndarray:
    """Votes of the pixels whose centres lie in a cell; a tie or no vote is unlabelled."""
    votes: dict[tuple[int, int], Counter] = {}
    index = {value: i for i, one in enumerate(THREE) for value in one.ids}
    for (i, j), value in np.ndenumerate(labels):
        place = int((Fraction(i) + Fraction(1, 2)) * size // cell), int((Fraction(j) + Fraction(1, 2)) * size // cell)
        if int(value) in index:
            votes.setdefault(place, Counter())[index[int(value)]] += 1
    targets = np.full(grid, UNLABELLED)
    for (row, column), count in votes.items():
        if row < grid[0] and column < grid[1]:
            ranked = count.most_common()
            if len(ranked) == 1 or ranked[0][1] > ranked[1][1]:
                targets[row, column] = ranked[0][0]
    return targets


@given(
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    size=st.sampled_from([Fraction(1), Fraction(3, 2), Fraction(4)]),
    ratio=st.sampled_from([Fraction(2), Fraction(4), Fraction(5, 2), Fraction(7, 4), Fraction(13)]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_large_cells_take_the_majority_of_their_labelled_pixels(
    height: int, width: int, size: Fraction, ratio: Fraction, seed: int
):
    labels = np.random.default_rng(seed).choice(VALUES, (height, width), p=[0.5, 0.1, 0.1, 0.1, 0.1, 0.1])
    cell = size * ratio
    grid = tuple(-int(-(n * size) // cell) for n in (height, width))
    targets = placed(Level(labels, float(size), 0.0), THREE, grid, float(cell))
    assert targets.dtype == np.int64
    np.testing.assert_array_equal(targets, majority_by_hand(labels, size, cell, grid))


@pytest.mark.parametrize("ratio", [2, 4, 16, 5.3])
@pytest.mark.parametrize("offset", [0, 1, 7, 30, 61])
def test_a_stroke_of_one_pixel_is_never_lost(ratio: float, offset: int):
    labels = np.zeros((62, 62), dtype=np.uint8)
    labels[offset, :] = 1
    n = int(np.ceil(62 / ratio))
    targets = placed(Level(labels, 1.0, 0.0), THREE, (n, n), ratio)
    row = int((offset + 0.5) / ratio)
    assert (targets[row] == 0).all()
    assert (np.delete(targets, row, axis=0) == UNLABELLED).all()


def test_ties_are_unlabelled_and_ids_of_one_class_vote_together():
    labels = np.array([[1, 2], [0, 0]], dtype=np.uint8)
    assert placed(Level(labels, 1.0, 0.0), THREE, (1, 1), 2.0).tolist() == [[UNLABELLED]]
    labels = np.array([[1, 2], [5, 0]], dtype=np.uint8)
    assert placed(Level(labels, 1.0, 0.0), THREE, (1, 1), 2.0).tolist() == [[1]]


@pytest.mark.parametrize("fraction", [1, 2, 4, 5])
def test_smaller_cells_take_the_pixel_they_lie_in(fraction: int):
    labels = np.random.default_rng(0).choice(VALUES, (7, 9))
    lookup = class_of_id(THREE)
    targets = placed(Level(labels, 8.0, 0.0), THREE, (7 * fraction, 9 * fraction), 8.0 / fraction)
    np.testing.assert_array_equal(targets, np.kron(lookup[labels], np.ones((fraction, fraction), dtype=np.int64)))


def test_cells_beyond_the_label_image_do_not_fail():
    labels = np.ones((10, 10), dtype=np.uint8)
    targets = placed(Level(labels, 1.0, 0.0), THREE, (5, 5), 4.0)
    assert (targets[:3, :3] == 0).all()
    assert (targets[3:] == UNLABELLED).all()
    assert (placed(Level(labels, 4.0, 0.0), THREE, (45, 45), 1.0) == 0).all()


@pytest.mark.parametrize(("size", "cell"), [(1.0, 2.0), (4.0, 1.0), (1.0, 1.7)])
def test_grids_wider_than_a_window_have_no_seams(size: float, cell: float):
    labels = np.random.default_rng(1).choice(VALUES, (40, 1100))
    labels = labels if cell > size else labels[:, :280]
    grid = (int(labels.shape[0] * size / cell), int(labels.shape[1] * size / cell))
    assert grid[1] > 512
    level = Level(labels, size, 0.0)
    targets = placed(level, THREE, grid, cell)
    by_hand = majority_by_hand(labels, Fraction(str(size)), Fraction(str(cell)), grid)
    if cell > size:
        np.testing.assert_array_equal(targets, by_hand)
    else:
        at = [((np.arange(n) + 0.5) * cell / size).astype(int) for n in grid]
        np.testing.assert_array_equal(targets, class_of_id(THREE)[labels[np.ix_(*at)]])


def test_renumbering_the_labels_changes_no_target():
    labels = np.random.default_rng(2).choice(VALUES, (20, 20))
    renumbered = labels.astype(np.int64) * 7 % 65521
    moved = tuple(LabelClass(name=one.name, ids=tuple(i * 7 % 65521 for i in one.ids)) for one in THREE)
    one = placed(Level(labels, 1.0, 0.0), THREE, (7, 7), 3.0)
    other = placed(Level(renumbered.astype(np.uint16), 1.0, 0.0), moved, (7, 7), 3.0)
    np.testing.assert_array_equal(one, other)


def test_ids_of_nine_digits_mean_what_small_ones_do():
    labels = np.random.default_rng(3).choice(VALUES, (20, 20))
    large = np.where(labels > 0, labels.astype(np.uint32) + 600_000_000, 0).astype(np.uint32)
    moved = tuple(LabelClass(name=one.name, ids=tuple(i + 600_000_000 for i in one.ids)) for one in THREE)
    for cell in (3.0, 0.5):
        shape = (int(20 / cell), int(20 / cell))
        one = placed(Level(labels, 1.0, 0.0), THREE, shape, cell)
        np.testing.assert_array_equal(one, placed(Level(large, 1.0, 0.0), moved, shape, cell))
    assert class_of_id(THREE)[np.array([70_000], dtype=np.uint32)].tolist() == [UNLABELLED]


def test_groups_gather_their_labels_in_order_of_first_appearance():
    table = LabelTable(
        labels=(
            Label(id=4, name="V1", group="visual"),
            Label(id=2, name="M1"),
            Label(id=9, name="V2", group="visual"),
        )
    )
    classes = table.classes(by_group=True)
    assert [(one.name, one.ids) for one in classes] == [("visual", (4, 9)), ("M1", (2,))]
    lookup = class_of_id(classes)
    assert lookup[[4, 9, 2, 0, 3]].tolist() == [0, 0, 1, UNLABELLED, UNLABELLED]
    assert [one.ids for one in table.classes(by_group=False)] == [(4,), (2,), (9,)]


def test_without_classes_nothing_is_labelled():
    assert (placed(Level(np.ones((4, 4), np.uint8), 1.0, 0.0), (), (2, 2), 2.0) == UNLABELLED).all()


# -- by bands ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget_bytes", [1, 5_000, 40_000, 1 << 30])
@pytest.mark.parametrize("cell_um", [0.7, 1.7, 4.0, 25.0])
def test_bands_are_the_targets_whatever_the_budget(budget_bytes: int, cell_um: float):
    labels = Level(np.random.default_rng(3).choice(VALUES, (33, 41)), 1.7, 0.0)
    grid = labels.grid.covered_by(cell_um)
    bands = list(target_bands(labels, THREE, grid, budget_bytes))
    assert [row for row, _ in bands] == np.cumsum([0, *(len(band) for _, band in bands[:-1])]).tolist()
    found = np.concatenate([band for _, band in bands])
    assert found.shape == grid.shape
    np.testing.assert_array_equal(found, targets_on_grid(labels, THREE, grid))
    if budget_bytes == 1:
        assert len(bands) == grid.shape[0]
    if budget_bytes == 1 << 30:
        assert len(bands) == 1


@given(
    size=st.sampled_from([Fraction("1.7"), Fraction(1)]),
    cell=st.sampled_from([Fraction(25), Fraction(64), Fraction("3.3")]),
    shift=st.tuples(st.integers(-40, 40), st.integers(-40, 40)),
    seed=st.integers(0, 100),
)
@settings(max_examples=12, deadline=None, derandomize=True)
def test_a_grid_may_lie_anywhere_on_the_labels(size: Fraction, cell: Fraction, shift: tuple[int, int], seed: int):
    """Against votes counted pixel by pixel, with the grid moved by tenths of a um."""
    labels = np.random.default_rng(seed).choice(VALUES, (50, 70))
    corner = [Fraction(at, 10) for at in shift]
    grid = Grid.at_corner((3, 4), float(cell), (float(corner[0]), float(corner[1])))
    index = {value: i for i, one in enumerate(THREE) for value in one.ids}
    expected = np.full((3, 4), UNLABELLED)
    for row, column in np.ndindex(3, 4):
        votes = Counter(
            index[int(value)]
            for (i, j), value in np.ndenumerate(labels)
            if int(value) in index
            and (i * size - corner[0]) // cell == row
            and (j * size - corner[1]) // cell == column
        ).most_common()
        if votes and (len(votes) == 1 or votes[0][1] > votes[1][1]):
            expected[row, column] = votes[0][0]
    np.testing.assert_array_equal(targets_on_grid(Level(labels, float(size), 0.0), THREE, grid), expected)


@pytest.mark.parametrize("cell_um", [1.0, 0.9, 0.3])
def test_small_cells_take_the_pixel_that_encloses_their_centre_at_ratios_that_are_no_whole_numbers(cell_um: float):
    labels = np.random.default_rng(5).choice(VALUES, (31, 37))
    level = Level(labels, 1.7, 0.0)
    grid = level.grid.covered_by(cell_um)
    at = [
        [min(int(Fraction(2 * i + 1, 2) * Fraction(str(cell_um)) / Fraction("1.7")), n - 1) for i in range(count)]
        for count, n in zip(grid.shape, labels.shape, strict=True)
    ]
    np.testing.assert_array_equal(targets_on_grid(level, THREE, grid), class_of_id(THREE)[labels[np.ix_(*at)]])


def test_cells_beside_the_labels_have_none_or_the_outermost():
    level = Level(np.ones((20, 20), np.uint8), 1.0, 0.0)
    for corner in ((100.0, 0.0), (0.0, -100.0)):
        assert (targets_on_grid(level, THREE, Grid.at_corner((3, 4), 5.0, corner)) == UNLABELLED).all()
        assert (targets_on_grid(level, THREE, Grid.at_corner((3, 4), 0.5, corner)) == 0).all()


@dataclass(frozen=True)
class Endless:
    """A label image (y, x) uint16 of any size, made where it is read."""

    shape: tuple[int, int]

    def __getitem__(self, window: tuple[Any, slice, slice]) -> np.ndarray:
        _, rows, columns = window
        y, x = (
            np.arange(rows.start, rows.stop, dtype=np.uint16),
            np.arange(columns.start, columns.stop, dtype=np.uint16),
        )
        return (y[:, None] // 640 + x // 640) % np.uint16(120)


@pytest.mark.parametrize("cell_um", [64.0, 1.0, 0.7, 2.0, 700.0])
def test_targets_of_a_large_section_take_no_more_than_their_budget(cell_um: float):
    """113 classes on 1 um labels of 6 x 4 cm; a band only, the others are like it."""
    classes = tuple(LabelClass(name=f"c{i}", ids=(i + 1,)) for i in range(113))
    labels = Level(Endless((60_000, 40_000)), 1.0, 0.0)
    grid = labels.grid.covered_by(cell_um)
    tracemalloc.start()
    try:
        _, band = next(target_bands(labels, classes, grid))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert band.shape[1] == grid.shape[1]
    assert TARGET_BYTES / 10 < peak <= TARGET_BYTES, "the budget is used, or parts would be read many times over"


def test_damaged_labels_cost_the_section(tmp_path: Path):
    array = zarr.create_array(tmp_path / "a", shape=(20, 20), chunks=(20, 20), dtype=np.uint8)
    array[:] = 1
    (tmp_path / "a" / "c" / "0" / "0").write_bytes(b"\xff" * 16)
    level = Level(array, 1.0, 0.0)
    for cell_um in (1.0, 4.0):
        with pytest.raises(SectionError, match="damaged"):
            targets_on_grid(level, THREE, level.grid.covered_by(cell_um))
