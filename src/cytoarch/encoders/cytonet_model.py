"""The two CytoNet architectures, ResNet-50 with a stem for large fields and its hybrid with a vision transformer.

Schiffer et al., CytoNet (arXiv:2511.01870), 'Architectures'. What the paper leaves open is settled so: the stem's
convolutions are padded to halve exactly, the class token has a learned position too, every linear map has a bias.
"""

from typing import Literal, Self, cast

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn
from transformers import ResNetConfig, ResNetModel

TOKEN_PX = 64
"""Total stride: 4 of the first convolution, 2 of the pooling, 8 of stages 2 to 4."""


class CytoNetConfig(BaseModel):
    """What config.json of a CytoNet folder holds; the sizes default to the published ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_type: Literal["cytonet_r50", "cytonet_r50_vit"] = Field(description="Which of the two architectures.")
    channels: Literal[1, 3] = Field(default=1, description="Channels of a tile.")
    tile_px: int = Field(default=2048, ge=TOKEN_PX, le=8192, multiple_of=TOKEN_PX, description="Edge of a tile.")
    pixel_size_um: float = Field(default=2.0, gt=0, le=1000, description="Pixel size it was trained at (um).")
    mean: tuple[float, ...] = Field(default=(), description="Subtracted, one a channel; blank: 0.")
    std: tuple[float, ...] = Field(default=(), description="Divided by, one a channel; blank: 1.")
    stem_width: int = Field(default=64, ge=1, le=4096, description="Channels of the stem.")
    hidden_sizes: tuple[int, int, int, int] = Field(default=(256, 512, 1024, 2048), description="Width by stage.")
    depths: tuple[int, int, int, int] = Field(default=(3, 4, 6, 3), description="Bottlenecks by stage.")
    width: int = Field(default=768, ge=1, le=16384, description="Hybrid: width of a token.")
    blocks: int = Field(default=12, ge=1, le=128, description="Hybrid: transformer blocks.")
    heads: int = Field(default=12, ge=1, le=128, description="Hybrid: attention heads.")
    mlp_width: int = Field(default=3072, ge=1, le=65536, description="Hybrid: width inside a block's MLP.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if min(self.depths) < 1 or min(self.hidden_sizes) < 4 or any(size % 4 for size in self.hidden_sizes):
            raise ValueError("depths must be at least 1, hidden_sizes multiples of 4 (a bottleneck narrows by 4)")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")
        if any(len(values) not in (0, self.channels) for values in (self.mean, self.std)):
            raise ValueError(f"mean and std need {self.channels} values, one a channel, or none")
        if self.std and not min(self.std) > 0:
            raise ValueError("std must be above 0")
        return self

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation, one a channel."""
        return self.mean or (0.0,) * self.channels, self.std or (1.0,) * self.channels

    @property
    def grid(self) -> int:
        """Tokens along the edge of a tile."""
        return self.tile_px // TOKEN_PX


class _Stem(nn.Module):
    """(b, c, T, T) -> (b, 64, T/8, T/8): two convolutions and a pooling instead of one of 7x7."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, kernel_size=5, stride=4, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(2)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        features = torch.relu(self.bn1(self.conv1(pixels)))
        pooled: torch.Tensor = self.pool(torch.relu(self.bn2(self.conv2(features))))
        return pooled


class CytoNetR50(nn.Module):
    """(b, c, T, T) float32 -> (b, 2048, T/64, T/64); 23,537,216 parameters with one channel."""

    def __init__(self, config: CytoNetConfig) -> None:
        super().__init__()
        # the stride sits in the 3x3 convolution, as in torchvision's ResNet-50
        trunk = ResNetConfig(
            num_channels=config.channels,
            embedding_size=config.stem_width,
            hidden_sizes=list(config.hidden_sizes),
            depths=list(config.depths),
            downsample_in_bottleneck=False,
        )
        self.trunk = ResNetModel(trunk)
        self.trunk.embedder = _Stem(config.channels, config.stem_width)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(b, c, T, T) -> (b, 2048, T/64, T/64)."""
        features: torch.Tensor = self.trunk(pixels).last_hidden_state
        return features


class CytoNetR50ViT(CytoNetR50):
    """(b, c, T, T) float32 -> (b, 1 + n * n, 768), class token first; 110,954,816 parameters with one channel."""

    def __init__(self, config: CytoNetConfig) -> None:
        super().__init__(config)
        self.projection = nn.Conv2d(config.hidden_sizes[-1], config.width, kernel_size=1)
        self.class_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.positions = nn.Parameter(torch.zeros(1, 1 + config.grid**2, config.width))
        nn.init.trunc_normal_(self.class_token, std=0.02)
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                config.width,
                config.heads,
                config.mlp_width,
                dropout=0.0,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(config.blocks)
        )
        self.norm = nn.LayerNorm(config.width)

    def embedded(self, pixels: torch.Tensor) -> torch.Tensor:
        """(b, c, T, T) -> (b, 1 + n * n, 768): what the first block sees."""
        patches = self.projection(super().forward(pixels)).flatten(2).transpose(1, 2)
        return torch.cat([self.class_token.expand(len(patches), -1, -1), patches], dim=1) + self.positions

    def states(self, pixels: torch.Tensor, deepest: int) -> list[torch.Tensor]:
        """The tokens before block 1 and after each block up to `deepest`, not normed."""
        states = [self.embedded(pixels)]
        for block in self.blocks[:deepest]:
            states.append(block(states[-1]))
        return states

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(b, c, T, T) -> (b, 1 + n * n, 768), after the final norm."""
        normed: torch.Tensor = self.norm(self.states(pixels, len(self.blocks))[-1])
        return normed

    def first_attention(self, pixels: torch.Tensor) -> torch.Tensor:
        """(b, c, T, T) -> (b, heads, 1 + n * n): attention of the class token in block 1, sums to 1."""
        block = cast(nn.TransformerEncoderLayer, self.blocks[0])
        tokens = block.norm1(self.embedded(pixels))
        _, weights = block.self_attn(tokens[:, :1], tokens, tokens, need_weights=True, average_attn_weights=False)
        row: torch.Tensor = weights[:, :, 0]
        return row


def build_cytonet(config: CytoNetConfig) -> CytoNetR50:
    """The model of a configuration with random weights, in training mode."""
    return CytoNetR50ViT(config) if config.model_type == "cytonet_r50_vit" else CytoNetR50(config)


def empty_cytonet(config: CytoNetConfig) -> CytoNetR50:
    """The model without memory behind its weights: to count, compare and fill them; no random number is drawn."""
    with torch.device("meta"):
        return build_cytonet(config)


def tensor_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor a file of the model's weights holds."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
