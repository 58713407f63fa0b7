"""Embeddings, labels and cards in memory."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.brains import LabelClass
from cytoarch.embeddings import EmbedSettings, SectionEmbeddings
from cytoarch.images.views import Level, StoredImage
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.datasets import LabelledSection

CLASSES = (
    LabelClass(name="sky", ids=(3,)),
    LabelClass(name="sea", ids=(1, 7)),
    LabelClass(name="land", ids=(20,)),
)


def stored_embeddings(layers: Sequence[NDArray], token_um: float = 16.0, chunk: int = 16) -> SectionEmbeddings:
    """Layers (c, y, x) as the store holds them: float16 in chunks."""
    images = []
    for layer in layers:
        array = zarr.create_array(
            store=zarr.storage.MemoryStore(),
            shape=layer.shape,
            dtype=np.float16,
            chunks=(layer.shape[0], chunk, chunk),
        )
        array[:] = layer.astype(np.float16)
        images.append(StoredImage((Level(array, token_um, token_um / 2),), {}))
    return SectionEmbeddings(tuple(images))


def card_of(
    kind: str, dims: tuple[int, ...], cells_per_token: int = 1, classes: Sequence[LabelClass] = CLASSES
) -> HeadCard:
    """The card of a head for tokens of 16 px at 1 um."""
    return HeadCard(
        kind=kind,
        target="areas",
        classes=tuple(classes),
        dims=dims,
        cells_per_token=cells_per_token,
        embedding=EmbedSettings(),
        encoder_digest="ab" * 32,
        token_px=16,
        pixel_size_um=1.0,
    )


def striped_section(section_id: str, seed: int, grid: tuple[int, int] = (24, 18)) -> LabelledSection:
    """A section whose embeddings tell its three stripes of labels apart; label pixels are of 4 um, tokens of 16."""
    rng = np.random.default_rng(seed)
    stripe = np.arange(grid[0])[:, None] * 3 // grid[0] + np.zeros(grid, dtype=np.int64)
    layers = [np.moveaxis(np.eye(d)[stripe % d], -1, 0) + rng.normal(0, 0.3, (d, *grid)) for d in (3, 4)]
    labels = np.array([3, 7, 20])[np.repeat(np.repeat(stripe, 4, axis=0), 4, axis=1)].astype(np.uint16)
    embeddings = stored_embeddings(layers)
    everywhere = TissueMask(np.ones((1, 1), dtype=bool), embeddings.layers[0].grid.grouped(max(grid)))
    return LabelledSection(section_id, embeddings, Level(labels, 4.0, 2.0), everywhere)


@pytest.fixture
def in_store() -> Callable[..., SectionEmbeddings]:
    return stored_embeddings


@pytest.fixture
def card() -> Callable[..., HeadCard]:
    return card_of


@pytest.fixture
def section() -> Callable[..., LabelledSection]:
    return striped_section


@pytest.fixture
def classes() -> tuple[LabelClass, ...]:
    return CLASSES
