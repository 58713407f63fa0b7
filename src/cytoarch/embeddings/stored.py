"""Committed embeddings of a section, opened for reading."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.errors import ModelError
from cytoarch.images.views import Level, StoredImage
from cytoarch.tiling import partition

Array = NDArray[Any]
Float32 = NDArray[np.float32]

BLOCK_BYTES = 64 << 20
"""Embeddings that are read at once take at most so many bytes as float32, unless a chunk takes more."""

COMPUTED = "computed"
"""Name of the image that says which tokens were computed."""


@dataclass(frozen=True)
class SectionEmbeddings:
    """The committed embeddings of a section; layers are stacked along c."""

    layers: tuple[StoredImage, ...]
    marks: Level | None = None
    """Which tokens were computed; None: all."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the folder of a committed product."""
        import zarr

        own: Any = zarr.open_group(path, mode="r", zarr_format=3).attrs["cytoarch"]
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
        return tuple(layer.channels for layer in self.layers)

    @property
    def chunk(self) -> int:
        """Edge of a chunk in tokens: what one read decodes."""
        return int(min(layer.levels[0].array.chunks[-1] for layer in self.layers))

    def computed(self) -> NDArray[np.bool_]:
        """The tokens (y, x) that were computed; the others, outside tissue and regions asked for, are zero."""
        return np.ones(self.grid, dtype=bool) if self.marks is None else np.asarray(self.marks.array) > 0

    def inside(self, tissue: TissueMask) -> NDArray[np.bool_]:
        """The tokens (y, x) that lie in tissue and were computed."""
        return tissue.on_grid(self.layers[0].grid) & self.computed()

    def read(self, y: int, x: int, height: int, width: int) -> Float32:
        """A window (c, height, width) float32 of all layers, in tokens, inside the grid."""
        window = slice(y, y + height), slice(x, x + width)
        return np.concatenate([layer.levels[0].pixels(*window).astype(np.float32) for layer in self.layers])

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

    def sample(self, mask: NDArray[np.bool_], count: int, seed: int, max_windows: int = 64) -> Float32:
        """Up to `count` embeddings (n, c) drawn at random where `mask` (y, x) holds, from at most so many windows."""
        rng = np.random.default_rng(seed)
        edge = self.chunk
        padded = np.pad(mask, [(0, -size % edge) for size in mask.shape])
        held = padded.reshape(padded.shape[0] // edge, edge, padded.shape[1] // edge, edge).any(axis=(1, 3))
        windows = np.argwhere(held)
        if not len(windows):
            return np.zeros((0, sum(self.dims)), dtype=np.float32)
        windows = windows[np.sort(rng.permutation(len(windows))[:max_windows])]
        found: list[Float32] = []
        for row, column in windows:
            y, x = int(row) * edge, int(column) * edge
            inside = mask[y : y + edge, x : x + edge]
            found.append(self.read(y, x, *inside.shape)[:, inside].T)
        pool = np.concatenate(found)
        picked = np.sort(rng.permutation(len(pool))[:count])
        return np.ascontiguousarray(pool[picked])


def check_same_dims(sections: Sequence[tuple[str, SectionEmbeddings]]) -> tuple[int, ...]:
    """The dims all sections share. Raises ModelError naming a section that differs."""
    first_id, first = sections[0]
    for section_id, embeddings in sections[1:]:
        if embeddings.dims != first.dims:
            raise ModelError(
                f"section {section_id} has embeddings of {embeddings.dims} where {first_id} has {first.dims}: the "
                "sections differ in channels; name the channels to read in the embed settings"
            )
    return first.dims
