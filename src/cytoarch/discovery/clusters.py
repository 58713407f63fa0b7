"""Clusters of embeddings over a whole brain: k-means on a sample from every section, then every token assigned."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from safetensors.numpy import load, save
from sklearn.cluster import KMeans

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.embeddings import SectionEmbeddings
from cytoarch.errors import SectionError
from cytoarch.images.layout import Journal, Pyramid, level_count
from cytoarch.images.ngff import image_label, label_dtype
from cytoarch.images.pyramids import write_group, write_pyramid
from cytoarch.palette import distinct_colours
from cytoarch.reproducible import single_threaded

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]


class ClusterSettings(BaseModel):
    """How embeddings are clustered."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clusters: int = Field(default=8, ge=2, le=200, description="Number of clusters (k).")
    tokens_per_section: int = Field(default=3000, ge=10, le=1_000_000, description="Tokens drawn from each section.")
    restarts: int = Field(default=3, ge=1, le=100, description="k-means starts; the tightest result is kept.")
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of sampling and starts.")


@dataclass(frozen=True)
class Clustering:
    """k-means on standardised embeddings."""

    mean: Float32
    """(c,)."""
    spread: Float32
    """(c,)."""
    centres: Float32
    """(k, c), standardised; ordered by their first principal component, so that numbers follow the main gradient."""

    @classmethod
    def fit(cls, samples: Iterable[Float32], settings: ClusterSettings) -> Self:
        """Fit to embeddings (n, c) drawn from all sections. Raises SectionError if there are fewer than clusters."""
        pool = np.concatenate(list(samples))
        if len(pool) < settings.clusters:
            raise SectionError(f"only {len(pool)} embeddings lie in tissue; {settings.clusters} clusters need as many")
        mean = pool.mean(axis=0, dtype=np.float64).astype(np.float32)
        spread = np.maximum(pool.std(axis=0, dtype=np.float64), 1e-6).astype(np.float32)
        model = KMeans(settings.clusters, n_init=settings.restarts, random_state=settings.seed)
        with single_threaded():
            centres = model.fit((pool - mean) / spread).cluster_centers_
            _, _, axes = np.linalg.svd(centres - centres.mean(axis=0), full_matrices=False)
        axis = axes[0] * np.sign(axes[0].sum() or 1.0)
        return cls(mean, spread, centres[np.argsort((centres * axis).sum(axis=1))].astype(np.float32))

    def assign(self, embeddings: Float32) -> Int64:
        """(n, c) -> nearest cluster (n,), from 0."""
        import torch

        # torch, because numpy's product of the same matrices depends on how many threads compute it
        scaled = torch.from_numpy(np.ascontiguousarray(((embeddings - self.mean) / self.spread).T))
        distances = (self.centres**2).sum(axis=1)[:, None] - 2 * (torch.from_numpy(self.centres) @ scaled).numpy()
        return np.asarray(distances.argmin(axis=0), dtype=np.int64)

    def to_bytes(self) -> bytes:
        """The clustering as safetensors."""
        content: bytes = save({"mean": self.mean, "spread": self.spread, "centres": self.centres})
        return content

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """The clustering in safetensors."""
        return cls(**load(content))


def write_clusters(
    journal: Journal, embeddings: SectionEmbeddings, tissue: TissueMask, clustering: Clustering
) -> dict[str, Any]:
    """Write a section's clusters as a label image (y, x) on the token grid: value i + 1 is cluster i, 0 no tissue."""
    grid = embeddings.grid
    mask = embeddings.inside(tissue)
    count = len(clustering.centres)
    dtype = label_dtype(count)

    def assign(tokens: Float32) -> Int64:
        return clustering.assign(tokens.reshape(len(tokens), -1).T).reshape(tokens.shape[1:]) + 1

    def read(y: int, x: int, height: int, width: int) -> NDArray[Any]:
        assigned = embeddings.map_blocks(assign, y, x, height, width)
        return (assigned * mask[y : y + height, x : x + width]).astype(dtype)

    origin_um = embeddings.layers[0].levels[0].origin_um
    pyramid = Pyramid(grid, dtype, embeddings.token_um, "mode", levels=level_count(*grid), origin_um=origin_um)
    numbers = range(1, count + 1)
    label = image_label({i: f"cluster {i}" for i in numbers}, dict(zip(numbers, distinct_colours(count), strict=True)))
    shown = Pyramid(grid, np.dtype(np.uint8), embeddings.token_um, "mean", levels=pyramid.levels, origin_um=origin_um)
    write_pyramid(journal, shown, lambda y, x, h, w: mask[y : y + h, x : x + w] * np.uint8(255), name="tissue")
    write_group(journal, "labels", {"ome": {"version": "0.5", "labels": ["clusters"]}})
    write_pyramid(journal, pyramid, read, name="clusters", folder="labels/clusters", attributes={"image-label": label})
    return {"tokens": int(mask.sum())}
