"""Heads: embeddings in, class probabilities out. The one protocol that parcellation knows."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cytoarch.brains import LabelClass
from cytoarch.embeddings import EmbedSettings, SectionEmbeddings
from cytoarch.errors import ModelError
from cytoarch.images.views import mirrored
from cytoarch.progress import Progress
from cytoarch.tiling import TilePlan, blending_window, map_tiles

Float32 = NDArray[np.float32]

HEAD_FORMAT = 1
CARD_FILE = "head.json"
WEIGHTS_FILE = "head.safetensors"

_TILE_TOKENS = 64
_HALO_TOKENS = 4
"""Reach of a head beyond a token: two 3 x 3 convolutions and an interpolation, rounded up."""


class HeadCard(BaseModel):
    """What a head is and what it must be fed: everything needed to use its weights again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = HEAD_FORMAT
    kind: Literal["probe", "decoder"]
    target: str = Field(description="What the classes are: areas, layers, groups.")
    classes: tuple[LabelClass, ...] = Field(min_length=1)
    dims: tuple[int, ...] = Field(min_length=1, description="Length of the embedding per layer.")
    cells_per_token: int = Field(ge=1, description="Output cells along the edge of a token.")
    embedding: EmbedSettings
    encoder_digest: str
    token_px: int
    pixel_size_um: float

    @property
    def cell_um(self) -> float:
        """Edge of an output cell (um)."""
        return self.token_px * self.pixel_size_um / self.cells_per_token


class Head(Protocol):
    """A trained head."""

    @property
    def card(self) -> HeadCard:
        """What it is."""

    def probabilities(self, embeddings: Float32) -> Float32:
        """(b, c, y, x) float32, layers stacked along c -> (b, k, y u, x u) float32, sums to 1 over k."""

    def tensors(self) -> Mapping[str, Float32]:
        """Its weights by name."""


def head_files(head: Head) -> dict[str, bytes]:
    """The files that keep a head: a JSON card and safetensors."""
    from safetensors.numpy import save

    weights = {name: np.ascontiguousarray(tensor) for name, tensor in head.tensors().items()}
    return {CARD_FILE: head.card.model_dump_json(indent=1).encode(), WEIGHTS_FILE: save(weights)}


def load_head(folder: Path) -> Head:
    """The head kept in a folder. Nothing in it is executed or unpickled.

    Raises ModelError if the files are missing, damaged, of another format, or do not fit each other.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    from cytoarch.learning.decoder import Decoder
    from cytoarch.learning.probes import Probe

    try:
        card = HeadCard.model_validate_json((folder / CARD_FILE).read_bytes())
        tensors = load((folder / WEIGHTS_FILE).read_bytes())
    except FileNotFoundError as error:
        found = ", ".join(sorted(path.name for path in folder.iterdir())) if folder.is_dir() else "no folder"
        raise ModelError(f"{folder}: {CARD_FILE} and {WEIGHTS_FILE} are needed, found {found}") from error
    except (ValidationError, SafetensorError) as error:
        raise ModelError(f"{folder}: is not a head of format {HEAD_FORMAT} ({error})") from None
    if card.format != HEAD_FORMAT:
        raise ModelError(f"{folder}: head format {card.format}; this version reads format {HEAD_FORMAT}")
    return (Probe if card.kind == "probe" else Decoder).from_tensors(card, tensors)


def predict_bands(
    head: Head, embeddings: SectionEmbeddings, on_progress: Progress | None = None
) -> Iterator[tuple[int, Float32]]:
    """Class probabilities of a whole section from its stored embeddings, as bands (first cell row, (k, rows, gx)).

    Tiled with a halo beyond the head's reach, so that the result equals the untiled one.
    """
    height, width = embeddings.grid
    cells = head.card.cells_per_token
    # in units of output cells: a token is `cells` of them
    plan = TilePlan(
        height * cells,
        width * cells,
        tile_px=_TILE_TOKENS * cells,
        step_px=(_TILE_TOKENS - 2 * _HALO_TOKENS) * cells,
        margin_px=_HALO_TOKENS * cells,
        cell_px=1,
    )
    window = blending_window("core", plan.tile_px, 1, _HALO_TOKENS * cells)

    def read(y: int, x: int, tile_height: int, tile_width: int) -> Float32:
        rows = mirrored(np.arange(y // cells, (y + tile_height) // cells), height)
        columns = mirrored(np.arange(x // cells, (x + tile_width) // cells), width)
        top, left = int(rows.min()), int(columns.min())
        block = embeddings.read(top, left, int(rows.max()) - top + 1, int(columns.max()) - left + 1)
        return block[:, rows - top][:, :, columns - left]

    return map_tiles(
        head.probabilities, read, plan, window, len(head.card.classes), batch_size=4, on_progress=on_progress
    )


def check_fits(card: HeadCard, dims: tuple[int, ...], encoder_digest: str, pixel_size_um: float) -> None:
    """Raise ModelError unless a head was trained on embeddings of exactly this kind."""
    wanted = (card.dims, card.encoder_digest, card.pixel_size_um)
    if (dims, encoder_digest, pixel_size_um) != wanted:
        raise ModelError(
            f"the head was trained on embeddings {card.dims} of encoder {card.encoder_digest[:12]} at "
            f"{card.pixel_size_um:g} um per pixel; these are {dims} of {encoder_digest[:12]} at {pixel_size_um:g} um"
        )
