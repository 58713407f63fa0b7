"""Laminar profiles: what the cortex of an area is made of, layer by layer.

Areas are told apart by lamination and by nothing else: all profiles share the moments that the grey levels of a patch
depend on (how much of it cell bodies cover, how long their outlines are, how large they are, how unevenly they are
spread), so neither the mean nor the histogram of a patch gives an area away. The figures of the profile that all vary
around are of the order of primate isocortex.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cytoarch.phantoms.sphere import Waves

Float64 = NDArray[np.float64]

LAYERS = ("L1", "L2", "L3", "L4", "L5", "L6")

THICKNESS = np.array([0.11, 0.10, 0.27, 0.13, 0.17, 0.22])
DENSITY_PER_MM3 = np.array([22e3, 110e3, 80e3, 135e3, 62e3, 85e3])
RADIUS_UM = np.array([3.4, 4.3, 5.4, 4.0, 6.8, 4.9])
ELONGATION = np.array([1.0, 1.15, 1.45, 1.0, 1.55, 1.25])
TAPER = np.array([0.0, 0.3, 0.8, 0.0, 0.9, 0.4])
"""Layers of isocortex: share of the depth, cells per mm3, radius and length/width of a body, how pyramidal it is."""

SPREAD = {"thickness": 0.18, "density": 0.15, "radius": 0.065}
"""Standard deviation between areas of the logarithm of each property of a layer."""
SHAPE_SPREAD = 0.2
"""The same of what makes a cell body other than round."""
SHARED = 0.45
"""Share of that variance that varies smoothly over the cortex, so that neighbours are alike."""
SMOOTHNESS = 2.2
"""Wavelength of that smooth part on the unit sphere."""


@dataclass(frozen=True)
class LaminarProfile:
    """The cytoarchitecture of an area; every array is (6,) float64, from layer 1 to layer 6."""

    thickness: Float64
    """Share of the cortical depth, sums to 1."""
    density_per_mm3: Float64
    """Cells per mm3 of tissue."""
    radius_um: Float64
    """Mean radius of a cell body."""
    elongation: Float64
    """Length over width of a cell body, from 1 (granular)."""
    taper: Float64
    """How pyramidal a cell body is: 0 round to 1 pointed towards the pial surface."""

    @property
    def moments(self) -> Float64:
        """What the histogram of a patch sees of the profile (4,).

        Logarithms of the covered share, and of the length of outlines, size and unevenness of cell bodies.
        """
        covered = self.density_per_mm3 * self.radius_um**2
        sums = [
            self.thickness @ covered,
            self.thickness @ (self.density_per_mm3 * self.radius_um),
            self.thickness @ (covered * self.radius_um),
            self.thickness @ covered**2,
        ]
        return np.asarray(np.log(sums))

    @property
    def _logarithms(self) -> Float64:
        return np.asarray(np.log(np.concatenate([self.thickness, self.density_per_mm3, self.radius_um])))

    def varied(self, changes: Float64) -> Self:
        """The profile with `changes` (18,) added to the logarithms of thickness, density and radius."""
        thickness, density, radius = np.exp(self._logarithms + changes).reshape(3, len(LAYERS))
        return replace(self, thickness=thickness / thickness.sum(), density_per_mm3=density, radius_um=radius)

    def with_moments(self, moments: Float64) -> Self:
        """The profile nearest to this one whose moments are these: Newton steps of least length."""
        profile = self
        for _ in range(30):
            error = moments - profile.moments
            if np.abs(error).max() < 1e-10:
                break
            step = 1e-6 * np.eye(18)
            slopes = np.stack([(profile.varied(one).moments - profile.moments) / 1e-6 for one in step], axis=1)
            profile = profile.varied(np.linalg.pinv(slopes) @ error)
        return profile


ISOCORTEX = LaminarProfile(THICKNESS, DENSITY_PER_MM3, RADIUS_UM, ELONGATION, TAPER)


def area_profiles(seeds: Float64, rng: np.random.Generator) -> tuple[LaminarProfile, ...]:
    """A profile for every area, given the directions (k, 3) of their centres; all have the moments of ISOCORTEX."""
    spread = np.repeat(list(SPREAD.values()), len(LAYERS))
    smooth = np.stack([Waves(SMOOTHNESS, rng).value(seeds) for _ in spread], axis=1)
    own = rng.normal(size=(len(seeds), len(spread)))
    changes = spread * (np.sqrt(SHARED) * smooth + np.sqrt(1 - SHARED) * np.clip(own, -2, 2))
    shapes = np.exp(SHAPE_SPREAD * rng.normal(size=(len(seeds), len(LAYERS))))
    return tuple(
        replace(
            ISOCORTEX.varied(change).with_moments(ISOCORTEX.moments),
            elongation=1 + (ELONGATION - 1) * shape,
            taper=np.minimum(TAPER * shape, 1.0),
        )
        for change, shape in zip(changes, shapes, strict=True)
    )
