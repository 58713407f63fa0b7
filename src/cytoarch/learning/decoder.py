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
from cytoarch.learning.heads import HeadCard
from cytoarch.learning.losses import dice_loss, focal_loss
from cytoarch.learning.targets import UNLABELLED
from cytoarch.progress import Progress

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

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
        fused = torch.cat(maps, dim=1)
        if self.cells_per_token > 1:
            fused = functional.interpolate(
                fused, scale_factor=self.cells_per_token, mode="bilinear", align_corners=False
            )
        logits: Tensor = self.classify(functional.gelu(self.fuse(fused)))
        return logits


@dataclass(frozen=True)
class Decoder:
    """A trained fusion network."""

    card: HeadCard
    network: FusionNetwork

    @classmethod
    def from_tensors(cls, card: HeadCard, tensors: Mapping[str, Float32]) -> Self:
        """Rebuild a decoder. Raises ModelError if its tensors do not fit its card."""
        width = tensors.get("fuse.bias", np.zeros(())).shape
        if len(width) != 1 or width[0] < 1 or not all(np.isfinite(tensor).all() for tensor in tensors.values()):
            raise ModelError(f"a decoder's finite tensors are needed, found {sorted(tensors)}")
        network = FusionNetwork(card.dims, len(card.classes), width[0], card.cells_per_token)
        try:
            network.load_state_dict({name: torch.from_numpy(np.array(tensor)) for name, tensor in tensors.items()})
        except RuntimeError as error:
            raise ModelError(f"the weights do not fit the decoder that their card describes ({error})") from None
        return cls(card, network.eval().requires_grad_(False))

    def tensors(self) -> Mapping[str, Float32]:
        """Its weights by name."""
        return {name: tensor.detach().cpu().numpy() for name, tensor in self.network.state_dict().items()}

    def probabilities(self, embeddings: Float32) -> Float32:
        """(b, c, y, x) -> (b, k, y u, x u), sums to 1 over k."""
        with torch.inference_mode():
            result: Float32 = self.network(torch.from_numpy(embeddings)).softmax(dim=1).numpy()
        return result


@dataclass(frozen=True)
class Crops:
    """Equal squares cut from sections: embeddings (n, c, e, e) float16, targets (n, e u, e u) int64."""

    embeddings: NDArray[np.float16]
    targets: Int64


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

    Weight decay is AdamW's; the penalty of the paper's equation 1 is the same thing and is not applied twice.
    """
    flat = np.moveaxis(crops.embeddings, 1, -1).reshape(-1, sum(card.dims))
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        network = FusionNetwork(card.dims, len(card.classes), width, card.cells_per_token)
        network.mean.copy_(torch.from_numpy(flat.mean(axis=0, dtype=np.float64)))
        network.spread.copy_(torch.from_numpy(np.maximum(flat.std(axis=0, dtype=np.float64), 1e-6)))
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
    return Decoder(card, network.eval().requires_grad_(False)), {"loss": losses}


def _step(network: FusionNetwork, optimiser: torch.optim.Optimizer, crops: Crops, batch: Int64) -> float:
    batch = np.sort(batch)
    targets = torch.from_numpy(crops.targets[batch])
    if not bool((targets != UNLABELLED).any()):
        return 0.0
    logits = network(torch.from_numpy(crops.embeddings[batch].astype(np.float32)))
    loss = focal_loss(logits, targets) + DICE_WEIGHT * dice_loss(logits, targets)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward untyped
    optimiser.step()
    return float(loss.detach())
