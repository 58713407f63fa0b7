"""The context head: what surrounds a token decides its class, by dilated convolutions over the token grid.

Embeddings are reduced to a few whitened principal components, which are found without labels, so that what is learned
has few parameters; residual blocks of growing dilation (Yu and Koltun, ICLR 2016) see further and further around.
"""

from collections.abc import Iterator, Mapping, Sequence
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
from cytoarch.learning.networks import STEP_BYTES, check_fits, probabilities_of, rebuilt, tensors_of
from cytoarch.learning.targets import UNLABELLED
from cytoarch.progress import Progress
from cytoarch.reproducible import single_threaded

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

MAX_WIDTH, MAX_BLOCKS = 1024, 6
"""Most channels and blocks that a kept head may have."""
PCA_TOKENS = 1 << 14
"""Tokens that the components are found in, at most."""
LABEL_SMOOTHING = 0.05
SCALES = (0.8, 1.25)
"""Crops are shrunk and enlarged by draws between these: cortex is not equally thick everywhere."""
DROPOUT = 0.2


class ContextNetwork(nn.Module):
    """Whitened components, 1 x 1 convolution, residual 3 x 3 convolutions of dilation 1, 2, 4, ..., classes."""

    mean: Tensor
    components: Tensor

    def __init__(self, inputs: int, components: int, width: int, blocks: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("components", torch.zeros(components, inputs))
        self.enter = nn.Conv2d(components, width, 1)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(blocks))
        self.blocks = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=2**place, dilation=2**place) for place in range(blocks)
        )
        self.classify = nn.Conv2d(width, classes, 1)

    def reduced(self, embeddings: Tensor) -> Tensor:
        """(b, c, y, x) -> whitened components (b, p, y, x)."""
        shifted = embeddings - self.mean[:, None, None]
        return functional.conv2d(shifted, self.components[:, :, None, None])

    def logits(self, components: Tensor) -> Tensor:
        """(b, p, y, x) -> (b, k, y, x)."""
        found = self.enter(functional.dropout2d(components, DROPOUT, self.training))
        for norm, block in zip(self.norms, self.blocks, strict=True):
            scaled = norm(found.movedim(1, -1)).movedim(-1, 1)
            found = found + block(functional.gelu(scaled))
        found = functional.dropout2d(functional.gelu(found), DROPOUT, self.training)
        result: Tensor = self.classify(found)
        return result

    def forward(self, embeddings: Tensor) -> Tensor:
        """(b, c, y, x) -> logits (b, k, y, x)."""
        return self.logits(self.reduced(embeddings))


@dataclass(frozen=True)
class ContextHead:
    """A trained context network."""

    card: HeadCard
    network: ContextNetwork

    @classmethod
    def check_shapes(cls, card: HeadCard, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise ModelError unless these are the shapes of the head that a card describes; nothing is allocated."""
        sizes = _sizes(shapes)
        if card.cells_per_token != 1 or sizes is None:
            raise ModelError(
                f"a context head has one cell a token, 1 to {MAX_WIDTH} channels and 1 to {MAX_BLOCKS} blocks; found "
                f"{card.cells_per_token} cells and the tensors {dict(shapes)}"[:500]
            )
        check_fits("context head", lambda: ContextNetwork(sum(card.dims), *sizes, len(card.classes)), shapes)

    @classmethod
    def from_tensors(cls, card: HeadCard, tensors: Mapping[str, Float32]) -> Self:
        """Rebuild a head. Raises ModelError if its tensors do not fit its card."""
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        cls.check_shapes(card, shapes)
        components, width, blocks = _sizes(shapes) or (0, 0, 0)
        network = ContextNetwork(sum(card.dims), components, width, blocks, len(card.classes))
        return cls(card, rebuilt("context head", network, tensors))

    @property
    def reach_tokens(self) -> int:
        """How far beyond a token its class is decided by others: one token per block, times its dilation."""
        return int(2 ** len(self.network.blocks) - 1)

    @property
    def bytes_per_token(self) -> int:
        """Memory that `probabilities` takes per token at its peak (bytes)."""
        width = self.network.enter.out_channels
        return 4 * (3 * sum(self.card.dims) + len(self.network.components) + 4 * width + 3 * len(self.card.classes))

    def tensors(self) -> Mapping[str, Float32]:
        """Its weights by name."""
        return tensors_of(self.network)

    def probabilities(self, embeddings: Float32) -> Float32:
        """(b, c, y, x) -> (b, k, y, x), sums to 1 over k."""
        return probabilities_of(self.network, embeddings)


def _sizes(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int, int] | None:
    """Components, width and blocks, as far as they are allowed."""
    enter = shapes.get("enter.weight", ())
    blocks = sum(name.startswith("blocks.") and name.endswith(".weight") for name in shapes)
    if len(enter) != 4 or not 1 <= enter[0] <= MAX_WIDTH or not 1 <= enter[1] <= MAX_WIDTH:
        return None
    return (enter[1], enter[0], blocks) if 1 <= blocks <= MAX_BLOCKS else None


def fit_context(
    card: HeadCard,
    crops: Crops,
    *,
    components: int,
    width: int,
    blocks: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    seed: int,
    on_progress: Progress | None = None,
) -> tuple[ContextHead, dict[str, Any]]:
    """Train a context head on crops that are turned, mirrored and scaled by chance; returns it and its loss.

    Cross entropy, classes weighted by the square root of how rare they are; AdamW, its rate rising and falling once.
    Raises ModelError if the loss is not finite.
    """
    mean, whitened = _components(crops, components)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        network = ContextNetwork(sum(card.dims), len(whitened), width, blocks, len(card.classes))
        network.mean.copy_(torch.from_numpy(mean))
        network.components.copy_(torch.from_numpy(whitened))
        with torch.inference_mode():
            reduced = [network.reduced(torch.from_numpy(one[None].astype(np.float32)))[0] for one in crops.embeddings]
        weights = _class_weights(crops.targets, len(card.classes))
        optimiser = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps)
        network.train()
        losses: list[float] = []
        token_bytes = 4 * (4 * len(whitened) + 6 * (blocks + 1) * width + 6 * len(card.classes))
        at_once = min(batch_size, len(reduced), max(1, STEP_BYTES // (token_bytes * crops.targets.shape[-1] ** 2)))
        for step in range(steps):
            chosen = torch.randint(len(reduced), (at_once,)).tolist()
            losses.append(_step(network, optimiser, weights, [(reduced[one], crops.targets[one]) for one in chosen]))
            schedule.step()
            if not np.isfinite(losses[-1]):
                raise ModelError(f"the context head's loss is {losses[-1]} in step {step + 1}; lower the learning rate")
            if on_progress is not None:
                on_progress(step + 1, steps)
    parts = [float(np.mean(part)) for part in np.array_split(losses, min(10, steps))]
    return ContextHead(card, network.eval().requires_grad_(False)), {"loss": parts}


def _step(
    network: ContextNetwork,
    optimiser: torch.optim.Optimizer,
    weights: Tensor,
    batch: Sequence[tuple[Tensor, NDArray[Any]]],
) -> float:
    moved = [_moved(components, torch.from_numpy(targets.astype(np.int64))) for components, targets in batch]
    targets = torch.stack([one for _, one in moved])
    optimiser.zero_grad(set_to_none=True)
    if not bool((targets != UNLABELLED).any()):
        optimiser.step()  # without gradients it moves nothing; the schedule counts it
        return 0.0
    logits = network.logits(torch.stack([one for one, _ in moved]))
    loss = functional.cross_entropy(
        logits, targets, weight=weights, ignore_index=UNLABELLED, label_smoothing=LABEL_SMOOTHING
    )
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward untyped
    optimiser.step()
    return float(loss.detach())


def _moved(components: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """A crop (p, e, e) and its targets (e, e), turned by any angle, mirrored or not, and scaled."""
    draws = torch.rand(3)
    angle, mirror = float(draws[0]) * 2 * np.pi, 1.0 if draws[1] < 0.5 else -1.0
    scale = SCALES[0] * (SCALES[1] / SCALES[0]) ** float(draws[2])
    turn = torch.tensor([[mirror * np.cos(angle), -np.sin(angle), 0], [mirror * np.sin(angle), np.cos(angle), 0]])
    edge = targets.shape[-1]
    grid = functional.affine_grid(turn[None].float() / scale, [1, 1, edge, edge], align_corners=False)
    turned = functional.grid_sample(components[None], grid, align_corners=False)[0]
    known = (targets + 1)[None, None].float()  # what comes in from outside is zero: unlabelled
    return turned, functional.grid_sample(known, grid, mode="nearest", align_corners=False)[0, 0].long() - 1


def _class_weights(targets: NDArray[Any], classes: int) -> Tensor:
    counts = np.bincount(targets[targets != UNLABELLED].astype(np.int64), minlength=classes)
    weights = np.where(counts > 0, np.sqrt(counts.sum() / np.maximum(counts, 1)), 0.0)
    return torch.from_numpy((weights / weights[counts > 0].mean()).astype(np.float32))


def _components(crops: Crops, count: int) -> tuple[Float32, Float32]:
    """The mean (c,) of the crops' tokens and their whitened principal components (p, c); padding is left out."""
    from sklearn.decomposition import PCA

    tokens = np.concatenate(list(_some_tokens(crops)))
    with single_threaded():
        pca = PCA(min(count, *tokens.shape), svd_solver="randomized", random_state=0).fit(tokens)
        spread = np.sqrt(np.maximum(pca.explained_variance_, 1e-12))
    return pca.mean_.astype(np.float32), (pca.components_ / spread[:, None]).astype(np.float32)


def _some_tokens(crops: Crops) -> Iterator[Float32]:
    """Evenly chosen tokens (n, c) of every crop that are not padding."""
    each = max(1, PCA_TOKENS // max(1, len(crops.targets)))
    for tokens in whole_crops(crops):
        real = np.flatnonzero(np.any(tokens != 0, axis=1))
        yield tokens[real[:: max(1, len(real) // each)]].astype(np.float32)
