"""The trunk of EfficientNet-Lite0: a stem and sixteen inverted residual blocks; tensors named as in the package."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

STAGES = (
    (1, 16, 3, 1, 1),
    (2, 24, 3, 2, 6),
    (2, 40, 5, 2, 6),
    (3, 80, 3, 2, 6),
    (3, 112, 5, 1, 6),
    (4, 192, 5, 2, 6),
    (1, 320, 3, 1, 6),
)
"""Blocks, channels, kernel, stride and expansion (Tan and Le, table 1, Lite0)."""
STEM = 32
LAST_BLOCKS = (0, 2, 4, 10, 15)
"""The last block before each stride, and the last of all: what is read."""
STAGE_DIMS = (16, 24, 40, 112, 320)
STAGE_STRIDES = (2, 4, 8, 16, 32)
EPSILON = 1e-3
"""Of batch normalisation, as the weights were trained."""
CLASSIFIER = ("_conv_head.", "_bn1.", "_fc.")
"""Names of what follows the trunk: classes of ImageNet, which nobody needs."""


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow does: to ceil(n / stride), the odd pixel at the far edge."""

    def forward(self, pixels: Tensor) -> Tensor:
        """(b, c, y, x) -> (b, d, ceil(y / stride), ceil(x / stride))."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        before_after = []
        for size in (pixels.shape[-1], pixels.shape[-2]):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            before_after += [total // 2, total - total // 2]
        return super().forward(functional.pad(pixels, before_after))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=EPSILON)


class Block(nn.Module):
    """An inverted residual: widened by 1 x 1, filtered channel by channel, narrowed by 1 x 1."""

    def __init__(self, given: int, channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = given * expansion
        self.is_residual = stride == 1 and given == channels
        self._expand_conv = SameConv(given, wide, 1, bias=False) if expansion > 1 else None
        self._bn0 = _norm(wide) if expansion > 1 else None
        self._depthwise_conv = SameConv(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = _norm(wide)
        self._project_conv = SameConv(wide, channels, 1, bias=False)
        self._bn2 = _norm(channels)

    def forward(self, pixels: Tensor) -> Tensor:
        """(b, given, y, x) -> (b, channels, y / stride, x / stride)."""
        found = pixels
        if self._expand_conv is not None and self._bn0 is not None:
            found = functional.relu6(self._bn0(self._expand_conv(found)))
        found = functional.relu6(self._bn1(self._depthwise_conv(found)))
        found = self._bn2(self._project_conv(found))
        result: Tensor = pixels + found if self.is_residual else found
        return result


class LiteNetwork(nn.Module):
    """The trunk."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv(3, STEM, 3, 2, bias=False)
        self._bn0 = _norm(STEM)
        blocks: list[Block] = []
        given = STEM
        for count, channels, kernel, stride, expansion in STAGES:
            for place in range(count):
                blocks.append(Block(given, channels, kernel, stride if place == 0 else 1, expansion))
                given = channels
        self._blocks = nn.ModuleList(blocks)

    def forward(self, pixels: Tensor, deepest: int = len(STAGE_DIMS)) -> list[Tensor]:
        """(b, 3, y, x) -> the features of the stages up to the deepest that is needed, at strides 2, 4, 8, 16, 32."""
        found = functional.relu6(self._bn0(self._conv_stem(pixels)))
        stages = []
        for place, block in enumerate(self._blocks):
            found = block(found)
            if place in LAST_BLOCKS:
                stages.append(found)
            if len(stages) == deepest:
                break
        return stages


def trunk_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a whole network without those of its classifier."""
    return {name: one for name, one in tensors.items() if not name.startswith(CLASSIFIER)}
