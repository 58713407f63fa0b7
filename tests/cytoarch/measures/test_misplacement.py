"""How far wrong classes are from their place: worked numbers, and laws."""

import math

import numpy as np
import pytest

from cytoarch.measures.misplacement import UNLABELLED, misplacement

TRUTH, TOLD = np.array([[0, 0, 0, 1, 1, 1]]), np.array([[0, 0, 1, 1, 1, 0]])


def test_the_worked_example() -> None:
    found = misplacement(TRUTH, TOLD)
    assert found.mean == pytest.approx(4 / 6)
    assert found.mean_of_wrong == 2.0
    assert found.yasnoff == pytest.approx(100 * math.sqrt(10) / 6)
    assert (found.cells, found.wrong, found.absent) == (6, 2, 0)


def test_distances_are_those_to_the_nearest_cell_of_the_class_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    truth, told = rng.integers(0, 4, (2, 12, 15))
    at = {one: np.argwhere(truth == one) for one in range(4)}
    costs = [
        0.0 if told[y, x] == truth[y, x] else np.linalg.norm(at[told[y, x]] - [y, x], axis=1).min()
        for y, x in np.ndindex(truth.shape)
    ]
    assert misplacement(truth, told).mean == pytest.approx(np.mean(costs))


def test_distances_are_in_the_unit_of_the_spacing_and_do_not_ask_where_the_image_lies() -> None:
    assert misplacement(TRUTH, TOLD, 20.0).mean == pytest.approx(20 * misplacement(TRUTH, TOLD).mean)
    turned = misplacement(TRUTH.T[::-1], TOLD.T[::-1])
    assert turned == misplacement(TRUTH, TOLD)


def test_what_is_right_costs_nothing_and_what_is_unlabelled_does_not_count() -> None:
    assert misplacement(TRUTH, TRUTH).mean == 0
    partly = np.where(TOLD != TRUTH, UNLABELLED, TRUTH)
    found = misplacement(partly, TOLD)
    assert (found.mean, found.cells) == (0.0, 4)
    assert math.isnan(misplacement(np.full((2, 2), UNLABELLED), np.zeros((2, 2), dtype=np.int64)).mean)


def test_a_class_that_truth_does_not_have_costs_the_diagonal() -> None:
    found = misplacement(np.zeros((3, 4), dtype=np.int64), np.eye(3, 4, dtype=np.int64) * 7)
    assert found.mean_of_wrong == 5.0
    assert found.absent == 3


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        misplacement(TRUTH, TOLD[:, :3])
