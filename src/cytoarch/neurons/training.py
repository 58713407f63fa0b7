"""Networks fitted to patches: AdamW, a rate that falls to nothing, every step told by the seed and its number.

A training that was stopped goes on from its last checkpoint to the same bits: nothing but the tensors in it and the
number of the step decides what comes next.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from cytoarch.errors import ModelError, TrainingError
from cytoarch.neurons.losses import LineLoss
from cytoarch.neurons.network import MULTIPLE, Architecture, NeuronNetwork
from cytoarch.neurons.patches import Batch, Known, draw_batch
from cytoarch.neurons.tubes import Corner
from cytoarch.progress import Progress

EPS, CLIP, POWER = 1e-4, 12.0, 0.9
"""AdamW's epsilon, the longest gradient, the power of the falling rate (as released)."""
INITIAL_SPREAD = 0.02
"""Deviation of a ConvNeXt's random weights."""


@dataclass(frozen=True)
class Fit:
    """How a network is fitted."""

    steps: int
    patch: Corner
    batch_size: int = 2
    learning_rate: float = 1e-3
    encoder_rate: float = 1.0
    """Times that rate, which the encoder learns with: a step of AdamW is as long as its rate, whatever the gradient."""
    weight_decay: float = 3e-5
    near: float = 0.7
    """Share of the patches that are drawn near a node of a tree."""
    loss: LineLoss = field(default_factory=LineLoss)
    seed: int = 0
    checkpoint_every: int = 250


class Checkpoint(Protocol):
    """Where a training keeps what it needs to go on."""

    def load(self) -> bytes | None:
        """What was saved last, if anything was."""

    def save(self, content: bytes) -> None:
        """Keep this instead of what was saved before."""


class NoCheckpoint:
    """A training that is not kept."""

    def load(self) -> bytes | None:
        """Nothing."""
        return None

    def save(self, content: bytes) -> None:
        """Keeps nothing."""


def new_network(sizes: Architecture, seed: int, encoder: Mapping[str, Tensor] | None = None) -> NeuronNetwork:
    """A network with random weights by a seed, its encoder's replaced by inflated ones where some are given.

    Raises ModelError if they do not fit.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        network = NeuronNetwork(sizes)
        for module in network.encoder.modules():
            if isinstance(module, nn.Conv3d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=INITIAL_SPREAD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    if encoder is not None:
        try:
            network.encoder.load_state_dict(dict(encoder))
        except RuntimeError as error:
            raise ModelError(f"the inflated weights do not fit a network of {sizes.as_json()}: {error}") from None
    return network


def fit_network(
    network: NeuronNetwork,
    volumes: Sequence[Known],
    fit: Fit,
    device: str = "cpu",
    checkpoint: Checkpoint | None = None,
    on_progress: Progress | None = None,
    draw: Callable[[int], Batch] | None = None,
) -> list[float]:
    """Fit a network in place; returns the loss of every step.

    `draw` gives the patches of a step where they have been drawn before. Raises TrainingError if the loss is no number
    or a patch has edges that are no multiple of 16.
    """
    if any(edge % MULTIPLE or edge < MULTIPLE for edge in fit.patch):
        raise TrainingError(f"patches of {fit.patch} voxels: every edge must be a multiple of {MULTIPLE}")
    if fit.batch_size * np.prod(fit.patch) < 2 * MULTIPLE**3:
        raise TrainingError(
            f"one patch of {fit.patch} voxels a step: norms need two cells of 16 voxels, take larger ones"
        )
    if not volumes and draw is None:
        raise TrainingError("there is no volume with a known tree; add one with an SWC file to learn from")
    kept = checkpoint or NoCheckpoint()
    network.to(device).train()
    shares = [(network.encoder, fit.encoder_rate), *((one, 1.0) for one in network.decoding)]
    groups = [{"params": list(one.parameters()), "share": share} for one, share in shares]
    optimiser = torch.optim.AdamW(groups, lr=fit.learning_rate, weight_decay=fit.weight_decay, eps=EPS)
    losses = _resume(network, optimiser, kept)
    batches = draw or (lambda step: batch_of(volumes, fit, step))
    for step in range(len(losses), fit.steps):
        for group in optimiser.param_groups:
            group["lr"] = group["share"] * fit.learning_rate * (1 - step / fit.steps) ** POWER
        losses.append(_step(network, optimiser, batches(step), fit.loss, device))
        if not np.isfinite(losses[-1]):
            raise TrainingError(f"the loss is {losses[-1]} in step {step + 1}; lower the learning rate")
        if on_progress is not None:
            on_progress(step + 1, fit.steps)
        if (step + 1) % fit.checkpoint_every == 0 and step + 1 < fit.steps:
            kept.save(_kept(network, optimiser, losses))
    network.eval()
    return losses


def batch_of(volumes: Sequence[Known], fit: Fit, step: int) -> Batch:
    """The patches of a step."""
    lines = fit.loss.topology == "skeleton-recall"
    return draw_batch(volumes, fit.patch, fit.batch_size, fit.near, (fit.seed, step), lines)


def _step(network: NeuronNetwork, optimiser: torch.optim.Optimizer, batch: Batch, loss: LineLoss, device: str) -> float:
    volumes, targets, lines = (one.to(device, non_blocking=True) for one in batch)
    value = loss.of(network(volumes), targets, lines)
    optimiser.zero_grad(set_to_none=True)
    value.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward untyped
    nn.utils.clip_grad_norm_(network.parameters(), CLIP)
    optimiser.step()
    return float(value.detach())


def _kept(network: NeuronNetwork, optimiser: torch.optim.Optimizer, losses: list[float]) -> bytes:
    """All that decides what comes next, as safetensors."""
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{name}": torch.as_tensor(value) for name, value in state.items()}
    tensors["losses"] = torch.tensor(losses, dtype=torch.float64)
    return bytes(save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))


def _resume(network: NeuronNetwork, optimiser: torch.optim.Optimizer, checkpoint: Checkpoint) -> list[float]:
    """Go on from a checkpoint, if there is one; returns the losses so far."""
    content = checkpoint.load()
    if content is None:
        return []
    tensors = load(content)
    network.load_state_dict(
        {name.removeprefix("network."): one for name, one in tensors.items() if name.startswith("network.")}
    )
    stated = optimiser.state_dict()
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimiser."):
            _, number, field = name.split(".")
            states.setdefault(int(number), {})[field] = tensor
    optimiser.load_state_dict({**stated, "state": states})
    return [float(one) for one in tensors["losses"]]
