"""Where a vision transformer looks in a patch: the attention of its class token."""

from typing import ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cytoarch.encoders.protocol import Encoder
from cytoarch.errors import ModelError
from cytoarch.settings import Settings

Float32 = NDArray[np.float32]


class AttentionSettings(Settings):
    """Whose attention is drawn, in how many patches."""

    CONDUCT: ClassVar[frozenset[str]] = frozenset({"device"})
    """Fields that do not decide results."""

    encoder: str = Field(
        default="",
        max_length=500,
        description="The vision transformer that embedded the points, as embed-points was given it; blank: no "
        "attention is drawn.",
        examples=["dinov3:vitb16"],
    )
    revision: str | None = Field(
        title="Commit of the hub repository",
        default=None,
        max_length=64,
        examples=["5c8b2f0a3d1e4f6789ab0123456789abcdef0123"],
        description="Commit of the hub repository (40 hexadecimal digits); folders: blank.",
    )
    blocks: tuple[int, ...] = Field(
        title="Layers to read",
        default=(),
        max_length=8,
        examples=[[3, 6, 9, 12]],
        description="As embed-points was given them; the attention is that of the deepest (of CytoNet of the first).",
    )
    patches: int = Field(default=6, ge=1, le=50, description="Patches that it is drawn in.")
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="Where the model runs.")


@runtime_checkable
class Attentive(Protocol):
    """An encoder with a class token that attends to patches of the image."""

    @property
    def attended(self) -> int | None:
        """The block whose attention it gives, from 1; None: models of its kind have none."""

    def attention_maps(self, tiles: Float32) -> Float32:
        """(b, c, T, T) float32 in [0, 1] -> (b, heads, T/token, T/token) float32: the class token's attention.

        With what goes to the class token and to registers each map sums to 1. Raises ModelError where there is none.
        """


def attentive(encoder: Encoder) -> Attentive:
    """The encoder, as one that attends. Raises ModelError where it has no attention."""
    if not isinstance(encoder, Attentive) or encoder.attended is None:
        raise ModelError(
            f"{encoder.encoder_id}: has no attention that could be drawn; needed: dinov3 or dinov2 as a vision "
            "transformer, or a cytonet_r50_vit. Leave attention.encoder blank"
        )
    return encoder
