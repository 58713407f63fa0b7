"""The sketch: what a few strokes tell, learned in a moment by small networks side by side.

A cell is told by its embedding and by what joins it (where in the tissue it lies). The networks begin differently and
are shown the strokes with other gaps; their probabilities are averaged. Where few strokes leave room for doubt they
disagree, which is what confidence shows (Lakshminarayanan et al., NeurIPS 2017). It is the head of a person at work:
the decoder that maps brains is trained from the same strokes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from cytoarch.errors import ModelError
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.networks import check_fits, probabilities_of, rebuilt, tensors_of
from cytoarch.reproducible import fixed_torch_threads, single_threaded

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

MOST_OWN = 64
"""Longer embeddings are reduced to so many principal components."""
JOINED_WEIGHT = 2.0
"""What joins an embedding is few numbers among many: they are told louder. Chosen on phantoms 11 and 12."""
MARGIN = 1
"""Tokens beyond a window that its cells are interpolated from."""
PART_CELLS = 1 << 13
"""Cells that are computed at once: what comes between stays within the processor's cache."""
MAX_MEMBERS, MAX_HIDDEN = 256, 4096
ABSENT = -1e4
"""Logit of a class that nobody drew: its probability is zero."""


class SketchFit(BaseModel):
    """How a sketch learns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    members: int = Field(default=8, ge=1, le=MAX_MEMBERS, description="Networks whose probabilities are averaged.")
    hidden: int = Field(default=16, ge=2, le=MAX_HIDDEN, description="Units of each.")
    first_steps: int = Field(default=150, ge=1, le=10_000, description="Steps of the first training, or after reset.")
    steps: int = Field(default=60, ge=1, le=10_000, description="Steps of a later one; it goes on from the last.")
    batch_size: int = Field(default=256, ge=8, le=65_536, description="Cells that each network is shown in a step.")
    dropout: float = Field(default=0.2, ge=0, lt=1, description="Share of the inputs that is hidden in a step.")
    learning_rate: float = Field(default=5e-3, gt=0, le=1, description="Rate of AdamW.")
    weight_decay: float = Field(default=1e-2, ge=0, le=1, description="Decay of AdamW.")
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of initialisation and order.")


class SketchNetwork(nn.Module):
    """Embeddings in their own measure, and networks of one hidden layer side by side."""

    mean: Tensor
    basis: Tensor
    absent: Tensor

    def __init__(self, channels: int, inputs: int, classes: int, members: int, hidden: int, cells: int) -> None:
        """`cells` lie along a token."""
        super().__init__()
        self.cells = cells
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("basis", torch.zeros(inputs, channels))
        self.register_buffer("absent", torch.zeros(classes))
        self.enter = nn.Parameter(torch.randn(members, inputs, hidden) / inputs**0.5)
        self.enter_bias = nn.Parameter(torch.zeros(members, 1, hidden))
        self.leave = nn.Parameter(torch.randn(members, hidden, classes) * (0.5 / hidden**0.5))
        self.leave_bias = nn.Parameter(torch.zeros(members, 1, classes))

    def told(self, embeddings: Tensor, margin: int = 0) -> Tensor:
        """(b, c, y, x) -> what networks are told of cells (b, i, (y - 2 margin) u, (x - 2 margin) u) in a margin."""
        tokens = functional.conv2d(embeddings - self.mean[:, None, None], self.basis[:, :, None, None])
        cells = tokens
        if self.cells > 1:
            cells = functional.interpolate(tokens, scale_factor=self.cells, mode="bilinear", align_corners=False)
        edge = margin * self.cells
        return cells[..., edge : cells.shape[-2] - edge, edge : cells.shape[-1] - edge]

    def logits(self, shown: Tensor) -> Tensor:
        """What each network is told of its own cells (m, n, i), or all of the same (n, i) -> logits (m, n, k)."""
        if shown.ndim == 2:
            members, inputs, hidden = self.enter.shape
            one = torch.addmm(self.enter_bias.flatten(), shown, self.enter.permute(1, 0, 2).reshape(inputs, -1))
            entered = one.view(-1, members, hidden).transpose(0, 1)
        else:
            entered = torch.baddbmm(self.enter_bias, shown, self.enter)
        return torch.baddbmm(self.leave_bias + self.absent, functional.gelu(entered), self.leave)

    def forward(self, embeddings: Tensor, margin: int = 0) -> Tensor:
        """(b, c, y, x) -> logarithms of the mean probabilities (b, k, (y - 2 margin) u, (x - 2 margin) u)."""
        told = self.told(embeddings, margin)
        b, i, y, x = told.shape
        mean = self.mean_of(told.permute(0, 2, 3, 1).reshape(-1, i))
        return mean.clamp(min=1e-12).log().reshape(b, y, x, -1).permute(0, 3, 1, 2)

    def mean_of(self, told: Tensor) -> Tensor:
        """The mean probabilities (n, k) of cells (n, i)."""
        return torch.cat([self.logits(part).softmax(dim=-1).mean(dim=0) for part in torch.split(told, PART_CELLS)])


@dataclass(frozen=True)
class Sketch:
    """A head that learned, or is about to learn, from strokes."""

    card: HeadCard
    network: SketchNetwork

    @classmethod
    def begun(cls, card: HeadCard, windows: Sequence[Float32], joined: int, fit: SketchFit) -> Self:
        """A head that knows what embeddings look like, from windows (c, y, x) of sections, and no class yet.

        The last `joined` channels join the embedding. Components of long embeddings are found without labels. The same
        windows and seed give the same bits.
        """
        found = np.concatenate([one.reshape(len(one), -1).T for one in windows]).astype(np.float64)
        with single_threaded():
            mean, spread = found.mean(axis=0), np.maximum(found.std(axis=0), 1e-6)
            basis = _basis((found - mean) / spread, joined) / spread
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(fit.seed)
            network = _network(card, fit.members, len(basis), fit.hidden)
        network.mean.copy_(torch.from_numpy(mean))
        network.basis.copy_(torch.from_numpy(basis))
        return cls(card, network.eval().requires_grad_(False))

    @classmethod
    def check_shapes(cls, card: HeadCard, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise ModelError unless these are the shapes of the sketch that a card describes; nothing is allocated."""
        sizes = shapes.get("enter", ())
        most = (MAX_MEMBERS, sum(card.dims), MAX_HIDDEN)
        if len(sizes) != len(most) or not all(1 <= size <= limit for size, limit in zip(sizes, most, strict=True)):
            raise ModelError(
                f"a sketch has 1 to {MAX_MEMBERS} networks of 1 to {MAX_HIDDEN} units, found enter {list(sizes)}"
            )
        check_fits("sketch", lambda: _network(card, *sizes), shapes)

    @classmethod
    def from_tensors(cls, card: HeadCard, tensors: Mapping[str, Float32]) -> Self:
        """Rebuild a sketch. Raises ModelError if its tensors do not fit its card."""
        cls.check_shapes(card, {name: tensor.shape for name, tensor in tensors.items()})
        return cls(card, rebuilt("sketch", _network(card, *tensors["enter"].shape), tensors))

    @property
    def bytes_per_token(self) -> int:
        """Memory that `probabilities` takes per token at its peak (bytes)."""
        members, inputs, hidden = self.network.enter.shape
        cells = self.card.cells_per_token**2
        on_cells = 3 * inputs + 2 * members * hidden + 3 * members * len(self.card.classes)
        return 4 * (3 * sum(self.card.dims) + 2 * inputs + cells * on_cells)

    def tensors(self) -> Mapping[str, Float32]:
        """Its weights by name."""
        return tensors_of(self.network)

    def told(self, embeddings: Float32, margin: int = 0) -> Float32:
        """What its networks are told of cells: (c, y, x) -> (i, (y - 2 margin) u, (x - 2 margin) u)."""
        with torch.inference_mode():
            found: Float32 = self.network.told(torch.from_numpy(embeddings[None]), margin)[0].numpy()
        return found

    def seen(self, embeddings: Float32, wanted: NDArray[np.bool_], margin: int = 0) -> Float32:
        """Probabilities (n, k) of the n cells that are wanted, in a window (c, y, x) within a margin of tokens."""
        with torch.inference_mode():
            told = self.network.told(torch.from_numpy(embeddings[None]), margin)[0]
            found: Float32 = self.network.mean_of(told[:, torch.from_numpy(wanted)].T.contiguous()).numpy()
        return found

    def probabilities(self, embeddings: Float32) -> Float32:
        """(b, c, y, x) -> (b, k, y u, x u), sums to 1 over k."""
        return probabilities_of(self.network, embeddings)

    def with_classes(self, card: HeadCard) -> Self:
        """The same for another table: classes are told by their names, new ones are not drawn yet."""
        if card.dims != self.card.dims or card.cells_per_token != self.card.cells_per_token:
            raise ModelError(f"a sketch of {self.card.dims} cannot go on as one of {card.dims}; begin anew (reset)")
        network = _network(card, *self.network.enter.shape)
        state = {**network.state_dict(), **self.network.state_dict()}
        known = {one.name: place for place, one in enumerate(self.card.classes)}
        places = [known.get(one.name, -1) for one in card.classes]
        for name in ("leave", "leave_bias", "absent"):
            old = self.network.state_dict()[name]
            fresh = torch.full((*old.shape[:-1], 1), ABSENT if name == "absent" else 0.0)
            state[name] = torch.cat([old, fresh], dim=-1)[..., places]
        network.load_state_dict(state)
        return replace(self, card=card, network=network.eval().requires_grad_(False))

    def taught(self, told: Float32, targets: Int64, fit: SketchFit, steps: int, seed: int) -> tuple[Self, float]:
        """A head that goes on from this one with cells (n, i) of classes (n,); and its loss at the end.

        Cross entropy, in which cells of rare classes count more, by the root of how rare they are. The same arguments
        give the same bits, however many cores there are. Raises ModelError if the loss is not finite.
        """
        members = len(self.network.enter)
        network = _network(self.card, *self.network.enter.shape)
        network.load_state_dict(self.network.state_dict())
        counts = np.bincount(targets, minlength=len(self.card.classes)).astype(np.float64)
        weights = torch.from_numpy(np.sqrt(counts.max() / np.maximum(counts, 1)) * (counts > 0)).float()
        network.absent.copy_(torch.from_numpy(np.where(counts > 0, 0.0, ABSENT)))
        shown, wanted = torch.from_numpy(told), torch.from_numpy(targets)
        optimiser = torch.optim.AdamW(network.parameters(), lr=fit.learning_rate, weight_decay=fit.weight_decay)
        last = float("nan")
        with torch.random.fork_rng(devices=()), fixed_torch_threads(1):
            torch.manual_seed(seed)
            for _ in range(steps):
                chosen = torch.randint(len(targets), (members, min(fit.batch_size, 4 * len(targets))))
                kept = torch.rand(members, 1, shown.shape[1]) >= fit.dropout
                logits = network.logits(shown[chosen] * kept / (1 - fit.dropout))
                loss = members * functional.cross_entropy(logits.flatten(0, 1), wanted[chosen].flatten(), weights)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward untyped
                optimiser.step()
                last = float(loss.detach()) / members
        if not np.isfinite(last):
            raise ModelError(f"the loss is {last}; lower the learning rate")
        return replace(self, network=network.eval().requires_grad_(False)), last


def _network(card: HeadCard, members: int, inputs: int, hidden: int) -> SketchNetwork:
    return SketchNetwork(sum(card.dims), inputs, len(card.classes), members, hidden, card.cells_per_token)


def _basis(scaled: NDArray[np.float64], joined: int) -> NDArray[np.float64]:
    """What is told (i, c) of tokens (n, c) in units of their spread: their first components if they are long."""
    channels = scaled.shape[1]
    width = channels - joined
    own = np.eye(width)
    if width > MOST_OWN:
        values, vectors = np.linalg.eigh(scaled[:, :width].T @ scaled[:, :width] / len(scaled))
        own = vectors[:, ::-1].T[:MOST_OWN]  # the largest first
        own *= np.sign(own[np.arange(MOST_OWN), np.abs(own).argmax(axis=1)])[:, None]  # eigh leaves signs open
        own /= np.sqrt(np.maximum(values[::-1][:MOST_OWN], 1e-6))[:, None]
    found = np.zeros((len(own) + joined, channels))
    found[: len(own), :width] = own
    found[len(own) :, width:] = JOINED_WEIGHT * np.eye(joined)
    return found
