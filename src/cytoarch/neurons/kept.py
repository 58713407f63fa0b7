"""Fitted networks as files: safetensors and a card in JSON, nothing that is executed or unpickled."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from cytoarch.encoders.weights import check_names
from cytoarch.errors import ModelError
from cytoarch.neurons.network import Architecture, NeuronNetwork

CARD_FILE, WEIGHTS_FILE = "neurons.json", "neurons.safetensors"
CARD_BYTES = 1 << 20
MAX_WIDTH, MAX_DEPTH = 4096, 256


class NeuronCard(BaseModel):
    """What a network is, and what it was learned from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = Field(default=1, ge=1, le=1)
    features: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    momentum: float = Field(gt=0, le=1)
    layer_scale: float = Field(gt=0, le=1)
    voxel_um: tuple[float, float, float]
    """Of the volumes it learned from; others should be like them."""
    learned_from: tuple[str, ...] = Field(max_length=10_000)
    encoder: str = ""
    """What was inflated, by the digest of its weights; blank: nothing."""

    @property
    def architecture(self) -> Architecture:
        """The sizes of the network."""
        return Architecture(self.features, self.depths, self.momentum, self.layer_scale)


def network_files(network: NeuronNetwork, card: NeuronCard) -> dict[str, bytes]:
    """The files that keep a network."""
    tensors = {name: one.detach().cpu().contiguous() for name, one in network.state_dict().items()}
    return {CARD_FILE: card.model_dump_json(indent=1).encode(), WEIGHTS_FILE: bytes(save(tensors))}


def load_network(folder: Path) -> tuple[NeuronNetwork, NeuronCard]:
    """The network kept in a folder. Raises ModelError if files are missing, damaged, or do not fit each other."""
    try:
        text = (folder / CARD_FILE).read_bytes()
        if len(text) > CARD_BYTES:
            raise ModelError(f"{folder}: {CARD_FILE} holds more than {CARD_BYTES} bytes; it is no card")
        card = NeuronCard.model_validate_json(text)
        tensors = load((folder / WEIGHTS_FILE).read_bytes())
    except (OSError, ValueError, ValidationError, SafetensorError, json.JSONDecodeError) as error:
        raise ModelError(f"{folder}: holds no network for neurons ({error}); train one, or name another") from None
    if not all(0 < one <= MAX_WIDTH for one in card.features) or not all(0 < one <= MAX_DEPTH for one in card.depths):
        raise ModelError(f"{folder}: features {card.features} and depths {card.depths} make no network")
    with torch.device("meta"):
        wanted = {name: tuple(one.shape) for name, one in NeuronNetwork(card.architecture).state_dict().items()}
    check_names(str(folder), wanted, {name: tuple(one.shape) for name, one in tensors.items()})
    _check_finite(folder, tensors)
    network = NeuronNetwork(card.architecture)
    network.load_state_dict(tensors)
    return network.eval().requires_grad_(False), card


def _check_finite(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ModelError(f"{folder}: tensor {name} holds NaN or infinite weights; the file is damaged")
