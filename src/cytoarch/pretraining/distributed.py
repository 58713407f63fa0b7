"""One batch shared by several processes: each computes its own rows, and all are compared with all.

Every process averages the loss of its rows; torch's DistributedDataParallel averages the gradients of the processes.
Where the gathering of embeddings lets gradients through, that is the gradient of the whole batch; gathered without, the
keys would count as constants and the gradient would be another one.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm

from cytoarch.pretraining.losses import contrastive_loss, spatial_targets
from cytoarch.pretraining.objectives import B, SimCLR, SpatialNCE
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


@dataclass(frozen=True)
class SharedSimCLR(SimCLR):
    """SimCLR over the batch of all processes, of which each holds both views of as many patches."""

    def __call__(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The mean loss of the rows (2 n, d) of this process among those of all."""
        count, first = len(outputs), dist.get_rank() * len(outputs)
        targets = outputs.new_zeros((count, count * dist.get_world_size()))
        targets[:, first : first + count] = super().targets(batch)
        return contrastive_loss(outputs, targets, self.temperature, keys=gathered(outputs), first=first)

    def targets(self, batch: Batch) -> Tensor:
        """The other view, process by process."""
        whole: Tensor = torch.block_diag(*[super().targets(batch)] * dist.get_world_size())  # type: ignore[no-untyped-call]
        return whole


def company() -> int:
    """How many processes train together; 1: this one alone."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this process is, from 0."""
    return dist.get_rank() if company() > 1 else 0


def leads() -> bool:
    """Whether this process is the one that writes for all."""
    return rank() == 0


def mean_of_all(values: Tensor) -> Tensor:
    """The mean of a tensor over all processes."""
    if company() == 1:
        return values
    whole = values.clone()
    dist.all_reduce(whole)
    return whole / company()


def whole_batch(outputs: Tensor, batch: B) -> tuple[Tensor, B]:
    """The embeddings of all processes, and where their patches lie; of a process alone its own."""
    if company() == 1:
        return outputs, batch
    parts = {name: plainly_gathered(getattr(batch, name)) for name in ("positions_mm", "labels")}
    return plainly_gathered(outputs), replace(batch, **parts)


class _Summed(torch.autograd.Function):
    """The sum over all processes; backwards the sum of what all say of it."""

    @staticmethod
    def forward(_ctx: Any, values: Tensor) -> Tensor:
        whole = values.clone()
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(_ctx: Any, *slopes: Tensor) -> Tensor:
        whole = slopes[0].contiguous().clone()
        dist.all_reduce(whole)
        return whole


class SharedBatchNorm(_BatchNorm):
    """A batch norm over the batch of all processes, for processors: torch's SyncBatchNorm needs graphics cards."""

    def _check_input_dim(self, _pixels: Tensor) -> None:
        """Any number of axes."""

    def forward(self, pixels: Tensor) -> Tensor:
        """(b, c, ...) -> the same shape; every process has as many."""
        if not self.training:
            return super().forward(pixels)
        axes = [axis for axis in range(pixels.ndim) if axis != 1]
        shape = [1, -1, *[1] * (pixels.ndim - 2)]
        count = pixels.numel() // pixels.shape[1] * dist.get_world_size()
        mean = _summed(pixels.sum(dim=axes)) / count
        away = pixels - mean.view(shape)
        variance = _summed(away.square().sum(dim=axes)) / count
        if self.track_running_stats:
            self._remember(mean.detach(), variance.detach() * count / max(1, count - 1))
        scaled = away * torch.rsqrt(variance + self.eps).view(shape)
        return scaled * self.weight.view(shape) + self.bias.view(shape)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        share = self.momentum if self.momentum is not None else 0.1
        for kept, new in ((self.running_mean, mean), (self.running_var, variance)):
            if kept is not None:
                kept.lerp_(new.to(kept.dtype), share)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


def _summed(values: Tensor) -> Tensor:
    found: Tensor = _Summed.apply(values)  # type: ignore[no-untyped-call]  # torch leaves Function.apply untyped
    return found


def shared_norms(network: nn.Module, device: str) -> nn.Module:
    """The network with batch norms that look over all processes; names and values of tensors stay as they are."""
    if device.startswith("cuda"):
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return converted
    for name, part in list(network.named_modules()):
        if isinstance(part, _BatchNorm):
            holder, _, own = name.rpartition(".")
            setattr(network.get_submodule(holder), own, _shared(part))
    return network


def _shared(norm: _BatchNorm) -> SharedBatchNorm:
    found = SharedBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    found.load_state_dict(norm.state_dict())
    return found.train(norm.training)
