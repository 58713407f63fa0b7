"""What clusters follow, on worked examples and on planted structure."""

import numpy as np
import pytest

from cytoarch.discovery.quality import UNKNOWN, bands, contingency, follow, judge, matched_accuracy, stability
from cytoarch.discovery.similarity import agreement, similarity


def test_a_hidden_subdivision_is_found_and_the_side_is_not_followed():
    rng = np.random.default_rng(0)
    area = np.repeat([0, 1], 150)
    side = rng.integers(0, 2, 300)
    tokens = (rng.normal(0, 1, (300, 6)) + 4 * area[:, None]).astype(np.float32)
    found = judge(tokens, {"areas": area, "hemispheres": side, "none": np.zeros(300, int)}, 2, 10, (2, 4), 0)
    assert found.followed["areas"].purity > 0.99
    assert found.followed["areas"].accuracy > 0.99
    assert found.followed["hemispheres"].purity < 0.6
    assert abs(found.followed["hemispheres"].excess) < 0.1
    assert "none" not in found.followed
    assert found.stability[2] > 0.99 > found.stability[4]
    assert found.facts()["clusters"] == 2


def test_tokens_of_which_nothing_is_known_are_left_out():
    tokens = np.repeat(np.eye(2, dtype=np.float32) * 9, 20, axis=0)
    known = np.repeat([0, 1], 20)
    known[::2] = UNKNOWN
    assert judge(tokens, {"areas": known}, 2, 2, (), 0).followed["areas"].tokens == 20


def test_purity_is_the_mean_over_clusters_and_its_baseline_that_of_chance():
    fits = [np.array([0] * 8 + [1] * 2)]
    values = np.array([0] * 8 + [0, 1])
    assert follow(fits, values).purity == pytest.approx(0.75)
    rng = np.random.default_rng(0)
    chance = follow([rng.integers(0, 3, 3000)], rng.integers(0, 4, 3000))
    assert chance.purity == pytest.approx(chance.baseline, abs=0.03)


def test_the_best_assignment_is_found_by_the_hungarian_method():
    # by the largest of each row both clusters would stand for the first value
    assert matched_accuracy(np.array([[6, 4], [5, 0]])) == pytest.approx(9 / 15)
    np.testing.assert_array_equal(contingency(np.array([0, 1, 1]), np.array([2, 0, 0])), [[0, 0, 1], [2, 0, 0]])


def test_bands_hold_equally_many_tokens():
    assert np.bincount(bands(np.random.default_rng(0).random(103))).tolist() == [21, 21, 20, 21, 20]


def test_clusters_of_noise_are_less_stable_than_planted_ones():
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 1, (200, 5)).astype(np.float32)
    planted = noise + 8 * rng.integers(0, 3, 200)[:, None]
    assert stability(planted, (3,), 0)[3] > 0.99
    assert stability(noise, (3,), 0)[3] < 0.8
    assert stability(noise[:4], (3,), 0) == {}


def test_similarity_is_the_mean_over_all_pairs():
    rng = np.random.default_rng(2)
    tokens, areas = rng.normal(0, 1, (40, 7)), rng.integers(0, 3, 40)
    units = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
    cosines = units @ units.T
    found = similarity(tokens, areas, 4)
    for one in range(3):
        for other in range(3):
            block = cosines[np.ix_(areas == one, areas == other)]
            expected = block[~np.eye(len(block), dtype=bool)].mean() if one == other else block.mean()
            assert found[one, other] == pytest.approx(expected)
    assert np.isnan(found[3]).all()


def test_brains_agree_as_far_as_their_matrices_do():
    rng = np.random.default_rng(3)
    one = rng.random((6, 6))
    one = one + one.T
    assert agreement(one, 3 * one + 1) == (pytest.approx(1.0), 15)
    other = one.copy()
    other[0] = other[:, 0] = np.nan
    assert agreement(one, other)[1] == 10
    assert np.isnan(agreement(one[:2, :2], one[:2, :2])[0])
