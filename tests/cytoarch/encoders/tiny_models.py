"""Small models with random weights, written as their libraries write them."""

import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ConvNextConfig,
    DINOv3ConvNextModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
)

WIDTH, BLOCKS, REGISTERS = 32, 4, 4
WEIGHTS = "model.safetensors"
COMMIT = "0123456789abcdef0123456789abcdef01234567"

_VIT = {"hidden_size": WIDTH, "num_hidden_layers": BLOCKS, "num_attention_heads": 2}
MODELS = {
    "dinov3_vit": (
        DINOv3ViTModel,
        DINOv3ViTConfig(**_VIT, intermediate_size=64, num_register_tokens=REGISTERS, image_size=64),
    ),
    "dinov3_convnext": (DINOv3ConvNextModel, DINOv3ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1])),
    "dinov2": (Dinov2Model, Dinov2Config(**_VIT, image_size=70, patch_size=14)),
    "dinov2_with_registers": (
        Dinov2WithRegistersModel,
        Dinov2WithRegistersConfig(**_VIT, image_size=70, patch_size=14, num_register_tokens=REGISTERS),
    ),
}


def randomised(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Larger weights than those of the usual initialisation, so that blocks differ; batch statistics too."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in sorted(model.state_dict().items()):
            if tensor.is_floating_point():
                tensor.add_(torch.randn(tensor.shape, generator=draw) * 0.1)
                if name.endswith("running_var"):
                    tensor.abs_()
    return model.eval()


def save_model(model_type: str, folder: Path) -> Path:
    base, config = MODELS[model_type]
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        model = base(config)
    randomised(model).save_pretrained(folder)
    return folder


def changed_copy(source: Path, target: Path, change) -> Path:
    """A copy with some tensors changed, or dropped where the change gives None."""
    shutil.copytree(source, target)
    tensors = {name: change(name, tensor) for name, tensor in load_file(target / WEIGHTS).items()}
    kept = {name: tensor.contiguous() for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, target / WEIGHTS, metadata={"format": "pt"})
    return target


def random_tiles(count: int = 2, size: int = 64, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, channels, size, size), dtype=np.float32)


class Marker:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))
