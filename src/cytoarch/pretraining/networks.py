"""The heads of a compact network that are only there while it learns."""

from torch import Tensor, nn

from cytoarch.encoders.compact_model import CompactNetwork

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

    def __init__(self, network: CompactNetwork, classes: int | None = None) -> None:
        super().__init__()
        self.network = network
        width = network.widths[-1]
        self.head = projection_head(width) if classes is None else nn.Linear(width, classes, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """(b, c, T, T) -> (b, 256) projections, or (b, k) logits."""
        result: Tensor = self.head(self.network(pixels).patch)
        return result
