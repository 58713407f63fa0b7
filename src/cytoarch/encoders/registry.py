"""Which encoders there are: our own, and those that installed packages add to the entry-point group."""

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cytoarch.encoders.protocol import Encoder
from cytoarch.errors import ModelError

ENTRY_POINTS = "cytoarch.encoders"
"""Group under which a package names its encoders: id -> callable(EncoderSettings) -> Encoder."""


class EncoderSettings(BaseModel):
    """Which encoder reads the sections, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: str = Field(
        default="texture",
        max_length=500,
        description="texture (no weights), or dinov3:<hub id or local folder with config.json and *.safetensors>.",
    )
    revision: str | None = Field(default=None, description="Commit of the hub repository; blank: the newest.")
    blocks: tuple[int, ...] = Field(
        default=(), max_length=8, description="1-based transformer blocks to read; blank: four evenly spaced."
    )
    tile_px: int | None = Field(default=None, ge=64, le=4096, description="Edge of a tile; blank: the encoder's own.")
    pixel_size_um: float | None = Field(
        default=None,
        ge=0.05,
        le=1000,
        description="Pixel size the encoder sees (um); blank: its own, or as scanned but not finer than 4 um.",
    )
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="Arithmetic of the model.")
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="Where the model runs; does not mark results.")
    batch_size: int = Field(default=2, ge=1, le=1024, description="Tiles computed at once.")


def load_encoder(settings: EncoderSettings) -> Encoder:
    """The encoder the settings name. Raises ModelError, listing those there are, if none has that id."""
    kind, _, argument = settings.encoder.partition(":")
    if kind == "texture" and not argument:
        from cytoarch.encoders.texture import TextureEncoder

        return TextureEncoder()
    if kind == "dinov3" and argument:
        from cytoarch.encoders.dinov3 import load_dinov3

        return load_dinov3(
            settings.encoder,
            argument,
            revision=settings.revision,
            blocks=settings.blocks,
            tile_px=settings.tile_px,
            precision=settings.precision,
            device=settings.device,
        )
    added: dict[str, Callable[[EncoderSettings], Encoder]] = {
        point.name: point.load() for point in entry_points(group=ENTRY_POINTS) if point.name == kind
    }
    if kind in added:
        return added[kind](settings)
    others = [point.name for point in entry_points(group=ENTRY_POINTS)]
    known = ", ".join(["texture", "dinov3:<hub id or folder>", *others])
    raise ModelError(f"there is no encoder {settings.encoder!r}; the encoders are {known}")
