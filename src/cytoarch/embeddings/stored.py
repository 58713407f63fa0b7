"""Committed embeddings of a section, opened for reading."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.errors import ModelError, SectionError
from cytoarch.geometry import Grid
from cytoarch.images.views import Level, StoredImage
from cytoarch.tiling import partition

Array = NDArray[Any]
Float32 = NDArray[np.float32]
Mask = NDArray[np.bool_]
Window = tuple[int, int, int, int]
"""(y, x, height, width) in tokens."""

BLOCK_BYTES = 64 << 20
"""Embeddings that are read at once take at most so many bytes as float32, unless a chunk takes more."""

COMPUTED = "computed"
"""Name of the image that says which tokens were computed."""


class AddedChannels(Protocol):
    """What is known of every place of a section and joins its embeddings as a further layer (depth in the cortex)."""

    @property
    def dim(self) -> int:
        """Channels it adds."""

    def channels(self, grid: Grid) -> Float32:
        """(c, y, x) float32 at the centres of a grid's cells."""


@dataclass(frozen=True)
class Scale:
    """The mean and the spread of the embeddings of a brain, by value: what differs from brain to brain by staining."""

    mean: Float32
    """(c,)."""
    spread: Float32
    """(c,), above zero."""

    def apply(self, embeddings: Float32) -> Float32:
        """Embeddings (..., c, y, x) less the mean, in units of the spread."""
        return np.asarray((embeddings - self.mean[:, None, None]) / self.spread[:, None, None], dtype=np.float32)


@dataclass(frozen=True)
class SectionEmbeddings:
    """The committed embeddings of a section; layers are stacked along c, what is added to them follows."""

    layers: tuple[StoredImage, ...]
    marks: Level | None = None
    """Which tokens were computed; None: all."""
    added: tuple[AddedChannels, ...] = ()
    scale: "Scale | None" = None
    """What embeddings are measured in as they are read; None: as they are stored."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the folder of a committed product. Raises SectionError if what describes it cannot be read."""
        import zarr

        try:
            own: Any = zarr.open_group(path, mode="r", zarr_format=3).attrs["cytoarch"]
        except (FileNotFoundError, KeyError, ValueError) as error:
            raise SectionError(f"{path} holds no readable embeddings ({error}): run embed-brain again") from None
        marks = StoredImage.open(path / COMPUTED).levels[0]
        return cls(tuple(StoredImage.open(path / layer) for layer in own["layers"]), marks)

    @property
    def grid(self) -> tuple[int, int]:
        """(y, x) tokens."""
        return self.layers[0].levels[0].size

    @property
    def token_um(self) -> float:
        """Edge of a token (um)."""
        return self.layers[0].pixel_size_um

    @property
    def dims(self) -> tuple[int, ...]:
        """Length of the embedding per layer."""
        return (*(layer.channels for layer in self.layers), *(one.dim for one in self.added))

    def joined_by(self, *added: AddedChannels) -> Self:
        """The same embeddings with further layers."""
        return replace(self, added=(*self.added, *added))

    @property
    def chunk(self) -> int:
        """Edge of a chunk in tokens: what one read decodes."""
        return int(min(layer.levels[0].array.chunks[-1] for layer in self.layers))

    def computed(self, window: Window | None = None) -> Mask:
        """The tokens (y, x) of a window (or of the whole grid) that were computed; the others are zero.

        Not computed is what lies outside tissue and regions asked for. Raises SectionError if that is damaged.
        """
        y, x, height, width = window or (0, 0, *self.grid)
        if self.marks is None:
            return np.ones((height, width), dtype=bool)
        return self.marks.pixels(slice(y, y + height), slice(x, x + width)) > 0

    def inside(self, tissue: TissueMask, window: Window | None = None) -> Mask:
        """The tokens (y, x) of a window (or of the whole grid) that lie in tissue and were computed."""
        y, x, height, width = window or (0, 0, *self.grid)
        cells = self.layers[0].grid.window(y, x, height, width)
        return tissue.on_grid(cells) & self.computed((y, x, height, width))

    def read(self, y: int, x: int, height: int, width: int) -> Float32:
        """A window (c, height, width) float32 of all layers, in tokens, inside the grid."""
        window = slice(y, y + height), slice(x, x + width)
        cells = self.layers[0].grid.window(y, x, height, width)
        stored = np.concatenate([layer.levels[0].pixels(*window).astype(np.float32) for layer in self.layers])
        measured = stored if self.scale is None else self.scale.apply(stored)
        return np.concatenate([measured, *(one.channels(cells) for one in self.added)])

    def measured_in(self, scale: "Scale | None") -> Self:
        """The same embeddings, less the mean and in units of the spread of a scale; what is added stays as it is."""
        return replace(self, scale=scale)

    def map_blocks(self, compute: Callable[[Float32], Array], y: int, x: int, height: int, width: int) -> Array:
        """What `compute` gives (..., h, w) for parts (c, h, w) of a window, put together; parts are held one by one."""
        tokens = BLOCK_BYTES // (4 * sum(self.dims))
        edge = max(1, int(tokens**0.5) // self.chunk) * self.chunk
        parts: list[list[Array]] = []
        for top, left, h, w in partition(height, width, edge):
            if not left:
                parts.append([])
            parts[-1].append(compute(self.read(y + top, x + left, h, w)))
        return np.block(parts)


def check_same_dims(sections: Iterable[tuple[str, SectionEmbeddings]]) -> tuple[int, ...]:
    """The dims that all sections share. Raises ModelError naming a section that differs.

    At least one section is needed. They are opened one after the other, and never two at once.
    """
    first_id = ""
    first: tuple[int, ...] = ()
    for section_id, embeddings in sections:
        first_id, first = (first_id, first) if first else (section_id, embeddings.dims)
        if embeddings.dims != first:
            raise ModelError(
                f"section {section_id} has embeddings of {embeddings.dims} where {first_id} has {first}: the "
                "sections differ in channels; name the channels to read in the embed settings"
            )
    return first
