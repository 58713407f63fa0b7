"""A small network that learned where and how deep a place lies; it comes with cytoarch, and can be trained again.

What comes along learned from phantoms; its weights lie beside this module with model card, recipe and training record.
Others are made by `pretrain-encoder`: `compact:FOLDER`. Only safetensors are read, and their sha256 is checked. Where
only patches were learned from, the way back to tokens was not, and the stages of the network are read instead.
"""

import json
from collections.abc import Callable
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
from cytoarch.encoders.compact_model import COARSEST_PX, TOKEN_PX, TOKEN_WIDTH, CompactNetwork
from cytoarch.encoders.inference import arithmetic, check_device, normalised
from cytoarch.encoders.protocol import Float32, Precision, TileShape
from cytoarch.encoders.weights import CONFIG, SINGLE, check_names
from cytoarch.errors import ModelError

METHOD = "compact-1"
"""Version of how the network is run; part of the digest."""
FOLDER = Path(__file__).parent / "compact_weights"
NEEDED = {"channels", "widths", "depths", "reads", "sha256"}
"""What config.json says."""
AGAIN = "install cytoarch, or train the encoder, again"
TILE_PX = 1280
STAGE_TOKEN_PX = 8
FIRST_STAGE = 2
"""Of the stages that are read where tokens are not; they have strides of 8, 16 and 32 px."""
HALO_PX = 224
"""A token sees 183 px through the strides, up to a cell of 32 px more on the way back, and 4 px in the last join."""
STAGE_HALO_PX = 256
"""Between cells of 32 px it is interpolated: half a cell more."""
Reads = Literal["tokens", "stages"]


@dataclass(frozen=True)
class CompactEncoder:
    """Tokens of 4 px that know their place in the cortex, or the deeper stages at 8 px; one layer."""

    encoder_id: str
    digest: str
    precision: Precision
    device: str
    reads: Reads
    channels: Literal[1, 3] | None
    model: CompactNetwork = field(repr=False, compare=False)
    pixel_size_um: float | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """The one that is read."""
        return (self.reads,)

    @property
    def tiles(self) -> TileShape:
        """Large ones: a margin as wide as its reach is computed for nothing."""
        if self.reads == "tokens":
            return TileShape(TILE_PX, TOKEN_PX, HALO_PX, COARSEST_PX)
        return TileShape(TILE_PX, STAGE_TOKEN_PX, STAGE_HALO_PX, COARSEST_PX)

    def dims(self, channels: int) -> tuple[int, ...]:  # noqa: ARG002 - the protocol passes it
        """Those of a token, or of the stages together."""
        return (TOKEN_WIDTH if self.reads == "tokens" else sum(self.model.widths[FIRST_STAGE:]),)

    def patch_dims(self, channels: int) -> int:  # noqa: ARG002 - the protocol passes it
        """The width of the deepest stage."""
        return self.model.widths[-1]

    def encode(self, tiles: Float32) -> list[Float32]:
        """(b, c, T, T) float32 in [0, 1] -> (b, d, T/token, T/token) float32; T a multiple of 32, else ModelError."""
        if self.reads == "tokens":
            return [self._computed(tiles, lambda pixels: self.model(pixels).tokens)]
        return [self._computed(tiles, self._stages)]

    def embed(self, patches: Float32) -> Float32:
        """(b, c, T, T) float32 in [0, 1] -> (b, d) float32: the mean of the deepest stage."""
        return self._computed(patches, self.model.patch)

    def _stages(self, pixels: Tensor) -> Tensor:
        """The deeper stages side by side on the grid of the first of them."""
        stages = self.model.through(pixels)[FIRST_STAGE:]
        size = stages[0].shape[-2:]
        return torch.cat([functional.interpolate(one.float(), size=size, mode="bilinear") for one in stages], dim=1)

    def _computed(self, tiles: Float32, work: Callable[[Tensor], Tensor]) -> Float32:
        # the network scales pixels itself, as it did while it learned
        count = self.model.channels
        pixels = normalised(tiles, (0.0,) * count, (1.0,) * count, multiple_px=COARSEST_PX, device=self.device)
        with torch.inference_mode(), arithmetic(self.device, self.precision):
            return np.ascontiguousarray(work(pixels).float().cpu().numpy())


def load_compact(encoder_id: str, *, precision: Precision, device: str, folder: Path = FOLDER) -> CompactEncoder:
    """The encoder with its weights. Raises ModelError if they are not those that config.json names."""
    check_device(device)
    config = read_config_of_compact(folder)
    found = hash_file(folder / SINGLE).sha256
    if found != config["sha256"]:
        raise ModelError(
            f"{folder / SINGLE}: sha256 is {found[:12]}..., {config['sha256'][:12]}... is needed; the file is damaged: "
            f"{AGAIN}"
        )
    reads: Reads = "stages" if config["reads"] == "stages" else "tokens"
    digest = content_digest({"method": METHOD, "weights": found, "precision": precision, "reads": reads})
    model = read_network(folder, config).eval().requires_grad_(False).to(device)
    channels: Literal[1, 3] = 3 if model.channels == 3 else 1
    return CompactEncoder(encoder_id, digest, precision, device, reads, channels, model)


def read_network(folder: Path, config: dict[str, Any]) -> CompactNetwork:
    """The network in a folder, float32 on the CPU. Raises ModelError unless every tensor is there, and no other."""
    model = CompactNetwork(config["channels"], tuple(config["widths"]), tuple(config["depths"]))
    try:
        tensors = load_file(folder / SINGLE)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{folder / SINGLE}: is no readable model ({error}); {AGAIN}") from None
    needed = {name: tuple(one.shape) for name, one in model.state_dict().items()}
    check_names(str(folder / SINGLE), needed, {name: tuple(one.shape) for name, one in tensors.items()})
    model.load_state_dict(tensors)  # halves become float32 as they are copied
    return model


def read_config_of_compact(folder: Path) -> dict[str, Any]:
    """The configuration of a compact network in a folder. Raises ModelError if there is none."""
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        whole = (folder / SINGLE).is_file() and config.keys() >= NEEDED
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{folder}: {CONFIG} cannot be read ({error}); {AGAIN}") from None
    if not whole:
        raise ModelError(f"{folder}: {CONFIG} and {SINGLE} of a compact encoder are needed; {AGAIN}")
    return config
