"""The fusion decoder of Zhang, Xu and Zhou: several layers of a frozen encoder, projected, fused and classified."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from cytoarch.errors import ModelError
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.datasets import Crops, whole_crops
from cytoarch.learning.losses import dice_loss, focal_loss
from cytoarch.learning.networks import STEP_BYTES, check_fits, probabilities_of, rebuilt, tensors_of
from cytoarch.learning.targets import UNLABELLED
from cytoarch.progress import Progress
from cytoarch.sampling import moments

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

MAX_WIDTH = 4096
"""Most channels of a branch that a kept decoder may have."""
DICE_WEIGHT = 0.33
"""lambda of the combined loss (Zhang, Xu and Zhou)"""


class FusionNetwork(nn.Module):
    """Per layer 1 x 1 and 3 x 3 convolutions, upsampling to the output grid, concatenation, a per-cell MLP.

    L (d p + p + 9 p^2 + p) + (L p h + h) + (h k + k) parameters, with h = p.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, dims: tuple[int, ...], classes: int, width: int, cells_per_token: int) -> None:
        super().__init__()
        self.dims, self.cells_per_token = dims, cells_per_token
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(d, width, 1), nn.GELU(), nn.Conv2d(width, width, 3, padding=1), nn.GELU())
            for d in dims
        )
        self.fuse = nn.Conv2d(len(dims) * width, width, 1)
        self.classify = nn.Conv2d(width, classes, 1)
        self.register_buffer("mean", torch.zeros(sum(dims)))
        self.register_buffer("spread", torch.ones(sum(dims)))

    def forward(self, embeddings: Tensor) -> Tensor:
        """(b, sum d, y, x) -> logits (b, k, y u, x u)."""
        scaled = (embeddings - self.mean[:, None, None]) / self.spread[:, None, None]
        maps = [
            branch(part)
            for branch, part in zip(self.branches, torch.split(scaled, list(self.dims), dim=1), strict=True)
        ]
        # the paper fuses after upsampling; a 1 x 1 convolution commutes with it, and is cheaper on the coarse grid
        fused = self.fuse(torch.cat(maps, dim=1))
        if self.cells_per_token > 1:
            fused = functional.interpolate(
                fused, scale_factor=self.cells_per_token, mode="bilinear", align_corners=False
            )
        logits: Tensor = self.classify(functional.gelu(fused))
        return logits


@dataclass(frozen=True)
class Decoder:
    """A trained fusion network."""

    card: HeadCard
    network: FusionNetwork

    @classmethod
    def check_shapes(cls, card: HeadCard, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise ModelError unless these are the shapes of the decoder that a card describes; nothing is allocated."""
        width = shapes.get("fuse.bias", ())
        if len(width) != 1 or not 1 <= width[0] <= MAX_WIDTH:
            raise ModelError(f"fuse.bias of a decoder has 1 to {MAX_WIDTH} values, found {list(width)}")
        sizes = (card.dims, len(card.classes), width[0], card.cells_per_token)
        check_fits("decoder", lambda: FusionNetwork(*sizes), shapes)

    @classmethod
    def from_tensors(cls, card: HeadCard, tensors: Mapping[str, Float32]) -> Self:
        """Rebuild a decoder. Raises ModelError if its tensors do not fit its card."""
        cls.check_shapes(card, {name: tensor.shape for name, tensor in tensors.items()})
        network = FusionNetwork(card.dims, len(card.classes), len(tensors["fuse.bias"]), card.cells_per_token)
        return cls(card, rebuilt("decoder", network, tensors))

    @property
    def bytes_per_token(self) -> int:
        """Memory that `probabilities` takes per token at its peak (bytes)."""
        width = self.network.fuse.out_channels
        on_tokens = 4 * sum(self.card.dims) + 4 * len(self.card.dims) * width
        on_cells = self.card.cells_per_token**2 * (3 * width + 3 * len(self.card.classes))
        return 4 * (on_tokens + on_cells)

    def tensors(self) -> Mapping[str, Float32]:
        """Its weights by name."""
        return tensors_of(self.network)

    def probabilities(self, embeddings: Float32) -> Float32:
        """(b, c, y, x) -> (b, k, y u, x u), sums to 1 over k."""
        return probabilities_of(self.network, embeddings)


def fit_decoder(
    card: HeadCard,
    crops: Crops,
    *,
    width: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    seed: int,
    on_progress: Progress | None = None,
) -> tuple[Decoder, dict[str, Any]]:
    """Train a decoder with focal + 0.33 Dice loss and AdamW at a constant rate; returns it and its loss by epoch.

    Batches are smaller than asked for where they would take more than `STEP_BYTES`; the facts say how large they were.
    Weight decay is AdamW's; the penalty of the paper's equation 1 is the same thing and is not applied twice.
    """
    batch_size = min(batch_size, _crops_at_once(card, width, crops.targets.shape[-1]))
    mean, spread = moments(whole_crops(crops))
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        network = FusionNetwork(card.dims, len(card.classes), width, card.cells_per_token)
        network.mean.copy_(torch.from_numpy(mean))
        network.spread.copy_(torch.from_numpy(spread))
        optimiser = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=weight_decay)
        network.train()
        losses: list[float] = []
        for epoch in range(epochs):
            order = torch.randperm(len(crops.targets)).numpy()
            batches = np.array_split(order, max(1, -(-len(order) // batch_size)))
            losses.append(float(np.mean([_step(network, optimiser, crops, batch) for batch in batches])))
            if not np.isfinite(losses[-1]):
                raise ModelError(f"the decoder's loss is {losses[-1]} in epoch {epoch + 1}; lower the learning rate")
            if on_progress is not None:
                on_progress(epoch + 1, epochs)
    return Decoder(card, network.eval().requires_grad_(False)), {"batch_size": batch_size, "loss": losses}


def _crops_at_once(card: HeadCard, width: int, edge_cells: int) -> int:
    """How many crops a step of training takes within `STEP_BYTES`; one at least."""
    tokens = (edge_cells // card.cells_per_token) ** 2
    on_tokens = 4 * (3 * sum(card.dims) + 8 * len(card.dims) * width)
    on_cells = 4 * (6 * width + 12 * len(card.classes))
    return max(1, STEP_BYTES // (tokens * on_tokens + edge_cells**2 * on_cells))


def _step(network: FusionNetwork, optimiser: torch.optim.Optimizer, crops: Crops, batch: Int64) -> float:
    batch = np.sort(batch)
    targets = torch.from_numpy(crops.targets[batch].astype(np.int64))
    if not bool((targets != UNLABELLED).any()):
        return 0.0
    logits = network(torch.from_numpy(crops.embeddings[batch].astype(np.float32)))
    loss = focal_loss(logits, targets) + DICE_WEIGHT * dice_loss(logits, targets)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward untyped
    optimiser.step()
    return float(loss.detach())
