"""Embeddings as pictures: their first three principal components as red, green and blue, the same over a brain."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save
from sklearn.decomposition import PCA

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.embeddings import SectionEmbeddings
from cytoarch.errors import SectionError
from cytoarch.images.ngff import omero
from cytoarch.images.pyramids import Journal, Pyramid, level_count, write_pyramid

Float32 = NDArray[np.float32]

COLOURS_VERSION = 2


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
    def fit(cls, samples: Iterable[Float32]) -> Self:
        """Fit to embeddings (n, c) drawn from all sections. Raises SectionError if there are fewer than four."""
        pool = np.concatenate(list(samples)).astype(np.float64)
        if len(pool) < 4:
            raise SectionError(f"only {len(pool)} embeddings lie in tissue; there is nothing to fit colours to")
        mean, spread = pool.mean(axis=0), np.maximum(pool.std(axis=0), 1e-6)
        scaled = (pool - mean) / spread
        count = min(3, *scaled.shape) if scaled.any() else 0  # where all embeddings are equal there is no direction
        components = np.zeros((0, scaled.shape[1]))
        if count:
            components = PCA(n_components=count, svd_solver="covariance_eigh").fit(scaled).components_
        components = np.concatenate([components, np.zeros((3 - count, scaled.shape[1]))])
        signs = np.where(components.sum(axis=1) < 0, -1.0, 1.0)  # a component's sign is arbitrary: fix it
        projection = (components * signs[:, None]).T / spread[:, None]
        low, high = np.percentile((pool - mean) @ projection, (1, 99), axis=0)
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


def write_colours(
    journal: Journal, embeddings: SectionEmbeddings, tissue: TissueMask, colour_map: ColourMap
) -> dict[str, Any]:
    """Write a section's colours as an image (3, y, x) uint8; cells outside tissue are black."""
    grid = embeddings.grid
    mask = tissue.on_grid(*grid, embeddings.token_um)

    def read(y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        colours = colour_map.colours(embeddings.read(y, x, height, width))
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
