"""How sections are turned into embeddings, and the name under which the result is kept."""

import hashlib
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cytoarch.digests import canonical_json
from cytoarch.encoders.protocol import Encoder
from cytoarch.encoders.registry import EncoderSettings, kinds_of

FINEST_DEFAULT_UM = 4.0
"""Sections are not read finer than this unless it is asked for."""


class EmbedSettings(EncoderSettings):
    """How sections are turned into embeddings."""

    CONDUCT: ClassVar[frozenset[str]] = frozenset({"device", "batch_size"})
    """Fields that do not decide results."""

    channels: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(),
        max_length=8,
        description="Channels to read, from 0; blank: all; by encoders that take one, or red, green and blue: the "
        "first.",
    )
    margin_px: int = Field(
        default=0,
        ge=0,
        le=1024,
        description=(
            "Border of a tile whose tokens are thrown away, for encoders that see the whole tile. 0: tiles side by "
            "side (fastest); a quarter of the tile: hardly any seams, for four times the work."
        ),
    )

    background: Literal["as-scanned", "filled"] = Field(
        default="as-scanned",
        description=(
            "as-scanned: the encoder sees the bare slide beside the tissue; filled: it sees the tissue mirrored at its "
            "border instead, so that embeddings near it say less of how near it is."
        ),
    )

    @property
    def beside(self) -> bool:
        """Whether reading and writing go on while the model computes: where it leaves the processor's cores free."""
        return self.device != "cpu"


ACROSS_BRAINS = "texture+lite0:3,4"
"""What carries furthest to brains that were not learned from, of what comes along (benchmarks/README.md)."""


class AcrossBrainsSettings(EmbedSettings):
    """How the sections of several brains are turned into embeddings: the same, with another encoder by default."""

    encoder: str = Field(
        examples=["dinov3:vitb16"],
        default=ACROSS_BRAINS,
        max_length=500,
        description="texture+lite0:3,4: a bank of filters and the middle stages of EfficientNet-Lite0 side by side, "
        "which carry further to other brains than either alone; texture: faster, and a seventh of the values "
        "of sections in colour, an eighteenth of grey ones; or any other encoder of embed-brain.",
    )


def working_pixel_size_um(settings: EmbedSettings, encoder: Encoder, section_sizes_um: Sequence[float]) -> float:
    """The one pixel size a brain is read at: asked for, the encoder's, or that of its coarsest section but >= 4 um."""
    if settings.pixel_size_um is not None:
        return settings.pixel_size_um
    if encoder.pixel_size_um is not None:
        return encoder.pixel_size_um
    return max(FINEST_DEFAULT_UM, *section_sizes_um)


def embedding_name(settings: EmbedSettings, encoder: Encoder, pixel_size_um: float, extent: Sequence[str] = ()) -> str:
    """The name under which one way of embedding is kept: readable, and unique to what decides the values.

    `extent` says what is embedded, where that is not whole sections: the name of the table of regions; for points the
    size of a patch, and draws and seed where there are any.
    """
    filled = [settings.background] if settings.background != "as-scanned" else []
    parts = [encoder.digest, pixel_size_um, list(settings.channels), settings.margin_px, *filled, *extent]
    identity = hashlib.sha256(canonical_json(parts).encode()).hexdigest()
    kind = "-".join(kinds_of(settings.encoder))
    return f"{kind}-{pixel_size_um:g}um-{identity[:8]}"
