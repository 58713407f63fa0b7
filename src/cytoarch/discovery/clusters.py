"""Clusters of embeddings over a whole brain: k-means on a sample from every section, then every token assigned.

The starts are scikit-learn's, on a part of the sample; passes over all of the sample, and over all tokens of the brain
where that is asked for, move the centres on.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from safetensors.numpy import load, save
from sklearn.cluster import KMeans

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.discovery.lloyd import Passed, lloyd
from cytoarch.embeddings import SectionEmbeddings
from cytoarch.errors import SectionError
from cytoarch.images.layout import Journal, Pyramid, level_count
from cytoarch.images.ngff import image_label, label_dtype
from cytoarch.images.pyramids import write_group, write_pyramid
from cytoarch.palette import distinct_colours
from cytoarch.reproducible import single_threaded
from cytoarch.sampling import TokenSample, TokenSource, draw_tokens, moments, standardised
from cytoarch.settings import Settings

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

MAX_WINDOWS = 64
"""Chunks of embeddings that a section's tokens are drawn from, at most."""
ASSIGN_TOKENS = 16_384
"""Tokens that are compared with all clusters at once."""
START_TOKENS = 32_768
"""Tokens that starts are made from, drawn from the sample where it holds more."""
SAMPLE_PASSES = 25
"""Passes over a sample that holds more, at most."""


class ClusterSettings(Settings):
    """How embeddings are clustered."""

    clusters: int = Field(title="Number of clusters", default=8, ge=2, le=200, description="Number of clusters (k).")
    tokens_per_section: int = Field(default=3000, ge=10, le=1_000_000, description="Tokens drawn from each section.")
    restarts: int = Field(default=3, ge=1, le=100, description="k-means starts; the tightest result is kept.")
    passes: int = Field(
        default=0,
        ge=0,
        le=100,
        description="Passes over every token of the brain after the fit to those drawn; 0: none.",
    )
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of sampling and starts.")


def cluster_sample(sources: Sequence[TokenSource], settings: ClusterSettings) -> TokenSample:
    """The tokens of a brain that clusters are fitted to; they and the fit stay within `sampling.SAMPLE_BYTES`."""
    width = sum(sources[0].embeddings.dims) if sources else 0
    # the standardised token, two more of it where k-means fills clusters that were left empty, and its distances
    extra = 3 * 4 * width + 8 * settings.clusters
    return draw_tokens(
        sources, 1, settings.tokens_per_section, settings.seed, extra_bytes=extra, max_windows=MAX_WINDOWS
    )


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
    def fit(cls, samples: Iterable[NDArray[Any]], settings: ClusterSettings) -> Self:
        """Fit to embeddings (n, c) drawn from all sections. Raises SectionError if there are fewer than clusters."""
        parts = list(samples)
        pool = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if len(pool) < settings.clusters:
            raise SectionError(f"only {len(pool)} embeddings lie in tissue; {settings.clusters} clusters need as many")
        model = KMeans(settings.clusters, n_init=settings.restarts, random_state=settings.seed, copy_x=False)
        with single_threaded():
            mean, spread = moments([pool])
            centres = model.fit(standardised(_drawn(pool, settings.seed), mean, spread)).cluster_centers_
        middle, scale = mean.astype(np.float32), spread.astype(np.float32)
        if len(pool) > START_TOKENS:
            centres = lloyd(lambda: [pool], middle, scale, centres.astype(np.float32), SAMPLE_PASSES).centres
        return cls(middle, scale, _along_gradient(centres))

    def refined(self, blocks: Callable[[], Iterable[NDArray[Any]]], passes: int) -> tuple[Self, Passed]:
        """The centres moved on by passes over all tokens, and what these found.

        `blocks` gives the tokens (n, c) in parts, anew for every pass. Mean and spread stay those of the sample.
        """
        passed = lloyd(blocks, self.mean, self.spread, self.centres, passes)
        return type(self)(self.mean, self.spread, _along_gradient(passed.centres)), passed

    def assign(self, embeddings: Float32) -> Int64:
        """(n, c) -> nearest cluster (n,), from 0."""
        import torch

        centres, lengths = torch.from_numpy(self.centres), (self.centres**2).sum(axis=1)[:, None]
        assigned = np.empty(len(embeddings), dtype=np.int64)
        for start in range(0, len(embeddings), ASSIGN_TOKENS):
            part = slice(start, start + ASSIGN_TOKENS)
            # torch, because numpy's product of the same matrices depends on how many threads compute it
            scaled = torch.from_numpy(np.ascontiguousarray(((embeddings[part] - self.mean) / self.spread).T))
            assigned[part] = (lengths - 2 * (centres @ scaled).numpy()).argmin(axis=0)
        return assigned

    def to_bytes(self) -> bytes:
        """The clustering as safetensors."""
        content: bytes = save({"mean": self.mean, "spread": self.spread, "centres": self.centres})
        return content

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """The clustering in safetensors."""
        return cls(**load(content))


def _drawn(pool: NDArray[Any], seed: int) -> NDArray[Any]:
    """The tokens that starts are made from: all, or so many drawn by lot."""
    if len(pool) <= START_TOKENS:
        return pool
    return pool[np.sort(np.random.default_rng(seed).choice(len(pool), START_TOKENS, replace=False))]


def _along_gradient(centres: NDArray[np.floating]) -> Float32:
    """Centres (k, c) in the order of their first principal component."""
    with single_threaded():
        _, _, axes = np.linalg.svd(centres - centres.mean(axis=0), full_matrices=False)
    axis = axes[0] * np.sign(axes[0].sum() or 1.0)
    return np.ascontiguousarray(centres[np.argsort((centres * axis).sum(axis=1))], dtype=np.float32)


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
