"""A two-dimensional ConvNeXt made three-dimensional: its kernels stand in one plane, or are spread over all of them.

After NeurINO (Cheng et al.): depthwise 7 x 7 become (3, 7, 7), the stem's 4 x 4 become 4 x 4 x 4, the 2 x 2 between
stages 2 x 2 x 2; what acts on channels alone is taken as it is.
"""

import re
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from cytoarch.errors import ModelError

Inflation = Literal["centre", "average"]
RgbReduce = Literal["mean", "sum"]

DEPTHWISE_DEPTH = 3
"""Planes of an inflated depthwise kernel."""
STEM = "stages.0.downsample_layers.0.weight"
_NAMES = re.compile(r"(?:model\.)?(stages\.\d+\.(?:downsample_layers|layers)\..+)")
_UNUSED = ("layer_norm.weight", "layer_norm.bias")
"""The norm after the last stage: a decoder reads the stages themselves."""


def inflated(tensors: Mapping[str, Tensor], inflation: Inflation, rgb: RgbReduce = "mean") -> dict[str, Tensor]:
    """The weights of the three-dimensional encoder by name, from those of a DINOv3 ConvNeXt of transformers.

    Volumes have one channel: the stem's weights for red, green and blue become their mean, as released, or their sum,
    which is what a grey image shown thrice gives. Raises ModelError for a tensor that has no place.
    """
    made: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name in _UNUSED:
            continue
        match = _NAMES.fullmatch(name)
        if match is None:
            raise ModelError(f"{name}: is no tensor of a DINOv3 ConvNeXt; a folder of one is needed to inflate")
        made[match[1]] = _with_depth(match[1], tensor.float(), inflation, rgb)
    return made


def _with_depth(name: str, tensor: Tensor, inflation: Inflation, rgb: RgbReduce) -> Tensor:
    if tensor.ndim != 4:
        return tensor.clone()
    if name == STEM:
        tensor = tensor.mean(dim=1, keepdim=True) if rgb == "mean" else tensor.sum(dim=1, keepdim=True)
    depth = DEPTHWISE_DEPTH if ".layers." in name else tensor.shape[-1]
    return inflated_kernel(tensor, depth, inflation)


def inflated_kernel(kernel: Tensor, depth: int, inflation: Inflation) -> Tensor:
    """A kernel (o, i, y, x) with `depth` planes: the plane depth // 2 of zeros, or all planes with a share each.

    >>> inflated_kernel(torch.ones(1, 1, 1, 1), 3, "centre").flatten().tolist()
    [0.0, 1.0, 0.0]
    >>> inflated_kernel(torch.ones(1, 1, 1, 1), 4, "average").flatten().tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    if inflation == "average":
        return (kernel / depth)[:, :, None].repeat(1, 1, depth, 1, 1)
    planes = torch.zeros(*kernel.shape[:2], depth, *kernel.shape[2:], dtype=kernel.dtype)
    planes[:, :, depth // 2] = kernel
    return planes
