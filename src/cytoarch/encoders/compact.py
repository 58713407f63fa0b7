"""The encoder that comes with cytoarch: a small network that learned from phantoms where and how deep a place lies.

Its weights lie beside this module with their model card, recipe and training record; only safetensors are read, and
their sha256 is checked.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from cytoarch.digests import content_digest, hash_file
from cytoarch.encoders.compact_model import COARSEST_PX, TOKEN_PX, TOKEN_WIDTH, CompactNetwork
from cytoarch.encoders.inference import arithmetic, check_device, normalised
from cytoarch.encoders.protocol import Float32, Precision, TileShape
from cytoarch.encoders.weights import CONFIG, SINGLE, check_names
from cytoarch.errors import ModelError

METHOD = "compact-1"
"""Version of how the network is run; part of the digest."""
FOLDER = Path(__file__).parent / "compact_weights"
CHANNELS: Literal[3] = 3
TILE_PX = 1280
HALO_PX = 224
"""A token sees 183 px through the strides, up to a cell of 32 px more on the way back, and 4 px in the last join."""


@dataclass(frozen=True)
class CompactEncoder:
    """Tokens of 4 px that know their place in the cortex; one layer."""

    digest: str
    precision: Precision
    device: str
    model: CompactNetwork = field(repr=False, compare=False)
    encoder_id: str = "compact"
    channels: Literal[1, 3] | None = CHANNELS
    pixel_size_um: float | None = None
    layers: tuple[str, ...] = ("tokens",)
    tiles: TileShape = TileShape(TILE_PX, TOKEN_PX, HALO_PX, COARSEST_PX)

    def dims(self, channels: int) -> tuple[int, ...]:  # noqa: ARG002 - the protocol passes it
        """96, whatever the channels."""
        return (TOKEN_WIDTH,)

    def patch_dims(self, channels: int) -> int:  # noqa: ARG002 - the protocol passes it
        """256, the width of the deepest stage."""
        return self.model.widths[-1]

    def encode(self, tiles: Float32) -> list[Float32]:
        """(b, c, T, T) float32 in [0, 1] -> (b, 96, T/4, T/4) float32; T a multiple of 32, else ModelError."""
        return [self._seen(tiles)[1]]

    def embed(self, patches: Float32) -> Float32:
        """(b, c, T, T) float32 in [0, 1] -> (b, 256) float32: the mean of the deepest stage."""
        return self._seen(patches)[0]

    def _seen(self, tiles: Float32) -> tuple[Float32, Float32]:
        """Embeddings of patches, and tokens."""
        # the network scales pixels itself, as it did while it learned
        pixels = normalised(tiles, (0.0,) * CHANNELS, (1.0,) * CHANNELS, multiple_px=COARSEST_PX, device=self.device)
        with torch.inference_mode(), arithmetic(self.device, self.precision):
            found = self.model(pixels)
        patch, tokens = (np.ascontiguousarray(one.float().cpu().numpy()) for one in found)
        return patch, tokens


def load_compact(*, precision: Precision, device: str, folder: Path = FOLDER) -> CompactEncoder:
    """The encoder with its weights. Raises ModelError if they are not those that config.json names."""
    check_device(device)
    config = _config(folder)
    found = hash_file(folder / SINGLE).sha256
    if found != config["sha256"]:
        raise ModelError(
            f"{folder / SINGLE}: sha256 is {found[:12]}..., {config['sha256'][:12]}... is needed; the file is damaged: "
            "install cytoarch again"
        )
    digest = content_digest({"method": METHOD, "weights": found, "precision": precision})
    model = read_network(folder, config).eval().requires_grad_(False).to(device)
    return CompactEncoder(digest, precision, device, model)


def read_network(folder: Path, config: dict[str, Any]) -> CompactNetwork:
    """The network in a folder, float32 on the CPU. Raises ModelError unless every tensor is there, and no other."""
    model = CompactNetwork(config["channels"], tuple(config["widths"]), tuple(config["depths"]))
    try:
        tensors = load_file(folder / SINGLE)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{folder / SINGLE}: is no readable model ({error}); install cytoarch again") from None
    needed = {name: tuple(one.shape) for name, one in model.state_dict().items()}
    check_names(str(folder / SINGLE), needed, {name: tuple(one.shape) for name, one in tensors.items()})
    model.load_state_dict(tensors)  # halves become float32 as they are copied
    return model


def _config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        whole = (folder / SINGLE).is_file() and {"channels", "widths", "depths", "sha256"} <= config.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{folder}: {CONFIG} cannot be read ({error}); install cytoarch again") from None
    if not whole:
        raise ModelError(f"{folder}: {CONFIG} and {SINGLE} of the encoder compact are needed; install cytoarch again")
    return config
