"""How far the boundaries of two masks lie apart: the 95th percentile of their distances (HD95), and the mean (ASSD).

The boundary of a mask are its cells that have a neighbour outside it, beyond the image counting as outside (medpy);
distances run between the centres of cells. Score whole sections: where a tile ends, a boundary is counted that is none.
Where only part of an image is labelled, say which is not: towards the unknown, and beyond the image, no boundary runs.
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
    """One of the masks is empty or has no boundary, and the other has: no distance is defined, to be counted."""

    @classmethod
    def between(
        cls, one: Mask, other: Mask, spacing_um: tuple[float, ...], rim: Rim = "outside", unknown: Mask | None = None
    ) -> Self:
        """Those of two masks of one shape (..., y, x), whose cells have these sizes along its axes.

        `unknown`, of that shape: cells of neither mask that may belong to either; the rim of the image is then ignored.
        """
        nothing = np.zeros(0)
        if not one.any() or not other.any():
            return cls(nothing, nothing, missing=bool(one.any() != other.any()))
        # all that matters is where the masks are, and their neighbours: the rest of a large image is left out
        box = tuple(slice(max(0, int(at.min()) - 1), int(at.max()) + 2) for at in np.nonzero(one | other))
        around = None if unknown is None else unknown[box]
        edges = [boundary(mask[box], rim, around) for mask in (one, other)]
        if not edges[0].any() or not edges[1].any():
            return cls(nothing, nothing, missing=bool(edges[0].any() != edges[1].any()))
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


def boundary(mask: Mask, rim: Rim = "outside", unknown: Mask | None = None) -> Mask:
    """The cells of a mask (..., y, x) with a neighbour, across a face, that is not in it, nor unknown if that is given.

    >>> boundary(np.ones((3, 3), dtype=bool)).sum(), boundary(np.ones((3, 3), dtype=bool), "ignored").sum()
    (np.int64(8), np.int64(0))
    """
    if unknown is not None:
        return np.asarray(mask & ~binary_erosion(mask | unknown, border_value=1))
    return np.asarray(mask & ~binary_erosion(mask, border_value=int(rim == "ignored")))
