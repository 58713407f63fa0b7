"""Scores of trees against a search of all pairs and the cases that can be told by hand; of voxels against scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist

from cytoarch.neurons.phantoms import NeuronPhantom, make_phantom
from cytoarch.neurons.scoring import distances, samples, score_trees, score_voxels
from cytoarch.neurons.trees import EMPTY, ROOT, Tree

UM = (1.0, 1.0, 1.0)


def line(y: float, length: int = 40, z: float = 0.0) -> Tree:
    """A straight tree along x."""
    places = np.stack([np.full(length, z), np.full(length, y), np.arange(length)], axis=1).astype(float)
    return Tree.of(places, np.ones(length), np.arange(length) - 1)


def one_node() -> Tree:
    return Tree.of(np.zeros((1, 3)), np.ones(1), np.array([ROOT]))


@pytest.mark.parametrize(("apart", "esa", "dsa", "pds"), [(0, 0, 0, 0), (1, 1, 0, 0), (3, 3, 3, 1)])
def test_parallel_lines_have_the_scores_of_the_definition(apart: float, esa: float, dsa: float, pds: float) -> None:
    score = score_trees(line(apart), line(0), UM)
    assert (score.esa, score.dsa, score.pds) == pytest.approx((esa, dsa, pds))
    assert score.missing is False


def test_a_trace_of_half_the_neuron_is_precise_and_recalls_half() -> None:
    score = score_trees(line(0, 50), line(0, 100), UM)
    assert score.precision == 1
    assert score.recall == pytest.approx(0.52, abs=0.02)
    assert score.pds == pytest.approx((1 - score.recall) / 2)
    assert score.f1 == pytest.approx(2 * score.recall / (1 + score.recall))


def test_scores_do_not_depend_on_which_is_which() -> None:
    trees = [make_phantom(NeuronPhantom(shape=(24, 32, 32), neurons=1, seed=one)).tree for one in (1, 2)]
    one, other = score_trees(*trees, UM), score_trees(*trees[::-1], UM)
    assert (one.esa, one.dsa, one.pds) == pytest.approx((other.esa, other.dsa, other.pds))
    assert (one.precision, one.recall) == pytest.approx((other.recall, other.precision))


def test_long_voxels_count_by_their_length() -> None:
    """Lines one plane apart are four um apart where planes are; in voxels they are one apart."""
    one, other = line(0), line(0, z=4.0)
    assert score_trees(one, other, UM).esa == pytest.approx(4)
    assert score_trees(one, other, (4.0, 1.0, 1.0)).esa == pytest.approx(1)


@pytest.mark.parametrize("empty", [EMPTY, one_node()])
def test_empty_trees_have_defined_scores(empty: Tree) -> None:
    nothing_found = score_trees(empty, line(0), UM)
    assert nothing_found.pds == 1
    assert nothing_found.recall == nothing_found.f1 == 0
    assert nothing_found.missing
    assert np.isnan([nothing_found.esa, nothing_found.dsa, nothing_found.precision]).all()
    nothing_known = score_trees(line(0), empty, UM)
    assert nothing_known.precision == nothing_known.f1 == 0
    assert nothing_known.missing
    neither = score_trees(empty, EMPTY, UM)
    assert np.isnan([neither.esa, neither.pds, neither.f1]).all()
    assert not neither.missing


def test_every_edge_is_sampled_at_both_its_ends() -> None:
    tree = line(0, 3)
    assert samples(tree, UM)[:, 2].tolist() == [1, 0, 2, 1]


def brute(places: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """By a fine subdivision of all segments."""
    share = np.linspace(0, 1, 2001)[:, None, None]
    fine = (starts + share * (ends - starts)).reshape(-1, 3)
    return cdist(places, fine).min(axis=1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_distances_are_those_of_a_search_of_all_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    places = rng.uniform(-20, 20, (15, 3))
    starts = rng.uniform(-15, 15, (6, 3))
    ends = starts + rng.normal(0, rng.choice([0.1, 3, 15]), (6, 3))
    assert np.allclose(distances(places, starts, ends), brute(places, starts, ends), atol=0.02)


# -- voxels ------------------------------------------------------------------------------------------------------------


def surface(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, 1)
    return np.argwhere(padded & ~binary_erosion(padded))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_the_surface_distance_is_that_of_all_pairs_of_voxels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = [rng.random((5, 6, 7)) < 0.3 for _ in range(2)]
    edges = (2.5, 1.0, 0.5)
    away = cdist(*(surface(mask) * edges for mask in masks))
    expected = np.percentile(np.concatenate([away.min(axis=0), away.min(axis=1)]), 95)
    assert score_voxels(*masks, edges).hd95_um == pytest.approx(expected)


def test_a_shifted_cube_is_as_far_as_its_voxels_are_long() -> None:
    one = np.zeros((20, 20, 20), dtype=bool)
    one[5:12, 5:12, 5:12] = True
    assert score_voxels(one, np.roll(one, 2, axis=0), (5.0, 1.0, 1.0)).hd95_um == 10
    assert score_voxels(one, one, (5.0, 1.0, 1.0)).hd95_um == 0


def test_empty_masks_have_defined_scores() -> None:
    full, empty = np.ones((2, 2, 2), dtype=bool), np.zeros((2, 2, 2), dtype=bool)
    assert np.isnan(score_voxels(empty, empty, UM).f1)
    found, missed = score_voxels(full, empty, UM), score_voxels(empty, full, UM)
    assert (found.f1, found.precision, found.missing) == (0, 0, True)
    assert (missed.f1, missed.recall, missed.missing) == (0, 0, True)
    assert np.isnan([found.recall, found.hd95_um, missed.precision, missed.hd95_um]).all()
    with pytest.raises(ValueError, match="one shape is needed"):
        score_voxels(full, np.ones((1, 2, 2), dtype=bool), UM)
