"""DINOv3 vision transformers and ConvNeXts, and DINOv2 with and without registers, as frozen encoders.

Simeoni et al. 2025 (arXiv:2508.10104), Oquab et al. 2023 (arXiv:2304.07193), Darcet et al. 2023 (arXiv:2309.16588).
Layers are 1-based: `hidden_states[n]` of transformers is the output of block or stage n before the final norm. Like the
authors' own `get_intermediate_layers`, we apply the final norm to every block; a ConvNeXt's belongs to stage 4 only.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from transformers import Dinov2Model, Dinov2WithRegistersModel, DINOv3ConvNextModel, DINOv3ViTModel
from transformers.utils import logging

from cytoarch.digests import content_digest
from cytoarch.encoders.inference import (
    arithmetic,
    channels_first,
    check_device,
    chosen_layers,
    four_even,
    normalised,
)
from cytoarch.encoders.protocol import Float32, Precision, TileShape
from cytoarch.encoders.weights import PREPROCESSOR, UNREADABLE, check_folder, weights_digest, weights_folder
from cytoarch.errors import ModelError

METHOD = "dino-1"
"""Version of how the model is run; part of the digest. Its weights say the rest: an upgrade of torch changes no digest,
the parity tests say whether it changes values."""
MODELS = {
    "dinov3_vit": (DINOv3ViTModel, "norm", 512),
    "dinov3_convnext": (DINOv3ConvNextModel, "layer_norm", 512),
    "dinov2": (Dinov2Model, "layernorm", 518),
    "dinov2_with_registers": (Dinov2WithRegistersModel, "layernorm", 518),
}
"""model_type -> transformers' class, its name for the final norm, the default tile (px; 518 = 37 patches of 14)."""
LVD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of the models trained on natural images (DINOv2 and DINOv3 repositories)."""
SAT = ((0.430, 0.411, 0.296), (0.213, 0.156, 0.143))
"""The same of those trained on satellite images, SAT-493M."""
STATISTICS = {"lvd1689m": LVD, "sat493m": SAT}
"""By the name of the data that a model was trained on."""
PIXEL_SIZE_UM = 4.0
"""The pixel size Zhang, Xu and Zhou parcellate at."""
STAGES, STAGE_PX = 4, (4, 8, 16, 32)
"""A ConvNeXt's stages and their strides."""
_DINOV3 = ("vits16", "vits16plus", "vitb16", "vitl16", "vith16plus", "vit7b16")
_CONVNEXT = ("convnext-tiny", "convnext-small", "convnext-base", "convnext-large")
_DINOV2 = ("small", "base", "large", "giant")
SHORT_NAMES = {
    "dinov3": {
        **{name: f"facebook/dinov3-{name}-pretrain-lvd1689m" for name in (*_DINOV3, *_CONVNEXT)},
        **{f"{name}-sat": f"facebook/dinov3-{name}-pretrain-sat493m" for name in ("vitl16", "vit7b16")},
    },
    "dinov2": {
        **{name: f"facebook/dinov2-{name}" for name in _DINOV2},
        **{f"{name}-registers": f"facebook/dinov2-with-registers-{name}" for name in _DINOV2},
    },
}
"""kind -> short name -> hub repository."""

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class DinoEncoder:
    """A frozen DINO model; a token is one patch (or one cell of a stage), seen in the context of the whole tile."""

    encoder_id: str
    digest: str
    blocks: tuple[int, ...]
    tiles: TileShape
    widths: tuple[int, ...]
    prefix_tokens: int
    """Class and register tokens before those of the patches; 0 in a ConvNeXt."""
    normalisation: Normalisation
    norm: bool
    precision: Precision
    device: str
    multiple_px: int
    model: Any = field(repr=False, compare=False)
    final_norm: Any = field(repr=False, compare=False)
    pixel_size_um: float | None = PIXEL_SIZE_UM
    channels: Literal[1, 3] | None = 3

    @property
    def layers(self) -> tuple[str, ...]:
        """One layer a requested block or stage, named by its 1-based number."""
        return tuple(f"block-{block:02d}" if self.prefix_tokens else f"stage-{block}" for block in self.blocks)

    def dims(self, channels: int) -> tuple[int, ...]:  # noqa: ARG002 - the protocol passes it
        """The width of the model at each layer, whatever the channels."""
        return self.widths

    def patch_dims(self, channels: int) -> int:  # noqa: ARG002 - the protocol passes it
        """The width of the model at the deepest layer."""
        return self.widths[-1]

    def encode(self, tiles: Float32) -> list[Float32]:
        """(b, 1 or 3, T, T) float32 in [0, 1] -> per layer (b, d, T/token, T/token) float32.

        Coarser stages of a ConvNeXt are repeated onto the grid of the finest one asked for. Raises ModelError for
        tiles that do not fit.
        """
        with torch.inference_mode(), arithmetic(self.device, self.precision):
            states = self._states(tiles)
            tokens = [
                state[:, self.prefix_tokens :] if self.prefix_tokens else state.flatten(2).transpose(1, 2)
                for state in states
            ]
            grids = [channels_first(self._normed(one, block)) for one, block in zip(tokens, self.blocks, strict=True)]
        edge = tiles.shape[2] // self.tiles.token_px
        return [_repeated(grid, edge // grid.shape[2]) for grid in grids]

    def embed(self, patches: Float32) -> Float32:
        """(b, 1 or 3, T, T) float32 in [0, 1] -> (b, d) float32: the class token of the deepest block asked for.

        A ConvNeXt, which has none, gives the mean over its deepest stage asked for, normed where its authors do.
        """
        with torch.inference_mode(), arithmetic(self.device, self.precision):
            state = self._states(patches)[-1]
            whole = state[:, 0] if self.prefix_tokens else self.model.pool(state).flatten(1)
            return np.asarray(self._normed(whole, self.blocks[-1]).float().cpu().numpy())

    @property
    def attended(self) -> int | None:
        """The block whose attention is drawn: the deepest asked for; None in a ConvNeXt, which has none."""
        return self.blocks[-1] if self.prefix_tokens else None

    def attention_maps(self, tiles: Float32) -> Float32:
        """(b, 1 or 3, T, T) float32 in [0, 1] -> (b, heads, T/token, T/token) float32: the class token's attention.

        In the deepest block asked for, over the patches; with what the class token and the registers get each map sums
        to 1. Raises ModelError for a ConvNeXt, which has none.
        """
        if not self.prefix_tokens:
            raise ModelError(f"{self.encoder_id}: is a ConvNeXt without attention; maps need a vision transformer")
        with torch.inference_mode(), arithmetic(self.device, self.precision):
            weights = _weighing(self.model)(self._pixels(tiles), output_attentions=True).attentions[-1]
            row = weights[:, :, 0, self.prefix_tokens :].float().cpu().numpy()
        grid = tiles.shape[2] // self.tiles.token_px
        return np.ascontiguousarray(row.reshape(*row.shape[:2], grid, grid))

    def _pixels(self, tiles: Float32) -> torch.Tensor:
        return normalised(tiles, *self.normalisation, multiple_px=self.multiple_px, device=self.device)

    def _states(self, tiles: Float32) -> list[torch.Tensor]:
        states = self.model(self._pixels(tiles), output_hidden_states=True).hidden_states
        return [states[block] for block in self.blocks]

    def _normed(self, tokens: torch.Tensor, block: int) -> torch.Tensor:
        normed = self.norm and (self.prefix_tokens > 0 or block == STAGES)
        return self.final_norm(tokens) if normed else tokens


def load_dino(
    encoder_id: str,
    *,
    revision: str | None = None,
    blocks: Sequence[int] = (),
    tile_px: int | None = None,
    norm: bool = True,
    precision: Precision = "fp32",
    device: str = "cpu",
) -> DinoEncoder:
    """Load `dinov3:<...>` or `dinov2:<...>`: a short name, a hub id (at the commit `revision`), or a folder.

    `blocks` are 1-based; the default is four evenly spaced, of a ConvNeXt stages 3 and 4. Raises ModelError if the
    weights cannot be had, are damaged or of another kind, or if blocks or tile do not fit the model.
    """
    check_device(device)
    kind, _, name = encoder_id.partition(":")
    source = SHORT_NAMES[kind].get(name, name)
    folder = weights_folder(source, revision)
    model_type = str(check_folder(folder, kind, source)["model_type"])
    config = _configuration(folder, model_type)
    chosen, widths, token_px, multiple_px = _geometry(source, config, blocks)
    tile = tile_px or MODELS[model_type][2]
    if tile % multiple_px:
        raise ModelError(f"tile_px {tile} is no multiple of {multiple_px} px, which {encoder_id} needs")
    convolutional = model_type == "dinov3_convnext"
    model = _model(folder, model_type, config, chosen[-1])
    normalisation = _normalisation(folder, source)
    identity = {"blocks": chosen, "tile": tile, "norm": norm, "precision": precision, "normalisation": normalisation}
    digest = content_digest(
        {"method": METHOD, "weights": weights_digest(folder)} | {key: repr(value) for key, value in identity.items()}
    )
    return DinoEncoder(
        encoder_id=encoder_id,
        digest=digest,
        blocks=chosen,
        tiles=TileShape(tile, token_px, halo_px=None, align_px=multiple_px if convolutional else 1),
        widths=widths,
        prefix_tokens=0 if convolutional else 1 + getattr(config, "num_register_tokens", 0),
        normalisation=normalisation,
        norm=norm,
        precision=precision,
        device=device,
        multiple_px=multiple_px,
        model=model.to(device),
        final_norm=getattr(model, MODELS[model_type][1]),
    )


class WholeDino(NamedTuple):
    """A DINO model with all its blocks, to be trained further."""

    model: Any
    normalisation: Normalisation
    width: int
    blocks: tuple[torch.nn.Module, ...]
    """Its blocks, of a ConvNeXt its stages."""
    multiple_px: int


def read_dino(folder: Path, model_type: str) -> WholeDino:
    """The whole model in a folder, float32 on the CPU. Raises ModelError if it cannot be read."""
    config = _configuration(folder, model_type)
    convolutional = model_type == "dinov3_convnext"
    deepest = STAGES if convolutional else config.num_hidden_layers
    _, widths, _, multiple_px = _geometry(str(folder), config, (deepest,))
    model = _model(folder, model_type, config, deepest)
    kind = "Stage" if convolutional else "Layer"
    blocks = [
        part
        for name, part in model.named_modules()
        if type(part).__name__.endswith(kind) and name.rpartition(".")[2].isdigit()
    ]
    return WholeDino(model, _normalisation(folder, str(folder)), widths[-1], tuple(blocks), multiple_px)


def _configuration(folder: Path, model_type: str) -> Any:
    try:
        config = MODELS[model_type][0].config_class.from_pretrained(folder, local_files_only=True)
    except UNREADABLE as error:
        raise ModelError(f"{folder}: config.json cannot be read as a {model_type} model's ({error})") from None
    stages = len(config.hidden_sizes) if model_type == "dinov3_convnext" else STAGES
    if config.num_channels != 3 or stages != STAGES or not isinstance(getattr(config, "patch_size", 1), int):
        raise ModelError(f"{folder}: only models of 3 channels with square patches, or with {STAGES} stages, are read")
    return config


def _geometry(source: str, config: Any, blocks: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...], int, int]:
    """The layers to read, their widths, the stride of the finest, and what tiles must be a multiple of (px)."""
    if config.model_type == "dinov3_convnext":
        chosen = chosen_layers(source, blocks, STAGES, (3, 4), "stages")
        widths = tuple(int(config.hidden_sizes[stage - 1]) for stage in chosen)
        return chosen, widths, STAGE_PX[chosen[0] - 1], STAGE_PX[-1]
    chosen = chosen_layers(source, blocks, config.num_hidden_layers, four_even(config.num_hidden_layers))
    return chosen, (int(config.hidden_size),) * len(chosen), int(config.patch_size), int(config.patch_size)


def _model(folder: Path, model_type: str, config: Any, deepest: int) -> Any:
    """The model up to its deepest block asked for, in float32 whatever the file's precision, in eval mode."""
    base = MODELS[model_type][0]
    beyond = range(deepest, getattr(config, "num_hidden_layers", deepest))
    if beyond:
        config.num_hidden_layers = deepest
    # transformers would report the blocks left out as a fault of the file
    ignored = [rf"\blayer\.{block}\." for block in beyond]
    cut: Any = type(
        base.__name__, (base,), {"__module__": base.__module__, "_keys_to_ignore_on_load_unexpected": ignored}
    )
    try:
        with _without_bars():
            model, report = cut.from_pretrained(
                str(folder),
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
    except UNREADABLE as error:
        raise ModelError(f"{folder}: the weights do not load into a {model_type} model ({error})") from None
    if report["missing_keys"]:
        # transformers would go on with random values in their place
        missing = ", ".join(sorted(report["missing_keys"])[:5])
        raise ModelError(f"{folder}: weights are missing ({missing}, ...); the file is incomplete")
    return model.eval().requires_grad_(False)


def _weighing(model: Any) -> Any:
    """The model as one that tells the weights of its attention, which its faster ways of computing it do not.

    It has the same tensors; the model itself, which others may be computing with, stays as it is.
    """
    tensors = [*model.parameters(), *model.buffers()]
    told = deepcopy(model, {id(one): one for one in tensors})
    told.set_attn_implementation("eager")
    return told


@contextmanager
def _without_bars() -> Iterator[None]:
    """No progress bars of transformers among ours: loading takes a moment."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _normalisation(folder: Path, source: str) -> Normalisation:
    """Mean and standard deviation by channel: those the folder states, or else those its name tells."""
    path = folder / PREPROCESSOR
    if not path.is_file():
        return SAT if "sat493m" in Path(source).name.lower() else LVD
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
        mean, std = (tuple(float(value) for value in stated[key]) for key in ("image_mean", "image_std"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: image_mean and image_std cannot be read ({type(error).__name__}: {error})") from None
    if len(mean) != 3 or len(std) != 3 or not min(std) > 0:
        raise ModelError(f"{path}: image_mean {mean} and image_std {std}; needed are three of each, std above 0")
    return mean, std


def _repeated(grid: Float32, times: int) -> Float32:
    return grid if times == 1 else np.repeat(np.repeat(grid, times, axis=2), times, axis=3)
