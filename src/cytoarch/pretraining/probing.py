"""What embeddings are worth while they are still being learned: linear probes in torch, on the device that trains."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

ITERATIONS = 100
"""Steps of L-BFGS; the loss is convex, and a probe that is nearly there scores alike."""


@dataclass(frozen=True)
class LinearProbe:
    """Multinomial logistic regression on standardised embeddings."""

    mean: Tensor
    spread: Tensor
    weight: Tensor
    """(k, d) of standardised embeddings."""
    bias: Tensor

    def __call__(self, embeddings: Tensor) -> Tensor:
        """Logits (n, k) of embeddings (n, d)."""
        return (embeddings.float() - self.mean) / self.spread @ self.weight.T + self.bias


def fit_linear_probe(embeddings: Tensor, labels: Tensor, classes: int, penalty: float = 1.0) -> LinearProbe:
    """The probe of embeddings (n, d) and labels (n,) from 0, classes weighted alike; `penalty` is scikit-learn's 1 / C.

    The mean weighted cross-entropy + penalty |W|^2 / 2n, as scikit-learn's LogisticRegression(class_weight="balanced").
    A class that no label names keeps whatever the penalty gives it, and is next to never told.
    """
    values = embeddings.float()
    mean, spread = values.mean(dim=0), values.std(dim=0, correction=0).clamp(min=1e-6)
    scaled = (values - mean) / spread
    count = torch.bincount(labels, minlength=classes)
    share = len(labels) / (count.clamp(min=1) * (count > 0).sum())
    weight = torch.zeros(classes, values.shape[1], device=values.device, requires_grad=True)
    bias = torch.zeros(classes, device=values.device, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe", history_size=20)

    def loss() -> Tensor:
        solver.zero_grad()
        cost = functional.cross_entropy(scaled @ weight.T + bias, labels, weight=share, reduction="sum") / len(labels)
        cost = cost + penalty / (2 * len(labels)) * weight.square().sum()
        cost.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward untyped
        return cost

    solver.step(loss)  # type: ignore[no-untyped-call]  # torch leaves LBFGS.step untyped
    return LinearProbe(mean, spread, weight.detach(), bias.detach())


def fit_positions(embeddings: Tensor, positions: Tensor, ridge: float = 1.0) -> Tensor:
    """A linear map (d + 1, k) from embeddings (n, d) and a constant to positions (n, k), by ridge regression."""
    values = with_constant(embeddings)
    penalty = ridge * torch.eye(values.shape[1], dtype=values.dtype, device=values.device)
    penalty[-1, -1] = 0  # the constant is free
    found: Tensor = torch.linalg.solve(values.T @ values + penalty, values.T @ positions.double())
    return found


def with_constant(embeddings: Tensor) -> Tensor:
    """Embeddings (n, d) as (n, d + 1) float64, the last column 1."""
    return torch.cat([embeddings.double(), embeddings.new_ones(len(embeddings), 1, dtype=torch.float64)], dim=1)
