"""What is learned: the loss of a batch, and which of its embeddings should be alike."""

from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from cytoarch.pretraining.losses import contrastive_loss, label_targets, pair_targets, spatial_targets
from cytoarch.pretraining.patches import Batch

B = TypeVar("B", bound=Batch)
B_contra = TypeVar("B_contra", bound=Batch, contravariant=True)


class Objective(Protocol[B_contra]):
    """One way to learn; the loop knows no other difference between them."""

    @property
    def views(self) -> int:
        """How often a patch is drawn for a batch."""

    def __call__(self, outputs: Any, batch: B_contra) -> Tensor:
        """The loss (scalar) of what the network gives for the pixels of a batch."""

    def targets(self, batch: B_contra) -> Tensor:
        """Who should be like whom (N, N): what the health of embeddings is measured by."""


@dataclass(frozen=True)
class SpatialNCE:
    """Patches are to be as alike as they are near to each other, in whatever brain (Schiffer et al., eq. 1)."""

    temperature: float = 0.07
    sigma_mm: float = 10.0
    views: int = 1

    def __call__(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The loss of embeddings (n, d)."""
        return contrastive_loss(outputs, self.targets(batch), self.temperature)

    def targets(self, batch: Batch) -> Tensor:
        """Shares by nearness in the reference space."""
        return spatial_targets(batch.positions_mm, self.sigma_mm)


@dataclass(frozen=True)
class SimCLR:
    """Two draws of a patch are to be alike, and unlike all others (Chen et al. 2020)."""

    temperature: float = 0.07
    views: int = 2

    def __call__(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The loss of embeddings (2 n, d)."""
        return contrastive_loss(outputs, self.targets(batch), self.temperature)

    def targets(self, batch: Batch) -> Tensor:
        """The other view."""
        return pair_targets(len(batch.pixels), batch.pixels.device)


@dataclass(frozen=True)
class SupCon:
    """Patches of one area are to be alike (Khosla et al. 2020)."""

    temperature: float = 0.07
    views: int = 1

    def __call__(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The loss of embeddings (n, d)."""
        return contrastive_loss(outputs, self.targets(batch), self.temperature)

    def targets(self, batch: Batch) -> Tensor:
        """The others of the same area."""
        return label_targets(batch.labels)


@dataclass(frozen=True)
class Supervised:
    """The area of every patch is to be told: training from scratch, no pretraining at all."""

    views: int = 1

    def __call__(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The cross-entropy of logits (n, k)."""
        with torch.autocast(outputs.device.type, enabled=False):
            return functional.cross_entropy(outputs.float(), batch.labels)

    def targets(self, batch: Batch) -> Tensor:
        """The others of the same area."""
        return label_targets(batch.labels)
