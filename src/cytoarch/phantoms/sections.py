"""Sections of a phantom brain: where the knife went, how the section lies on its slide, and the true transform."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from cytoarch.errors import CytoarchError
from cytoarch.phantoms.anatomy import CENTRE_MM, PhantomBrain, Variation, draw_brain
from cytoarch.phantoms.cortex import maps_of
from cytoarch.phantoms.kernels import Maps
from cytoarch.phantoms.nuisances import BrainStaining, Nuisances, SectionMounting, draw_mounting, draw_staining
from cytoarch.phantoms.sphere import Float64, cube_directions

Stain = Literal["silver", "nissl", "dapi"]
"""silver: grey brightfield; nissl: RGB brightfield (cresyl violet); dapi: fluorescence, bright on dark."""
MARGIN_MM = 1.0
"""Bare slide around the largest section."""


class PhantomSettings(BaseModel):
    """Everything a phantom brain is made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int | None = Field(default=0, ge=0, description="The individual; blank: the reference itself.")
    stain: Stain = Field(default="silver", description="silver: grey; nissl: colour; dapi: fluorescence.")
    thickness_um: float = Field(default=20.0, ge=1, le=200, description="Thickness of a section (um).")
    variation: Variation = Field(default=Variation(), description="How individuals differ from the reference.")
    nuisances: Nuisances = Field(default=Nuisances(), description="What stands between a brain and its scans.")
    resolution: int = Field(default=120, ge=24, le=400, description="Nodes along an edge of the maps of anatomy.")


class Window(NamedTuple):
    """A rectangle of pixels of a scan."""

    y: int
    x: int
    height: int
    width: int


class Damage(NamedTuple):
    """Bands (m, 7) as in SectionMounting, but with the places of their middles on the slide."""

    tears: Float64
    folds: Float64
    blurs: Float64


@dataclass(frozen=True, eq=False)
class Phantom:
    """A brain with everything its sections share."""

    settings: PhantomSettings
    brain: PhantomBrain
    maps: Maps
    staining: BrainStaining
    slide_mm: tuple[float, float]
    """(height, width) of every slide."""
    field_mm: tuple[float, float]
    """(height, width) of the untilted brain: what light and damage are placed by, whatever the knobs."""
    extent_mm: tuple[float, float]
    """First and last place along the cutting axis that holds tissue."""


def check_pixel_size(pixel_size_um: float) -> None:
    """Raise CytoarchError unless this is the size of a pixel."""
    if not 0 < pixel_size_um < float("inf"):
        raise CytoarchError(f"a pixel of {pixel_size_um} um was asked for; a positive size is needed")


@dataclass(frozen=True, eq=False)
class PhantomSection:
    """One section. Positions on the slide are (y, x) mm from its upper left corner."""

    phantom: Phantom
    number: int
    """Place in cutting order; a section is `thickness_um` further than the one before."""
    mounting: SectionMounting
    origin_mm: Float64
    """(3,) the point of the brain that the middle of the section shows."""
    axes: Float64
    """(3, 3) unit vectors of the brain: down and right in the section, and its normal."""
    to_plane: Float64
    """(2, 3) affine from slide (y, x, 1) to (down, right) in the section, mm."""

    @property
    def middle_mm(self) -> tuple[float, float]:
        """(y, x) of the middle of the slide."""
        return self.phantom.slide_mm[0] / 2, self.phantom.slide_mm[1] / 2

    @property
    def damage(self) -> Damage:
        """Tears, folds and bands out of focus in places of the slide."""
        shift = np.array([*self.middle_mm, 0, 0, 0, 0, 0])
        bands = (self.mounting.tears, self.mounting.folds, self.mounting.blurs)
        tears, folds, blurs = (one + shift for one in bands)
        return Damage(tears, folds, blurs)

    @property
    def to_brain(self) -> Float64:
        """The true transform (3, 3): slide (y, x, 1) in mm to x, y, z in the brain in mm, where the slide is intact."""
        linear = self.axes[:2].T @ self.to_plane
        linear[:, 2] += self.origin_mm
        return np.asarray(linear)

    def brain_mm(self, slide_mm: Float64) -> Float64:
        """Positions in the brain (..., 3) of positions (..., 2) on the slide."""
        plane = slide_mm @ self.to_plane[:, :2].T + self.to_plane[:, 2]
        return np.asarray(self.origin_mm + plane @ self.axes[:2])

    def size_px(self, pixel_size_um: float) -> tuple[int, int]:
        """(height, width) of the scan at this pixel size."""
        height, width = (int(np.ceil(side * 1000 / pixel_size_um)) for side in self.phantom.slide_mm)
        return height, width


@lru_cache(maxsize=2)
def make_phantom(settings: PhantomSettings) -> Phantom:
    """The brain these settings describe, ready to be cut."""
    brain = draw_brain(settings.seed, settings.variation, settings.resolution)
    staining = draw_staining(settings.seed, settings.nuisances)
    directions = cube_directions(settings.resolution)
    pial = []
    for sign, side in zip((-1, 1), brain.hemispheres, strict=True):
        own = (side.radii_mm[..., :1] * directions).reshape(-1, 3) + np.array([CENTRE_MM, 0, 0])
        pial.append(own * np.array([sign, 1, 1]))
    points = np.concatenate(pial)
    down, right, normal = _axes(staining)
    place = points @ normal / normal[1]  # where on the y axis the section through a point is cut
    within = points - place[:, None] * np.array([0, 1, 0])
    high, wide = float(np.abs(within @ down).max()), float(np.abs(within @ right).max())
    return Phantom(
        settings=settings,
        brain=brain,
        maps=maps_of(brain),
        staining=staining,
        slide_mm=_slide_mm(high, wide, settings.nuisances),
        field_mm=(2 * float(np.abs(points[:, 2]).max()), 2 * float(np.abs(points[:, 0]).max())),
        extent_mm=(float(place.min()), float(place.max())),
    )


def _slide_mm(high: float, wide: float, nuisances: Nuisances) -> tuple[float, float]:
    """A slide that holds every section of these half sizes (mm), however it is turned and moved."""
    turned = np.deg2rad(2.5 * nuisances.rotation)
    margin = MARGIN_MM + 2 * nuisances.translation

    def side(along: float, across: float) -> float:
        angle = min(turned, np.arctan2(across, along))  # past this angle it gets smaller again
        return float(np.ceil(2 * (along * np.cos(angle) + across * np.sin(angle) + margin)))

    return side(high, wide), side(wide, high)


def section_count(phantom: Phantom) -> int:
    """How many sections the whole brain is cut into."""
    first, last = phantom.extent_mm
    return int((last - first) / phantom.settings.thickness_um * 1000)


def cut(phantom: Phantom, number: int) -> PhantomSection:
    """The section of this number, from 0 at the posterior pole; sections are cut coronally, but for the tilt.

    Raises CytoarchError for a number that the brain does not have.
    """
    if not 0 <= number < section_count(phantom):
        raise CytoarchError(f"section {number} was asked for, the brain has 0 to {section_count(phantom) - 1}")
    mounting = draw_mounting(phantom.settings.seed, number, phantom.settings.nuisances, phantom.field_mm)
    place = phantom.extent_mm[0] + (number + 0.5) * phantom.settings.thickness_um / 1000
    return PhantomSection(
        phantom=phantom,
        number=number,
        mounting=mounting,
        origin_mm=np.array([0.0, place, 0.0]),
        axes=_axes(phantom.staining),
        to_plane=_to_plane(mounting, phantom.slide_mm),
    )


def _axes(staining: BrainStaining) -> Float64:
    """(3, 3) unit vectors of the brain: down and right in a section, and its normal."""
    pitch, yaw = np.deg2rad(staining.tilt_deg)
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    nod = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    coronal = np.array([[0, 0, -1.0], [1.0, 0, 0], [0, 1.0, 0]])  # down is inferior, right is right
    return np.asarray(coronal @ (turn @ nod).T)


def _to_plane(mounting: SectionMounting, slide_mm: tuple[float, float]) -> NDArray[np.float64]:
    """Undo, in this order: place on the slide, rotation, mirroring, shrinkage."""
    angle = np.deg2rad(mounting.rotation_deg)
    unturn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    unmirror = np.diag([1.0, -1.0 if mounting.mirrored else 1.0])
    linear = unmirror @ unturn / (1 - mounting.shrinkage)
    middle = np.asarray(slide_mm) / 2 + mounting.translation_mm
    return np.concatenate([linear, -(linear @ middle)[:, None]], axis=1)
