"""Sections to embed, as the store holds them, and encoders whose results are known beforehand."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.embeddings import EmbedSettings, SectionEmbeddings
from cytoarch.embeddings.dense import write_embeddings
from cytoarch.encoders.protocol import TileShape
from cytoarch.geometry import Grid
from cytoarch.images.layout import Pyramid, level_count
from cytoarch.images.pyramids import write_pyramid
from cytoarch.images.views import StoredImage
from cytoarch.store.staging import Staging


@dataclass(frozen=True)
class MeanEncoder:
    """The mean of every token, and the same times a factor as a second layer."""

    token_px: int = 4
    factor: float = 2.0
    encoder_id: str = "mean"
    digest: str = "00" * 32
    pixel_size_um: float | None = None
    channels: int | None = None
    halo_px: int | None = 0
    tile_px: int = 64

    @property
    def layers(self) -> tuple[str, ...]:
        return ("plain", "scaled")

    @property
    def tiles(self) -> TileShape:
        return TileShape(self.tile_px, self.token_px, self.halo_px)

    def dims(self, channels: int) -> tuple[int, ...]:
        return (channels, channels)

    def encode(self, tiles: np.ndarray) -> list[np.ndarray]:
        b, c, height, width = tiles.shape
        t = self.token_px
        mean = tiles.reshape(b, c, height // t, t, width // t, t).mean(axis=(3, 5))
        return [mean, (self.factor * mean).astype(np.float32)]

    def patch_dims(self, channels: int) -> int:
        return channels * self.tile_px**2

    def embed(self, patches: np.ndarray) -> np.ndarray:
        """A patch as it is, pixel after pixel."""
        return patches.reshape(len(patches), -1)


@dataclass(frozen=True)
class PlaceEncoder(MeanEncoder):
    """Tells where in its tile a token lies: its row and column."""

    def encode(self, tiles: np.ndarray) -> list[np.ndarray]:
        n = tiles.shape[2] // self.token_px
        rows, columns = np.mgrid[:n, :n].astype(np.float32)
        return [np.broadcast_to(one, (len(tiles), 1, n, n)).copy() for one in (rows, columns)]


def stored_section(folder: Path, pixels: np.ndarray, size_um: float, kind: str = "grey") -> StoredImage:
    """A section as the store holds it."""
    journal = Staging(folder).open()
    pyramid = Pyramid(pixels.shape, pixels.dtype, size_um, "mean", levels=level_count(*pixels.shape[-2:]))
    write_pyramid(
        journal,
        pyramid,
        lambda y, x, h, w: pixels[..., y : y + h, x : x + w],
        name="section",
        own_attributes={"kind": kind},
    )
    return StoredImage.open(journal.path)


def tissue_on(image: StoredImage, mask: np.ndarray, size_um: float) -> TissueMask:
    """A mask of pixels of some size at the corner of a section."""
    return TissueMask(mask, Grid.at_corner(mask.shape, size_um, image.grid.corner_um))


def all_tissue(image: StoredImage) -> TissueMask:
    return tissue_on(image, np.ones((1, 1), dtype=bool), 2 * max(image.extent_um))


def embedded(folder: Path, image: StoredImage, encoder, size_um: float, tissue=None, **settings):
    """The embeddings of a section, opened, and the facts of the record."""
    journal = Staging(folder).open()
    facts = write_embeddings(journal, image, tissue or all_tissue(image), encoder, EmbedSettings(**settings), size_um)
    return SectionEmbeddings.open(journal.path), facts


def contents(folder: Path) -> dict[str, bytes]:
    """Every file by its key."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def noise(height: int, width: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (channels, height, width), dtype=np.uint8)
