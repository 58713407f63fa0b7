"""Known values of the decoder's losses, and what unlabelled cells may do to them: nothing."""

import pytest
import torch
from torch.nn import functional

from cytoarch.learning.losses import dice_loss, focal_loss
from cytoarch.learning.targets import UNLABELLED


def logits_and_targets(seed: int = 0, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(seed)
    logits = torch.randn((3, classes, 6, 7), generator=source)
    targets = torch.randint(-1, classes, (3, 6, 7), generator=source)
    return logits, targets


def test_focal_loss_of_an_even_chance_is_a_quarter_of_its_cross_entropy():
    loss = focal_loss(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.int64), gamma=2)
    assert float(loss) == pytest.approx(0.173287, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_focal_loss_without_focus_is_cross_entropy(seed: int):
    logits, targets = logits_and_targets(seed)
    expected = functional.cross_entropy(logits, targets, ignore_index=UNLABELLED)
    assert float(focal_loss(logits, targets, gamma=0)) == pytest.approx(float(expected), rel=1e-5)


def test_focus_lowers_the_loss_most_where_the_answer_is_known():
    sure = torch.tensor([5.0, 0.0]).view(1, 2, 1, 1)
    unsure = torch.tensor([0.1, 0.0]).view(1, 2, 1, 1)
    target = torch.zeros(1, 1, 1, dtype=torch.int64)
    ratios = [float(focal_loss(one, target) / focal_loss(one, target, gamma=0)) for one in (sure, unsure)]
    assert ratios[0] < 1e-3 < ratios[1] < 1


def test_dice_loss_is_zero_for_a_perfect_answer_and_one_for_its_opposite():
    targets = torch.tensor([[[0, 1], [2, 1]]])
    perfect = functional.one_hot(targets, 3).movedim(-1, 1) * 200.0
    assert float(dice_loss(perfect, targets)) == pytest.approx(0, abs=1e-6)
    assert float(dice_loss(perfect, (targets + 1) % 3)) == pytest.approx(1, abs=1e-4)


def test_dice_loss_is_its_definition_over_the_classes_present():
    logits, targets = logits_and_targets(1)
    targets[targets == 3] = UNLABELLED
    p = logits.softmax(dim=1)
    labelled = targets != UNLABELLED
    losses = []
    for one in (0, 1, 2, 4):
        chance, truth = p[:, one][labelled], (targets == one)[labelled].float()
        losses.append(1 - (2 * (chance * truth).sum() + 1e-5) / (chance.sum() + truth.sum() + 1e-5))
    assert float(dice_loss(logits, targets)) == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)


@pytest.mark.parametrize("loss", [focal_loss, dice_loss])
def test_unlabelled_cells_have_no_gradient_and_no_say(loss):
    logits, targets = logits_and_targets(2)
    logits.requires_grad_(requires_grad=True)
    value = loss(logits, targets)
    value.backward()
    unlabelled = (targets == UNLABELLED)[:, None].expand_as(logits)
    assert unlabelled.any()
    assert (logits.grad[unlabelled] == 0).all()
    assert (logits.grad[~unlabelled] != 0).any()
    other = torch.where(unlabelled, torch.full_like(logits, 33.0), logits.detach())
    assert float(loss(other, targets)) == pytest.approx(float(value.detach()), rel=1e-6)


@pytest.mark.parametrize("loss", [focal_loss, dice_loss])
def test_where_nothing_is_labelled_the_loss_is_zero_and_moves_nothing(loss):
    logits = torch.randn((1, 3, 2, 2), generator=torch.Generator().manual_seed(0), requires_grad=True)
    value = loss(logits, torch.full((1, 2, 2), UNLABELLED))
    value.backward()
    assert float(value.detach()) == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("loss", [focal_loss, dice_loss])
@pytest.mark.parametrize("size", [1e-3, 50.0, 1e4])
def test_losses_and_gradients_are_finite_for_any_logits(loss, size: float):
    logits, targets = logits_and_targets(3)
    logits = (logits * size).requires_grad_(requires_grad=True)
    value = loss(logits, targets)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("loss", [focal_loss, dice_loss])
def test_the_order_of_the_classes_does_not_matter(loss):
    logits, targets = logits_and_targets(4, classes=4)
    order = torch.tensor([2, 0, 3, 1])
    place = torch.argsort(order)
    moved = torch.where(targets == UNLABELLED, targets, place[targets.clamp(min=0)])
    assert float(loss(logits[:, order], moved)) == pytest.approx(float(loss(logits, targets)), rel=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_weights_are_those_of_torchs_cross_entropy(seed: int):
    logits, targets = logits_and_targets(seed)
    weights = torch.rand(5, generator=torch.Generator().manual_seed(seed))
    expected = functional.cross_entropy(logits, targets, weight=weights, ignore_index=UNLABELLED)
    assert float(focal_loss(logits, targets, gamma=0, weights=weights)) == pytest.approx(float(expected), rel=1e-5)
    even = focal_loss(logits, targets, weights=torch.full((5,), 3.0))
    assert float(even) == pytest.approx(float(focal_loss(logits, targets)), rel=1e-6)
