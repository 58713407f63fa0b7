"""The cortical ribbon between its two sides: which cells are cortex, and which faces are pial, white or cut."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cytoarch.anatomy.matter import GREY, WHITE
from cytoarch.errors import SectionError

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Mask = NDArray[np.bool_]

BACKGROUND = 0
"""Value of tissue classes where there is none."""
Sides = Literal["outline", "block"]
FACING_DEGREES = 45.0
"""In a block, the outline is pial where it faces away from the white matter by no more than this."""
SMOOTHING_CELLS = 4.0
"""Normals of an outline of cells are told from the tissue smoothed by so much (standard deviation)."""


class NoCortexError(SectionError):
    """No piece of grey matter lies between a pial and a white side."""


class Faces(NamedTuple):
    """The faces between cells that follow each other along an axis."""

    lower: tuple[slice, ...]
    upper: tuple[slice, ...]


@dataclass(frozen=True)
class Ribbon:
    """Cortex between a pial and a white side, in 2D or 3D. What is none of the three is a cut: nothing flows there."""

    cortex: Mask
    """(..., y, x) cells between the sides; every piece of them touches both."""
    pial: Mask
    """(..., y, x) cells beyond the pial side."""
    white: Mask
    """(..., y, x) cells beyond the white side."""
    cell_um: tuple[float, ...]
    """Edge of a cell along every axis."""

    @classmethod
    def of(
        cls,
        classes: NDArray[Any],
        cell_um: float | tuple[float, ...],
        *,
        sides: Sides = "outline",
        cut: Mask | None = None,
    ) -> Self:
        """The ribbon in tissue classes (..., y, x): 0 background, 1 grey matter, 2 white matter.

        `sides` says what of the outline is pial: all of it, or ("block", a piece cut out of a cortex) only what faces
        away from the white matter. `cut` (..., y, x) are cells where nothing flows whatever their class, as a person
        drew them. The edge of the image is a cut. Pieces of grey matter that do not touch both sides, such as nuclei
        within the white matter, are no cortex. Raises NoCortexError if no piece is left.
        """
        sizes = cell_um if isinstance(cell_um, tuple) else (cell_um,) * classes.ndim
        if len(sizes) != classes.ndim:
            raise ValueError(f"{len(sizes)} cell sizes for {classes.ndim} axes; one per axis is needed")
        if cut is not None and cut.shape != classes.shape:
            raise SectionError(f"the cut sides were drawn on {cut.shape} cells, the tissue on {classes.shape}")
        free = np.zeros(classes.shape, dtype=bool) if cut is None else cut
        grey = (classes == GREY) & ~free
        white = (classes == WHITE) & ~free
        pial = (classes == BACKGROUND) & ~free
        if sides == "block":
            pial &= _facing(classes, sizes)
        cortex = _between(grey, pial, white)
        if not cortex.any():
            raise NoCortexError(
                "no cortex lies between the pial surface and white matter: found "
                f"{int(grey.sum())} cells of grey and {int(white.sum())} of white matter, and none of the grey touches "
                "both it and the outside. Correct the tissue classes, or say which sides are cut"
            )
        return cls(cortex, pial, white, sizes)


def faces(ndim: int) -> tuple[Faces, ...]:
    """For every axis the slices of the cells below and above its inner faces."""
    every = slice(None)
    return tuple(
        Faces(
            tuple(slice(None, -1) if one == axis else every for one in range(ndim)),
            tuple(slice(1, None) if one == axis else every for one in range(ndim)),
        )
        for axis in range(ndim)
    )


def touching(cells: Mask, others: Mask, weights: tuple[float, ...]) -> Float64:
    """(..., y, x) how much every one of `cells` touches `others`: the sum of the weights of the axes they meet on."""
    sums = np.zeros(cells.shape)
    for (lower, upper), weight in zip(faces(cells.ndim), weights, strict=True):
        sums[lower] += weight * (cells[lower] & others[upper])
        sums[upper] += weight * (cells[upper] & others[lower])
    return sums


def _between(grey: Mask, pial: Mask, white: Mask) -> Mask:
    """The pieces of grey matter, joined by faces, that touch both sides."""
    pieces, count = ndimage.label(grey)
    ones = (1.0,) * grey.ndim
    both = np.ones(count + 1, dtype=bool)
    for side in (pial, white):
        both &= np.bincount(pieces.ravel(), touching(grey, side, ones).ravel(), count + 1) > 0
    both[0] = False
    return np.asarray(both[pieces])


def _facing(classes: NDArray[Any], sizes: tuple[float, ...]) -> Mask:
    """Background cells at which the outline of the tissue faces away from the white matter."""
    tissue = classes != BACKGROUND
    if not (classes == WHITE).any():
        return np.zeros(classes.shape, dtype=bool)
    smallest = min(sizes)
    blur = [SMOOTHING_CELLS * smallest / size for size in sizes]
    outward = -_gradient(ndimage.gaussian_filter(tissue.astype(np.float32), blur), sizes)
    away = ndimage.distance_transform_edt(classes != WHITE, sampling=sizes).astype(np.float32)
    upward = _gradient(ndimage.gaussian_filter(away, blur), sizes)
    length = np.linalg.norm(outward, axis=0) * np.linalg.norm(upward, axis=0)
    along = (outward * upward).sum(axis=0)
    return np.asarray(~tissue & (along > np.cos(np.deg2rad(FACING_DEGREES)) * length))


def _gradient(values: NDArray[np.float32], sizes: tuple[float, ...]) -> NDArray[np.float32]:
    return np.asarray(np.gradient(values, *sizes), dtype=np.float32)
