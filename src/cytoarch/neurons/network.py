"""The network of NeurINO: an inflated ConvNeXt below, a MedNeXt decoder above, an output at every resolution.

Features of T and S are 96, 192, 384, 768 at strides 2, 4, 8, 16; edges of what is put in are multiples of 16.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

MULTIPLE = 16
"""Edges of a patch are multiples of this many voxels."""
EXPANSION = 2
"""Times that a block of the decoder widens its channels (MedNeXt-S)."""
BLOCKS = 2
"""Blocks of the decoder at every resolution."""
CLASSES = 2
"""Background and neuron."""
TINY = ((96, 192, 384, 768), (3, 3, 9, 3))
SMALL = ((96, 192, 384, 768), (3, 3, 27, 3))


@dataclass(frozen=True)
class Architecture:
    """The sizes of a network."""

    features: tuple[int, ...] = TINY[0]
    """Channels of the four stages."""
    depths: tuple[int, ...] = TINY[1]
    """Blocks of the four stages."""
    momentum: float = 0.05
    """Share of a batch in the running statistics of the decoder's norms; 0.01 as released, for 27,500 steps."""
    layer_scale: float = 1e-6
    """What the branches of the encoder's blocks begin with where it is not inflated."""

    def as_json(self) -> dict[str, Any]:
        """The sizes as JSON values."""
        return {name: list(one) if isinstance(one, tuple) else one for name, one in asdict(self).items()}

    @classmethod
    def from_json(cls, stated: dict[str, Any]) -> "Architecture":
        """The sizes that JSON values state."""
        return cls(
            tuple(stated["features"]), tuple(stated["depths"]), float(stated["momentum"]), float(stated["layer_scale"])
        )


class ChannelNorm(nn.Module):
    """Layer norm over the channels of (b, c, z, y, x)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor) -> Tensor:
        """The same shape."""
        last = features.movedim(1, -1)
        normed: Tensor = functional.layer_norm(last, self.weight.shape, self.weight, self.bias, 1e-6)
        return normed.movedim(-1, 1)


class ConvNextBlock(nn.Module):
    """A ConvNeXt block with a kernel of (3, 7, 7)."""

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.depthwise_conv = nn.Conv3d(channels, channels, (3, 7, 7), padding=(1, 3, 3), groups=channels)
        self.layer_norm = nn.LayerNorm(channels, eps=1e-6)
        self.pointwise_conv1 = nn.Linear(channels, 4 * channels)
        self.pointwise_conv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), scale))

    def forward(self, features: Tensor) -> Tensor:
        """(b, c, z, y, x) -> the same shape."""
        branch = self.layer_norm(self.depthwise_conv(features).movedim(1, -1))
        branch = self.pointwise_conv2(functional.gelu(self.pointwise_conv1(branch)))
        scaled: Tensor = branch * self.gamma
        return features + scaled.movedim(-1, 1)


class Stage(nn.Module):
    """A halving of the resolution and the blocks that follow it."""

    def __init__(self, before: int, channels: int, depth: int, scale: float, first: bool) -> None:
        super().__init__()
        # the stem halves once, not twice: neurites are a few voxels thick
        halving = (
            [nn.Conv3d(before, channels, 4, stride=2, padding=1), ChannelNorm(channels)]
            if first
            else [ChannelNorm(before), nn.Conv3d(before, channels, 2, stride=2)]
        )
        self.downsample_layers = nn.ModuleList(halving)
        self.layers = nn.ModuleList(ConvNextBlock(channels, scale) for _ in range(depth))

    def forward(self, features: Tensor) -> Tensor:
        """(b, c, z, y, x) -> (b, c', z/2, y/2, x/2)."""
        for layer in (*self.downsample_layers, *self.layers):
            features = layer(features)
        return features


class Encoder(nn.Module):
    """The inflated ConvNeXt, its names those of transformers."""

    def __init__(self, sizes: Architecture) -> None:
        super().__init__()
        widths = (1, *sizes.features)
        self.stages = nn.ModuleList(
            Stage(before, after, depth, sizes.layer_scale, first=number == 0)
            for number, (before, after, depth) in enumerate(zip(widths, sizes.features, sizes.depths, strict=False))
        )

    def forward(self, volumes: Tensor) -> list[Tensor]:
        """(b, 1, z, y, x) -> the output of every stage, at strides 2, 4, 8, 16."""
        outputs: list[Tensor] = []
        for stage in self.stages:
            outputs.append(stage(outputs[-1] if outputs else volumes))
        return outputs


class MedNextBlock(nn.Module):
    """Depthwise 3 x 3 x 3, norm, widen, GELU, narrow, added to what came in (Roy et al. 2023)."""

    def __init__(self, channels: int, momentum: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv3d(channels, channels, 3, padding=1, groups=channels)
        self.norm = nn.BatchNorm3d(channels, momentum=momentum)
        self.widen = nn.Conv3d(channels, EXPANSION * channels, 1)
        self.narrow = nn.Conv3d(EXPANSION * channels, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(b, c, z, y, x) -> the same shape."""
        branch: Tensor = self.narrow(functional.gelu(self.widen(self.norm(self.depthwise(features)))))
        return features + branch


class Upward(nn.Module):
    """Twice the resolution: a transposed depthwise convolution, and every voxel repeated beside it.

    MedNeXt's shortcut is a transposed convolution of one voxel. It fills every eighth voxel and leaves a checkerboard
    that only long training takes away; ours has as many weights and fills all.
    """

    def __init__(self, before: int, after: int, momentum: float) -> None:
        super().__init__()
        self.depthwise = nn.ConvTranspose3d(before, before, 3, stride=2, padding=1, groups=before)
        self.norm = nn.BatchNorm3d(before, momentum=momentum)
        self.widen = nn.Conv3d(before, EXPANSION * before, 1)
        self.narrow = nn.Conv3d(EXPANSION * before, after, 1)
        self.beside = nn.Conv3d(before, after, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(b, c, z, y, x) -> (b, c', 2 z, 2 y, 2 x); the plane that a transposed convolution lacks is put in front."""
        branch = self.narrow(functional.gelu(self.widen(self.norm(self.depthwise(features)))))
        beside = functional.interpolate(self.beside(features), scale_factor=2, mode="nearest")
        return functional.pad(branch, (1, 0, 1, 0, 1, 0)) + beside


class NeuronNetwork(nn.Module):
    """Volumes in, logits of background and neuron out, at the full resolution and the four below it."""

    def __init__(self, sizes: Architecture) -> None:
        super().__init__()
        self.sizes = sizes
        widths = (sizes.features[0] // 2, *sizes.features)
        momentum = sizes.momentum
        self.encoder = Encoder(sizes)
        self.bottleneck = _blocks(widths[-1], momentum)
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(Upward(before, after, momentum) for before, after in pairs)
        self.decoder = nn.ModuleList(_blocks(after, momentum) for _, after in pairs)
        self.heads = nn.ModuleList(nn.ConvTranspose3d(width, CLASSES, 1) for width in widths)

    @property
    def decoding(self) -> tuple[nn.Module, ...]:
        """All but the encoder."""
        return self.bottleneck, self.up, self.decoder, self.heads

    def forward(self, volumes: Tensor) -> list[Tensor]:
        """(b, 1, z, y, x) -> logits (b, 2, z, y, x), then at half, a quarter, an eighth, a sixteenth of the edges."""
        skips: list[Tensor | None] = list(self.encoder(volumes))
        features = self.bottleneck(skips.pop())
        outputs = [self.heads[-1](features)]
        for up, blocks, head, skip in zip(
            self.up, self.decoder, list(self.heads)[-2::-1], [*skips[::-1], None], strict=True
        ):
            features = up(features)
            features = blocks(features if skip is None else features + skip)
            outputs.append(head(features))
        return outputs[::-1]


def _blocks(channels: int, momentum: float) -> nn.Sequential:
    return nn.Sequential(*(MedNextBlock(channels, momentum) for _ in range(BLOCKS)))


def parameter_count(module: nn.Module) -> int:
    """Numbers that are learned."""
    return sum(one.numel() for one in module.parameters())
