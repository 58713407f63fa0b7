"""The anatomy of a population of phantom brains: one reference, and individuals drawn from it.

A brain has two hemispheres. The cortex of each is a folded sheet between a pial and a white surface, divided into
areas; inside lie white matter and a grey nucleus. Positions are in mm: x from left (negative) to right, y from
posterior to anterior, z from inferior to superior; the origin is the middle of the brain.

Every hemisphere is described in a frame of its own, mirrored for the left, so that x points laterally in both; the
origin of that frame is the centre of the hemisphere, from which all rays meet each surface once.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from cytoarch.phantoms.compiling import keep_kernels
from cytoarch.phantoms.profiles import LaminarProfile, area_profiles
from cytoarch.phantoms.sphere import Float64, Waves, cube_directions, unit
from cytoarch.phantoms.white_surface import white_surface

HEMISPHERES = ("left", "right")
AREA_COUNT = 24
REFERENCE_SEED = 1909
"""The one reference anatomy (Brodmann's year)."""

SEMI_AXES_MM = (5.4, 11.0, 7.5)
"""Of a hemisphere, from side to middle, front to back and top to bottom: a small primate."""
CENTRE_MM = 5.7
"""Distance of the centre of a hemisphere from the midline plane."""
MIDLINE_GAP_MM = 0.25
"""Nothing of a hemisphere is nearer to the midline plane."""
CORTEX_MM = 1.25
FOLD_SPACING_MM, FOLD_DEPTH_MM, FOLD_WIDTH_MM = 4.0, 2.2, 0.5
NUCLEUS_AXES_MM = (1.1, 3.0, 1.9)
NUCLEUS_WITHIN = 0.85
"""The nucleus ends at this share of the way to the white surface, wherever that is nearer than its own outline."""


class Variation(BaseModel):
    """How much individual brains differ from the reference; 0 everywhere gives the reference itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    deformation: float = Field(default=0.05, ge=0, le=0.15, description="Smooth deformation: share of a distance.")
    folding: float = Field(default=0.5, ge=0, le=1, description="Share of the folds that is the brain's own.")
    area_size: float = Field(default=0.03, ge=0, le=0.1, description="Growth of areas against their neighbours.")
    border: float = Field(default=0.05, ge=0, le=0.15, description="Wandering of areal borders (radians).")
    asymmetry: float = Field(default=0.4, ge=0, le=1, description="Share of all variation that the sides do not share.")
    thickness: float = Field(default=0.05, ge=0, le=0.15, description="Thickness of the cortex: share of the mean.")
    profile: float = Field(default=0.04, ge=0, le=0.2, description="Laminar profiles: logarithm of every property.")


@dataclass(frozen=True)
class Hemisphere:
    """Cube maps (6, n, n, c) float64 of one hemisphere, in its own frame, and its areas."""

    radii_mm: Float64
    """Distance of the pial and the white surface from the centre (c = 2)."""
    column_mm: Float64
    """Vector from the white surface, straight through the cortex, to the pial surface (c = 3)."""
    reference: Float64
    """Direction in the reference (unit vector), and how much larger the brain is there (c = 4)."""
    areal: Float64
    """Unit vector at which the areas are looked up: the reference direction with wandering borders (c = 3)."""
    area_weights: Float64
    """(k,) growth of every area: the area of a place is the one whose seed . areal + weight is greatest."""


@dataclass(frozen=True, eq=False)
class PhantomBrain:
    """One individual of the population. The same seed, variation and resolution give the same brain in any process."""

    seed: int | None
    """None is the reference."""
    resolution: int
    hemispheres: tuple[Hemisphere, Hemisphere]
    """Left, right."""
    profiles: tuple[LaminarProfile, ...]
    """One per area."""


def area_seeds() -> Float64:
    """Directions (k, 3) of the middles of the areas in the reference, k = AREA_COUNT."""
    rng = np.random.default_rng([REFERENCE_SEED, 1])
    index = np.arange(AREA_COUNT) + 0.5
    height, turn = 1 - 2 * index / AREA_COUNT, index * np.pi * (3 - np.sqrt(5))  # a Fibonacci sphere
    ring = np.sqrt(1 - height**2)
    seeds = np.stack([ring * np.cos(turn), ring * np.sin(turn), height], axis=1) + rng.normal(0, 0.12, (AREA_COUNT, 3))
    return np.asarray(seeds / np.linalg.norm(seeds, axis=1, keepdims=True))


def area_names() -> tuple[str, ...]:
    """A1, A2, ... in the order of the areas' values."""
    return tuple(f"A{number + 1}" for number in range(AREA_COUNT))


def area_regions() -> tuple[str, ...]:
    """The region of every area, by where it lies: anterior, middle or posterior, dorsal or ventral."""
    seeds = area_seeds()
    along = np.digitize(seeds[:, 1], [-0.35, 0.35])
    return tuple(
        f"{('posterior', 'middle', 'anterior')[place]} {'dorsal' if seed[2] > 0 else 'ventral'}"
        for place, seed in zip(along, seeds, strict=True)
    )


@lru_cache
def reference_profiles() -> tuple[LaminarProfile, ...]:
    """The laminar profiles of the areas in the reference."""
    return area_profiles(area_seeds(), np.random.default_rng([REFERENCE_SEED, 2]))


@lru_cache(maxsize=2)
def draw_brain(seed: int | None, variation: Variation | None = None, resolution: int = 120) -> PhantomBrain:
    """The individual of this seed, or the reference for None.

    `resolution` is the number of nodes along an edge of the cube maps: 120 puts a node every 0.13 mm of the cortex.
    """
    keep_kernels()
    varied = Variation() if variation is None else variation
    if seed is None:
        varied = Variation(**dict.fromkeys(Variation.model_fields, 0.0))
    rng = np.random.default_rng([REFERENCE_SEED, 3, 0 if seed is None else seed])
    shared = rng.integers(2**32)
    sides = tuple(_hemisphere(int(shared), int(own), varied, resolution) for own in rng.integers(2**32, size=2))
    profiles = tuple(
        profile.varied(varied.profile * rng.normal(size=18)).with_moments(profile.moments)
        for profile in reference_profiles()
    )
    return PhantomBrain(seed, resolution, (sides[0], sides[1]), profiles)


class _Draws:
    """Random fields and numbers of a hemisphere, partly shared with the other side."""

    def __init__(self, shared: int, own: int, asymmetry: float) -> None:
        self._both, self._own = np.random.default_rng(shared), np.random.default_rng(own)
        self._mix = np.sqrt([1 - asymmetry, asymmetry])

    def field(self, wavelength: float, points: Float64) -> Float64:
        both, own = Waves(wavelength, self._both), Waves(wavelength, self._own)
        return np.asarray(self._mix[0] * both.value(points) + self._mix[1] * own.value(points))

    def vector(self, wavelength: float, points: Float64) -> Float64:
        return np.stack([self.field(wavelength, points) for _ in range(3)], axis=-1)

    def normal(self, count: int) -> Float64:
        return np.asarray(self._mix[0] * self._both.normal(size=count) + self._mix[1] * self._own.normal(size=count))

    def waves(self, wavelength: float) -> tuple[tuple[float, Waves], ...]:
        return tuple(zip(self._mix, (Waves(wavelength, self._both), Waves(wavelength, self._own)), strict=True))


def _hemisphere(shared: int, own: int, varied: Variation, resolution: int) -> Hemisphere:
    draws = _Draws(shared, own, varied.asymmetry)
    directions = cube_directions(resolution)
    # the deformation turns directions and stretches distances; both fields are smooth, so space never folds over
    reference = unit(directions + varied.deformation * draws.vector(2.5, directions))
    stretch = 1 + varied.deformation * draws.field(2.0, directions)
    pial, stretch = _pial_mm(directions, reference, stretch, draws, varied)
    thickness = _thickness_mm(reference, draws, varied)
    white, column = white_surface(pial, thickness)
    areal = unit(reference + varied.border * draws.vector(0.8, directions))
    return Hemisphere(
        radii_mm=np.stack([pial, white], axis=-1),
        column_mm=column,
        reference=np.concatenate([reference, stretch[..., None]], axis=-1),
        areal=areal,
        area_weights=varied.area_size * np.clip(draws.normal(AREA_COUNT), -2, 2),
    )


def _hull_mm(directions: Float64, stretch: Float64 | float, wall: Float64) -> Float64:
    """Radius of the unfolded hemisphere: an ellipsoid that the midline flattens; `wall` directions are the body's."""
    ellipsoid = stretch / np.linalg.norm(directions / np.array(SEMI_AXES_MM), axis=-1)
    towards = np.maximum(-wall[..., 0], 1e-9)
    plane = (CENTRE_MM - MIDLINE_GAP_MM) / towards
    return np.asarray((ellipsoid**-10 + plane**-10) ** -0.1)


def _pial_mm(
    directions: Float64, reference: Float64, stretch: Float64, draws: _Draws, varied: Variation
) -> tuple[Float64, Float64]:
    """Radius of the pial surface, and how much larger than the reference the brain is, per direction."""
    resting = _hull_mm(reference, 1.0, reference)
    hull = _hull_mm(reference, stretch, directions)
    points = reference * resting[..., None]
    fixed = np.random.default_rng([REFERENCE_SEED, 5])
    share = np.sqrt([1 - varied.folding, varied.folding])
    pattern = [(share[0], Waves(2 * FOLD_SPACING_MM, fixed))]
    pattern += [(share[1] * mix, waves) for mix, waves in draws.waves(2 * FOLD_SPACING_MM)]
    value = np.asarray(sum(weight * waves.value(points) for weight, waves in pattern))
    slope = np.asarray(sum(weight * waves.gradient(points) for weight, waves in pattern))
    slope -= (slope * reference).sum(axis=-1, keepdims=True) * reference
    # sulci run where the pattern is zero; value / slope is the distance (mm) from the nearest
    steepness = np.sqrt((slope**2).sum(axis=-1) + (0.15 * np.pi / FOLD_SPACING_MM) ** 2)
    sulcus = np.exp(-((value / steepness / FOLD_WIDTH_MM) ** 2))
    depth = FOLD_DEPTH_MM * np.clip(0.8 + 0.3 * Waves(12.0, fixed).value(points), 0.2, 1.1)
    return hull - depth * sulcus, hull / resting


def _thickness_mm(reference: Float64, draws: _Draws, varied: Variation) -> Float64:
    """Thickness of the cortex: thicker in front, with slow changes, some of them the brain's own."""
    fixed = Waves(1.5, np.random.default_rng([REFERENCE_SEED, 6]))
    relative = 1 + 0.12 * reference[..., 1] + 0.06 * fixed.value(reference) + varied.thickness * draws.normal(1)
    return np.asarray(CORTEX_MM * np.clip(relative + varied.thickness * draws.field(1.5, reference), 0.6, 1.5))
