"""One batch shared by several processes: each computes its own rows, and all are compared with all.

Every process averages the loss of its rows; torch's DistributedDataParallel averages the gradients of the processes.
Where the gathering of embeddings lets gradients through, that is the gradient of the whole batch; gathered without, the
keys would count as constants and the gradient would be another one.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from cytoarch.pretraining.losses import contrastive_loss, spatial_targets
from cytoarch.pretraining.objectives import SpatialNCE
from cytoarch.pretraining.patches import Batch


class _Gathered(torch.autograd.Function):
    """The rows of all processes; backwards each gets the sum of what all say of its rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.first, ctx.count = dist.get_rank() * len(rows), len(rows)
        return plainly_gathered(rows)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        whole = slopes[0].contiguous().clone()
        dist.all_reduce(whole)
        return whole[ctx.first : ctx.first + ctx.count]


def gathered(rows: Tensor) -> Tensor:
    """(n, ...) of every process -> (n W, ...) by rank, through which gradients go back to all of them."""
    found: Tensor = _Gathered.apply(rows)  # type: ignore[no-untyped-call]  # torch leaves Function.apply untyped
    return found


def plainly_gathered(rows: Tensor) -> Tensor:
    """(n, ...) of every process -> (n W, ...) by rank, for what has no gradient; n is the same in all."""
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


@dataclass(frozen=True)
class SharedSpatialNCE(SpatialNCE):
    """SpatialNCE over the batch of all processes, of which each holds as many rows."""

    def __call__(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The mean loss of the rows (n, d) of this process among those of all."""
        first = dist.get_rank() * len(outputs)
        positions = plainly_gathered(batch.positions_mm)
        targets = spatial_targets(batch.positions_mm, self.sigma_mm, keys=positions, first=first)
        return contrastive_loss(outputs, targets, self.temperature, keys=gathered(outputs), first=first)
