import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cytoarch.pretraining.health import effective_rank, health_of
from cytoarch.pretraining.losses import contrastive_loss, label_targets, pair_targets, spatial_targets

TEMPERATURE = 0.07


def drawn(count: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(count, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def likeness(z: Tensor) -> Tensor:
    unit = functional.normalize(z, dim=1)
    return unit @ unit.T / TEMPERATURE


def published(z: Tensor, positions: Tensor, sigma: float) -> Tensor:
    """Equations 1 and 2 as printed, with loops."""
    s, count = likeness(z), len(z)
    rows = []
    for i in range(count):
        others = [j for j in range(count) if j != i]
        weights = [math.exp(-float((positions[i] - positions[j]).square().sum()) / (2 * sigma**2)) for j in others]
        below = torch.logsumexp(s[i, others], 0)
        rows.append(-sum(w * (s[i, j] - below) for w, j in zip(weights, others, strict=True)) / sum(weights))
    return torch.stack(rows).mean()


def test_the_stable_form_is_the_published_one() -> None:
    z, positions = drawn(40, 8), 10 * drawn(40, 3, seed=1)
    ours = contrastive_loss(z, spatial_targets(positions, 10.0), TEMPERATURE)
    torch.testing.assert_close(ours, published(z, positions, 10.0), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("distance", "weight"), [(5, 0.882), (10, 0.607), (20, 0.135), (30, 0.0111), (40, 3.4e-4)])
def test_weights_fall_with_distance_as_published(distance: float, weight: float) -> None:
    positions = torch.tensor([[0.0, 0, 0], [0, 0, 0], [distance, 0, 0]], dtype=torch.float64)
    shares = spatial_targets(positions, 10.0)[0]
    assert float(shares[2] / shares[1]) == pytest.approx(weight, rel=2e-2)


def test_collapsed_embeddings_cost_the_logarithm_of_the_others() -> None:
    loss = contrastive_loss(torch.ones(2048, 4), spatial_targets(100 * drawn(2048, 3), 10.0), TEMPERATURE)
    assert float(loss) == pytest.approx(7.6241, abs=5e-5)


def test_simclr_is_the_cross_entropy_of_the_other_view() -> None:
    z = drawn(12, 5)
    s = likeness(z).fill_diagonal_(-torch.inf)
    oracle = functional.cross_entropy(s, torch.arange(12).roll(6))
    torch.testing.assert_close(contrastive_loss(z, pair_targets(12), TEMPERATURE), oracle, rtol=1e-12, atol=0)


def test_spatial_weights_of_nought_and_one_are_supcon_and_infonce() -> None:
    z, labels = drawn(12, 5), torch.arange(12) % 6
    apart = labels.double()[:, None] * 1e4  # places of one label coincide, others are far
    together = contrastive_loss(z, spatial_targets(apart, 1.0), TEMPERATURE)
    torch.testing.assert_close(together, contrastive_loss(z, label_targets(labels), TEMPERATURE), rtol=1e-12, atol=0)
    torch.testing.assert_close(together, contrastive_loss(z, pair_targets(12), TEMPERATURE), rtol=1e-12, atol=0)


def test_anchors_without_a_partner_are_skipped() -> None:
    z, labels = drawn(7, 5), torch.tensor([0, 0, 1, 1, 1, 2, 3])
    s = likeness(z).fill_diagonal_(-torch.inf).log_softmax(1)
    rows = [-s[i, [j for j in range(7) if j != i and labels[j] == labels[i]]].mean() for i in range(5)]
    torch.testing.assert_close(contrastive_loss(z, label_targets(labels), TEMPERATURE), torch.stack(rows).mean())
    assert float(contrastive_loss(z, label_targets(torch.arange(7)), TEMPERATURE)) == 0


def test_sigma_towards_nought_leaves_the_nearest_neighbour() -> None:
    positions = torch.tensor([[0.0], [1.0], [3.0], [3.5]], dtype=torch.float64)
    nearest = torch.tensor([[0.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]], dtype=torch.float64)
    torch.testing.assert_close(spatial_targets(positions, 1e-6), nearest)


def test_far_points_and_half_precision_give_no_nan() -> None:
    positions = torch.tensor([[0.0, 0, 0], [200, 0, 0], [0, 300, 0]], dtype=torch.float32)
    z = drawn(3, 4).half().requires_grad_()
    loss = contrastive_loss(z, spatial_targets(positions, 10.0), TEMPERATURE)
    loss.backward()
    assert loss.dtype == torch.float32
    assert z.grad is not None
    assert bool(torch.isfinite(z.grad).all())


def test_autocast_does_not_round_the_loss() -> None:
    z, targets = drawn(8, 4).float(), spatial_targets(drawn(8, 3), 1.0)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = contrastive_loss(z, targets, TEMPERATURE)
    assert float(rounded) == float(contrastive_loss(z, targets, TEMPERATURE))


def test_its_gradient_is_share_minus_target() -> None:
    z, targets = drawn(9, 6), spatial_targets(drawn(9, 3, seed=2), 1.0)
    s = likeness(z).requires_grad_()
    own = torch.eye(9, dtype=torch.bool)
    log_shares = s.masked_fill(own, -torch.inf).log_softmax(1).masked_fill(own, 0)
    (-(targets * log_shares).sum() / 9).backward()
    assert s.grad is not None
    shares = s.detach().masked_fill(own, -torch.inf).softmax(1)
    torch.testing.assert_close(s.grad, (shares - targets) / 9, rtol=0, atol=1e-15)
    leaf = z.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda one: contrastive_loss(one, targets, TEMPERATURE), [leaf])


def test_it_is_never_less_than_the_entropy_of_its_targets() -> None:
    positions = drawn(10, 3)
    targets = spatial_targets(positions, 1.0)
    entropy = -torch.special.xlogy(targets, targets).sum(1).mean()
    assert float(contrastive_loss(drawn(10, 6), targets, TEMPERATURE)) > float(entropy)
    # likeness that equals the logarithm of the targets attains it
    log_shares = targets.log().masked_fill(torch.eye(10, dtype=torch.bool), 0)
    torch.testing.assert_close(-(targets * log_shares).sum(1).mean(), entropy)


def test_what_leaves_it_as_it_is() -> None:
    z, positions = drawn(16, 6), 10 * drawn(16, 3, seed=1)
    turn, move = torch.linalg.qr(drawn(3, 3, seed=2))[0], drawn(1, 3, seed=3)
    rotated = torch.linalg.qr(drawn(6, 6, seed=4))[0]
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))

    def loss(embeddings: Tensor, places: Tensor) -> float:
        return float(contrastive_loss(embeddings, spatial_targets(places, 10.0), TEMPERATURE))

    whole = loss(z, positions)
    for embeddings, places in (
        (z[order], positions[order]),
        (z, positions @ turn + move),
        (3 * z @ rotated, positions),
    ):
        assert loss(embeddings, places) == pytest.approx(whole, rel=1e-12)
    assert loss(z, positions / 10) != pytest.approx(whole, rel=1e-3)  # mm, not any unit


def test_rows_of_two_processes_are_the_rows_of_one() -> None:
    z, positions, labels = drawn(12, 5), drawn(12, 3, seed=1), torch.arange(12) % 4
    for whole, part in (
        (spatial_targets(positions, 1.0), lambda a, b: spatial_targets(positions[a:b], 1.0, keys=positions, first=a)),
        (label_targets(labels), lambda a, b: label_targets(labels[a:b], keys=labels, first=a)),
    ):
        halves = [contrastive_loss(z[a : a + 6], part(a, a + 6), TEMPERATURE, keys=z, first=a) for a in (0, 6)]
        torch.testing.assert_close(torch.stack(halves).mean(), contrastive_loss(z, whole, TEMPERATURE))


def test_an_odd_number_of_views_is_refused() -> None:
    with pytest.raises(ValueError, match="3 views are no pairs"):
        pair_targets(3)


def test_health_tells_collapse_from_spread() -> None:
    collapsed, spread = torch.ones(64, 16), torch.nn.functional.normalize(drawn(64, 16), dim=1)
    targets = pair_targets(64)
    assert health_of(collapsed, targets) == pytest.approx((1.0, 0.0, 0.0), abs=1e-6)
    rank, alignment, uniformity = health_of(spread, targets)
    assert rank > 14
    assert alignment == pytest.approx(2, abs=0.3)  # what belongs together is no nearer than chance
    assert uniformity < -3
    twice = health_of(torch.cat([spread, spread]), pair_targets(128))
    assert twice.alignment == pytest.approx(0, abs=1e-12)


def test_uniformity_is_that_of_wang_and_isola() -> None:
    unit = torch.nn.functional.normalize(drawn(10, 4), dim=1)
    oracle = torch.pdist(unit).pow(2).mul(-2).exp().mean().log()
    assert health_of(unit, pair_targets(10)).uniformity == pytest.approx(float(oracle), rel=1e-12)


def test_rank_counts_equal_directions() -> None:
    assert effective_rank(torch.diag(torch.tensor([3.0, 3, 3, 0]))) == pytest.approx(3)
