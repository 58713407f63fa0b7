"""SpatialNCE for patches and for the tokens in them: of a token, the depth in the cortex counts as well as the place.

Only geometry is used: where a section lies in the reference space, and how deep in the cortex a place is. Areas and
layers are never seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from cytoarch.encoders.compact_model import TOKEN_PX, TOKEN_WIDTH, CompactNetwork
from cytoarch.pretraining.augmentation import Draws, changed, places_px
from cytoarch.pretraining.cells import CellMaps, laid_out
from cytoarch.pretraining.losses import contrastive_loss, spatial_targets
from cytoarch.pretraining.networks import projection_head
from cytoarch.pretraining.patches import Batch, PatchPoints, SectionPixels, cut
from cytoarch.pretraining.sending import sent
from cytoarch.pretraining.stains import restained

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
OUTSIDE = {0: -0.5, 2: 1.5, 3: 2.5}
"""Depths that stand for tissue that has none: bare slide, white matter, grey matter that is no cortex."""
CORTEX = 1


@dataclass(frozen=True)
class PlaceMaps(CellMaps):
    """Cells of which tissue, depth and layer are known, too. What is learned from are tissue, depth and place."""

    tissue: NDArray[np.uint8]
    """(cells,) 0 bare, 1 cortex, 2 white matter, 3 other grey matter."""
    depth: NDArray[np.float32]
    """(cells,) 0 to 1 within cortex."""
    layer: NDArray[np.uint8]
    """(cells,) for probes, as areas are."""

    @classmethod
    def of(cls, maps: Sequence[dict[str, NDArray[np.generic]]], cell_px: int) -> Self:
        """The maps (y, x, ...) of every section, by the names of our fields."""
        flat = {
            name: np.concatenate([one[name].reshape(-1, *one[name].shape[2:]) for one in maps])
            for name in ("tissue", "depth", "position_mm", "layer", "area")
        }
        return cls(*laid_out([one["tissue"].shape[:2] for one in maps]), cell_px, **flat)

    def coordinates(self, cells: Int64, sigma_mm: float, sigma_depth: float) -> NDArray[np.float32]:
        """(n, 4): place over sigma_mm, and depth over sigma_depth; what is no cortex is one place for each tissue."""
        tissue = self.tissue[cells]
        cortex = tissue == CORTEX
        place = np.where(cortex[:, None], self.position_mm[cells], 0.0)
        elsewhere = np.select([tissue == one for one in OUTSIDE], list(OUTSIDE.values()))
        depth = np.where(cortex, self.depth[cells], elsewhere)
        return np.concatenate([place / sigma_mm, depth[:, None] / sigma_depth], axis=1).astype(np.float32)


@dataclass(frozen=True)
class TokenBatch(Batch):
    """A batch of patches of which some tokens are looked at."""

    tokens: Tensor
    """(n, t) which cells of the token grid, counted row by row."""
    coordinates: Tensor
    """(n t, 4) float32, in units of their sigmas."""


@dataclass(frozen=True)
class TokenBatches:
    """Batches of patches at many pixel sizes and in many stains, with the places of some of their tokens."""

    levels: Sequence[SectionPixels]
    """The sections, and each time at twice the pixel size."""
    points: PatchPoints
    places: PlaceMaps
    pixel_size_um: float
    """Of the first level."""
    patch_px: int
    batch_size: int
    tokens: int
    """Looked at in every patch."""
    sigma_mm: float
    sigma_depth: float
    scales: tuple[float, float]
    """How many pixels of its level a pixel of the patch is wide."""
    shift_mm: float
    seed: int = 0

    def __call__(self, step: int) -> TokenBatch:
        """The batch of a step."""
        rng = np.random.default_rng([self.seed, 2, step])
        chosen = self.points[rng.choice(len(self.points), self.batch_size, replace=False)]
        level = int(rng.integers(len(self.levels)))
        draws = Draws.draw(rng, len(chosen), self.pixel_size_um * 2**level, shift_mm=self.shift_mm, scales=self.scales)
        centred = PatchPoints(
            chosen.section, chosen.centre_px / 2**level, chosen.position_mm, chosen.label, chosen.brain
        )
        sections = self.levels[level]
        pixels = changed(restained(cut(sections, centred, draws, self.patch_px), rng), draws)
        grid = self.patch_px // TOKEN_PX
        tokens = rng.integers(grid * grid, size=(len(chosen), self.tokens))
        where = places_px(centred.centre_px, draws, self.patch_px, grid, tokens) * 2**level
        cells = self.places.at(chosen.section, where).ravel()
        device = sections.values.device
        return TokenBatch(
            pixels=pixels,
            positions_mm=sent(chosen.position_mm, device),
            labels=sent(chosen.label, device),
            tokens=sent(tokens, device),
            coordinates=sent(self.places.coordinates(cells, self.sigma_mm, self.sigma_depth), device),
        )


class TokenLearner(nn.Module):
    """A network with a projection for patches and one for tokens."""

    def __init__(self, network: CompactNetwork, width: int = TOKEN_WIDTH) -> None:
        super().__init__()
        self.network = network
        self.patches = projection_head(network.widths[-1])
        self.tokens = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 64, 1)
        )

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(b, c, T, T) -> projections of patches (b, 256) and of tokens (b, 64, T/4, T/4)."""
        found = self.network(pixels)
        return self.patches(found.patch), self.tokens(found.tokens)


@dataclass(frozen=True)
class SpatialTokens:
    """Patches alike by their place, tokens by their place and depth; both count the same."""

    temperature: float = 0.07
    sigma_mm: float = 10.0
    views: int = 1

    def __call__(self, outputs: tuple[Tensor, Tensor], batch: TokenBatch) -> Tensor:
        """The sum of both losses."""
        patches, grid = outputs
        chosen = batch.tokens[:, None].expand(-1, grid.shape[1], -1)
        tokens = grid.flatten(2).gather(2, chosen).movedim(1, 2).reshape(-1, grid.shape[1])
        of_tokens = contrastive_loss(tokens, spatial_targets(batch.coordinates, 1.0), self.temperature)
        return contrastive_loss(patches, self.targets(batch), self.temperature) + of_tokens

    def targets(self, batch: Batch) -> Tensor:
        """Who of the patches should be like whom."""
        return spatial_targets(batch.positions_mm, self.sigma_mm)
