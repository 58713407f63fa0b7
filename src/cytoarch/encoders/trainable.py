"""Networks that can be trained further: new or read from a folder, and kept as a folder that their encoder reads."""

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from safetensors.torch import save
from torch import Tensor, nn

from cytoarch.digests import canonical_json
from cytoarch.encoders.compact import read_config_of_compact, read_network
from cytoarch.encoders.compact_model import COARSEST_PX, CompactNetwork
from cytoarch.encoders.cytonet import read_config_of, read_cytonet, save_cytonet
from cytoarch.encoders.cytonet_model import TOKEN_PX, CytoNetConfig, CytoNetR50, CytoNetR50ViT, build_cytonet
from cytoarch.encoders.weights import CONFIG, PREPROCESSOR, SINGLE, check_folder, weights_digest, weights_folder
from cytoarch.errors import ModelError

NEW = {"compact": "compact", "cytonet-r50": "cytonet", "cytonet-r50-vit": "cytonet"}
"""What is made new -> the kind of encoder that it becomes."""
KINDS = ("compact", "cytonet", "dinov3", "dinov2")
"""What a folder may hold that is trained further."""


class PatchNetwork(Protocol):
    """A network (nn.Module) that gives one embedding a patch."""

    channels: int
    """Of the pixels that it takes."""

    @property
    def patch_width(self) -> int:
        """Length of an embedding."""

    def patch(self, pixels: Tensor) -> Tensor:
        """(b, c, T, T) float32 in [0, 1] -> (b, d)."""


@dataclass(frozen=True)
class Trainable:
    """A network that learns, and how it is kept."""

    network: PatchNetwork
    kind: str
    """Its encoder's id begins with it."""
    multiple_px: int
    """Edges of patches are multiples of it."""
    edge_px: int | None
    """Patches have this edge; None: any."""
    segments: tuple[nn.Module, ...]
    """Parts that follow each other, whose insides can be computed again instead of held."""
    files: Callable[[], dict[str, bytes]]
    """The folder of the encoder as it is now: name -> content."""

    @property
    def module(self) -> nn.Module:
        """The network, as torch knows it."""
        return cast(nn.Module, self.network)


@dataclass(frozen=True)
class Wanted:
    """What a network is to be made for."""

    channels: int
    """Of the sections, 1 or 3; a network that is read from a folder has its own."""
    patch_px: int
    pixel_size_um: float
    widths: tuple[int, ...]
    """Of a new compact network."""
    depths: tuple[int, ...]


def trainable(start: str, wanted: Wanted) -> Trainable:
    """The network that `start` names: new, or from a folder (`compact:FOLDER`, `cytonet:FOLDER`, `dinov3:FOLDER`).

    Raises ModelError, listing what there is, for any other, and where patches do not fit it.
    """
    kind, _, folder = start.partition(":")
    if start in NEW:
        found = _new(start, wanted)
    elif folder and kind == "compact":
        found = _compact(_read_compact(Path(folder).expanduser()))
    elif folder and kind in KINDS:
        path = weights_folder(folder)
        raw = check_folder(path, kind, folder)
        found = _read_cytonet(path, raw, wanted) if kind == "cytonet" else _dino(kind, path, raw)
    else:
        choices = ", ".join([*NEW, *(f"{one}:FOLDER" for one in KINDS)])
        raise ModelError(f"{start!r} is no network that can be trained; there are {choices}")
    if wanted.patch_px % found.multiple_px or found.edge_px not in (None, wanted.patch_px):
        needed = f"{found.edge_px} px" if found.edge_px else f"a multiple of {found.multiple_px} px"
        raise ModelError(f"patches of {wanted.patch_px} px do not fit {start}: {needed} is needed; set patch_px")
    return found


def start_digest(start: str) -> str:
    """sha256 of the weights that training starts from; blank where it starts anew. Raises ModelError if not there."""
    kind, _, folder = start.partition(":")
    if not folder:
        return ""
    path = Path(folder).expanduser()
    return weights_digest(path if kind == "compact" else weights_folder(folder))


def _new(start: str, wanted: Wanted) -> Trainable:
    if start == "compact":
        return _compact(CompactNetwork(wanted.channels, wanted.widths, wanted.depths))
    config = CytoNetConfig(
        model_type="cytonet_r50_vit" if start == "cytonet-r50-vit" else "cytonet_r50",
        channels=3 if wanted.channels == 3 else 1,
        tile_px=wanted.patch_px // TOKEN_PX * TOKEN_PX or TOKEN_PX,
        pixel_size_um=wanted.pixel_size_um,
    )
    return _cytonet(build_cytonet(config), config)


# -- compact


def _read_compact(folder: Path) -> CompactNetwork:
    return read_network(folder, read_config_of_compact(folder))


def _compact(network: CompactNetwork) -> Trainable:
    # nothing is learned of tokens from patches: what is kept is read by its stages
    for part in (network.sideways, network.join):
        part.requires_grad_(False)

    def files() -> dict[str, bytes]:
        weights = save({name: one.detach().cpu().contiguous() for name, one in network.state_dict().items()})
        config = {
            "model_type": "cytoarch_compact", "channels": network.channels, "widths": network.widths,
            "depths": network.depths, "reads": "stages", "sha256": hashlib.sha256(weights).hexdigest(),
        }  # fmt: skip
        return {SINGLE: weights, CONFIG: canonical_json(config).encode()}

    return Trainable(network, "compact", COARSEST_PX, None, tuple(network.stages), files)


# -- CytoNet


class _CytoNetPatch(nn.Module):
    """A CytoNet by its patches: global average pool, or the class token of the hybrid."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: CytoNetR50, config: CytoNetConfig) -> None:
        super().__init__()
        self.model, self.channels = model, int(config.channels)
        self.patch_width = config.width if isinstance(model, CytoNetR50ViT) else config.hidden_sizes[-1]
        mean, std = config.normalisation
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def patch(self, pixels: Tensor) -> Tensor:
        """(b, c, T, T) -> (b, d)."""
        seen = (pixels - self.mean) / self.std
        if isinstance(self.model, CytoNetR50ViT):
            return cast(Tensor, self.model(seen)[:, 0])
        return cast(Tensor, self.model.trunk(seen).pooler_output.flatten(1))


def _read_cytonet(folder: Path, raw: dict[str, Any], wanted: Wanted) -> Trainable:
    config = read_config_of(str(folder), raw)
    return _cytonet(read_cytonet(folder, config), config.model_copy(update={"pixel_size_um": wanted.pixel_size_um}))


def _cytonet(model: CytoNetR50, config: CytoNetConfig) -> Trainable:
    network = _CytoNetPatch(model, config)
    stages: Sequence[nn.Module] = model.trunk.encoder.stages[1:]  # of the first the insides are cheap to compute
    hybrid = isinstance(model, CytoNetR50ViT)
    blocks = model.blocks if isinstance(model, CytoNetR50ViT) else ()
    return Trainable(
        network, "cytonet", TOKEN_PX, config.tile_px if hybrid else None, (*stages, *blocks),
        lambda: _written(lambda folder: save_cytonet(model, config, folder)),
    )  # fmt: skip


# -- DINO


class _DinoPatch(nn.Module):
    """A DINO model by its patches: the class token after the final norm, or the normed mean of a ConvNeXt."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, model: nn.Module, normalisation: tuple[tuple[float, ...], tuple[float, ...]], width: int
    ) -> None:
        super().__init__()
        self.model, self.channels, self.patch_width = model, 3, width
        mean, std = normalisation
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> "_DinoPatch":
        """As torch has it, but positions stay as they are: in training DINOv3 scales them at random."""
        super().train(mode)
        for part in self.model.modules():
            if "Rope" in type(part).__name__:
                part.eval()
        return self

    def patch(self, pixels: Tensor) -> Tensor:
        """(b, 3, T, T) -> (b, d)."""
        return cast(Tensor, self.model((pixels - self.mean) / self.std).last_hidden_state[:, 0])


def _dino(kind: str, folder: Path, raw: dict[str, Any]) -> Trainable:
    from cytoarch.encoders.dino import read_dino

    whole = read_dino(folder, str(raw["model_type"]))
    model = whole.model.requires_grad_(True)
    for name, one in model.named_parameters():
        if name.endswith("mask_token"):
            one.requires_grad_(False)  # stands for patches that are hidden: none are here

    def files() -> dict[str, bytes]:
        kept = _written(model.save_pretrained)
        stated = folder / PREPROCESSOR
        return kept | ({PREPROCESSOR: stated.read_bytes()} if stated.is_file() else {})

    network = _DinoPatch(model, whole.normalisation, whole.width)
    return Trainable(network, kind, whole.multiple_px, None, whole.blocks, files)


def _written(write: Callable[[Path], object]) -> dict[str, bytes]:
    """The files that something writes into a folder that is not there yet."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        write(folder)
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
