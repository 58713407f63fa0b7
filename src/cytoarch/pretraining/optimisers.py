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
            weights = [one for one in group["params"] if one.grad is not None]
            if weights:
                self._move(weights, group)

    def _move(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        """Move the tensors of a group, all at once: one by one a graphics card waits for the processor."""
        gradients = [one.grad for one in weights if one.grad is not None]
        slopes = list(torch._foreach_add(gradients, weights, alpha=group["weight_decay"]))
        if group["scaled"]:
            torch._foreach_mul_(slopes, _local_rates(weights, gradients, group["weight_decay"], group["trust"]))
        moving = [self.state[one].setdefault("moving", torch.zeros_like(one)) for one in weights]
        torch._foreach_mul_(moving, group["momentum"])
        torch._foreach_add_(moving, slopes, alpha=group["lr"])
        torch._foreach_add_(weights, slopes, alpha=-group["lr"])
        torch._foreach_add_(weights, moving, alpha=-group["momentum"])


def _local_rates(weights: list[Tensor], gradients: list[Tensor], decay: float, trust: float) -> list[Tensor]:
    lengths, steepness = (torch.stack(torch._foreach_norm(some)) for some in (weights, gradients))
    rates = trust * lengths / (steepness + decay * lengths)
    return list(torch.where((lengths > 0) & (steepness > 0), rates, torch.ones_like(rates)).unbind())


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
    on_card = next(network.parameters()).is_cuda
    plain = [{key: one for key, one in group.items() if key != "scaled"} for group in groups]
    return torch.optim.AdamW(plain, learning_rate, fused=on_card or None)
