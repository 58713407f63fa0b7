"""Which tensor of somebody else's weights becomes which of ours: tables by name, and Meta's DINOv3 transformers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cytoarch.encoders.cytonet_model import CytoNetConfig
from cytoarch.errors import ManifestError, ModelError
from cytoarch.tables import csv_rows, gathered

Tensors = Mapping[str, torch.Tensor]

_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_ROPE_THETA = 100.0
_LINEAR = ("weight", "bias")


def torchvision_table(config: CytoNetConfig) -> dict[str, str]:
    """Names of a ResNet-50 as in torchvision, with our stem as conv1, bn1, conv2, bn2; the classifier is left out."""
    table = {"fc.weight": "", "fc.bias": ""}
    for index in (1, 2):
        table[f"conv{index}.weight"] = f"trunk.embedder.conv{index}.weight"
        table |= {f"bn{index}.{part}": f"trunk.embedder.bn{index}.{part}" for part in _NORM}
    for stage, depth in enumerate(config.depths):
        for block in range(depth):
            theirs, ours = f"layer{stage + 1}.{block}", f"trunk.encoder.stages.{stage}.layers.{block}"
            places = {(f"conv{index}", f"bn{index}"): f"layer.{index - 1}" for index in (1, 2, 3)}
            places["downsample.0", "downsample.1"] = "shortcut"
            for (convolution, norm), place in places.items():
                table[f"{theirs}.{convolution}.weight"] = f"{ours}.{place}.convolution.weight"
                table |= {f"{theirs}.{norm}.{part}": f"{ours}.{place}.normalization.{part}" for part in _NORM}
    return table


def read_table(path: Path) -> dict[str, str]:
    """A CSV table with the columns from and to; a blank `to` leaves a tensor out. Raises ModelError for a bad row."""
    try:
        rows, faults = csv_rows(path, ("from", "to"), ("from", "to"))
    except ManifestError as error:
        rows, faults = [], list(error.faults)
    if faults or not rows:
        needed = "a table needs the columns from and to and at least one row"
        raise ModelError(f"{path}: {'; '.join(gathered(faults)) or needed}")
    table: dict[str, str] = {}
    targets: dict[str, int] = {}
    for number, row in rows:
        old, new = row.get("from", ""), row.get("to", "")
        if not old or old in table or (new and new in targets):
            raise ModelError(f"{path}: row {number}: {old!r} to {new!r}: each name may stand once, from is never blank")
        table[old] = new
        targets[new] = number
    return table


def dinov3_names(block_count: int) -> dict[str, str]:
    """Meta's names of a DINOv3 vision transformer -> those in transformers' files, the fused qkv aside; '' drops one.

    RoPE periods are computed anew by transformers; the norm of local crops' class tokens serves training only.
    """
    table = {
        "cls_token": "embeddings.cls_token",
        "mask_token": "embeddings.mask_token",
        "storage_tokens": "embeddings.register_tokens",
        "rope_embed.periods": "",
    }
    modules = {"patch_embed.proj": "embeddings.patch_embeddings", "norm": "norm", "local_cls_norm": ""}
    for block in range(block_count):
        theirs, ours = f"blocks.{block}", f"layer.{block}"
        for index in (1, 2):
            table[f"{theirs}.ls{index}.gamma"] = f"{ours}.layer_scale{index}.lambda1"
            modules[f"{theirs}.norm{index}"] = f"{ours}.norm{index}"
        table[f"{theirs}.attn.qkv.bias_mask"] = ""
        modules[f"{theirs}.attn.proj"] = f"{ours}.attention.o_proj"
        for old, new in {"fc1": "up", "fc2": "down", "w1": "gate", "w2": "up", "w3": "down"}.items():
            modules[f"{theirs}.mlp.{old}"] = f"{ours}.mlp.{new}_proj"
    for old, new in modules.items():
        table |= {f"{old}.{part}": new and f"{new}.{part}" for part in _LINEAR}
    return table


def split_qkv(tensors: Tensors) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Meta's tensors without the fused qkv, and the q, k and v of transformers' files made from them.

    Raises ModelError if the bias of the keys is not masked: the model it then belongs to is another.
    """
    rest, parts = dict(tensors), {}
    for name in [one for one in tensors if ".attn.qkv." in one and one.rsplit(".", 1)[1] in _LINEAR]:
        before, _, kind = name.partition(".attn.qkv.")
        fused = rest.pop(name)
        if fused.ndim == 0 or fused.shape[0] % 3:
            raise ModelError(f"{name}: shape {tuple(fused.shape)} cannot be split into queries, keys and values")
        for letter, part in zip("qkv", fused.chunk(3), strict=True):
            if (letter, kind) == ("k", "bias"):
                mask = tensors.get(f"{name}_mask", torch.ones_like(fused)).chunk(3)[1]
                if torch.any(part * mask != 0):
                    raise ModelError(f"{name}: keys have a bias, which DINOv3 masks; this is another model")
                continue
            parts[f"{before.replace('blocks.', 'layer.')}.attention.{letter}_proj.{kind}"] = part
    return rest, parts


def dinov3_config(tensors: Tensors) -> dict[str, Any]:
    """The configuration for transformers, read off the shapes of Meta's tensors. Raises ModelError if it cannot be."""
    try:
        width, channels, patch, _ = tensors["patch_embed.proj.weight"].shape
        periods = tensors["rope_embed.periods"].float()
        registers = tensors["storage_tokens"].shape[1] if "storage_tokens" in tensors else 0
        gated = "blocks.0.mlp.w1.weight" in tensors
        inner = tensors["blocks.0.mlp.w1.weight" if gated else "blocks.0.mlp.fc1.weight"].shape[0]
    except (KeyError, ValueError, IndexError) as error:
        raise ModelError(f"these are not the weights of a DINOv3 vision transformer: {error} is missing") from None
    # a head has four numbers a period: sine and cosine in y and in x; 64 a head, 128 in the 7B model
    head = 4 * len(periods)
    expected = _ROPE_THETA ** (torch.arange(len(periods)) / max(1, len(periods)))
    if width % head or not torch.allclose(periods, expected, rtol=0.01):
        raise ModelError(f"rope_embed.periods {periods.tolist()[:4]}...: not those of heads of {head} and base 100")
    return {
        "model_type": "dinov3_vit",
        "architectures": ["DINOv3ViTModel"],
        "patch_size": patch,
        "num_channels": channels,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks.")),
        "num_attention_heads": width // head,
        "num_register_tokens": registers,
        "use_gated_mlp": gated,
        "hidden_act": "silu" if gated else "gelu",
        "query_bias": "blocks.0.attn.qkv.bias" in tensors,
        "key_bias": False,
        "value_bias": "blocks.0.attn.qkv.bias" in tensors,
        "proj_bias": "blocks.0.attn.proj.bias" in tensors,
        "mlp_bias": f"blocks.0.mlp.{'w1' if gated else 'fc1'}.bias" in tensors,
        "layer_norm_eps": 1e-5,
        "rope_theta": _ROPE_THETA,
    }
