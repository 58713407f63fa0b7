"""How far the boundaries of two masks lie apart: the 95th percentile of their distances (HD95), and the mean (ASSD).

The boundary of a mask are its cells that have a neighbour outside it, beyond the image counting as outside (medpy);
distances run between the centres of cells. Score whole sections: where a tile ends, a boundary is counted that is none.
"""

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt

Mask = NDArray[np.bool_]
Float64 = NDArray[np.float64]

Rim = Literal["outside", "ignored"]
"""Whether cells of a mask at the rim of the image are boundary ("outside", as medpy has it) or not."""
NAN = float("nan")


@dataclass(frozen=True)
class BoundaryDistances:
    """From every boundary cell of one mask to the boundary of the other, um; empty if either has none."""

    there: Float64
    back: Float64
    missing: bool = False
    """One of the masks is empty and the other is not: no distance is defined, which is to be counted."""

    @classmethod
    def between(cls, one: Mask, other: Mask, spacing_um: tuple[float, ...], rim: Rim = "outside") -> Self:
        """Those of two masks of one shape (..., y, x), whose cells have these sizes along its axes."""
        nothing = np.zeros(0)
        if not one.any() or not other.any():
            return cls(nothing, nothing, missing=bool(one.any() != other.any()))
        if rim == "outside":  # all that matters is where the masks are: the rest of a large image is left out
            box = tuple(slice(int(at.min()), int(at.max()) + 1) for at in np.nonzero(one | other))
            one, other = one[box], other[box]
        edges = [boundary(mask, rim) for mask in (one, other)]
        if not edges[0].any() or not edges[1].any():
            return cls(nothing, nothing)
        away = [distance_transform_edt(~edge, sampling=spacing_um) for edge in edges]
        return cls(away[1][edges[0]], away[0][edges[1]])

    @property
    def hd95_um(self) -> float:
        """The 95th percentile of both directions together (medpy); NaN where nothing is defined."""
        pooled = np.concatenate([self.there, self.back])
        return float(np.percentile(pooled, 95)) if len(pooled) else NAN

    @property
    def larger_hd95_um(self) -> float:
        """The larger of the 95th percentiles of either direction (MONAI)."""
        return max(float(np.percentile(one, 95)) for one in (self.there, self.back)) if len(self.there) else NAN

    @property
    def assd_um(self) -> float:
        """The mean of both directions together (medpy)."""
        pooled = np.concatenate([self.there, self.back])
        return float(pooled.mean()) if len(pooled) else NAN

    @property
    def mean_of_means_um(self) -> float:
        """The mean of the means of either direction."""
        return float(self.there.mean() + self.back.mean()) / 2 if len(self.there) else NAN


def boundary(mask: Mask, rim: Rim = "outside") -> Mask:
    """The cells of a mask (..., y, x) with a neighbour, across a face, that is not in it.

    >>> boundary(np.ones((3, 3), dtype=bool)).sum(), boundary(np.ones((3, 3), dtype=bool), "ignored").sum()
    (np.int64(8), np.int64(0))
    """
    return np.asarray(mask & ~binary_erosion(mask, border_value=int(rim == "ignored")))
