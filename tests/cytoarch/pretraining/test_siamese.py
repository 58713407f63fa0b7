"""The Siamese task: what the losses are at known places, and pairs that the publication asks for."""

import numpy as np
import pytest
import torch

from cytoarch.encoders.compact_model import CompactNetwork
from cytoarch.pretraining.siamese import (
    SiameseLearner,
    SiameseLoss,
    coordinate_loss,
    distance_loss,
    draw_pairs,
    mirrored_right,
)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_identical_inputs_cost_their_distance() -> None:
    distances = torch.tensor([0.0, 3.0, 41.5], dtype=torch.float64)
    assert torch.equal(distance_loss(drawn(3, 32), drawn(3, 32), distances), distances)


def test_embeddings_whose_squared_distance_is_the_geodesic_cost_nothing() -> None:
    """Along a line of which every point turns off at a right angle: squared lengths add up as distances do."""
    points = torch.tril(torch.ones(9, 9, dtype=torch.float64))
    first, second = torch.triu_indices(9, 9, 1)
    off = distance_loss(points[first], points[second], (second - first).double())
    assert float(off.abs().max()) < 1e-12
    assert float(distance_loss(2 * points[first], points[second], (second - first).double()).min()) > 0


def test_coordinates_are_off_by_the_sum_over_axes() -> None:
    told = torch.tensor([[1.0, -2.0, 3.0]])
    assert float(coordinate_loss(told, torch.tensor([[0.0, 0.0, 5.0]]))) == 5.0


def outputs(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    return drawn(5, 32, seed=seed), drawn(5, 3, seed=seed + 1)


def test_it_does_not_matter_which_patch_of_a_pair_is_first() -> None:
    distances, places = drawn(5, seed=8).abs() * 10, 30 * drawn(2, 5, 3, seed=9)
    there = SiameseLoss()(outputs(1), outputs(3), distances, places)
    back = SiameseLoss()(outputs(3), outputs(1), distances, places.flip(0))
    torch.testing.assert_close(there, back, rtol=1e-14, atol=0)


def test_the_whole_is_distances_and_ten_times_both_coordinates() -> None:
    distances, places = drawn(5, seed=8).abs() * 10, 30 * drawn(2, 5, 3, seed=9)
    pair = (outputs(1), outputs(3), distances, places)
    apart = SiameseLoss(coordinates=False)(*pair) + SiameseLoss(distances=False)(*pair)
    torch.testing.assert_close(SiameseLoss()(*pair), apart, rtol=1e-14, atol=0)
    by_hand = sum(coordinate_loss(outputs(seed)[1], places[at] / 100).mean() for at, seed in enumerate((1, 3)))
    torch.testing.assert_close(SiameseLoss(distances=False)(*pair), 10 * by_hand, rtol=1e-14, atol=0)


def test_pairs_without_a_way_between_them_teach_no_distance_and_give_no_nan() -> None:
    embeddings = drawn(2, 32).requires_grad_()
    other = (drawn(2, 32, seed=5), drawn(2, 3))
    distances = torch.tensor([torch.nan, 4.0], dtype=torch.float64)
    loss = SiameseLoss(coordinates=False)((embeddings, drawn(2, 3)), other, distances, torch.zeros(2, 2, 3))
    loss.backward()
    torch.testing.assert_close(loss.detach(), distance_loss(embeddings.detach(), other[0], distances)[1])
    assert embeddings.grad is not None
    assert torch.equal(embeddings.grad[0], torch.zeros(32, dtype=torch.float64))
    assert embeddings.grad[1].abs().sum() > 0


def test_one_network_sees_both_patches() -> None:
    torch.manual_seed(0)
    learner = SiameseLearner(CompactNetwork(1, (4, 4, 4, 4, 6), (0, 0, 0, 0, 0))).eval()
    embedding, place = learner(torch.rand(2, 1, 32, 32))
    assert embedding.shape == (2, 32)
    assert place.shape == (2, 3)


def test_right_hemispheres_lie_over_left_ones() -> None:
    places = drawn(4, 3)
    right = torch.tensor([True, False, True, False])
    found = mirrored_right(places, right)
    assert torch.equal(found[~right], places[~right])
    assert torch.equal(found[right], places[right] * torch.tensor([-1.0, 1.0, 1.0]))


def test_pairs_are_of_one_hemisphere_each_once_and_leave_nobody_out() -> None:
    side = np.random.default_rng(0).integers(1, 3, 3000)
    pairs = draw_pairs(side, seed=1)
    assert (side[pairs[:, 0]] == side[pairs[:, 1]]).all()
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert len(np.unique(pairs, axis=0)) == len(pairs)
    assert set(pairs.ravel()) == set(range(3000))
    assert np.array_equal(pairs, draw_pairs(side, seed=1))
    with pytest.raises(ValueError, match="hemisphere 2 has one point"):
        draw_pairs(np.array([1, 1, 2]), seed=0)


def test_how_many_pairs_a_point_is_in_follows_the_power_law() -> None:
    counts = np.bincount(draw_pairs(np.ones(20_000, dtype=np.int64), seed=2).ravel())
    degrees = np.arange(1, 9)
    share = np.array([(counts == one).sum() for one in degrees]) / len(counts)
    slope = np.polyfit(np.log(degrees), np.log(share), 1)[0]
    assert slope == pytest.approx(-2.5, abs=0.25)
