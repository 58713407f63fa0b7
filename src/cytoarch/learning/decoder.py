"""The fusion decoder of Zhang, Xu and Zhou: several layers of a frozen encoder, projected, fused and classified."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

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
from cytoarch.reproducible import fixed_torch_threads
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


class Fit(NamedTuple):
    """How long and how fast a decoder learns, and what keeps few labels from misleading it."""

    width: int = 64
    epochs: int = 50
    batch_size: int = 16
    learning_rate: float = 5e-4
    weight_decay: float = 1e-4
    seed: int = 0
    least_steps: int = 0
    """Steps that are taken at least: where crops are few, they are passed over more often."""
    dihedral: bool = False
    """Whether every batch is mirrored and turned, differently each time."""
    balance: bool = False
    """Whether cells of rare classes count more, within `MOST_WEIGHT`."""


def fit_decoder(
    card: HeadCard,
    crops: Crops,
    fit: Fit,
    start: Decoder | None = None,
    on_progress: Progress | None = None,
) -> tuple[Decoder, dict[str, Any]]:
    """Train a decoder with focal + 0.33 Dice loss and AdamW at a constant rate; returns it and facts about this.

    Batches are smaller than asked for where they would take more than `STEP_BYTES`; the facts say how large they were,
    how many steps were taken, and the loss of every pass. Weight decay is AdamW's; the penalty of the paper's equation
    1 is the same thing and is not applied twice. With `start` the training goes on from another decoder's weights,
    which is not changed: classes are told by their names, new ones begin at random. The same arguments give the same
    bits, however many cores there are. Raises ModelError if the loss is not finite, or `start` sees other embeddings.
    """
    batch_size = min(fit.batch_size, _crops_at_once(card, fit.width, crops.targets.shape[-1]))
    count = len(crops.targets)
    batches_a_pass = max(1, -(-count // batch_size))
    passes = max(fit.epochs, -(-fit.least_steps // batches_a_pass))
    with torch.random.fork_rng(devices=()), fixed_torch_threads():
        torch.manual_seed(fit.seed)
        network = FusionNetwork(card.dims, len(card.classes), fit.width, card.cells_per_token)
        if start is None:
            mean, spread = moments(whole_crops(crops))
            network.mean.copy_(torch.from_numpy(mean))
            network.spread.copy_(torch.from_numpy(spread))
        else:
            _take_over(network, card, start)
        optimiser = torch.optim.AdamW(network.parameters(), lr=fit.learning_rate, weight_decay=fit.weight_decay)
        weights = class_weights(crops.targets, len(card.classes)) if fit.balance else None
        network.train()
        losses: list[float] = []
        for epoch in range(passes):
            batches = np.array_split(torch.randperm(count).numpy(), batches_a_pass)
            turns = torch.randint(8, (batches_a_pass,)).tolist() if fit.dihedral else [0] * batches_a_pass
            steps = zip(batches, turns, strict=True)
            losses.append(float(np.mean([_step(network, optimiser, crops, *one, weights) for one in steps])))
            if not np.isfinite(losses[-1]):
                raise ModelError(f"the decoder's loss is {losses[-1]} in epoch {epoch + 1}; lower the learning rate")
            if on_progress is not None:
                on_progress(epoch + 1, passes)
    facts = {"batch_size": batch_size, "steps": passes * batches_a_pass, "loss": losses}
    return Decoder(card, network.eval().requires_grad_(False)), facts


MOST_WEIGHT = 8.0
"""A cell of the rarest class counts at most so many times as one of the most frequent."""


def class_weights(targets: NDArray[Any], classes: int) -> Tensor:
    """How much a cell of each class counts (k,) float32: as the square root of how rare it is, the mean over cells 1.

    The root and the bound keep a layer of a few cells from drowning all others, and one wrong stroke from deciding.

    >>> class_weights(np.repeat([0, 1], [400, 100]), 3)  # nothing is labelled as the third
    tensor([0.8333, 1.6667, 0.0000])
    """
    counts = np.bincount(targets[targets != UNLABELLED].ravel(), minlength=classes).astype(np.float64)
    rarity = np.sqrt(counts.max() / np.maximum(counts, 1))
    found = np.minimum(rarity, MOST_WEIGHT) * (counts > 0)
    return torch.from_numpy((found * counts.sum() / max(float((found * counts).sum()), 1.0)).astype(np.float32))


def _take_over(network: FusionNetwork, card: HeadCard, start: Decoder) -> None:
    """Give a network the weights of a decoder; rows of classes that it does not know stay as they are."""
    theirs = start.network
    known = {one.name: place for place, one in enumerate(start.card.classes)}
    if (start.card.dims, start.card.cells_per_token, theirs.fuse.out_channels) != (
        card.dims, card.cells_per_token, network.fuse.out_channels,
    ):  # fmt: skip
        raise ModelError(
            f"a decoder of {start.card.dims}, {theirs.fuse.out_channels} channels wide, cannot go on as one of "
            f"{card.dims} and {network.fuse.out_channels}; begin anew (reset)"
        )
    state, other = network.state_dict(), theirs.state_dict()
    for name, tensor in other.items():
        if not name.startswith("classify."):
            state[name] = tensor
            continue
        for place, one in enumerate(card.classes):
            if one.name in known:
                state[name][place] = tensor[known[one.name]]
    network.load_state_dict(state)


def _crops_at_once(card: HeadCard, width: int, edge_cells: int) -> int:
    """How many crops a step of training takes within `STEP_BYTES`; one at least."""
    tokens = (edge_cells // card.cells_per_token) ** 2
    on_tokens = 4 * (3 * sum(card.dims) + 8 * len(card.dims) * width)
    on_cells = 4 * (6 * width + 12 * len(card.classes))
    return max(1, STEP_BYTES // (tokens * on_tokens + edge_cells**2 * on_cells))


def _step(
    network: FusionNetwork,
    optimiser: torch.optim.Optimizer,
    crops: Crops,
    batch: Int64,
    turn: int,
    weights: Tensor | None,
) -> float:
    batch = np.sort(batch)
    targets = torch.from_numpy(turned(crops.targets[batch], turn).astype(np.int64))
    if not bool((targets != UNLABELLED).any()):
        return 0.0
    logits = network(torch.from_numpy(turned(crops.embeddings[batch], turn).astype(np.float32)))
    loss = focal_loss(logits, targets, weights=weights) + DICE_WEIGHT * dice_loss(logits, targets)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward untyped
    optimiser.step()
    return float(loss.detach())


def turned(maps: NDArray[Any], turn: int) -> NDArray[Any]:
    """Maps (..., e, e) turned by `turn` % 4 quarters, and from 4 on mirrored first: the eight symmetries of a square.

    >>> [turned(np.array([[1, 2], [3, 4]]), turn).ravel().tolist() for turn in (0, 1, 4)]
    [[1, 2, 3, 4], [2, 4, 1, 3], [2, 1, 4, 3]]
    """
    mirrored = maps[..., ::-1] if turn >= 4 else maps
    return np.rot90(mirrored, turn % 4, axes=(-2, -1))
