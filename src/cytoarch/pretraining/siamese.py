"""The Siamese task of Spitzer et al. 2018: how far apart two patches lie along the cortex, and where each lies.

l_dist = | |f(x1) - f(x2)|^2 - y_dist |: the squared length is to be the geodesic distance. l_coord = |d(f(x)) -
y_coord|_1 with y_coord the place on the inflated surface, right hemispheres mirrored onto left ones. The loss of a pair
is l_dist + alpha (l_coord(x1) + l_coord(x2)); weights are decayed by the optimiser. The publication does not state its
units: here distances count in `distance_unit_mm` and coordinates in `coordinate_unit_mm`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cytoarch.encoders.trainable import PatchNetwork
from cytoarch.pretraining.networks import patch_embeddings

WIDTH = 32
"""Length of an embedding (Spitzer et al.)."""
ALPHA = 10.0
EXPONENT, MOST = 2.5, 50
"""How many pairs a patch is in: a power law up to so many. Ours; the publication states a power law only."""
MIRROR = (-1.0, 1.0, 1.0)

Int64 = NDArray[np.int64]


class SiameseLearner(nn.Module):
    """A network with a dense layer to 32, and one from there to coordinates; both patches of a pair go through it."""

    network: PatchNetwork

    def __init__(self, network: PatchNetwork) -> None:
        super().__init__()
        self.network = network
        self.embed = nn.Linear(network.patch_width, WIDTH)
        self.place = nn.Linear(WIDTH, 3)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(b, c, T, T) -> embeddings (b, 32) and coordinates (b, 3) in units."""
        found = self.embed(patch_embeddings(self.network, pixels))
        return found, self.place(found)


@dataclass(frozen=True)
class SiameseLoss:
    """The loss of pairs; either part can be left out, for an ablation."""

    alpha: float = ALPHA
    distance_unit_mm: float = 1.0
    coordinate_unit_mm: float = 100.0
    distances: bool = True
    coordinates: bool = True

    def __call__(
        self, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], distance_mm: Tensor, places_mm: Tensor
    ) -> Tensor:
        """The mean over pairs (n,) of what the learner gives for both, their distances (n,) and places (2, n, 3) mm.

        Pairs whose distance is not a number, of parts of a surface that do not meet, have no distance to learn from.
        """
        loss = first[0].new_zeros(())
        if self.distances:
            known = torch.isfinite(distance_mm)
            wanted = torch.where(known, distance_mm, 0.0) / self.distance_unit_mm
            off = distance_loss(first[0], second[0], wanted)
            loss = loss + torch.where(known, off, 0.0).sum() / known.sum().clamp(min=1)
        if self.coordinates:
            told = zip((first[1], second[1]), places_mm, strict=True)
            parts = [coordinate_loss(one, place / self.coordinate_unit_mm) for one, place in told]
            loss = loss + self.alpha * (parts[0] + parts[1]).mean()
        return loss


def distance_loss(first: Tensor, second: Tensor, distances: Tensor) -> Tensor:
    """| |f1 - f2|^2 - y | of pairs of embeddings (n, d) and distances (n,): (n,)."""
    return ((first - second).square().sum(dim=1) - distances).abs()


def coordinate_loss(told: Tensor, places: Tensor) -> Tensor:
    """|told - place|_1 of coordinates (n, 3): (n,)."""
    return (told - places).abs().sum(dim=1)


def mirrored_right(places_mm: Tensor, right: Tensor) -> Tensor:
    """Places (n, 3) on inflated surfaces, centred alike, with the right hemisphere (n,) bool laid over the left."""
    flip = places_mm.new_tensor(MIRROR)
    return torch.where(right[:, None], places_mm * flip, places_mm)


def draw_pairs(hemisphere: Int64, seed: int, exponent: float = EXPONENT, most: int = MOST) -> Int64:
    """Pairs (m, 2) of points (n,), each of one hemisphere; every point is in one at least, no pair is there twice.

    How many pairs a point wants is drawn from a power law; ends are joined by chance (a configuration model), what
    joins a point with itself, or again with the same, is dropped, and points that are left alone get a partner. Raises
    ValueError for a hemisphere of one point.
    """
    rng = np.random.default_rng([seed, 4])
    sizes = np.arange(1, most + 1, dtype=np.float64) ** -exponent
    found = []
    for side in np.unique(hemisphere):
        points = np.flatnonzero(hemisphere == side)
        if len(points) < 2:
            raise ValueError(f"hemisphere {side} has one point; pairs need at least 2")
        wanted = rng.choice(np.arange(1, most + 1), len(points), p=sizes / sizes.sum())
        ends = rng.permutation(np.repeat(points, wanted))
        pairs = _distinct(ends[: len(ends) // 2 * 2].reshape(-1, 2))
        alone = np.setdiff1d(points, pairs)
        partners = np.array([rng.choice(points[points != one]) for one in alone], dtype=np.int64)
        found.append(_distinct(np.concatenate([pairs, np.stack([alone, partners], axis=1)])))
    return np.concatenate(found)


def _distinct(pairs: Int64) -> Int64:
    """Pairs (m, 2), the smaller first, each once, none with itself."""
    ordered = np.sort(pairs, axis=1)
    return np.unique(ordered[ordered[:, 0] < ordered[:, 1]], axis=0)
