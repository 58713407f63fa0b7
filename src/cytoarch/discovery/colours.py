"""Embeddings as pictures: their first three principal components as red, green and blue, the same over a brain."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save
from sklearn.decomposition import IncrementalPCA

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.embeddings import SectionEmbeddings
from cytoarch.errors import SectionError
from cytoarch.images.layout import Journal, Pyramid, level_count
from cytoarch.images.ngff import omero
from cytoarch.images.pyramids import write_pyramid
from cytoarch.reproducible import single_threaded
from cytoarch.sampling import TokenSample, TokenSource, draw_tokens, moments, parts_of

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

COMPONENTS = 16
"""Components that are followed, so that the first three are well known."""
SMALLEST_SPREAD = 1e-6
SAMPLE_BYTES = 256 << 20
"""A sample and what is computed from it take at most so much, beside a few `sampling.PART_BYTES`."""
TOKENS_PER_SECTION = 2000
"""Embeddings that are drawn from a section, at most."""
MAX_WINDOWS = 64
"""Chunks of embeddings that they are drawn from, at most."""


def colour_sample(sources: Sequence[TokenSource]) -> TokenSample:
    """The tokens of a brain that colours are fitted to; they and the fit stay within `SAMPLE_BYTES`."""
    extra = 8 * 3 * 3  # its three projections, and once more where their percentiles are taken
    return draw_tokens(
        sources,
        1,
        TOKENS_PER_SECTION,
        0,
        extra_bytes=extra,
        max_windows=MAX_WINDOWS,
        budget_bytes=SAMPLE_BYTES,
    )


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
    def fit(cls, samples: Sequence[NDArray[Any]]) -> Self:
        """Fit to embeddings (n, c) drawn from all sections. Raises SectionError if there are fewer than four."""
        count, width = sum(map(len, samples)), samples[0].shape[1] if len(samples) else 0
        if count < 4:
            raise SectionError(f"only {count} embeddings lie in tissue; there is nothing to fit colours to")
        pool = samples[0] if len(samples) == 1 else np.concatenate(samples)
        with single_threaded():
            mean, spread = moments([pool], SMALLEST_SPREAD)
            components = np.zeros((3, width))
            found = _components(pool, mean, spread)
            components[: len(found)] = found
            signs = np.where(components.sum(axis=1) < 0, -1.0, 1.0)  # a component's sign is arbitrary: fix it
            projection = (components * signs[:, None]).T / spread[:, None]
            parts = (pool[part].astype(np.float64) for part in parts_of(count, width))
            shown = np.concatenate([(part - mean) @ projection for part in parts])
        low, high = np.percentile(shown, (1, 99), axis=0, overwrite_input=True)
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


def _components(pool: NDArray[Any], mean: Float64, spread: Float64) -> Float64:
    """The first three principal components (up to 3, c) of standardised tokens; fewer where they span less."""
    if (spread <= SMALLEST_SPREAD).all():
        return np.zeros((0, len(mean)))  # all embeddings are equal: there is no direction
    count = min(COMPONENTS, *pool.shape)
    pca = IncrementalPCA(count)
    for part in parts_of(len(pool), pool.shape[1], least=count):
        pca.partial_fit((pool[part] - mean) / spread)
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
