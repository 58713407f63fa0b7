"""Confusions of many classes, as a person can read them."""

import numpy as np

from cytoarch.reporting.confusions import ELSEWHERE, WHOLE, matrices, worst


def counts(classes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 50, (classes, classes))


def test_the_worst_confusions_are_listed_from_the_top_and_never_a_hit():
    confusion = counts(40)
    names = [f"a{one}" for one in range(40)]
    found = worst(confusion, names, 30)
    assert [one.cells for one in found] == sorted((one.cells for one in found), reverse=True)
    assert all(one.known != one.drawn for one in found)
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    assert sum(one.cells for one in found) == np.sort(wrong.ravel())[-30:].sum()
    assert worst(np.diag([3, 4]), ["a", "b"]) == []
    first = found[0]
    row = names.index(first.known)
    assert first.share == round(first.cells / confusion[row].sum(), 4)


def test_few_classes_are_one_matrix_whose_rows_are_shares():
    (only,) = matrices(np.array([[3, 1], [0, 0]]), ["a", "b"], ["", ""])
    assert only.names == ["a"], "nobody labelled b"
    assert only.columns == ["a", "b"]
    assert only.shares == [[0.75, 0.25]]


def test_many_classes_are_a_matrix_of_groups_and_one_within_each():
    count = 2 * WHOLE
    confusion, names = counts(count) + 1, [f"a{one}" for one in range(count)]
    groups = ["left"] * 3 + ["right"] * (count - 4) + [""]
    of_groups, left, right = matrices(confusion, names, groups)
    assert of_groups.names == ["left", "right", names[-1]]
    assert of_groups.shares[0][0] == round(confusion[:3, :3].sum() / confusion[:3].sum(), 4)
    assert left.columns == ["a0", "a1", "a2", ELSEWHERE]
    assert left.shares[1][3] == round(confusion[1, 3:].sum() / confusion[1].sum(), 4)
    assert (of_groups.is_open, left.is_open, right.is_open) == (True, False, False)
    assert len(right.names) == WHOLE
    assert right.title == f"within right: the {WHOLE} of {count - 4} with the most errors"
    for one in (of_groups, left, right):
        np.testing.assert_allclose(np.sum(one.shares, axis=1), 1, atol=0.01)


def test_of_many_classes_without_groups_those_with_the_most_errors_are_shown():
    count = WHOLE + 5
    confusion, names = np.diag(np.full(count, 90)), [f"a{one}" for one in range(count)]
    for one in range(WHOLE):
        confusion[one, (one + 1) % WHOLE] = 10
    confusion[3, count - 1] = 1
    (only,) = matrices(confusion, names, [""] * count)
    assert only.title == f"all classes: the {WHOLE} of {count} with the most errors"
    assert only.names == names[:WHOLE]
    assert only.columns == [*names[:WHOLE], ELSEWHERE]
    assert only.shares[3][3:5] == [round(90 / 101, 4), round(10 / 101, 4)]
    assert only.shares[3][-1] == round(1 / 101, 4)
    assert only.is_open
