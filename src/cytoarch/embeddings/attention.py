"""Where a vision transformer looks in a patch: the attention of its class token."""

from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cytoarch.encoders.protocol import Encoder
from cytoarch.encoders.registry import ModelSettings
from cytoarch.errors import ModelError

Float32 = NDArray[np.float32]


class AttentionSettings(ModelSettings):
    """Whose attention is drawn, in how many patches."""

    CONDUCT: ClassVar[frozenset[str]] = frozenset({"device"})
    """Fields that do not decide results."""

    encoder: str = Field(
        default="",
        max_length=500,
        description="The vision transformer that embedded the points, with revision and blocks as embed-points was "
        "given them; drawn is its deepest block (of CytoNet the first). Blank: no attention is drawn.",
        examples=["dinov3:vitb16"],
    )
    patches: int = Field(default=6, ge=1, le=50, description="Patches that it is drawn in.")


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
