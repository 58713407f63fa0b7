from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cytoarch.encoders.compact_model import CompactNetwork
from cytoarch.errors import CytoarchError, ModelError
from cytoarch.pretraining.loop import LoopSettings, Trace, checkpoint_at, checkpoints, keeps, pretrain, rate_at
from cytoarch.pretraining.networks import PatchLearner, projection_head
from cytoarch.pretraining.objectives import Objective, SimCLR, SpatialNCE, SupCon, Supervised
from cytoarch.pretraining.optimisers import Lars, make_optimiser, parameter_groups
from cytoarch.pretraining.patches import Batch, PatchBatches, PatchPoints, SectionPixels
from cytoarch.store.staging import Staging

POINTS, CLASSES = 24, 4


def batches(views: int = 1) -> PatchBatches:
    """Patches whose stripes tell their class, which also says where they lie."""
    rng = np.random.default_rng(0)
    x = np.mgrid[:80, :80][1]
    sections = [
        np.clip(127 + 90 * np.sin(x / (2 + 3 * label)) + rng.normal(0, 5, x.shape), 0, 255).astype(np.uint8)
        for label in range(CLASSES)
    ]
    label = np.arange(POINTS) % CLASSES
    points = PatchPoints(
        section=label,
        centre_px=rng.uniform(35, 45, (POINTS, 2)),
        position_mm=label[:, None] * 20.0 + rng.normal(0, 1, (POINTS, 3)),
        label=label,
        brain=np.zeros(POINTS, np.int64),
    )
    return PatchBatches(
        SectionPixels.of(sections, "cpu"),
        points,
        pixel_size_um=20.0,
        patch_px=32,
        batch_size=12,
        views=views,
        shift_mm=0.1,
    )


def learner(classes: int | None = None, seed: int = 0) -> PatchLearner:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return PatchLearner(CompactNetwork(1, widths=(8, 8, 16), depths=(1, 1, 1), tokens=8), classes)


ADAM = LoopSettings(steps=30, optimiser="adamw", learning_rate=3e-3, watch_every=10)


@pytest.mark.parametrize(
    "objective", [SpatialNCE(), SimCLR(), SupCon(), Supervised()], ids=lambda one: type(one).__name__
)
def test_every_objective_is_learned_by_the_same_loop(objective: Objective) -> None:
    trace = pretrain(
        learner(CLASSES if isinstance(objective, Supervised) else None), batches(objective.views), objective, ADAM
    )
    assert len(trace.loss) == 30
    assert np.mean(trace.loss[-5:]) < 0.8 * np.mean(trace.loss[:5])
    assert sorted(trace.health) == [10, 20, 30]


def test_what_belongs_together_comes_nearer() -> None:
    trace = pretrain(learner(), batches(), SupCon(), ADAM)
    assert trace.health[30].alignment < trace.health[10].alignment


class CutOffError(Exception):
    pass


@pytest.mark.parametrize("optimiser", ["lars", "adamw"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_that_was_cut_off_ends_with_the_same_weights(tmp_path: Path, optimiser: str, precision: str) -> None:
    settings = LoopSettings(
        steps=7, optimiser=optimiser, learning_rate=1e-2, precision=precision, warmup=3, decay=True,
        watch_every=2, keep_every=3,
    )  # fmt: skip

    def killed(step: int, trace: Trace) -> None:
        if step == 5:
            raise CutOffError

    whole = learner()
    trace = pretrain(whole, batches(), SpatialNCE(), settings)
    with pytest.raises(CutOffError):
        pretrain(learner(), batches(), SpatialNCE(), settings, checkpoint_path=tmp_path / "run.pt", on_step=killed)
    again = learner(seed=1)  # nothing of a new start is left
    resumed = pretrain(again, batches(), SpatialNCE(), settings, checkpoint_path=tmp_path / "run.pt")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert resumed.loss == trace.loss
    assert resumed.health == trace.health
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run-0.pt", "run-1.pt"]


def test_a_kill_between_a_checkpoint_and_its_seal_costs_the_steps_since_the_one_before(tmp_path: Path) -> None:
    settings = LoopSettings(steps=8, optimiser="adamw", learning_rate=1e-3, keep_every=2)
    staging, given = Staging(tmp_path / "staged").open(), batches()
    path = staging.path / "run.pt"

    def sealing(step: int, _trace: Trace) -> None:
        if step == 6:
            raise CutOffError
        if keeps(step, settings):
            staging.seal(checkpoint_at(path, step, settings).name)

    with pytest.raises(CutOffError):
        pretrain(learner(), given, SupCon(), settings, checkpoint_path=path, on_step=sealing)
    Staging(tmp_path / "staged").open()  # what is not as it was sealed is removed
    assert seen_steps(path, settings) == [4, 5, 6, 7]


def seen_steps(path: Path, settings: LoopSettings) -> list[int]:
    """The steps that are still run from what is there."""
    given, seen = batches(), list[int]()

    def counted(step: int) -> Batch:
        seen.append(step)
        return given(step)

    pretrain(learner(), counted, SupCon(), settings, checkpoint_path=path)
    return seen


def test_a_checkpoint_that_cannot_be_read_gives_way_to_the_one_before(tmp_path: Path) -> None:
    settings, path = LoopSettings(steps=6, optimiser="adamw", learning_rate=1e-3, keep_every=2), tmp_path / "run.pt"
    pretrain(learner(), batches(), SupCon(), settings, checkpoint_path=path)
    latest = checkpoint_at(path, 6, settings)
    latest.write_bytes(latest.read_bytes()[:100])
    assert seen_steps(path, settings) == [4, 5]
    for one in checkpoints(path):
        one.write_bytes(b"")
    with pytest.raises(CytoarchError, match=r"the checkpoint cannot be read .*; remove it to begin anew"):
        seen_steps(path, settings)


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    settings = LoopSettings(steps=2, optimiser="adamw", learning_rate=1e-3)
    first = learner()
    pretrain(first, batches(), SupCon(), settings, checkpoint_path=tmp_path / "run.pt")

    def never(step: int) -> object:
        raise AssertionError(step)

    again = learner(seed=1)
    trace = pretrain(again, never, SupCon(), settings, checkpoint_path=tmp_path / "run.pt")  # type: ignore[arg-type]
    assert len(trace.loss) == 2
    assert all(torch.equal(one, again.state_dict()[name]) for name, one in first.state_dict().items())


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    settings = LoopSettings(steps=1, optimiser="adamw", learning_rate=1e-3)
    pretrain(learner(), batches(), SupCon(), settings, checkpoint_path=tmp_path / "run.pt")
    other = settings.model_copy(update={"learning_rate": 2e-3})
    with pytest.raises(CytoarchError, match="a run with another learning_rate"):
        pretrain(learner(), batches(), SupCon(), other, checkpoint_path=tmp_path / "run.pt")


def test_a_loss_that_is_no_number_ends_the_run() -> None:
    settings = LoopSettings(steps=20, optimiser="adamw", learning_rate=1e-3, watch_every=4)
    broken = learner()
    with torch.no_grad():
        broken.head[3].weight.fill_(torch.nan)
    with pytest.raises(ModelError, match="the loss of step 1 is nan"):
        pretrain(broken, batches(), SupCon(), settings)


def test_the_rate_rises_and_falls() -> None:
    settings = LoopSettings(steps=110, learning_rate=2.0, warmup=10, decay=True)
    rates = [rate_at(step, settings) for step in range(110)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[10] == pytest.approx(2.0)
    assert rates[60] == pytest.approx(1.0)
    assert 0 < rates[109] < 0.001


def test_lars_takes_the_published_step() -> None:
    weight = nn.Parameter(torch.tensor([[3.0, 4.0]]))  # of length 5
    optimiser = Lars([weight], lr=0.1, momentum=0.9, weight_decay=0.5, trust=0.02)
    gradient = torch.tensor([[0.6, -0.8]])  # of length 1
    weight.grad = gradient.clone()
    optimiser.step()
    local = 0.02 * 5 / (1 + 0.5 * 5)
    move = 0.1 * local * (gradient + 0.5 * torch.tensor([[3.0, 4.0]]))
    torch.testing.assert_close(weight.detach(), torch.tensor([[3.0, 4.0]]) - 1.9 * move)  # Nesterov: v + m v


def test_lars_without_scaling_is_sgd_with_nesterov_momentum() -> None:
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    groups = [{"params": list(ours.parameters()), "scaled": False}]
    pair = (
        Lars(groups, lr=0.05, weight_decay=1e-2),
        torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-2),
    )
    for step in range(5):
        pixels = torch.randn(4, 5, generator=torch.Generator().manual_seed(step))
        for layer, optimiser in zip((ours, theirs), pair, strict=True):
            optimiser.zero_grad()
            layer(pixels).square().sum().backward()
            optimiser.step()
    torch.testing.assert_close(ours.weight, theirs.weight)


def test_lars_moves_every_weight_in_proportion_to_its_length() -> None:
    small, large = nn.Parameter(torch.full((2, 2), 0.01)), nn.Parameter(torch.full((2, 2), 10.0))
    optimiser = Lars([small, large], lr=1.0, momentum=0.0)
    small.grad, large.grad = torch.full((2, 2), 1e6), torch.full((2, 2), 1e-6)
    optimiser.step()
    assert [float(one.detach().mean()) for one in (small, large)] == pytest.approx([0.01 * 0.98, 10 * 0.98])


def test_lars_leaves_weights_of_length_nought_finite() -> None:
    weight = nn.Parameter(torch.zeros(2, 2))
    weight.grad = torch.ones(2, 2)
    Lars([weight], lr=0.1, momentum=0.0).step()
    torch.testing.assert_close(weight.detach(), torch.full((2, 2), -0.1))


def test_biases_are_not_decayed_and_norms_are_not_scaled() -> None:
    network = learner()
    named = {id(one): name for name, one in network.named_parameters()}
    groups = parameter_groups(network, 0.1)
    assert sum(len(group["params"]) for group in groups) == len(named)
    for group in groups:
        for one in group["params"]:
            assert (group["weight_decay"] == 0) == named[id(one)].endswith("bias")
            assert group["scaled"] == (one.ndim >= 2)


@pytest.mark.parametrize("method", ["lars", "adamw"])
def test_both_optimisers_know_the_groups(method: str) -> None:
    optimiser = make_optimiser(learner(), method, 0.1, 0.2)  # type: ignore[arg-type]
    assert sorted({group["weight_decay"] for group in optimiser.param_groups}) == [0.0, 0.2]


def test_the_network_gives_a_patch_and_its_tokens() -> None:
    network = CompactNetwork(3).eval()
    with torch.inference_mode():
        patch, tokens = network(torch.rand(2, 3, 64, 96))
    assert patch.shape == (2, 256)
    assert tokens.shape == (2, 96, 16, 24)
    assert sum(one.numel() for one in network.parameters()) * 2 < 8e6  # bytes, as half-precision numbers


def test_the_head_has_the_published_size() -> None:
    assert [type(one).__name__ for one in projection_head(8)] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert projection_head(8)(torch.rand(4, 8)).shape == (4, 256)
