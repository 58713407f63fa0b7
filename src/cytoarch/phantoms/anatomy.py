"""One phantom section: a folded cortical ribbon with areas and layers around white matter, drawn cell by cell.

Two ellipses with a wavy outline stand for the hemispheres. Depth runs from 0 at the outline to 1 at the white matter;
areas are sectors of the ribbon; every area has its own layer thicknesses and cell densities.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Float64 = NDArray[np.float64]
UInt8 = NDArray[np.uint8]

LAYERS = ("L1", "L2", "L3", "L4", "L5", "L6")
WHITE_MATTER = 7
"""Value of white matter in layer images; layers are 1-6."""


@dataclass(frozen=True)
class AreaProfile:
    """The cytoarchitecture of an area."""

    name: str
    thickness: tuple[float, ...]
    """Share of the cortical depth per layer, sums to 1"""
    density: tuple[float, ...]
    """Cells per 1000 um2 per layer"""
    radius_um: tuple[float, ...]
    """Radius of a cell body per layer"""


AREAS = (
    AreaProfile(
        "A1",
        thickness=(0.10, 0.10, 0.25, 0.22, 0.15, 0.18),
        density=(0.5, 6.0, 3.4, 9.5, 2.2, 3.2),
        radius_um=(4.0, 5.0, 6.5, 4.5, 7.5, 6.0),
    ),
    AreaProfile(
        "A2",
        thickness=(0.12, 0.12, 0.34, 0.05, 0.20, 0.17),
        density=(0.5, 5.0, 2.8, 3.2, 2.6, 2.4),
        radius_um=(4.0, 5.5, 8.0, 5.5, 11.0, 7.0),
    ),
    AreaProfile(
        "A3",
        thickness=(0.14, 0.08, 0.20, 0.10, 0.30, 0.18),
        density=(0.5, 8.5, 3.6, 5.5, 4.6, 1.6),
        radius_um=(4.0, 4.5, 6.0, 5.0, 6.5, 8.0),
    ),
    AreaProfile(
        "A4",
        thickness=(0.20, 0.16, 0.16, 0.14, 0.12, 0.22),
        density=(0.5, 3.6, 5.6, 6.5, 1.4, 5.2),
        radius_um=(4.0, 7.5, 5.0, 4.5, 10.0, 4.5),
    ),
)
WHITE_DENSITY, WHITE_RADIUS_UM = 1.1, 3.0


@dataclass(frozen=True)
class SectionTruth:
    """What is known of a section, per pixel (y, x)."""

    area: UInt8
    """0 outside cortex, 1..len(AREAS), then white matter = len(AREAS) + 1"""
    layer: UInt8
    """0 outside the brain, 1-6, white matter 7"""
    depth: NDArray[np.float32]
    """0 at the pial surface to 1 at the white matter; NaN elsewhere"""


def section_truth(
    height: int, width: int, pixel_size_um: float, progress: float, rng: np.random.Generator
) -> SectionTruth:
    """The anatomy of the section at `progress` (0-1) along the brain."""
    ys, xs = np.mgrid[:height, :width].astype(np.float64)
    bulge = 0.80 + 0.20 * np.sin(np.pi * (0.15 + 0.7 * progress))
    tilt = rng.normal(0, 0.03)
    cy, cx = height * (0.5 + rng.normal(0, 0.01)), width * (0.5 + rng.normal(0, 0.01))
    y, x = ys - cy, xs - cx
    y, x = np.cos(tilt) * y - np.sin(tilt) * x, np.sin(tilt) * y + np.cos(tilt) * x
    angle = np.arctan2(y / height, np.abs(x) / width)  # from the lateral pole; both hemispheres alike
    waves = 0.045 * np.sin(9 * angle + 2.0 + 1.5 * progress) + 0.03 * np.sin(15 * angle - 3 * progress)
    cleft = 0.10 * np.exp(-((x / (0.05 * width)) ** 2))  # the midline dips
    radius = np.hypot(y / (0.46 * height), x / (0.47 * width)) / (bulge * (1 + waves) - cleft)
    brain = radius < 1
    outside_um = ndimage.distance_transform_edt(brain) * pixel_size_um
    thickness_um = 0.17 * min(height, width) * pixel_size_um * (1 + 0.15 * np.sin(3 * angle + 1))
    depth = np.where(brain, outside_um / thickness_um, np.nan).astype(np.float32)
    cortex = brain & (depth < 1)
    # areas are sectors by angle, whose borders drift along the brain
    position = (angle / np.pi + 0.5 + 0.06 * np.sin(2 * np.pi * progress)) * (len(AREAS) + 0.0)
    sector = np.clip(np.floor(position), 0, len(AREAS) - 1).astype(np.uint8)
    area = np.where(cortex, sector + 1, np.where(brain, len(AREAS) + 1, 0)).astype(np.uint8)
    layer = np.zeros((height, width), dtype=np.uint8)
    for index, profile in enumerate(AREAS):
        here = cortex & (sector == index)
        layer[here] = 1 + np.searchsorted(np.cumsum(profile.thickness)[:-1], depth[here], side="right")
    layer[brain & ~cortex] = WHITE_MATTER
    return SectionTruth(area, layer, np.where(cortex, depth, np.nan).astype(np.float32))


def stain(truth: SectionTruth, pixel_size_um: float, rng: np.random.Generator) -> UInt8:
    """A brightfield Nissl image (y, x) uint8 of a section: dark cell bodies on a light slide.

    Cells are Poisson-distributed at the density of their layer; each darkens the pixels it covers.
    """
    density, radius = np.zeros((2, *truth.area.shape))
    for index, profile in enumerate(AREAS):
        for number in range(len(LAYERS)):
            here = (truth.area == index + 1) & (truth.layer == number + 1)
            density[here], radius[here] = profile.density[number], profile.radius_um[number]
    white = truth.layer == WHITE_MATTER
    density[white], radius[white] = WHITE_DENSITY, WHITE_RADIUS_UM
    counts = rng.poisson(density / 1000 * pixel_size_um**2)
    bodies = counts * np.pi * radius**2 / pixel_size_um**2  # share of the pixel that cell bodies cover
    absorbance = 0.9 * ndimage.gaussian_filter(bodies, 0.6) + 0.10 * (truth.layer > 0) + 0.06 * white
    gain, offset = rng.normal(1.0, 0.05), rng.normal(0, 0.01)
    rows = np.linspace(-1, 1, truth.area.shape[0])[:, None]
    light = 238 * (1 + 0.02 * rng.normal() * rows) * np.exp(-np.maximum(gain * absorbance + offset, 0))
    return np.asarray(np.clip(light + rng.normal(0, 2.0, light.shape), 0, 255), dtype=np.uint8)
