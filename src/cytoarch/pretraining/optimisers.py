"""LARS, and which tensors of a network are decayed and scaled."""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Method = Literal["lars", "adamw"]

MOMENTUM, TRUST = 0.9, 0.02
"""Of CytoNet (Schiffer et al.)."""


class Lars(Optimizer):
    """SGD with Nesterov momentum whose step on each tensor is in proportion to the tensor's length (You et al. 2017).

    local = trust |w| / (|g| + decay |w|); v <- m v + rate local (g + decay w); w <- w - rate local (g + decay w) - m v.
    Groups with `scaled=False` (biases, norms) have local = 1, as have tensors of length 0.
    """

    def __init__(
        self,
        params: "Iterable[Tensor] | Iterable[dict[str, Any]]",
        lr: float,
        momentum: float = MOMENTUM,
        weight_decay: float = 0.0,
        trust: float = TRUST,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust, "scaled": True}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: "Callable[[], float] | None" = None) -> None:  # type: ignore[override]
        """Take one step down the gradients that are there."""
        if closure is not None:
            raise ValueError("Lars takes no closure; compute the gradients, then call step()")
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, group)

    def _move(self, weight: Tensor, group: dict[str, Any]) -> None:
        slope = weight.grad + group["weight_decay"] * weight
        if group["scaled"]:
            slope *= _local_rate(weight, group["weight_decay"], group["trust"])
        state = self.state[weight]
        moving = state.setdefault("moving", torch.zeros_like(weight))
        moving.mul_(group["momentum"]).add_(slope, alpha=group["lr"])
        weight.sub_(group["lr"] * slope + group["momentum"] * moving)


def _local_rate(weight: Tensor, decay: float, trust: float) -> Tensor:
    length, steepness = weight.norm(), weight.grad.norm()  # type: ignore[union-attr]
    rate = trust * length / (steepness + decay * length)
    return torch.where((length > 0) & (steepness > 0), rate, torch.ones_like(rate))


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weights, which are decayed and scaled; scales of norms, decayed only; biases, neither (Schiffer et al.)."""
    named = [(name, one) for name, one in network.named_parameters() if one.requires_grad]
    biases = [one for name, one in named if name.endswith("bias")]
    norms = [one for name, one in named if one.ndim < 2 and not name.endswith("bias")]
    weights = [one for name, one in named if one.ndim >= 2 and not name.endswith("bias")]
    groups = [
        {"params": weights, "weight_decay": weight_decay, "scaled": True},
        {"params": norms, "weight_decay": weight_decay, "scaled": False},
        {"params": biases, "weight_decay": 0.0, "scaled": False},
    ]
    return [group for group in groups if group["params"]]


def make_optimiser(network: nn.Module, method: Method, learning_rate: float, weight_decay: float) -> Optimizer:
    """The optimiser of a network: LARS as CytoNet is trained, or AdamW for short schedules."""
    groups = parameter_groups(network, weight_decay)
    if method == "lars":
        return Lars(groups, learning_rate)
    return torch.optim.AdamW(
        [{key: one for key, one in group.items() if key != "scaled"} for group in groups], learning_rate
    )
