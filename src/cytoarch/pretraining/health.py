"""Whether embeddings are still worth something: how many directions they use, how near pairs are."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Health(NamedTuple):
    """What tells a collapse from a success without any label."""

    rank: float
    """Directions that embeddings use: exp of the entropy of their singular values (RankMe, Garrido et al. 2023)."""
    alignment: float
    """Mean squared distance of what belongs together, on the unit sphere (Wang and Isola 2020); 0 to 4."""
    uniformity: float
    """log mean exp(-2 d^2) over all pairs, on the unit sphere (Wang and Isola 2020): 0 collapsed, -4 spread."""


def health_of(embeddings: Tensor, targets: Tensor) -> Health:
    """The health of embeddings (n, d), row i of `targets` (n, n) says who belongs to i; two are needed at least."""
    if len(embeddings) < 2:
        raise ValueError(f"{len(embeddings)} embedding has no health; at least 2 are needed")
    unit = functional.normalize(embeddings.double(), dim=1)
    squares = (2 - 2 * unit @ unit.T).clamp(min=0)
    wanted = targets.double()
    alignment = (wanted * squares).sum() / wanted.sum().clamp(min=torch.finfo(torch.float64).tiny)
    pairs = squares[~torch.eye(len(unit), dtype=torch.bool, device=unit.device)]
    uniformity = (-2 * pairs).logsumexp(dim=0) - math.log(len(pairs))
    return Health(effective_rank(embeddings), float(alignment), float(uniformity))


def effective_rank(embeddings: Tensor) -> float:
    """Exp of the entropy of the singular values of embeddings (n, d), of which the mean is not taken off; 1 to d.

    >>> round(effective_rank(torch.eye(5)), 6), round(effective_rank(torch.ones(7, 3)), 6)
    (5.0, 1.0)
    """
    values = torch.linalg.svdvals(embeddings.double())
    shares = values / values.sum().clamp(min=torch.finfo(torch.float64).tiny)
    return float(torch.exp(-torch.special.xlogy(shares, shares).sum()))
