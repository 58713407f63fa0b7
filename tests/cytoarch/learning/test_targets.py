"""Labels on the grid of a head, against the definition pixel by pixel."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cytoarch.brains import Label, LabelClass, LabelTable
from cytoarch.images.views import Level
from cytoarch.learning import targets
from cytoarch.learning.targets import UNLABELLED, class_of_id, targets_in_window, targets_on_grid

THREE = (LabelClass(name="a", ids=(1,)), LabelClass(name="b", ids=(2, 5)), LabelClass(name="c", ids=(300,)))
VALUES = np.array([0, 1, 2, 5, 300, 9], dtype=np.uint16)


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
    targets = targets_on_grid(Level(labels, float(size), 0.0), THREE, grid, float(cell))
    assert targets.dtype == np.int64
    np.testing.assert_array_equal(targets, majority_by_hand(labels, size, cell, grid))


@pytest.mark.parametrize("ratio", [2, 4, 16, 5.3])
@pytest.mark.parametrize("offset", [0, 1, 7, 30, 61])
def test_a_stroke_of_one_pixel_is_never_lost(ratio: float, offset: int):
    labels = np.zeros((62, 62), dtype=np.uint8)
    labels[offset, :] = 1
    n = int(np.ceil(62 / ratio))
    targets = targets_on_grid(Level(labels, 1.0, 0.0), THREE, (n, n), ratio)
    row = int((offset + 0.5) / ratio)
    assert (targets[row] == 0).all()
    assert (np.delete(targets, row, axis=0) == UNLABELLED).all()


def test_ties_are_unlabelled_and_ids_of_one_class_vote_together():
    labels = np.array([[1, 2], [0, 0]], dtype=np.uint8)
    assert targets_on_grid(Level(labels, 1.0, 0.0), THREE, (1, 1), 2.0).tolist() == [[UNLABELLED]]
    labels = np.array([[1, 2], [5, 0]], dtype=np.uint8)
    assert targets_on_grid(Level(labels, 1.0, 0.0), THREE, (1, 1), 2.0).tolist() == [[1]]


@pytest.mark.parametrize("fraction", [1, 2, 4, 5])
def test_smaller_cells_take_the_pixel_they_lie_in(fraction: int):
    labels = np.random.default_rng(0).choice(VALUES, (7, 9))
    lookup = class_of_id(THREE)
    targets = targets_on_grid(Level(labels, 8.0, 0.0), THREE, (7 * fraction, 9 * fraction), 8.0 / fraction)
    np.testing.assert_array_equal(targets, np.kron(lookup[labels], np.ones((fraction, fraction), dtype=np.int64)))


def test_cells_beyond_the_label_image_do_not_fail():
    labels = np.ones((10, 10), dtype=np.uint8)
    targets = targets_on_grid(Level(labels, 1.0, 0.0), THREE, (5, 5), 4.0)
    assert (targets[:3, :3] == 0).all()
    assert (targets[3:] == UNLABELLED).all()
    assert (targets_on_grid(Level(labels, 4.0, 0.0), THREE, (45, 45), 1.0) == 0).all()


@pytest.mark.parametrize(("size", "cell"), [(1.0, 2.0), (4.0, 1.0), (1.0, 1.7)])
def test_grids_wider_than_a_window_have_no_seams(size: float, cell: float):
    labels = np.random.default_rng(1).choice(VALUES, (40, 1100))
    labels = labels if cell > size else labels[:, :280]
    grid = (int(labels.shape[0] * size / cell), int(labels.shape[1] * size / cell))
    assert grid[1] > 512
    level = Level(labels, size, 0.0)
    targets = targets_on_grid(level, THREE, grid, cell)
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
    one = targets_on_grid(Level(labels, 1.0, 0.0), THREE, (7, 7), 3.0)
    other = targets_on_grid(Level(renumbered.astype(np.uint16), 1.0, 0.0), moved, (7, 7), 3.0)
    np.testing.assert_array_equal(one, other)


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
    assert (targets_on_grid(Level(np.ones((4, 4), np.uint8), 1.0, 0.0), (), (2, 2), 2.0) == UNLABELLED).all()


@pytest.mark.parametrize("ratio", [0.7, 1.0, 2.5, 8.0])
def test_targets_are_the_same_whatever_their_bytes(monkeypatch: pytest.MonkeyPatch, ratio: float):
    labels = Level(np.random.default_rng(0).choice(VALUES, (61, 47)), 2.0, 1.0)
    grid = tuple(-int(-n // ratio) for n in (61, 47))
    whole = targets_on_grid(labels, THREE, grid, 2.0 * ratio)
    for held in (1, 5000, 200_000):
        monkeypatch.setattr(targets, "TARGET_BYTES", held)
        np.testing.assert_array_equal(targets_on_grid(labels, THREE, grid, 2.0 * ratio), whole)


def test_windows_are_small_enough_for_their_pixels_and_votes():
    edges = {(1.0, 1): 512, (64.0, 113): 36, (0.1, 113): 359, (16.0, 113): 136, (1e6, 5): 1}
    assert {case: targets._window_cells(*case) for case in edges} == edges
    for (ratio, classes), edge in edges.items():
        taken = edge**2 * (48 * max(1, ratio) ** 2 + 18 * classes)
        assert taken <= targets.TARGET_BYTES or edge == 1


def test_a_window_of_targets_is_part_of_the_whole():
    labels = Level(np.random.default_rng(0).choice(VALUES, (61, 47)), 2.0, 1.0)
    for cell_um in (1.5, 7.0):
        whole = targets_on_grid(labels, THREE, (20, 13), cell_um)
        np.testing.assert_array_equal(targets_in_window(labels, THREE, (3, 5, 11, 7), cell_um), whole[3:14, 5:12])
