"""How far the boundaries of all classes of label maps lie apart, image by image and over all images."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from cytoarch.measures.boundaries import NAN, BoundaryDistances
from cytoarch.measures.neighbours import touching

Float64 = NDArray[np.float64]
Int16 = NDArray[np.int16]
Int64 = NDArray[np.int64]

FINEST_UM, RATIO = 1.0, 1.02
"""Distances of many images are counted in steps of 2 %, below 1 um as none: a pooled HD95 is right to a hundredth."""
MOST_CELLS = 1 << 21
"""Maps are compared on at most so many cells: larger ones on every second cell along either axis, or fewer."""
UNKNOWN = -1
"""What a cell without truth holds."""


class ClassBoundaries(NamedTuple):
    """How far the boundaries of one class lie apart over some images, um."""

    counts: Mapping[int, int] = {}
    """Boundary cells by the step of their distance; 0: less than `FINEST_UM`."""
    total_um: float = 0.0
    """The sum of all distances."""
    hd95_um: tuple[float, ...] = ()
    """Of every image in which both maps have the class."""
    assd_um: tuple[float, ...] = ()
    missing: int = 0
    """Images in which one map has the class, or a boundary of it, and the other has not: no distance is defined."""

    @classmethod
    def of(cls, far: BoundaryDistances) -> Self:
        """Those of one image."""
        pooled = np.concatenate([far.there, far.back])
        if not len(pooled):
            return cls(missing=int(far.missing))
        steps, counts = np.unique(_step(pooled), return_counts=True)
        found = dict(zip(steps.tolist(), counts.tolist(), strict=True))
        return cls(found, float(pooled.sum()), (far.hd95_um,), (far.assd_um,))

    def joined(self, other: Self) -> Self:
        """Those of these images and of others."""
        steps = sorted({*self.counts, *other.counts})
        return type(self)(
            {step: self.counts.get(step, 0) + other.counts.get(step, 0) for step in steps},
            self.total_um + other.total_um,
            (*self.hd95_um, *other.hd95_um),
            (*self.assd_um, *other.assd_um),
            self.missing + other.missing,
        )

    @property
    def pooled_hd95_um(self) -> float:
        """The 95th percentile over all images, right to 1 %; NaN where there is nothing."""
        if not self.counts:
            return NAN
        steps = np.array(sorted(self.counts))
        reached = np.cumsum([self.counts[one] for one in steps.tolist()])
        step = steps[np.searchsorted(reached, 0.95 * (reached[-1] - 1), side="right")]
        return float(FINEST_UM * RATIO ** (step - 0.5)) if step else 0.0

    @property
    def pooled_assd_um(self) -> float:
        """The mean over all images; NaN where there is nothing."""
        count = sum(self.counts.values())
        return self.total_um / count if count else NAN

    def facts(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "counts": [[step, count] for step, count in self.counts.items()],
            "total_um": round(self.total_um, 3),
            "hd95_um": [round(one, 3) for one in self.hd95_um],
            "assd_um": [round(one, 3) for one in self.assd_um],
            "missing": self.missing,
        }

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Self:
        """From JSON values."""
        counts = {int(step): int(count) for step, count in facts["counts"]}
        return cls(counts, facts["total_um"], tuple(facts["hd95_um"]), tuple(facts["assd_um"]), facts["missing"])


def _step(distances_um: Float64) -> Int64:
    """The step that each distance is counted in: step s > 0 ends at `FINEST_UM` times `RATIO` to the power of s."""
    far = np.maximum(distances_um, FINEST_UM)
    steps = 1 + np.floor(np.log(far / FINEST_UM) / np.log(RATIO)).astype(np.int64)
    return np.where(distances_um < FINEST_UM, 0, steps)


@dataclass(frozen=True)
class MapPair:
    """A label map and what is true, put together window by window; of large images only every so-many-th cell."""

    truth: Int16
    """(y, x) classes; `UNKNOWN` where nothing is known."""
    drawn: Int16
    """(y, x) classes; `UNKNOWN` where nothing is drawn, or nothing known."""
    stride: int
    """Cells of the image along a cell of the pair."""

    @classmethod
    def blank(cls, height: int, width: int) -> Self:
        """Of an image of so many cells, nothing known."""
        stride = math.isqrt(max(0, height * width - 1) // MOST_CELLS) + 1
        shape = -(-height // stride), -(-width // stride)
        return cls(np.full(shape, UNKNOWN, np.int16), np.full(shape, UNKNOWN, np.int16), stride)

    def put(self, y: int, x: int, truth: Int64, drawn: Int64) -> None:
        """Enter a window (h, w) of the image that begins at cell (y, x); classes below 0 are none."""
        top, left = -y % self.stride, -x % self.stride
        rows, columns = slice(top, None, self.stride), slice(left, None, self.stride)
        true = truth[rows, columns]
        y0, x0 = (y + top) // self.stride, (x + left) // self.stride
        window = slice(y0, y0 + true.shape[0]), slice(x0, x0 + true.shape[1])
        self.truth[window] = np.maximum(true, UNKNOWN)
        self.drawn[window] = np.where(true >= 0, np.maximum(drawn[rows, columns], UNKNOWN), UNKNOWN)

    def boundaries(self, cell_um: float) -> "dict[int, ClassBoundaries]":
        """How far the boundaries lie apart of every class that is drawn or true; cells of the image have this edge.

        Where what is known ends no class does: neither map has a boundary there, nor at the rim of the image.

        >>> pair = MapPair.blank(2, 4)
        >>> pair.put(0, 0, np.array([[0, 0, 1, 1]] * 2), np.array([[0, 0, 0, 1]] * 2))
        >>> pair.boundaries(10.0)[1].assd_um
        (10.0,)
        """
        spacing = (cell_um * self.stride,) * 2
        present = sorted({*np.unique(self.truth).tolist(), *np.unique(self.drawn).tolist()} - {UNKNOWN})
        unknown = self.truth == UNKNOWN
        return {
            one: ClassBoundaries.of(
                BoundaryDistances.between(self.drawn == one, self.truth == one, spacing, unknown=unknown)
            )
            for one in present
        }

    def touches(self) -> dict[tuple[int, int], int]:
        """How often each two classes are neighbours where they truly lie."""
        return touching(self.truth.astype(np.int64))


def joined_boundaries(images: Iterable[Mapping[int, ClassBoundaries]]) -> dict[int, ClassBoundaries]:
    """Those of the classes of several images together."""
    found: dict[int, ClassBoundaries] = {}
    for image in images:
        for one, boundaries in image.items():
            found[one] = found[one].joined(boundaries) if one in found else boundaries
    return dict(sorted(found.items()))
