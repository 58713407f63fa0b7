"""Areas drawn by the extended U-Net: shapes, what the path of the atlas does in either phase, scores."""

import numpy as np
import pytest
import torch
from torch import Tensor

from cytoarch.encoders.compact_model import CompactNetwork
from cytoarch.measures.misplacement import UNLABELLED
from cytoarch.pretraining.loop import LoopSettings
from cytoarch.pretraining.unet import AreaBatch, Areas, ExtendedUNet, area_score, finetune

CLASSES = 3
LOOP = LoopSettings(steps=12, optimiser="adamw", learning_rate=1e-2, watch_every=6)


def unet() -> ExtendedUNet:
    torch.manual_seed(0)
    return ExtendedUNet(CompactNetwork(1, widths=(4, 4, 8, 8, 8), depths=(0, 0, 0, 0, 0)), CLASSES, CLASSES)


def batch(step: int, told_by_grey: bool = True) -> AreaBatch:
    """Patches of vertical stripes of areas; where grey does not tell them, only the atlas does."""
    draw = torch.Generator().manual_seed(step)
    areas = torch.randint(CLASSES, (6, 1, 8), generator=draw).expand(-1, 8, -1)
    priors = torch.nn.functional.one_hot(areas, CLASSES).movedim(-1, 1).float()
    grey = areas if told_by_grey else torch.zeros_like(areas)
    pixels = (grey[:, None].float() / CLASSES).repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    pixels = pixels + 0.02 * torch.randn(pixels.shape, generator=draw)
    return AreaBatch(pixels, torch.zeros(6, 3, dtype=torch.float64), areas[:, 0, 0], areas, priors)


def test_every_square_of_eight_pixels_is_told_of() -> None:
    whole, logits = unet()(torch.rand(2, 1, 64, 96), torch.rand(2, CLASSES, 8, 12))
    assert whole.shape == (2, 8)
    assert logits.shape == (2, CLASSES, 8, 12)


def test_areas_are_learned_without_the_atlas_and_its_path_stays_as_it_was() -> None:
    network = unet()
    before = [one.clone() for one in network.priors.parameters()]
    (trace,) = finetune(network, batch, LOOP.model_copy(update={"steps": 30}), None)
    assert np.mean(trace.loss[-5:]) < 0.5 * np.mean(trace.loss[:3])
    assert all(torch.equal(one, old) for one, old in zip(network.priors.parameters(), before, strict=True))


def test_in_the_second_phase_the_atlas_tells_what_grey_does_not() -> None:
    network = unet()
    second = LOOP.model_copy(update={"steps": 40})
    _, trace = finetune(network, lambda step: batch(step, told_by_grey=False), LOOP, second)
    assert np.mean(trace.loss[-5:]) < 0.6
    told = [area_score(network, [batch(99, told_by_grey=False)], CLASSES, 64.0, atlas) for atlas in (True, False)]
    assert told[0].dice > told[1].dice + 0.2
    assert told[0].err_seg_um < told[1].err_seg_um


class Told(ExtendedUNet):
    """Tells what it was given as priors."""

    def forward(self, pixels: Tensor, priors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        assert priors is not None
        return pixels.mean(dim=(2, 3)), priors


def test_a_perfect_map_scores_one_and_costs_nothing() -> None:
    network = Told(CompactNetwork(1, widths=(4, 4, 8, 8, 8), depths=(0, 0, 0, 0, 0)), CLASSES, CLASSES)
    assert area_score(network, [batch(3)], CLASSES, 64.0, atlas=True) == (1.0, 0.0)


def test_cells_without_a_label_cost_nothing() -> None:
    one = batch(0)
    logits = torch.randn(6, CLASSES, 8, 8, generator=torch.Generator().manual_seed(1))
    half = one.areas.clone()
    half[:, :4] = UNLABELLED
    partly = AreaBatch(one.pixels, one.positions_mm, one.labels, half)
    wanted = torch.nn.functional.cross_entropy(logits[:, :, 4:], one.areas[:, 4:])
    assert float(Areas()((one.pixels, logits), partly)) == pytest.approx(float(wanted))
