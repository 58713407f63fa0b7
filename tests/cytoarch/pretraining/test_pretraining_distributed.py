"""Two processes that share a batch do what one does with the whole of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.multiprocessing import spawn
from torch.nn.parallel import DistributedDataParallel

from cytoarch.pretraining.distributed import (
    SharedBatchNorm,
    SharedSimCLR,
    SharedSpatialNCE,
    gathered,
    mean_of_all,
    plainly_gathered,
)
from cytoarch.pretraining.loop import LoopSettings, pretrain
from cytoarch.pretraining.objectives import SimCLR, SpatialNCE
from cytoarch.pretraining.patches import Batch, PatchBatches, PatchPoints, SectionPixels

LOOP = LoopSettings(steps=3, optimiser="adamw", learning_rate=1e-2, watch_every=1)


def batches() -> PatchBatches:
    rng = np.random.default_rng(0)
    sections = SectionPixels.of([rng.integers(0, 255, (64, 64), dtype=np.uint8)], "cpu")
    centre = rng.uniform(8, 56, (24, 2))
    zero = np.zeros(24, dtype=np.int64)
    points = PatchPoints(zero, centre, rng.uniform(0, 3, (24, 3)), zero, zero)
    return PatchBatches(sections, points, 10.0, 16, 12, shift_mm=0.02)


def learner() -> nn.Module:
    """Without norms: those of torch that look over processes compute on graphics cards only."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 6, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 49, 8))


def in_company(rank: int, folder: str) -> None:
    """What each of two processes does; the first writes down what came of it."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    whole = torch.arange(12.0, dtype=torch.float64).reshape(4, 3).sin()
    slopes = {}
    for gather in (gathered, plainly_gathered):
        own = whole[2 * rank : 2 * rank + 2].clone().requires_grad_()
        everything = gather(own) if gather is gathered else gather(own.detach())
        (own @ everything.T).square().sum().backward()
        slopes[gather.__name__] = plainly_gathered(own.grad)
    views = torch.arange(24.0, dtype=torch.float64).reshape(2, 4, 3).cos()  # two views of four patches
    own = views[:, 2 * rank : 2 * rank + 2].reshape(4, 3)
    pixels = torch.zeros(4, 1, 1, 1)
    alike = SharedSimCLR()(own, Batch(pixels, torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)))
    norm = SharedBatchNorm(3).train()
    spread = norm(whole[2 * rank : 2 * rank + 2].float())
    shared = DistributedDataParallel(learner())
    trace = pretrain(shared, replace(batches(), share=(rank, 2)), SharedSpatialNCE(sigma_mm=1.0), LOOP)
    loss = plainly_gathered(torch.tensor(trace.loss)[None]).mean(dim=0)
    alike_of_all, normed = mean_of_all(alike.detach()), plainly_gathered(spread.detach())
    if rank == 0:
        torch.save(
            {
                "alike": alike_of_all,
                "normed": normed,
                "mean": norm.running_mean,
                "variance": norm.running_var,
                "slopes": slopes,
                "weights": shared.module.state_dict(),
                "loss": loss,
            },
            Path(folder) / "found.pt",
        )
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("company")
    spawn(in_company, args=(str(folder),), nprocs=2)
    return torch.load(folder / "found.pt", weights_only=True)


def test_two_processes_come_to_the_weights_of_one(found: dict[str, dict[str, Tensor]]) -> None:
    alone = learner()
    before = {name: one.clone() for name, one in alone.state_dict().items()}
    trace = pretrain(alone, batches(), SpatialNCE(sigma_mm=1.0), LOOP)
    torch.testing.assert_close(found["loss"], torch.tensor(trace.loss), rtol=2e-6, atol=0)
    for name, one in alone.state_dict().items():
        torch.testing.assert_close(found["weights"][name], one, rtol=0, atol=2e-6)
        assert (one - before[name]).abs().max() > 1e-3


def test_gradients_go_through_the_gathering(found: dict[str, dict[str, Tensor]]) -> None:
    whole = torch.arange(12.0, dtype=torch.float64).reshape(4, 3).sin().requires_grad_()
    (whole @ whole.T).square().sum().backward()
    torch.testing.assert_close(found["slopes"]["gathered"], whole.grad, rtol=1e-12, atol=0)
    assert (found["slopes"]["plainly_gathered"] - whole.grad).norm() > 0.3 * whole.grad.norm()


def test_the_parts_of_a_batch_are_the_batch() -> None:
    whole = batches()(1)
    parts = [replace(batches(), share=(part, 2))(1) for part in range(2)]
    torch.testing.assert_close(torch.cat([one.pixels for one in parts]), whole.pixels, rtol=0, atol=1e-5)
    assert torch.equal(torch.cat([one.positions_mm for one in parts]), whole.positions_mm)
    with pytest.raises(ValueError, match="no 5 equal parts"):
        replace(batches(), share=(0, 5))(0)


def test_simclr_compares_the_views_of_all_processes(found: dict[str, dict[str, Tensor]]) -> None:
    views = torch.arange(24.0, dtype=torch.float64).reshape(8, 3).cos()
    batch = Batch(torch.zeros(8, 1, 1, 1), torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64))
    torch.testing.assert_close(found["alike"], SimCLR()(views, batch), rtol=1e-12, atol=0)


def test_norms_look_over_all_processes(found: dict[str, dict[str, Tensor]]) -> None:
    norm = nn.BatchNorm1d(3).train()
    whole = torch.arange(12.0, dtype=torch.float64).reshape(4, 3).sin().float()
    torch.testing.assert_close(found["normed"], norm(whole), rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(found["mean"], norm.running_mean, rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(found["variance"], norm.running_var, rtol=2e-6, atol=2e-6)
