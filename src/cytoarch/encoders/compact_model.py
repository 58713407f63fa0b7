"""The compact network for sections: residual stages at five strides, and a way back that joins them to tokens."""

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

WIDTHS, DEPTHS = (32, 64, 128, 192, 256), (0, 1, 1, 2, 1)
"""Channels and residual blocks by stage, at strides 2, 4, 8, 16 and 32."""
TOKEN_WIDTH = 96
"""Channels of a token."""
TOKEN_PX = 4
"""Edge of the square that a token stands for."""
COARSEST_PX = 32
"""Stride of the deepest stage: edges of what it sees are multiples of it."""


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut (He et al. 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, pixels: Tensor) -> Tensor:
        """(b, c, y, x) -> the same shape."""
        found = functional.relu(self.norm1(self.conv1(pixels)))
        return functional.relu(pixels + self.norm2(self.conv2(found)))


class Features(NamedTuple):
    """What the network sees in a batch."""

    patch: Tensor
    """(b, d) one embedding for each patch."""
    tokens: Tensor
    """(b, TOKEN_WIDTH, T/4, T/4) one for each square of 4 px, which knows its neighbourhood."""


class CompactNetwork(nn.Module):
    """Five stages of residual blocks, and a way back that joins them to tokens at stride 4 (Lin et al. 2017)."""

    def __init__(
        self,
        channels: int,
        widths: tuple[int, ...] = WIDTHS,
        depths: tuple[int, ...] = DEPTHS,
        tokens: int = TOKEN_WIDTH,
    ) -> None:
        super().__init__()
        self.channels, self.widths, self.depths = channels, widths, depths
        stages = []
        for given, width, depth in zip((channels, *widths), widths, depths, strict=False):
            down = nn.Sequential(
                nn.Conv2d(given, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
            )
            stages.append(nn.Sequential(down, *(Block(width) for _ in range(depth))))
        self.stages = nn.ModuleList(stages)
        self.sideways = nn.ModuleList(nn.Conv2d(width, tokens, 1) for width in widths[1:])
        self.join = nn.Conv2d(tokens, tokens, 3, padding=1)

    def forward(self, pixels: Tensor) -> Features:
        """(b, c, T, T) float32 in [0, 1], T a multiple of 32."""
        stages = self.through(pixels)
        return Features(stages[-1].mean(dim=(2, 3)), self._joined(stages[1:]))

    @property
    def patch_width(self) -> int:
        """Length of a patch's embedding."""
        return self.widths[-1]

    def patch(self, pixels: Tensor) -> Tensor:
        """(b, c, T, T) float32 in [0, 1] -> (b, d): the embedding of each patch, without any tokens."""
        return self.through(pixels)[-1].mean(dim=(2, 3))

    def through(self, pixels: Tensor) -> list[Tensor]:
        """What every stage makes of (b, c, T, T) float32 in [0, 1], at strides 2 to 32."""
        found = (pixels - 0.5) / 0.25
        stages = []
        for stage in self.stages:
            found = stage(found)
            stages.append(found)
        return stages

    def _joined(self, stages: list[Tensor]) -> Tensor:
        """What deep stages know added to shallow ones, from coarse to fine."""
        joined = self.sideways[-1](stages[-1])
        for stage, sideways in zip(stages[-2::-1], list(self.sideways)[-2::-1], strict=True):
            # nearest, as its gradient is the same bits each time on a GPU too
            joined = sideways(stage) + functional.interpolate(joined, size=stage.shape[-2:], mode="nearest")
        tokens: Tensor = self.join(joined)
        return tokens
