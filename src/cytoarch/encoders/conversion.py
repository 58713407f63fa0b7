"""Weights written by PyTorch or Meta become a model folder of ours: every tensor accounted for, none guessed."""

import json
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from cytoarch.encoders.conversion_tables import (
    dinov3_config,
    dinov3_names,
    read_table,
    split_qkv,
    torchvision_table,
)
from cytoarch.encoders.cytonet import CytoNetConfig, read_config_of
from cytoarch.encoders.cytonet_model import empty_cytonet, tensor_shapes
from cytoarch.encoders.dino import STATISTICS
from cytoarch.encoders.weights import KINDS, check_names, weights_digest, write_folder
from cytoarch.errors import ModelError

TABLES = ("dinov3", "torchvision-r50", "cytonet")
_COUNTERS = "num_batches_tracked"
_NAMED = 5

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Conversion:
    """What a conversion made."""

    folder: Path
    encoder_id: str
    """The id that loads it."""
    digest: str
    """sha256 of configuration and weights."""
    tensor_count: int
    left_out: tuple[str, ...]
    """Tensors of the source that the table leaves out."""


def convert_weights(
    source: Path,
    target: Path,
    table: str,
    *,
    model: Literal["cytonet_r50", "cytonet_r50_vit"] = "cytonet_r50",
    config_path: Path | None = None,
    prefix: str = "",
    statistics: Literal["lvd1689m", "sat493m"] = "lvd1689m",
) -> Conversion:
    """Write the model folder `target` (not there yet) from `source`, a state dict as torch.save writes it.

    `table` is dinov3 (Meta's vision transformers), torchvision-r50 or cytonet (our own names), or a CSV file with the
    columns from and to. The last three make the CytoNet `model`, of published size or as the JSON file `config_path`
    says (the fields of `CytoNetConfig`; its model_type, if there, wins). `prefix` is what the names stand under, such
    as 'state_dict.' or 'module.' or both. `statistics` names the images a DINOv3 model was trained on, whose mean and
    standard deviation go with it. Raises ModelError, and writes nothing, unless every tensor has its place and
    shape, or if reading the source would run code.
    """
    tensors = _under(prefix, _read(source), source)
    if table == "dinov3":
        config, shapes, parts, names = _dinov3(tensors)
    else:
        settings = _cytonet_config(model, config_path, tensors)
        config, parts = settings.model_dump(mode="json"), tensors
        shapes = tensor_shapes(empty_cytonet(settings))
        names = _table(table, settings, shapes)
    converted, left_out = _renamed(source, parts, names, shapes)
    for name, shape in shapes.items():
        if name.endswith(_COUNTERS):  # counts batches in training; files from before PyTorch 0.4.1 lack it
            converted.setdefault(name, torch.zeros(shape, dtype=torch.int64))
    check_names(str(source), shapes, {name: tuple(tensor.shape) for name, tensor in converted.items()})
    for name, tensor in converted.items():
        if not torch.isfinite(tensor).all():
            raise ModelError(f"{source}: tensor for {name} holds NaN or infinite weights; the file is damaged")
    preprocessor = None
    if table == "dinov3":
        mean, std = STATISTICS[statistics]
        preprocessor = {"image_mean": list(mean), "image_std": list(std)}
    write_folder(target, config, converted, preprocessor)
    return Conversion(
        folder=target,
        encoder_id=f"{KINDS[config['model_type']]}:{target}",
        digest=weights_digest(target),
        tensor_count=len(converted),
        left_out=left_out,
    )


def _read(source: Path) -> Any:
    try:
        with warnings.catch_warnings():
            # that a pickle is of an unusual protocol says nothing beyond the error that follows
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(source, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"{source}: cannot be read ({error})") from None
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{source}: holds more than tensors, and reading it would run code, which is refused "
            f"({str(error).strip().splitlines()[0]}). "
            "Needed: a state dict, as torch.save(model.state_dict(), ...) writes it"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ModelError(f"{source}: is no file of torch.save ({type(error).__name__}: {error})") from None


def _under(prefix: str, content: Any, source: Path) -> Tensors:
    """The tensors below a prefix: nested dictionaries are entered by it, what names begin with is taken off."""
    rest = prefix
    while isinstance(content, Mapping) and rest:
        head, _, after = rest.partition(".")
        if not isinstance(content.get(head), Mapping):
            break
        content, rest = content[head], after
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"{source}: holds {type(content).__name__}, not a dictionary of tensors")
    rest = rest if not rest or rest.endswith(".") else f"{rest}."
    strange = [str(name) for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if strange:
        raise ModelError(
            f"{source}: {', '.join(strange[:_NAMED])} are no tensors; if one of them holds the state dict, name it as "
            "the prefix"
        )
    unlike = [str(name) for name in content if not str(name).startswith(rest)]
    if unlike:
        raise ModelError(f"{source}: {len(unlike)} names do not begin with {rest!r}: {', '.join(unlike[:_NAMED])}")
    return {str(name)[len(rest) :]: tensor for name, tensor in content.items()}


def _renamed(
    source: Path, tensors: Tensors, names: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[Tensors, tuple[str, ...]]:
    unmatched = sorted(name for name in tensors if name not in names and not name.endswith(_COUNTERS))
    if unmatched:
        begins = {name.partition(".")[0] for name in unmatched}
        advice = f"; all begin with '{begins.pop()}.': is that the prefix?" if len(begins) == 1 else ""
        raise ModelError(
            f"{source}: {len(unmatched)} of {len(tensors)} tensors are not in the table: "
            f"{', '.join(unmatched[:_NAMED])}{advice}"
        )
    places = {name: names.get(name, "") for name in tensors}
    # shapes tell the one dimension by which the two differ for mask tokens
    converted = {
        place: tensors[name].view(shapes[place]) if place.endswith("mask_token") and place in shapes else tensors[name]
        for name, place in places.items()
        if place
    }
    return converted, tuple(sorted(name for name, place in places.items() if not place))


def _table(table: str, config: CytoNetConfig, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    if table == "torchvision-r50":
        return torchvision_table(config)
    if table == "cytonet":
        return {name: name for name in shapes}
    if not Path(table).is_file():
        raise ModelError(f"there is no table {table!r}; the tables are {', '.join(TABLES)}, or a CSV file")
    return read_table(Path(table))


def _cytonet_config(model: str, config_path: Path | None, tensors: Tensors) -> CytoNetConfig:
    """The configuration the user gives, or else the published sizes with as many channels as the stem takes."""
    if config_path is None:
        stems = [tensor.shape[1] for tensor in tensors.values() if tensor.ndim == 4 and tensor.shape[2:] == (5, 5)]
        return read_config_of("the source", {"model_type": model, "channels": stems[0] if stems else 1})
    try:
        raw = json.loads(config_path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{config_path}: cannot be read as JSON ({error})") from None
    return read_config_of(str(config_path), {"model_type": model} | raw if isinstance(raw, dict) else raw)


def _dinov3(tensors: Tensors) -> tuple[dict[str, Any], dict[str, tuple[int, ...]], Tensors, dict[str, str]]:
    """Configuration, needed shapes, tensors with q, k and v apart, and the names they get."""
    config = dinov3_config(tensors)
    rest, parts = split_qkv(tensors)
    with torch.device("meta"):
        model = DINOv3ViTModel(DINOv3ViTConfig(**config))
    # in files the blocks are layer.0, in transformers 5 the modules are model.layer.0
    shapes = {re.sub(r"^model\.", "", name): shape for name, shape in tensor_shapes(model).items()}
    names = dinov3_names(config["num_hidden_layers"]) | {name: name for name in parts}
    return config, shapes, rest | parts, names
