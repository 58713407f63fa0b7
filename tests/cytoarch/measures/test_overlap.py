"""Scores against scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from cytoarch.measures.overlap import (
    accuracy,
    class_scores,
    confusion_matrix,
    macro_f1,
    map_macro_f1,
    purity,
    top_k_hits,
)


@st.composite
def answers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    classes = draw(st.integers(2, 7))
    count = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    used = draw(st.integers(1, classes))
    return rng.integers(0, used, count), rng.integers(0, classes, count), classes


@given(answers())
@settings(max_examples=80, deadline=None, derandomize=True)
def test_scores_are_those_of_scikit_learn(case: tuple[np.ndarray, np.ndarray, int]):
    truth, predicted, classes = case
    confusion = confusion_matrix(truth, predicted, classes)
    labels = list(range(classes))
    np.testing.assert_array_equal(confusion, metrics.confusion_matrix(truth, predicted, labels=labels))
    assert confusion.sum() == len(truth)
    assert accuracy(confusion) == pytest.approx(metrics.accuracy_score(truth, predicted))
    assert macro_f1(confusion) == pytest.approx(metrics.f1_score(truth, predicted, average="macro", zero_division=0))
    scores = class_scores(confusion)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        truth, predicted, labels=labels, zero_division=np.nan
    )
    np.testing.assert_allclose(scores.precision, precision)
    np.testing.assert_allclose(scores.recall, recall)
    np.testing.assert_allclose(scores.f1, f1)
    np.testing.assert_array_equal(scores.support, support)
    jaccard = metrics.jaccard_score(truth, predicted, labels=labels, average=None, zero_division=0)
    np.testing.assert_allclose(scores.iou, np.where(np.isnan(f1), np.nan, jaccard))


@given(answers(), st.integers(0, 100))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_renumbering_the_classes_changes_no_average(case: tuple[np.ndarray, np.ndarray, int], seed: int):
    truth, predicted, classes = case
    order = np.random.default_rng(seed).permutation(classes)
    one, other = confusion_matrix(truth, predicted, classes), confusion_matrix(order[truth], order[predicted], classes)
    assert macro_f1(one) == pytest.approx(macro_f1(other))
    assert accuracy(one) == pytest.approx(accuracy(other))


def test_a_class_predicted_but_never_present_counts_as_zero():
    confusion = confusion_matrix(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2]), 4)
    assert macro_f1(confusion) == pytest.approx(0.5556, abs=1e-4)
    assert accuracy(confusion) == 0.75
    scores = class_scores(confusion)
    assert np.isnan(scores.f1[3])
    assert scores.f1[2] == 0
    assert np.isnan(scores.recall[2])
    assert np.isnan(scores.precision[3])


def test_nothing_has_no_score():
    empty = confusion_matrix(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), 3)
    assert empty.tolist() == [[0] * 3] * 3
    assert np.isnan(macro_f1(empty))
    assert np.isnan(accuracy(empty))
    assert np.isnan(purity(empty))


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_top_k_hits_are_those_of_scikit_learn(k: int):
    rng = np.random.default_rng(k)
    p = rng.dirichlet(np.ones(6), 200).astype(np.float32)
    truth = rng.integers(0, 6, 200)
    expected = metrics.top_k_accuracy_score(truth, p, k=k, labels=range(6), normalize=False)
    assert top_k_hits(p, truth, k) == expected


def test_top_one_is_accuracy_and_all_classes_hold_the_truth():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(5), 100).astype(np.float32)
    truth = rng.integers(0, 5, 100)
    assert top_k_hits(p, truth, 1) == (p.argmax(axis=1) == truth).sum()
    assert top_k_hits(p, truth, 5) == 100
    assert top_k_hits(np.zeros((0, 5), dtype=np.float32), np.zeros(0, dtype=np.int64), 3) == 0


@pytest.mark.parametrize(
    "row", [[1, 0, 0, 0, 0, 0], [0.5, 0.5, 0, 0, 0, 0], [1 / 6] * 6, [0.1, 0.2, 0.3, 0.4, 0, 0]], ids=str
)
@pytest.mark.parametrize("k", [1, 3])
def test_no_more_than_k_classes_of_a_sample_can_be_hits(row: list[float], k: int):
    p = np.tile(np.array(row, dtype=np.float32), (6, 1))
    assert top_k_hits(p, np.arange(6), k) <= k


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([[8, 0], [1, 1]], 0.75),
        ([[3, 0, 0], [0, 4, 0]], 1.0),
        ([[1, 1], [1, 1]], 0.5),
        ([[5, 5], [0, 0], [9, 1]], 0.7),
    ],
)
def test_purity_is_the_mean_over_clusters_of_the_largest_share(counts: list[list[int]], expected: float):
    assert purity(np.array(counts)) == pytest.approx(expected)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 1000))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_purity_lies_between_an_even_share_and_one(clusters: int, labels: int, seed: int):
    counts = np.random.default_rng(seed).integers(0, 9, (clusters, labels))
    if counts.sum():
        assert 1 / labels - 1e-12 <= purity(counts) <= 1


@given(answers())
@settings(max_examples=80, deadline=None, derandomize=True)
def test_outside_tissue_is_no_class_of_a_map(case: tuple[np.ndarray, np.ndarray, int]):
    """Predicted 0 is outside tissue, true classes count from 1: scikit-learn's macro-F1 over the classes there are."""
    truth, predicted, classes = case
    confusion = confusion_matrix(truth + 1, predicted, classes + 1)
    there = sorted({*(truth + 1), *predicted} - {0})
    expected = metrics.f1_score(truth + 1, predicted, labels=there, average="macro", zero_division=0)
    assert map_macro_f1(confusion) == pytest.approx(expected)
    assert confusion[0].sum() == 0


def test_a_map_without_labels_has_no_score():
    assert np.isnan(map_macro_f1(np.zeros((4, 4), dtype=np.int64)))
    assert map_macro_f1(np.array([[0, 0, 0], [5, 0, 0], [0, 0, 9]])) == 0.5


@given(answers())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_purity_is_the_mean_precision_of_a_map_of_majorities(case: tuple[np.ndarray, np.ndarray, int]):
    """Every cluster named after its most frequent label: the share of its members that bear the name."""
    labels, clusters, count = case
    contingency = metrics.cluster.contingency_matrix(clusters, labels)
    named = contingency.argmax(axis=1)[np.unique(clusters, return_inverse=True)[1]]
    present = np.unique(labels)
    shares = [metrics.accuracy_score(labels[clusters == k], present[named][clusters == k]) for k in np.unique(clusters)]
    padded = np.zeros((count, contingency.shape[1]), dtype=np.int64)
    padded[np.unique(clusters)] = contingency
    assert purity(padded) == pytest.approx(np.mean(shares))


@given(st.integers(1, 60), st.integers(2, 7), st.integers(1, 7), st.integers(0, 1000))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_top_k_hits_are_those_of_scikit_learn_for_any_number_of_classes(count: int, classes: int, k: int, seed: int):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(classes), count).astype(np.float32)
    truth = rng.integers(0, classes, count)
    k = min(k, classes)
    ranks = np.argsort(-p, axis=1, kind="stable")[:, :k]
    assert top_k_hits(p, truth, k) == int((ranks == truth[:, None]).any(axis=1).sum())
    if k < classes > 2:
        assert top_k_hits(p, truth, k) == metrics.top_k_accuracy_score(
            truth, p, k=k, labels=range(classes), normalize=False
        )


def test_of_equally_probable_classes_the_first_counts_as_more_probable():
    p = np.full((4, 4), 0.25, dtype=np.float32)
    for k in range(1, 5):
        assert top_k_hits(p, np.arange(4), k) == k
