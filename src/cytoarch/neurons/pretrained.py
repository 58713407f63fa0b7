"""The ConvNeXt that is inflated: its sizes and weights, read from its folder as safetensors."""

from pathlib import Path
from typing import NamedTuple

from safetensors.torch import load_file
from torch import Tensor

from cytoarch.encoders.weights import check_folder, safetensors_files, weights_digest, weights_folder
from cytoarch.errors import ModelError
from cytoarch.neurons.inflation import Inflation, RgbReduce, inflated
from cytoarch.neurons.network import Architecture


class Pretrained(NamedTuple):
    """An inflated encoder."""

    sizes: Architecture
    tensors: dict[str, Tensor]
    digest: str
    """Of the two-dimensional weights."""


def pretrained_folder(source: str, revision: str) -> Path:
    """The folder of a DINOv3 ConvNeXt, with or without the prefix `dinov3:`. Raises ModelError if there is none."""
    return weights_folder(source.removeprefix("dinov3:"), revision or None)


def pretrained(folder: Path, inflation: Inflation, rgb: RgbReduce) -> Pretrained:
    """The inflated encoder of the model in a folder. Raises ModelError if it is no DINOv3 ConvNeXt of four stages."""
    config = check_folder(folder, "dinov3", str(folder))
    if config.get("model_type") != "dinov3_convnext":
        raise ModelError(
            f"{folder}: holds a {config.get('model_type')} model; a dinov3_convnext is what can be inflated"
        )
    sizes = tuple(config["hidden_sizes"]), tuple(config["depths"])
    if [len(one) for one in sizes] != [4, 4]:
        raise ModelError(f"{folder}: has stages of {sizes[0]}; four are needed")
    tensors: dict[str, Tensor] = {}
    for file in safetensors_files(folder):
        tensors |= load_file(file)
    return Pretrained(Architecture(*sizes), inflated(tensors, inflation, rgb), weights_digest(folder))
