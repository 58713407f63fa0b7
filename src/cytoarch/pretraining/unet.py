"""Areas drawn by a U-Net that a pretrained network begins: its texture path, a path of atlas priors, and one way back.

After Spitzer et al. 2017 and 2018: the texture path is what the Siamese task trained; it is fine-tuned without the
atlas first, then with a second path that sees probabilities of areas from an atlas laid over the section. Widths, and
the schedule of the loop, are ours: the publications state no table of channels. What is told lies at a stride of 8 px.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cytoarch.encoders.compact_model import CompactNetwork
from cytoarch.measures.misplacement import UNLABELLED, misplacement
from cytoarch.measures.overlap import confusion_matrix
from cytoarch.pretraining.loop import LoopSettings, Trace, pretrain
from cytoarch.pretraining.losses import label_targets
from cytoarch.pretraining.networks import in_channels
from cytoarch.pretraining.patches import Batch

FIRST = 2
"""The stage of the texture path with that stride; deeper ones follow."""
CELL_PX = 8
"""Edge of the square that is told of."""
PRIOR_WIDTH, WAY_WIDTH = 32, 64


def _convolved(given: int, width: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(given, width, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
    )


class ExtendedUNet(nn.Module):
    """Two contracting paths, texture and atlas priors, joined before one expanding path."""

    def __init__(self, texture: CompactNetwork, classes: int, priors: int) -> None:
        super().__init__()
        self.texture = texture
        for part in (texture.sideways, texture.join):  # another way back than ours
            part.requires_grad_(False)
        widths = texture.widths[FIRST:]
        self.priors = nn.ModuleList(
            _convolved(given, PRIOR_WIDTH, stride)
            for given, stride in zip(
                (priors, *[PRIOR_WIDTH] * (len(widths) - 1)), (1, *[2] * (len(widths) - 1)), strict=True
            )
        )
        self.way = nn.ModuleList(
            _convolved(width + PRIOR_WIDTH + (WAY_WIDTH if at + 1 < len(widths) else 0), WAY_WIDTH)
            for at, width in enumerate(widths)
        )
        self.tell = nn.Conv2d(WAY_WIDTH, classes, 1)

    def forward(self, pixels: Tensor, priors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(b, c, T, T) and (b, p, T/8, T/8) probabilities -> embeddings (b, d) and logits (b, k, T/8, T/8).

        Without priors their path is left out, and what it would have said is 0.
        """
        stages = self.texture.through(in_channels(pixels, self.texture.channels))
        seen = stages[FIRST:]
        told: Tensor | None = None
        known = self._known(priors, seen)
        for at in reversed(range(len(seen))):
            parts = [seen[at], known[at]]
            if told is not None:
                parts.append(functional.interpolate(told, size=seen[at].shape[-2:], mode="nearest"))
            told = self.way[at](torch.cat(parts, dim=1))
        return stages[-1].mean(dim=(2, 3)), self.tell(told)

    def _known(self, priors: Tensor | None, seen: list[Tensor]) -> list[Tensor]:
        if priors is None:
            return [one.new_zeros((len(one), PRIOR_WIDTH, *one.shape[-2:])) for one in seen]
        known, here = [], priors
        for part in self.priors:
            here = part(here)
            known.append(here)
        return known


@dataclass(frozen=True)
class AreaBatch(Batch):
    """A batch of patches whose areas are known."""

    areas: Tensor
    """(n, T/8, T/8) int64 classes, `UNLABELLED` where none is known."""
    priors: Tensor | None = None
    """(n, p, T/8, T/8) probabilities of an atlas."""

    @property
    def given(self) -> tuple[Tensor, ...]:
        """What the network sees."""
        return (self.pixels,) if self.priors is None else (self.pixels, self.priors)


@dataclass(frozen=True)
class Areas:
    """The area of every cell is to be told."""

    views: int = 1

    def __call__(self, outputs: tuple[Tensor, Tensor], batch: AreaBatch) -> Tensor:
        """The mean cross-entropy over labelled cells."""
        known = (batch.areas != UNLABELLED).sum().clamp(min=1)
        cost = functional.cross_entropy(outputs[1].float(), batch.areas, ignore_index=UNLABELLED, reduction="sum")
        return cost / known

    def targets(self, batch: AreaBatch) -> Tensor:
        """Patches of the same area."""
        return label_targets(batch.labels)


def finetune(
    network: ExtendedUNet,
    batches: Callable[[int], AreaBatch],
    first: LoopSettings,
    second: LoopSettings | None,
    between: Callable[[], None] | None = None,
) -> tuple[Trace, ...]:
    """Train without the atlas, then, where there is a second phase, with it; in place. Returns how both went.

    In the first phase nothing of the priors' path is learned. `between` is called when it is over.
    """
    network.priors.requires_grad_(False)
    without = pretrain(network, lambda step: _bare(batches(step)), Areas(), first)
    if between is not None:
        between()
    if second is None:
        return (without,)
    network.priors.requires_grad_(True)
    return without, pretrain(network, lambda step: batches(first.steps + step), Areas(), second)


def _bare(batch: AreaBatch) -> AreaBatch:
    return AreaBatch(batch.pixels, batch.positions_mm, batch.labels, batch.areas)


class AreaScore(NamedTuple):
    """How well areas are drawn."""

    dice: float
    """Mean over the areas that are there, of all cells together."""
    err_seg_um: float
    """Mean over labelled cells of how far wrong ones lie from the nearest place of what they were told as."""


@torch.inference_mode()
def area_score(network: ExtendedUNet, batches: Any, classes: int, cell_um: float, atlas: bool) -> AreaScore:
    """The score on batches of patches that were not learned from."""
    network.eval()
    confusion = np.zeros((classes, classes), dtype=np.int64)
    cost, cells = 0.0, 0
    for batch in batches:
        shown = batch if atlas else _bare(batch)
        told = network(*shown.given)[1].argmax(dim=1).cpu().numpy().astype(np.int64)
        for truth, one in zip(batch.areas.cpu().numpy(), told, strict=True):
            known = truth != UNLABELLED
            confusion += confusion_matrix(truth[known], one[known], classes)
            found = misplacement(truth, one, cell_um)
            if found.cells:
                cost, cells = cost + found.mean * found.cells, cells + found.cells
    there = confusion.sum(axis=1) > 0
    both = 2 * np.diag(confusion) / np.maximum(1, confusion.sum(axis=0) + confusion.sum(axis=1))
    return AreaScore(float(both[there].mean()), cost / max(1, cells))
