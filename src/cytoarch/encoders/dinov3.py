"""DINOv3 vision transformers (and any other in the transformers format) as frozen encoders.

Layers are 1-based block numbers; the model's final norm is applied to each (transformers' Backbone classes do both and
drop the class and register tokens). Weights come from a local folder or the hub at a pinned revision, as safetensors
only; code from a repository is never run.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, DINOv3ViTBackbone

from cytoarch.digests import content_digest, hash_file
from cytoarch.encoders.protocol import TileShape
from cytoarch.errors import ModelError

Float32 = NDArray[np.float32]
Precision = Literal["fp32", "bf16"]

MODEL_TYPES = ("dinov3_vit",)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Normalisation of the LVD-1689M models (DINOv3 repository)."""
PIXEL_SIZE_UM = 4.0
"""The pixel size Zhang, Xu and Zhou parcellate at."""
TILE_PX = 512


def weights_folder(source: str, revision: str | None = None) -> Path:
    """The local folder of a model: `source` itself, or the hub repository it names, downloaded if need be.

    Raises ModelError if the folder holds no safetensors, or the repository cannot be had.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or source.startswith((".", "~")) or source.count("/") != 1:
        raise ModelError(
            f"encoder weights {source!r}: no such folder. Needed: a folder with config.json and model.safetensors "
            "(as save_pretrained writes it), or a hub id such as facebook/dinov3-vitb16-pretrain-lvd1689m. "
            "Without weights, use the encoder texture"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=["config.json", "*.safetensors*"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise ModelError(
            f"encoder weights {source!r} cannot be had from the hub ({type(error).__name__}: {reason}). If the model "
            "is gated, accept its licence and log in with `hf auth login`; offline, download it elsewhere and give "
            "its folder. Without weights, use the encoder texture"
        ) from None


def check_folder(folder: Path) -> dict[str, Any]:
    """The configuration of the model in a folder. Raises ModelError unless it is a supported model in safetensors."""
    found = sorted(path.name for path in folder.iterdir())
    shown = ", ".join(found[:12]) or "nothing"
    if "config.json" not in found or not any(name.endswith(".safetensors") for name in found):
        pickles = [name for name in found if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl"))]
        advice = f"; {', '.join(pickles)} would have to be unpickled, which is refused" if pickles else ""
        raise ModelError(f"{folder}: config.json and *.safetensors are needed, found {shown}{advice}")
    try:
        config: dict[str, Any] = AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        ).to_dict()
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder}: config.json cannot be read as a model's ({error})") from None
    if config.get("model_type") not in MODEL_TYPES:
        raise ModelError(f"{folder}: holds a {config.get('model_type')!r} model; supported: {', '.join(MODEL_TYPES)}")
    return config


def weights_digest(folder: Path) -> str:
    """sha256 over the configuration and every safetensors file of a model folder."""
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    return content_digest({path.name: hash_file(path).sha256 for path in files})


def default_blocks(count: int) -> tuple[int, ...]:
    """The blocks read by default: four evenly spaced, 3/6/9/12 of 12 (Zhang, Xu and Zhou).

    >>> default_blocks(12), default_blocks(24), default_blocks(2)
    ((3, 6, 9, 12), (6, 12, 18, 24), (1, 2))
    """
    return tuple(sorted({max(1, round(count * quarter / 4)) for quarter in (1, 2, 3, 4)}))


@dataclass(frozen=True)
class Dinov3Encoder:
    """A frozen vision transformer; tokens of one patch, attention over the whole tile."""

    encoder_id: str
    digest: str
    blocks: tuple[int, ...]
    tiles: TileShape
    width: int
    precision: Precision
    device: str
    model: Any = field(repr=False, compare=False)
    pixel_size_um: float | None = PIXEL_SIZE_UM
    colour: bool = True

    @property
    def layers(self) -> tuple[str, ...]:
        """One layer a requested block, named by its 1-based number."""
        return tuple(f"block-{block:02d}" for block in self.blocks)

    def dims(self, channels: int) -> tuple[int, ...]:  # noqa: ARG002 - the protocol passes it
        """The width of the model, whatever the channels."""
        return (self.width,) * len(self.blocks)

    def encode(self, tiles: Float32) -> list[Float32]:
        """(b, 3, T, T) float32 in [0, 1] -> per block (b, d, T/patch, T/patch) float32, final norm applied."""
        pixels = torch.from_numpy(tiles).to(self.device)
        mean, std = (torch.tensor(values, device=self.device).view(1, 3, 1, 1) for values in (MEAN, STD))
        half = self.precision == "bf16"
        with torch.inference_mode(), torch.autocast(self.device, torch.bfloat16) if half else nullcontext():
            maps: Sequence[torch.Tensor] = self.model((pixels - mean) / std).feature_maps
        return [features.float().cpu().numpy() for features in maps]


def load_dinov3(
    encoder_id: str,
    source: str,
    *,
    revision: str | None = None,
    blocks: Sequence[int] = (),
    tile_px: int | None = None,
    precision: Precision = "fp32",
    device: str = "cpu",
) -> Dinov3Encoder:
    """Load a DINOv3 ViT from a folder or the hub; `blocks` are 1-based, the default is `default_blocks`.

    Raises ModelError if the weights cannot be had, are not safetensors, hold NaN, or lack a requested block.
    """
    folder = weights_folder(source, revision)
    config = check_folder(folder)
    count = int(config["num_hidden_layers"])
    chosen = tuple(sorted(set(blocks))) or default_blocks(count)
    if chosen[0] < 1 or chosen[-1] > count:
        raise ModelError(f"{source}: blocks {list(chosen)} asked for; the model has blocks 1 to {count}")
    patch = int(config["patch_size"])
    tile = tile_px or TILE_PX
    if tile % (4 * patch):
        raise ModelError(f"tile_px {tile} is no multiple of four patches of {patch} px, which overlapping tiles need")
    _check_finite(folder)
    try:
        # not AutoBackbone: in transformers 5.23 it asks the hub whether a local folder's path exists there
        model, report = DINOv3ViTBackbone.from_pretrained(
            str(folder),
            out_indices=list(chosen),
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder}: the weights do not load into a {config['model_type']} model ({error})") from None
    if report["missing_keys"]:
        # transformers would go on with random values in their place
        missing = ", ".join(sorted(report["missing_keys"])[:5])
        raise ModelError(f"{folder}: weights are missing ({missing}, ...); the file is incomplete")
    model.eval().requires_grad_(False).to(device)
    identity = {"weights": weights_digest(folder), "blocks": repr(chosen), "tile": str(tile), "precision": precision}
    return Dinov3Encoder(
        encoder_id=encoder_id,
        digest=content_digest(identity),
        blocks=chosen,
        tiles=TileShape(tile_px=tile, token_px=patch, halo_px=None),
        width=int(config["hidden_size"]),
        precision=precision,
        device=device,
        model=model,
    )


def _check_finite(folder: Path) -> None:
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as weights:
                for name in weights.keys():  # noqa: SIM118 - safe_open offers keys() but is no mapping
                    if not torch.isfinite(weights.get_tensor(name)).all():
                        raise ModelError(f"{path}: tensor {name} holds NaN or infinite weights; the file is damaged")
        except SafetensorError as error:
            raise ModelError(f"{path}: is not a readable safetensors file ({error})") from None
