"""Losses against cases that can be told by hand, and whether they lead anywhere."""

import numpy as np
import pytest
import torch
from torch import Tensor

from cytoarch.neurons.losses import (
    NODE_CAP,
    TASL_WEIGHTS,
    LineLoss,
    Topology,
    coarser,
    level_weights,
    overlap_loss,
    skeleton_graph,
    skeleton_recall_loss,
    soft_cldice_loss,
    soft_skeleton,
    tasl_of_batch,
    tasl_terms,
    tube_of,
)

CERTAIN = 30.0


def rod() -> np.ndarray:
    """3 x 3 x 24 voxels."""
    mask = np.zeros((7, 7, 28), dtype=bool)
    mask[2:5, 2:5, 2:26] = True
    return mask


def broken() -> np.ndarray:
    mask = rod()
    mask[:, :, 12:15] = False
    return mask


def logits_of(mask: np.ndarray) -> Tensor:
    sign = torch.from_numpy(np.where(mask, CERTAIN, -CERTAIN).astype(np.float32))[None]
    return torch.stack([-sign, sign], dim=1)


def test_the_released_loss_gives_the_worked_example() -> None:
    """A rod and the same with a gap of three voxels."""
    whole, parts = skeleton_graph(rod()), skeleton_graph(broken())
    assert (len(whole.nodes), len(parts.nodes)) == (112, 89)
    assert (whole.edges, parts.edges) == (773, 574)
    assert (whole.pieces, parts.pieces) == (1, 2)
    terms = tasl_terms(broken(), rod())
    assert terms == pytest.approx((0.1440, 0.2574, 0.6027), abs=5e-5)
    assert np.dot(TASL_WEIGHTS, terms) == pytest.approx(0.3933, abs=5e-5)
    assert tasl_of_batch(logits_of(broken()), torch.from_numpy(rod())[None].long()) == pytest.approx(0.3933, abs=5e-5)


def test_nothing_found_is_the_worst_and_far_mistakes_are_bounded() -> None:
    nothing = np.zeros_like(rod())
    assert tasl_terms(nothing, rod()) == (1.0, 1.0, 1.0)
    assert tasl_terms(rod(), nothing) == (1.0, 1.0, 1.0)
    assert tasl_terms(nothing, nothing) == tasl_terms(rod(), rod()) == (0.0, 0.0, 0.0)
    far = np.zeros((4, 4, 200), dtype=bool)
    near = far.copy()
    far[1, 1, 180:199], near[1, 1, 1:20] = True, True
    assert tasl_terms(far, near)[0] == NODE_CAP


def test_a_line_is_its_own_soft_skeleton() -> None:
    line = torch.zeros(1, 9, 9, 20)
    line[:, 4, 4, 2:18] = 1
    assert torch.equal(soft_skeleton(line), line)
    assert float(soft_cldice_loss(line, line)) == 0


def test_a_gap_costs_more_than_as_many_voxels_at_the_side() -> None:
    known = torch.from_numpy(rod())[None].float()
    gap, side = known.clone(), known.clone()
    gap[:, :, :, 12:15] = 0
    side[:, 2:5, 2, 2:11] = 0
    assert int(gap.sum()) == int(side.sum())
    assert float(soft_cldice_loss(gap, known)) > 2 * float(soft_cldice_loss(side, known))


def test_skeleton_recall_is_the_share_of_the_lines_that_is_covered() -> None:
    lines = torch.from_numpy(tube_of(rod()).astype(np.float32))[None]
    expected = 1 - float((lines * torch.from_numpy(broken())[None]).sum() / lines.sum())
    assert float(skeleton_recall_loss(logits_of(broken()), lines)) == pytest.approx(expected, abs=1e-6)
    assert float(skeleton_recall_loss(logits_of(broken()), torch.zeros_like(lines))) == 0


def test_overlap_of_what_is_right_costs_nothing_and_of_what_is_wrong_all() -> None:
    targets = torch.from_numpy(rod())[None].long()
    assert float(overlap_loss(logits_of(rod()), targets)) == pytest.approx(0, abs=1e-5)
    assert float(overlap_loss(logits_of(~rod()), targets)) == pytest.approx(2 * CERTAIN + 1, rel=1e-4)


def test_resolutions_are_weighted_by_halves_and_sum_to_one() -> None:
    assert sum(level_weights(5)) == pytest.approx(1)
    assert level_weights(5)[0] == pytest.approx(0.5161, abs=5e-5)
    targets = torch.arange(8).reshape(1, 2, 2, 2)
    assert coarser(targets, (1, 1, 1)).tolist() == [[[[0]]]]


@pytest.mark.parametrize("topology", ["none", "tasl", "cldice", "skeleton-recall"])
def test_every_loss_leads_downhill(topology: Topology) -> None:
    """A hundred steps on the logits themselves find the rod."""
    targets = torch.from_numpy(rod()[:, :, :16])[None].long()
    lines = torch.from_numpy(tube_of(rod()[:, :, :16]).astype(np.float32))[None]
    logits = torch.zeros(1, 2, *targets.shape[1:], requires_grad=True)
    loss = LineLoss(topology)
    optimiser = torch.optim.Adam([logits], lr=0.3)
    values = []
    for _ in range(60):
        value = loss.of([logits, logits[:, :, ::2, ::2, ::2]], targets, lines)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        values.append(float(value.detach()))
    assert values[-1] < 0.2 * values[0]
    found = logits.detach().argmax(dim=1)
    assert float((found == targets).float().mean()) > 0.97


def test_the_released_loss_has_no_gradient_of_its_own() -> None:
    """It weighs the overlap at the full resolution: its gradient is that of the overlap, times a number."""
    targets = torch.from_numpy(rod())[None].long()
    gradients = {}
    for topology in ("none", "tasl"):
        logits = (logits_of(broken()) / CERTAIN).requires_grad_()
        LineLoss(topology).of([logits], targets, targets.float()).backward()  # type: ignore[arg-type]
        gradients[topology] = logits.grad
    ratio = gradients["tasl"] / gradients["none"]
    assert ratio.min() == pytest.approx(float(ratio.max()), rel=1e-4)
    assert float(ratio.mean()) == pytest.approx(1 + 0.1 * 0.3933, abs=1e-4)
