"""What stands between a brain and its scans: staining, cutting, mounting, damage, focus. Every nuisance has a knob."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from cytoarch.phantoms.anatomy import REFERENCE_SEED

Float64 = NDArray[np.float64]


class Nuisances(BaseModel):
    """How strong every nuisance is; 0 switches that one off and leaves all others exactly as they were."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gain: float = Field(default=0.12, ge=0, le=0.5, description="Staining strength of a brain (sd of its logarithm).")
    offset: float = Field(default=0.03, ge=0, le=0.3, description="Stain outside of cells, per brain (absorbance, sd).")
    gamma: float = Field(default=0.08, ge=0, le=0.5, description="Scanner's gamma per brain (sd of its logarithm).")
    gradient: float = Field(default=0.03, ge=0, le=0.5, description="Uneven light per brain: share of full light, sd.")
    section_gain: float = Field(default=0.05, ge=0, le=0.5, description="Staining of a section (sd of its logarithm).")
    noise: float = Field(default=1.5, ge=0, le=20, description="Noise of the camera (grey levels of 255, sd).")
    tilt: float = Field(default=3.0, ge=0, le=15, description="Oblique cutting of a brain: degrees from coronal, sd.")
    rotation: float = Field(default=3.0, ge=0, le=45, description="Sections turned on the slide (degrees, sd).")
    translation: float = Field(default=0.25, ge=0, le=2, description="Sections moved on the slide (mm, sd).")
    shrinkage: float = Field(default=0.04, ge=0, le=0.3, description="Mean shrinkage of sections (share of a length).")
    mirrored: float = Field(default=0.06, ge=0, le=1, description="Share of sections mounted upside down.")
    missing: float = Field(default=0.05, ge=0, le=0.9, description="Share of sections that were lost.")
    tears: float = Field(default=0.4, ge=0, le=5, description="Tears per slide, mean; some miss the tissue.")
    folds: float = Field(default=0.3, ge=0, le=5, description="Folds per slide, mean; some miss the tissue.")
    defocus: float = Field(
        default=0.25, ge=0, le=5, description="Bands out of focus per slide, mean; seen to 10 um a pixel."
    )

    @classmethod
    def none(cls) -> Self:
        """Every nuisance switched off."""
        return cls(**dict.fromkeys(cls.model_fields, 0.0))

    def but(self, **knobs: float) -> Self:
        """These nuisances with some knobs turned."""
        return type(self)(**{**self.model_dump(), **knobs})


@dataclass(frozen=True)
class BrainStaining:
    """What all sections of a brain share."""

    gain: float
    offset: float
    gamma: float
    gradient: tuple[float, float, float]
    """Share of light added along y, along x, and from the middle to the corners, over half the width of the brain."""
    tilt_deg: tuple[float, float]
    """Pitch and yaw of the cutting plane."""


@dataclass(frozen=True)
class SectionMounting:
    """What happened to one section."""

    gain: float
    rotation_deg: float
    translation_mm: tuple[float, float]
    """(y, x) on the slide."""
    shrinkage: float
    """A length of 1 in the brain is 1 - shrinkage on the slide."""
    mirrored: bool
    missing: bool
    tears: Float64
    """(m, 7): y, x from the middle of the slide, direction (radians), half length, half width (mm), waviness, phase."""
    folds: Float64
    """As tears; the width is that of the doubled strip."""
    blurs: Float64
    """As tears; a band through the whole slide, blurred at its middle."""


_TAGS = {name: number for number, name in enumerate(("staining", *Nuisances.model_fields))}


def _rng(seed: int | None, section: int, name: str) -> np.random.Generator:
    """Own random numbers for every nuisance of every section, so that turning one knob changes nothing else."""
    return np.random.default_rng([REFERENCE_SEED, 7, 0 if seed is None else seed + 1, section, _TAGS[name]])


def draw_staining(seed: int | None, nuisances: Nuisances) -> BrainStaining:
    """The staining, light and cutting plane of a brain."""
    rng = np.random.default_rng([REFERENCE_SEED, 8, 0 if seed is None else seed + 1])
    normal = rng.normal(size=8)
    return BrainStaining(
        gain=float(np.exp(nuisances.gain * normal[0])),
        offset=abs(nuisances.offset * float(normal[1])),
        gamma=float(np.exp(nuisances.gamma * normal[2])),
        gradient=tuple(nuisances.gradient * normal[3:6]),
        tilt_deg=tuple(nuisances.tilt * np.clip(normal[6:8], -2, 2)),
    )


def draw_mounting(
    seed: int | None, section: int, nuisances: Nuisances, field_mm: tuple[float, float]
) -> SectionMounting:
    """What happened to the section of this number; damage lies within `field_mm` (height, width) around the middle."""

    def normal(name: str, count: int = 1) -> Float64:
        return _rng(seed, section, name).normal(size=count)

    def chance(name: str) -> float:
        return float(_rng(seed, section, name).random())

    shift = nuisances.translation * np.clip(normal("translation", 2), -2, 2)
    return SectionMounting(
        gain=float(np.exp(nuisances.section_gain * normal("section_gain")[0])),
        rotation_deg=float(nuisances.rotation * np.clip(normal("rotation")[0], -2.5, 2.5)),
        translation_mm=(float(shift[0]), float(shift[1])),
        shrinkage=nuisances.shrinkage * float(np.clip(1 + 0.3 * normal("shrinkage")[0], 0, 2)),
        mirrored=chance("mirrored") < nuisances.mirrored,
        missing=chance("missing") < nuisances.missing,
        tears=_bands(_rng(seed, section, "tears"), nuisances.tears, field_mm, (0.8, 2.5), (0.04, 0.16)),
        folds=_bands(_rng(seed, section, "folds"), nuisances.folds, field_mm, (1.0, 3.0), (0.08, 0.25)),
        blurs=_bands(_rng(seed, section, "defocus"), nuisances.defocus, field_mm, (60.0, 60.0), (0.6, 1.5)),
    )


def _bands(
    rng: np.random.Generator,
    mean: float,
    field_mm: tuple[float, float],
    half_length_mm: tuple[float, float],
    half_width_mm: tuple[float, float],
) -> Float64:
    """(m, 7) bands somewhere in the field; m is Poisson and grows with `mean`, keeping the first ones."""
    # arrivals of a Poisson process: a larger mean adds bands after those of a smaller one
    count = int((np.cumsum(rng.exponential(size=40)) < mean).sum())
    draws = rng.random((40, 7))[:count]
    return np.stack(
        [
            field_mm[0] * 0.7 * (draws[:, 0] - 0.5),
            field_mm[1] * 0.7 * (draws[:, 1] - 0.5),
            np.pi * draws[:, 2],
            half_length_mm[0] + (half_length_mm[1] - half_length_mm[0]) * draws[:, 3],
            half_width_mm[0] + (half_width_mm[1] - half_width_mm[0]) * draws[:, 4],
            0.1 * draws[:, 5],
            2 * np.pi * draws[:, 6],
        ],
        axis=1,
    )
