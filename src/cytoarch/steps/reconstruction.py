"""A brain put together from its sections."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from cytoarch.anatomy.reconstruction import Overview, Reconstruction, ReconstructionSettings, Stated, reconstruct
from cytoarch.anatomy.tissue import TissueMask
from cytoarch.digests import values_digest
from cytoarch.geometry import Transform
from cytoarch.images.views import StoredImage
from cytoarch.steps.sections import SECTION
from cytoarch.steps.sources import Each
from cytoarch.steps.step import Facts, Inputs, Place, Source, Step, Stored
from cytoarch.steps.tissue import TISSUE
from cytoarch.store.staging import Staging

RECONSTRUCTION_NAME = "rigid"
TRANSFORMS_FILE = "transforms.json"
PLACING = (
    "section_number",
    "flip",
    "rotation",
    "transform",
    "exclude",
    "reason",
    "position_um",
    "thickness_um",
    "stain",
)
"""Columns of the manifest that decide where a section lies."""


class Placing(NamedTuple):
    """What the manifest states about where the sections of a brain lie."""

    brain_id: str
    rows: Mapping[str, Mapping[str, Any]]
    """The columns `PLACING` by section, in cutting order, also of sections that are left out."""

    @property
    def left_out(self) -> dict[str, str]:
        """Sections that the manifest excludes -> its reason."""
        return {one: f"excluded: {row['reason']}" for one, row in self.rows.items() if row["exclude"]}

    def stated(self, spacing_um: float | None) -> list[Stated]:
        """The sections at work, for the science; `spacing_um` is that of section numbers, where it is known."""
        kept = {one: row for one, row in self.rows.items() if not row["exclude"]}
        places = _along_the_axis(kept, spacing_um)
        return [
            Stated(
                one,
                row["section_number"],
                row["flip"],
                row["rotation"],
                None if row["transform"] is None else _transform(row["transform"]),
                places[one],
                row["stain"],
            )
            for one, row in kept.items()
        ]


def _along_the_axis(rows: Mapping[str, Mapping[str, Any]], spacing_um: float | None) -> dict[str, float | None]:
    """Places along the cutting axis: as stated where all are, else by number and spacing, else unknown."""
    if spacing_um is None and all(row["position_um"] is not None for row in rows.values()):
        return {one: float(row["position_um"]) for one, row in rows.items()}
    thick = {row["thickness_um"] for row in rows.values()}
    spacing = spacing_um if spacing_um is not None else thick.pop() if len(thick) == 1 else None
    return {one: None if spacing is None else row["section_number"] * spacing for one, row in rows.items()}


def _transform(numbers: Sequence[float]) -> Transform:
    """Six numbers of the manifest, row by row."""
    return Transform((tuple(numbers[:3]), tuple(numbers[3:])))


@dataclass(frozen=True)
class PlacingRows(Source[Placing]):
    """What the manifest states about where sections lie."""

    def digests(self, place: Place) -> Mapping[str, str]:
        """One of all rows."""
        return {"": values_digest(self.open(place).rows)}

    def open(self, place: Place) -> Placing:
        """The rows."""
        stated = [*place.brain.sections, *(one for one in place.brain.brain.sections if one.exclude)]
        stated.sort(key=lambda one: one.section_number)
        rows = {one.section_id: one.model_dump(mode="json", include=set(PLACING)) for one in stated}
        return Placing(place.brain.brain_id, rows)


@dataclass(frozen=True)
class OverviewOf(Source[Overview]):
    """The overview of the section at hand, with its tissue."""

    tissue: Stored[TissueMask] = TISSUE

    def digests(self, place: Place) -> Mapping[str, str]:
        """That of the tissue, which the overview is stored with."""
        return self.tissue.digests(place)

    def addresses(self, place: Place) -> Mapping[str, str]:
        """That of the tissue."""
        return self.tissue.addresses(place)

    def open(self, place: Place) -> Overview:
        """The overview. Raises SectionError if it is damaged."""
        folder = place.home.catalogue.path(self.tissue.product(place.section_id))
        level, mask = StoredImage.open(folder).levels[0], self.tissue.open(place)
        facts = self.tissue.record(place).facts
        channels = int(SECTION.open(place).channels)
        return Overview(level.pixels(), mask.mask, mask.grid, facts["polarity"], channels)


@dataclass(frozen=True)
class ReconstructionStep(Step[Reconstruction]):
    """Where every section of a brain lies."""

    step: ClassVar[str] = "reconstruction"
    version: ClassVar[int] = 1
    scope: ClassVar = "brain"
    verb: ClassVar[str] = "reconstruct"

    align: ReconstructionSettings = field(default_factory=ReconstructionSettings)
    stated: PlacingRows = PlacingRows()
    overviews: Each[Overview] = Each(OverviewOf(), having=(TISSUE,))

    @property
    def name(self) -> str:
        """The kind of transforms."""
        return RECONSTRUCTION_NAME

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Align the sections and write their transforms; the facts count what a person should know."""
        placing, overviews = inputs[self.stated], inputs[self.overviews]
        brain = reconstruct(
            placing.brain_id,
            placing.stated(self.align.spacing_um),
            overviews,
            self.align,
            placing.left_out,
            inputs.on_progress,
        )
        staging.write(TRANSFORMS_FILE, brain.to_json().encode())
        return figures_of(brain)

    @classmethod
    def opened(cls, folder: Path) -> Reconstruction:
        """The reconstruction."""
        return Reconstruction.from_json((folder / TRANSFORMS_FILE).read_text(encoding="utf-8"))


RECONSTRUCTION = Stored(ReconstructionStep, RECONSTRUCTION_NAME)
"""Where the sections of the brain at hand lie."""


def figures_of(brain: Reconstruction) -> dict[str, Any]:
    """Counts and medians of a reconstruction."""
    linked = [one for one in brain if one.quality.links]
    figures: dict[str, Any] = {
        "base": brain.base,
        "sections": len(brain),
        "linked": sum(one.linked for one in brain),
        "flipped": sum(one.flipped for one in brain),
        "flagged": {one: list(flags) for one, flags in brain.flagged.items()},
        "remarks": list(brain.remarks),
    }
    for name in ("correlation", "dice", "outline_um", "disagreement_um") if linked else ():
        figures[name] = round(float(np.median([getattr(one.quality, name) for one in linked])), 4)
    return figures
