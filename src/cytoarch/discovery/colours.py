"""Embeddings as pictures: their first three principal components as red, green and blue, the same over a brain."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save
from sklearn.decomposition import IncrementalPCA
from sklearn.preprocessing import StandardScaler

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.embeddings import SectionEmbeddings
from cytoarch.errors import SectionError
from cytoarch.images.layout import Journal, Pyramid, level_count
from cytoarch.images.ngff import omero
from cytoarch.images.pyramids import write_pyramid
from cytoarch.reproducible import single_threaded

Float16 = NDArray[np.float16]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

COMPONENTS = 16
"""Components that are followed, so that the first three are well known."""
SMALLEST_SPREAD = 1e-6
PART_TOKENS = 4096
"""Embeddings that are taken in at once."""
SAMPLE_BYTES = 256 << 20
"""All samples of a brain together take at most so much memory."""
SAMPLE_TOKENS = 2000
"""Embeddings that are drawn from a section, at most."""


def tokens_per_section(sections: int, width: int) -> int:
    """How many embeddings of so many values are drawn from each of so many sections.

    >>> tokens_per_section(20, 3072), tokens_per_section(4654, 3072)
    (2000, 9)
    """
    return max(4, min(SAMPLE_TOKENS, SAMPLE_BYTES // (sections * width * 2)))


@dataclass(frozen=True)
class ColourMap:
    """A linear map from embeddings to colours: standardise, project on three components, scale to [0, 1]."""

    mean: Float32
    """(c,)."""
    projection: Float32
    """(c, 3)."""
    low: Float32
    high: Float32
    """(3,) the 1st and 99th percentiles of the projections, shown as 0 and 255."""

    @classmethod
    def fit(cls, samples: Sequence[Float16]) -> Self:
        """Fit to embeddings (n, c) drawn from all sections, one array each, seen one after the other.

        Raises SectionError if there are fewer than four.
        """
        count, width = sum(map(len, samples)), samples[0].shape[1] if len(samples) else 0
        if count < 4:
            raise SectionError(f"only {count} embeddings lie in tissue; there is nothing to fit colours to")
        with single_threaded():
            mean, spread = _moments(samples)
            components = np.zeros((3, width))
            found = _components(samples, mean, spread)
            components[: len(found)] = found
            signs = np.where(components.sum(axis=1) < 0, -1.0, 1.0)  # a component's sign is arbitrary: fix it
            projection = (components * signs[:, None]).T / spread[:, None]
            shown = np.concatenate([(part.astype(np.float64) - mean) @ projection for part in samples])
        low, high = np.percentile(shown, (1, 99), axis=0)
        return cls(
            *(
                np.ascontiguousarray(part, dtype=np.float32)
                for part in (mean, projection, low, np.maximum(high, low + 1e-6))
            )
        )

    def to_bytes(self) -> bytes:
        """The map as safetensors."""
        content: bytes = save({"mean": self.mean, "projection": self.projection, "low": self.low, "high": self.high})
        return content

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """The map in safetensors."""
        return cls(**load(content))

    def colours(self, embeddings: Float32) -> NDArray[np.uint8]:
        """(c, y, x) -> (3, y, x) uint8."""
        projected = np.einsum("cyx,ck->kyx", embeddings - self.mean[:, None, None], self.projection)
        unit = (projected - self.low[:, None, None]) / (self.high - self.low)[:, None, None]
        return np.asarray(np.clip(unit * 254 + 1.5, 1, 255), dtype=np.uint8)


def _moments(samples: Sequence[Float16]) -> tuple[Float64, Float64]:
    """Mean and standard deviation (c,) over all samples, one array at a time."""
    scaler = StandardScaler()
    for part in samples:
        if len(part):
            scaler.partial_fit(part.astype(np.float64))
    return scaler.mean_, np.maximum(np.sqrt(scaler.var_), SMALLEST_SPREAD)


def _components(samples: Sequence[Float16], mean: Float64, spread: Float64) -> Float64:
    """The first three principal components (up to 3, c) of standardised samples; fewer where they span less."""
    pool = np.concatenate(samples)
    if (spread <= SMALLEST_SPREAD).all():
        return np.zeros((0, len(mean)))  # all embeddings are equal: there is no direction
    count = min(COMPONENTS, *pool.shape)
    pca = IncrementalPCA(count)
    starts = range(0, max(1, len(pool) - count + 1), PART_TOKENS)  # a part of fewer than `count` joins the one before
    for start, stop in zip(starts, [*starts[1:], len(pool)], strict=True):
        pca.partial_fit((pool[start:stop] - mean) / spread)
    return np.asarray(pca.components_[:3])


def write_colours(
    journal: Journal, embeddings: SectionEmbeddings, tissue: TissueMask, colour_map: ColourMap
) -> dict[str, Any]:
    """Write a section's colours as an image (3, y, x) uint8; cells outside tissue are black."""
    grid = embeddings.grid
    mask = embeddings.inside(tissue)

    def read(y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        colours = embeddings.map_blocks(colour_map.colours, y, x, height, width)
        return colours * mask[y : y + height, x : x + width]

    pyramid = Pyramid(
        (3, *grid),
        np.dtype(np.uint8),
        embeddings.token_um,
        "mean",
        levels=level_count(*grid),
        origin_um=embeddings.layers[0].levels[0].origin_um,
    )
    write_pyramid(journal, pyramid, read, name="pca", attributes={"omero": omero(3, True, (0.0, 255.0))})
    return {}
