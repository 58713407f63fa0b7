"""What is put on a network only while it learns: heads, norms over processes, parts that are computed twice."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from cytoarch.encoders.protocol import LUMINANCE
from cytoarch.encoders.trainable import PatchNetwork
from cytoarch.pretraining.sending import sent

PROJECTION = 256
"""Length of an embedding as the loss sees it (Schiffer et al.)."""


def projection_head(width: int, projected: int = PROJECTION) -> nn.Sequential:
    """Linear, norm, ReLU, linear: what only the loss sees (Schiffer et al.).

    >>> sum(one.numel() for one in projection_head(2048).parameters()), sum(
    ...     one.numel() for one in projection_head(768).parameters())
    (4724992, 788992)
    """
    return nn.Sequential(
        nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(inplace=True), nn.Linear(width, projected)
    )


class PatchLearner(nn.Module):
    """A network with the head that its loss needs: a projection, or a linear classifier without bias."""

    network: PatchNetwork

    def __init__(self, network: PatchNetwork, classes: int | None = None) -> None:
        super().__init__()
        self.network = network
        width = network.patch_width
        self.head = projection_head(width) if classes is None else nn.Linear(width, classes, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """(b, c, T, T) -> (b, 256) projections, or (b, k) logits."""
        result: Tensor = self.head(patch_embeddings(self.network, pixels))
        return result


def patch_embeddings(network: PatchNetwork, pixels: Tensor) -> Tensor:
    """Embeddings (b, d) of patches (b, 1 or 3, T, T)."""
    return network.patch(in_channels(pixels, network.channels))


def in_channels(pixels: Tensor, channels: int) -> Tensor:
    """Patches (b, 1 or 3, T, T) for a network: one channel is repeated for a network of three, three made grey.

    As the encoder does that the network becomes.
    """
    if pixels.shape[1] == 1 and channels == len(LUMINANCE):
        return pixels.expand(-1, len(LUMINANCE), -1, -1)
    if pixels.shape[1] == len(LUMINANCE) and channels == 1:
        shares = sent(LUMINANCE, pixels.device)
        return (pixels * shares[:, None, None]).sum(dim=1, keepdim=True)
    return pixels


def computed_twice(parts: Sequence[nn.Module]) -> None:
    """Let parts of a network compute their insides again for the gradient, instead of holding them.

    Norms take no notice of the second time: what they remember of batches is what it would have been.
    """
    for part in parts:
        part.forward = _again(part, part.forward)


def _again(part: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    norms = [one for one in part.modules() if isinstance(one, _BatchNorm)]

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _unnoticed(norms)

    def run(*given: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*given, **named)
        return checkpoint(forward, *given, use_reentrant=False, context_fn=contexts, **named)

    return run


@contextmanager
def _unnoticed(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Norms that use the statistics of a batch without remembering them."""
    before = [(one.momentum, one.num_batches_tracked) for one in norms]
    counts = [None if count is None else count.clone() for _, count in before]
    try:
        for one in norms:
            one.momentum = 0.0  # the old value stays, to the bit
        yield
    finally:
        for one, (momentum, held), count in zip(norms, before, counts, strict=True):
            one.momentum = momentum
            if held is not None and count is not None:
                held.copy_(count)
