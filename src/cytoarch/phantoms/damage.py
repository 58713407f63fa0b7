"""Tears, folds and bands out of focus: wavy bands on the slide."""

import numpy as np
from numpy.typing import NDArray

from cytoarch.phantoms.compiling import kernel
from cytoarch.phantoms.sections import Damage
from cytoarch.phantoms.sphere import Float64

UInt8 = NDArray[np.uint8]

INTACT, TEAR, FOLD, OUT_OF_FOCUS = 0, 1, 2, 3


@kernel
def across(band: Float64, y: float, x: float) -> tuple[float, float]:
    """Distance (mm, with sign) of a place on the slide from the middle line of a band, and its half width there.

    Bands taper to nothing at their ends; past these the half width is 0.
    """
    dy, dx = y - band[0], x - band[1]
    sine, cosine = np.sin(band[2]), np.cos(band[2])
    along, aside = cosine * dx + sine * dy, cosine * dy - sine * dx
    share = along / band[3]
    distance = aside - band[5] * np.sin(3.0 * along + band[6])
    return distance, band[4] * max(0.0, 1.0 - share * share)


@kernel
def mirrored(band: Float64, y: float, x: float, distance: float) -> tuple[float, float]:
    """The place on the other side of the middle line of a band, as far from it."""
    return y - 2.0 * distance * np.cos(band[2]), x + 2.0 * distance * np.sin(band[2])


@kernel
def torn(tears: Float64, y: float, x: float) -> bool:
    """Whether a place on the slide has lost its tissue."""
    for index in range(tears.shape[0]):
        distance, half = across(tears[index], y, x)
        if abs(distance) < half:
            return True
    return False


@kernel
def blurred(blurs: Float64, y: float, x: float) -> float:
    """How far out of focus a place on the slide is, 0 to 1."""
    most = 0.0
    for index in range(blurs.shape[0]):
        distance, half = across(blurs[index], y, x)
        if abs(distance) < half:
            most = max(most, np.cos(0.5 * np.pi * distance / half) ** 2)
    return most


@kernel
def _damage(tears: Float64, folds: Float64, blurs: Float64, places: Float64, out: UInt8) -> None:
    for index in range(places.shape[0]):
        y, x = places[index, 0], places[index, 1]
        if blurred(blurs, y, x) > 0.5:
            out[index] = OUT_OF_FOCUS
        for fold in range(folds.shape[0]):
            distance, half = across(folds[fold], y, x)
            if 0.0 < distance < half:
                out[index] = FOLD
        if torn(tears, y, x):
            out[index] = TEAR


def touching(bands: Float64, middle_mm: tuple[float, float], radius_mm: float) -> Float64:
    """Those of the bands (m, 7) that may come within `radius_mm` of a place on the slide."""
    if not len(bands):
        return bands
    dy, dx = middle_mm[0] - bands[:, 0], middle_mm[1] - bands[:, 1]
    along = np.abs(np.cos(bands[:, 2]) * dx + np.sin(bands[:, 2]) * dy)
    aside = np.abs(np.cos(bands[:, 2]) * dy - np.sin(bands[:, 2]) * dx)
    return bands[(along < radius_mm + bands[:, 3]) & (aside < radius_mm + bands[:, 4] + bands[:, 5])]


def damage_at(damage: Damage, slide_mm: Float64) -> UInt8:
    """The damage (...) at positions (..., 2) on the slide: 0 intact, 1 tear, 2 fold, 3 out of focus."""
    places = np.ascontiguousarray(slide_mm.reshape(-1, 2))
    out = np.zeros(len(places), np.uint8)
    if len(places):
        low, high = places.min(axis=0), places.max(axis=0)
        middle, radius = (low + high) / 2, float(np.hypot(*(high - low))) / 2
        near = [touching(bands, (middle[0], middle[1]), radius) for bands in damage]
        if any(map(len, near)):
            _damage(near[0], near[1], near[2], places, out)
    return out.reshape(slide_mm.shape[:-1])
