"""Cards: what a head is and what it must be fed, bounded before anything is made of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cytoarch.anatomy.depth_maps import DEPTH_CHANNELS, DepthInput
from cytoarch.brains import LabelClass
from cytoarch.embeddings import EmbedSettings
from cytoarch.errors import ModelError

HEAD_FORMAT = 1
CARD_FILE = "head.json"
WEIGHTS_FILE = "head.safetensors"

CARD_BYTES = 4 << 20
"""A card is not longer than this: ten thousand classes with their names."""
MAX_CLASSES = 10_000
MAX_LAYERS = 64
MAX_DIM = 65_536
"""Longest embedding of a layer; the widest models of today have some 8,000."""
MAX_TOKEN_PX = 4096
MAX_BRAINS = 1000
_FAULTS_SHOWN = 3

Standardise = Literal["head", "brain"]
"""head: by what the head was trained on; brain: by each brain's own tokens in tissue, without labels."""


Order = Literal["none", "bands", "depth"]
"""How classes follow each other on maps: each cell on its own; as ordered bands over a piece of cortex; along depth."""


class HeadCard(BaseModel):
    """What a head is and what it must be fed: everything needed to use its weights again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = HEAD_FORMAT
    kind: str = Field(pattern=r"^[a-z][a-z0-9-]{0,31}$", description="Id of the kind of head: probe, decoder, ...")
    target: str = Field(
        pattern=r"^[a-z][a-z0-9-]{0,31}$", description="What the classes are: areas, layers, groups; names label maps."
    )
    classes: tuple[LabelClass, ...] = Field(min_length=1, max_length=MAX_CLASSES)
    dims: tuple[Annotated[int, Field(ge=1, le=MAX_DIM)], ...] = Field(
        min_length=1, max_length=MAX_LAYERS, description="Length of the embedding per layer."
    )
    cells_per_token: int = Field(
        ge=1, le=MAX_TOKEN_PX, description="Output cells along the edge of a token; divides its pixels."
    )
    embedding: EmbedSettings
    encoder_digest: str = Field(max_length=128)
    token_px: int = Field(ge=1, le=MAX_TOKEN_PX)
    pixel_size_um: float = Field(gt=0, le=100_000, allow_inf_nan=False)
    learned_from: dict[str, tuple[str, ...]] = Field(
        default={}, max_length=MAX_BRAINS, description="The sections whose labels decided the weights, by brain."
    )
    scores_of: str = Field(
        default="", max_length=1000, description="What its scores were made of, where that is not these very weights."
    )
    standardise: Standardise = Field(
        default="head", description="Whose mean and spread embeddings are measured in before the head sees them."
    )
    depth: DepthInput = Field(default="none", description="Depth in the cortex as a last layer beside the encoder's.")
    smooth_weight: float | None = Field(
        default=None,
        ge=0,
        le=10,
        description="Strength of smoothing that sections asked for which it had not seen; none: none were held out.",
    )

    order: Order = Field(
        default="none", description="How classes follow each other on its maps, as sections asked for it had not seen."
    )

    @model_validator(mode="after")
    def _depth_is_the_last_layer(self) -> Self:
        if self.depth != "none" and (len(self.dims) < 2 or self.dims[-1] != DEPTH_CHANNELS):
            raise ValueError(f"depth takes {DEPTH_CHANNELS} channels as the last of several layers, not {self.dims}")
        return self

    @model_validator(mode="after")
    def _cells_are_whole_pixels(self) -> Self:
        if self.token_px % self.cells_per_token:
            raise ValueError(f"{self.cells_per_token} cells along a token of {self.token_px} px are no whole pixels")
        return self

    @property
    def embedded_dims(self) -> tuple[int, ...]:
        """Length of the encoder's embedding per layer."""
        return self.dims if self.depth == "none" else self.dims[:-1]

    @property
    def brains(self) -> tuple[str, ...]:
        """The brains it learned from; none: its card does not say."""
        return tuple(self.learned_from)

    def learned(self, brain_id: str) -> frozenset[str]:
        """The sections of a brain that it learned from."""
        return frozenset(self.learned_from.get(brain_id, ()))

    @property
    def cell_um(self) -> float:
        """Edge of an output cell (um)."""
        return self.token_px * self.pixel_size_um / self.cells_per_token


def read_card(path: Path) -> HeadCard:
    """The card in a file. Raises ModelError if it is too long, no card, or of another format, and OSError."""
    size = path.stat().st_size
    if size > CARD_BYTES:
        raise ModelError(f"{path}: a card has at most {CARD_BYTES} bytes, found {size}; it is not of this program")
    try:
        card = HeadCard.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ModelError(f"{path}: is not a head of format {HEAD_FORMAT} ({_faults(error)})") from None
    if card.format != HEAD_FORMAT:
        raise ModelError(f"{path}: head format {card.format}; this version reads format {HEAD_FORMAT}")
    return card


def _faults(error: ValidationError) -> str:
    """The first faults of a card by field, on one line."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    shown = [f"{'.'.join(map(str, one['loc'])) or 'card'}: {one['msg']}"[:200] for one in faults[:_FAULTS_SHOWN]]
    more = len(faults) - len(shown)
    return "; ".join([*shown, *([f"and {more} more"] if more else [])])


def check_fits(card: HeadCard, dims: tuple[int, ...], encoder_digest: str, pixel_size_um: float) -> None:
    """Raise ModelError unless a head was trained on embeddings of exactly this kind, whatever was added to them."""
    wanted = (card.embedded_dims, card.encoder_digest, card.pixel_size_um)
    if (dims, encoder_digest, pixel_size_um) != wanted:
        raise ModelError(
            f"the head was trained on embeddings {card.embedded_dims} of encoder {card.encoder_digest[:12]} at "
            f"{card.pixel_size_um:g} um per pixel; these are {dims} of {encoder_digest[:12]} at {pixel_size_um:g} um"
        )


def check_seen(card: HeadCard, channels: Sequence[int], background: str) -> None:
    """Raise ModelError unless embeddings were made of the channels, and the background, that a head learned from."""
    wanted = (card.embedding.channels, card.embedding.background)
    if (tuple(channels), background) != wanted:
        raise ModelError(
            f"the head was trained on embeddings of {_seen(*wanted)}; these are of {_seen(channels, background)}. Run "
            "embed-brain with the channels and the background of the head and choose what that gives, or map with "
            "--parcellate.source encoder"
        )


def _seen(channels: Sequence[int], background: str) -> str:
    return f"{f'channels {list(channels)}' if channels else 'all channels'}, background {background}"
