"""CytoNet as a frozen encoder: tiles of 4 mm at 2 um per pixel, tokens of 64 px, one embedding a patch.

Schiffer et al., CytoNet (arXiv:2511.01870). A model is a folder with config.json (`CytoNetConfig`) and safetensors.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from cytoarch.digests import content_digest
from cytoarch.encoders.cytonet_model import (
    TOKEN_PX,
    CytoNetConfig,
    CytoNetR50,
    CytoNetR50ViT,
    build_cytonet,
    empty_cytonet,
    tensor_shapes,
)
from cytoarch.encoders.inference import arithmetic, channels_first, check_device, chosen_layers, normalised
from cytoarch.encoders.protocol import Float32, Precision, TileShape
from cytoarch.encoders.weights import (
    check_folder,
    check_names,
    safetensors_files,
    weights_digest,
    weights_folder,
    write_folder,
)
from cytoarch.errors import ModelError

__all__ = ["CytoNetConfig", "CytoNetEncoder", "build_cytonet", "load_cytonet", "read_cytonet", "save_cytonet"]

METHOD = "cytonet-1"
"""Version of how the model is run; part of the digest. Its weights say the rest: an upgrade of torch changes no digest,
the parity tests say whether it changes values."""
STAGE = 4
"""The one stage of the ResNet that is read."""


@dataclass(frozen=True)
class CytoNetEncoder:
    """A frozen CytoNet; layers are the last stage of the ResNet, or transformer blocks of the hybrid."""

    encoder_id: str
    digest: str
    config: CytoNetConfig
    blocks: tuple[int, ...]
    tiles: TileShape
    norm: bool
    precision: Precision
    device: str
    model: CytoNetR50 = field(repr=False, compare=False)

    @property
    def pixel_size_um(self) -> float | None:
        """The pixel size it was trained at."""
        return self.config.pixel_size_um

    @property
    def channels(self) -> Literal[1, 3] | None:
        """The channels it was trained with."""
        return self.config.channels

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation, one a channel."""
        return self.config.normalisation

    @property
    def hybrid(self) -> bool:
        """Whether a transformer follows the ResNet."""
        return isinstance(self.model, CytoNetR50ViT)

    @property
    def layers(self) -> tuple[str, ...]:
        """One layer a requested block, named by its 1-based number."""
        return tuple(f"block-{block:02d}" if self.hybrid else f"stage-{block}" for block in self.blocks)

    def dims(self, channels: int) -> tuple[int, ...]:
        """2048 of the ResNet, 768 a block of the hybrid."""
        return (self.patch_dims(channels),) * len(self.blocks)

    def patch_dims(self, channels: int) -> int:  # noqa: ARG002 - the protocol passes it
        """2048 of the ResNet, 768 of the hybrid."""
        return self.config.width if self.hybrid else self.config.hidden_sizes[-1]

    def encode(self, tiles: Float32) -> list[Float32]:
        """(b, c, T, T) float32 in [0, 1] -> per layer (b, d, T/64, T/64) float32. Raises ModelError for other tiles."""
        with torch.inference_mode(), arithmetic(self.device, self.precision):
            pixels = self._pixels(tiles)
            if not isinstance(self.model, CytoNetR50ViT):
                return [channels_first(self.model(pixels).flatten(2).transpose(1, 2))]
            states = self.model.states(pixels, self.blocks[-1])
            return [channels_first(self._normed(states[block][:, 1:])) for block in self.blocks]

    def embed(self, patches: Float32) -> Float32:
        """(b, c, T, T) float32 in [0, 1] -> (b, d) float32: global average pool, or the class token of the hybrid."""
        with torch.inference_mode(), arithmetic(self.device, self.precision):
            pixels = self._pixels(patches)
            if isinstance(self.model, CytoNetR50ViT):
                whole = self._normed(self.model.states(pixels, self.blocks[-1])[-1][:, 0])
            else:
                whole = self.model.trunk(pixels).pooler_output.flatten(1)
            return np.asarray(whole.float().cpu().numpy())

    @property
    def attended(self) -> int | None:
        """The block whose attention is drawn: the first, as published; None without a transformer."""
        return 1 if self.hybrid else None

    def attention_maps(self, tiles: Float32) -> Float32:
        """(b, c, T, T) float32 in [0, 1] -> (b, heads, T/64, T/64) float32: the class token's attention in block 1.

        Over the patches; with the class token's own weight each map sums to 1. Raises ModelError without a transformer.
        """
        if not isinstance(self.model, CytoNetR50ViT):
            raise ModelError(f"{self.encoder_id}: is a ResNet without attention; maps need a cytonet_r50_vit model")
        with torch.inference_mode(), arithmetic(self.device, self.precision):
            row = self.model.first_attention(self._pixels(tiles))[:, :, 1:]
            grid = self.config.grid
            return np.ascontiguousarray(row.float().cpu().numpy().reshape(*row.shape[:2], grid, grid))

    def _pixels(self, tiles: Float32) -> torch.Tensor:
        if self.hybrid and tiles.shape[-1] != self.config.tile_px:
            raise ModelError(
                f"tiles of shape {tiles.shape} do not fit {self.encoder_id}: its learned positions need "
                f"{self.config.tile_px} px"
            )
        return normalised(tiles, *self.normalisation, multiple_px=TOKEN_PX, device=self.device)

    def _normed(self, tokens: torch.Tensor) -> torch.Tensor:
        return cast(CytoNetR50ViT, self.model).norm(tokens) if self.norm else tokens


def load_cytonet(
    encoder_id: str,
    *,
    revision: str | None = None,
    blocks: Sequence[int] = (),
    tile_px: int | None = None,
    norm: bool = True,
    precision: Precision = "fp32",
    device: str = "cpu",
) -> CytoNetEncoder:
    """Load `cytonet:<folder or hub id>`; `blocks` are the hybrid's, 1-based, by default the last.

    Raises ModelError if the weights cannot be had or do not fit their configuration, or if blocks or tile do not fit.
    """
    check_device(device)
    source = encoder_id.partition(":")[2]
    folder = weights_folder(source, revision)
    config = read_config_of(f"{folder}/config.json", check_folder(folder, "cytonet", source))
    hybrid = config.model_type == "cytonet_r50_vit"
    if not hybrid and tuple(blocks) not in ((), (STAGE,)):
        raise ModelError(f"{source}: blocks {list(blocks)} asked for; a cytonet_r50 gives stage {STAGE} only")
    chosen = chosen_layers(source, blocks, config.blocks, (config.blocks,)) if hybrid else (STAGE,)
    tile = tile_px or config.tile_px
    if tile % TOKEN_PX or (hybrid and tile != config.tile_px):
        needed = f"{config.tile_px} px, as learned positions do" if hybrid else f"a multiple of {TOKEN_PX} px"
        raise ModelError(f"tile_px {tile} does not fit {encoder_id}: it needs {needed}")
    identity = {"blocks": chosen, "tile": tile, "norm": norm, "precision": precision}
    digest = content_digest(
        {"method": METHOD, "weights": weights_digest(folder)} | {key: repr(value) for key, value in identity.items()}
    )
    return CytoNetEncoder(
        encoder_id=encoder_id,
        digest=digest,
        config=config,
        blocks=chosen,
        tiles=TileShape(tile, TOKEN_PX, halo_px=None),
        norm=norm,
        precision=precision,
        device=device,
        model=read_cytonet(folder, config).eval().requires_grad_(False).to(device),
    )


def read_config_of(where: str, raw: dict[str, Any]) -> CytoNetConfig:
    """The configuration of a CytoNet from its JSON object. Raises ModelError naming bad fields."""
    try:
        return CytoNetConfig.model_validate(raw)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'config'}: {one['msg']}" for one in error.errors())
        raise ModelError(f"{where}: is no configuration of a CytoNet ({faults})") from None


def read_cytonet(folder: Path, config: CytoNetConfig) -> CytoNetR50:
    """The model in a folder, float32 on the CPU. Raises ModelError unless every tensor is there, and no other."""
    tensors: dict[str, torch.Tensor] = {}
    for path in safetensors_files(folder):
        try:
            tensors |= load_file(path)
        except SafetensorError as error:
            raise ModelError(f"{path}: is not a readable safetensors file ({error})") from None
    model = empty_cytonet(config)
    check_names(str(folder), tensor_shapes(model), {name: tuple(one.shape) for name, one in tensors.items()})
    model.load_state_dict(tensors, assign=True)
    return model.float()


def save_cytonet(model: CytoNetR50, config: CytoNetConfig, folder: Path) -> None:
    """Write a model folder that `cytonet:<folder>` loads. Raises ModelError if the folder is there or does not fit."""
    tensors = model.state_dict()
    check_names(
        str(folder), tensor_shapes(empty_cytonet(config)), {name: tuple(one.shape) for name, one in tensors.items()}
    )
    write_folder(folder, config.model_dump(mode="json"), tensors)
