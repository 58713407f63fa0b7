"""Layers follow each other: probabilities of a piece of cortex held against bands that lie in the order of the classes.

A smooth field rises through the piece, and every class is a stretch of its values: a band between two thresholds. Field
and thresholds are those under which what a head says is most likely; nothing of the section's own labels is needed. The
field is a polynomial of second degree whose bending is held small: a bank of cortex, or both banks of one sulcus.
A whole section of a large brain is no such piece; there depth tells where a class may lie (`learning.columns`).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from cytoarch.tiling import evenly

if TYPE_CHECKING:
    from torch import Tensor

Float32 = NDArray[np.float32]
Mask = NDArray[np.bool_]

MOST_CELLS = 400
"""Cells of a piece that bands are fitted to, evenly chosen."""
STARTS, STEPS, RATE = 8, 120, 0.05
"""Fields are begun in so many directions, each improved by so many steps of Adam."""
DOUBT = 0.05
"""Share of even odds mixed into what a head says, so that no cell counts without bound."""
BENDING, RISING = 0.05, 1e-3
"""Penalties on the squared coefficients of the second degree, and of the others."""
REACH = 2.0
"""Values of the field run from about minus this to this across a piece."""


@dataclass(frozen=True)
class Bands:
    """Ordered bands over a piece of cortex."""

    centre: tuple[float, float]
    """(y, x) in cells."""
    radius: float
    """What places are measured in (cells)."""
    field: Float32
    """(6,) coefficients of 1, x, x^2, y, xy, y^2."""
    cuts: Float32
    """(k - 1,) thresholds, ascending."""
    sharpness: float

    @classmethod
    def fit(cls, probabilities: Float32, inside: Mask) -> Self:
        """The bands under which probabilities (k, y, x) of cells inside a piece are most likely; k at least 2.

        The piece (y, x) must hold a cell. Deterministic.
        """
        import torch

        rows, columns = np.nonzero(inside)
        chosen = evenly(len(rows), MOST_CELLS)
        centre = float(rows.mean()), float(columns.mean())
        radius = max(1.0, float(np.sqrt(2 * (rows.var() + columns.var()))))
        p = probabilities[:, rows[chosen], columns[chosen]].astype(np.float32)
        p = (1 - DOUBT) * p / np.maximum(p.sum(axis=0), 1e-9) + DOUBT / len(p)
        y, x = (one[chosen].astype(np.float64) for one in (rows, columns))
        terms = torch.from_numpy(_terms((y - centre[0]) / radius, (x - centre[1]) / radius))
        field, steps, log_sharpness, best = _climbed(torch.from_numpy(np.log(p)), terms)
        cuts = _cuts(steps)[best].detach().numpy()
        return cls(centre, radius, field[best].detach().numpy(), cuts, float(log_sharpness[best].detach().exp()))

    def shares(self, shape: tuple[int, int]) -> Float32:
        """How much of every cell of a grid (y, x) belongs to each band (k, y, x); sums to 1 over k."""
        y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
        terms = _terms((y - self.centre[0]) / self.radius, (x - self.centre[1]) / self.radius)
        value = np.tensordot(self.field, terms, axes=1)
        above = 1 / (1 + np.exp(np.clip(-self.sharpness * (value - self.cuts[:, None, None]), -60, 60)))
        edge = np.ones((1, *shape))
        return np.asarray(np.concatenate([edge, above]) - np.concatenate([above, 0 * edge]), dtype=np.float32)


def _terms(y: NDArray[np.float64], x: NDArray[np.float64]) -> Float32:
    return np.stack([np.ones_like(y), x, x**2, y, x * y, y**2]).astype(np.float32)


def _cuts(steps: "Tensor") -> "Tensor":
    """Ascending thresholds (s, k - 1) around 0 from free numbers."""
    from torch.nn import functional

    cuts = functional.softplus(steps).cumsum(1)
    return cuts - cuts.mean(1, keepdim=True)


def _climbed(log_p: "Tensor", terms: "Tensor") -> "tuple[Tensor, Tensor, Tensor, int]":
    """Fields (s, 6), free numbers of thresholds (s, k - 1), logarithms of sharpness (s,); and which is best."""
    import torch

    angle = torch.arange(STARTS) * (2 * torch.pi / STARTS)
    field = torch.zeros(STARTS, 6)
    field[:, 1], field[:, 3] = REACH * torch.cos(angle), REACH * torch.sin(angle)
    steps, log_sharpness = torch.zeros(STARTS, len(log_p) - 1), torch.full((STARTS,), float(np.log(4)))
    free = [one.requires_grad_(True) for one in (field, steps, log_sharpness)]
    penalty = torch.tensor([RISING, RISING, BENDING, RISING, BENDING, BENDING])
    optimiser = torch.optim.Adam(free, lr=RATE)
    gain = torch.zeros(STARTS)
    for _ in range(STEPS):
        value = (field @ terms)[:, None] - _cuts(steps)[:, :, None]
        above = torch.sigmoid(value * log_sharpness.exp()[:, None, None])
        edge = torch.ones_like(above[:, :1])
        shares = torch.cat([edge, above], 1) - torch.cat([above, torch.zeros_like(edge)], 1)
        gain = (shares * log_p).sum(1).mean(1) - (penalty * field**2).sum(1)
        optimiser.zero_grad(set_to_none=True)
        (-gain.sum()).backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward untyped
        optimiser.step()
    return field, steps, log_sharpness, int(gain.argmax())
