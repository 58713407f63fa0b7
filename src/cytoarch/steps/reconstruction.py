"""A brain put together from its sections."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from cytoarch.anatomy.reconstruction import (
    Link,
    Overview,
    PlacedSection,
    Reconstruction,
    ReconstructionSettings,
    Stated,
    reconstruct,
)
from cytoarch.anatomy.reconstruction.links import linked_back
from cytoarch.anatomy.reconstruction.placed import link_facts, link_of
from cytoarch.anatomy.reconstruction.viewers import viewers
from cytoarch.anatomy.reconstruction.volume import VolumeSettings, slabs, volume_grid
from cytoarch.anatomy.tissue import TissueMask
from cytoarch.brains import Brain
from cytoarch.digests import values_digest
from cytoarch.errors import SectionError, StoreError
from cytoarch.geometry import Transform
from cytoarch.images.views import StoredImage
from cytoarch.images.volumes import write_volume
from cytoarch.reporting import alignment
from cytoarch.reproducible import single_threaded
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.sections import SECTION
from cytoarch.steps.sources import Each
from cytoarch.steps.step import (
    ChangedInputError,
    Facts,
    Inputs,
    MissingInputError,
    Place,
    Source,
    Step,
    Stored,
)
from cytoarch.steps.tissue import TISSUE
from cytoarch.store.products import Product
from cytoarch.store.staging import Staging

RECONSTRUCTION_NAME = "rigid"
LINKS_NAME = "rigid"
LINKS_FILE = "links.json"
ALIGNMENT_NAME = "page"
TRANSFORMS_FILE = "transforms.json"
VIEWERS_FILE = "viewers.json"
SHEET_FILE = "sheet.png"
ALIGNMENT_PAGE = "index.html"
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


def has_stated_places(brain: Brain, spacing_um: float | None) -> bool:
    """Whether the manifest, or the spacing of section numbers, says where sections lie along the cutting axis."""
    rows = {one.section_id: one.model_dump(mode="json", include=set(PLACING)) for one in brain.kept}
    return any(place is not None for place in _along_the_axis(rows, spacing_um).values())


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
        facts = self.tissue.record(place).facts
        folder = place.home.catalogue.path(self.tissue.product(place.section_id))
        try:
            level, mask = StoredImage.open(folder).levels[0], self.tissue.open(place)
            channels = int(SECTION.open(place).channels)
        except StoreError as error:
            raise SectionError(f"{error}; run verify") from error
        return Overview(level.pixels(), mask.mask, mask.grid, facts["polarity"], channels)

    def damaged(self, place: Place) -> Product:
        """The product to blame where it cannot be opened: the section, where that cannot, else the tissue."""
        try:
            SECTION.open(place)
        except StoreError:
            return SECTION.product(place.section_id)
        return self.tissue.product(place.section_id)


def _kept_with_tissue(place: Place, numbers: Iterator[int]) -> Iterator[Place]:
    """Sections by their place among the rows that are not excluded and have tissue, whatever failed in this run.

    Tissue that is older than its section is none.
    """
    catalogue = place.home.catalogue
    for number in numbers:
        section = place.brain.brain.sections[number]
        record = None if section.exclude else catalogue.record(TISSUE.product(section.section_id))
        if record is not None and not catalogue.outdated(record):
            yield Place(place.home, section)


@dataclass(frozen=True)
class OverviewsBefore(Source[list[tuple[str, Overview]]]):
    """The overviews of the nearest sections with tissue before the one at hand.

    One that turns out to be damaged costs no section but its own: it is noted, and the next nearest takes its place.
    """

    reach: int
    overview: OverviewOf = OverviewOf()

    def digests(self, place: Place) -> Mapping[str, str]:
        """Those of their tissue."""
        return {one.section_id: self.overview.digests(one)[""] for one in self._places(place)}

    def addresses(self, place: Place) -> Mapping[str, str]:
        """Those of their tissue."""
        return {one.section_id: self.overview.addresses(one)[""] for one in self._places(place)}

    def open(self, place: Place) -> list[tuple[str, Overview]]:
        """By section, in cutting order. Raises ChangedInputError, once it is noted, if one is damaged."""
        return [(one.section_id, self._opened(one)) for one in self._places(place)]

    def _opened(self, place: Place) -> Overview:
        try:
            return self.overview.open(place)
        except SectionError as error:
            damaged = self.overview.damaged(place)
            place.home.catalogue.note_damage(damaged, [damaged.key])
            raise ChangedInputError(f"{place.home.name}, section {place.section_id}: {error}") from error

    def _places(self, place: Place) -> list[Place]:
        own = place.brain.order[place.section_id]
        return list(islice(_kept_with_tissue(place, iter(range(own - 1, -1, -1))), self.reach))[::-1]


@dataclass(frozen=True)
class CellOfBrain(Source[float]):
    """The cells in which all sections of a brain are compared (um): those of the first overview."""

    tissue: Stored[TissueMask] = TISSUE

    def digests(self, place: Place) -> Mapping[str, str]:
        """One of their size."""
        return {"": values_digest(self.open(place))}

    def open(self, place: Place) -> float:
        """Their size."""
        first = next(_kept_with_tissue(place, iter(range(len(place.brain.brain.sections)))), place)
        return float(self.tissue.record(first).facts["pixel_size_um"])


@dataclass(frozen=True)
class LinksStep(Step[list[Link]]):
    """How a section maps onto those before it."""

    step: ClassVar[str] = "links"
    version: ClassVar[int] = 2
    verb: ClassVar[str] = "link"

    align: ReconstructionSettings
    """As far as it decides on links."""
    before: OverviewsBefore
    own: OverviewOf = OverviewOf()
    cell: CellOfBrain = CellOfBrain()

    @classmethod
    def of(cls, align: ReconstructionSettings) -> "LinksStep":
        """The links that a reconstruction rests on."""
        return cls(align.of_links, OverviewsBefore(align.reach))

    @property
    def name(self) -> str:
        """The kind of transforms."""
        return LINKS_NAME

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Link the section to each; the facts count the links that hold."""
        own = (inputs.name, inputs[self.own])
        links = linked_back(own, inputs[self.before], inputs[self.cell], self.align)
        staging.write(LINKS_FILE, json.dumps([link_facts(one) for one in links], allow_nan=False).encode())
        return {"links": len(links), "accepted": sum(one.accepted for one in links)}

    @classmethod
    def opened(cls, folder: Path) -> list[Link]:
        """The links, those to the farthest section first. Raises SectionError if they are damaged."""
        try:
            return [link_of(one) for one in json.loads((folder / LINKS_FILE).read_bytes())]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SectionError(f"{folder / LINKS_FILE} is damaged ({error!r}); run verify") from error


LINKS = Stored(LinksStep, LINKS_NAME)
"""The links of the section at hand to those before it."""


@dataclass(frozen=True)
class ReconstructionStep(Step[Reconstruction]):
    """Where every section of a brain lies."""

    step: ClassVar[str] = "reconstruction"
    version: ClassVar[int] = 5
    scope: ClassVar = "brain"
    verb: ClassVar[str] = "reconstruct"

    align: ReconstructionSettings = field(default_factory=ReconstructionSettings)
    stated: PlacingRows = PlacingRows()
    overviews: Each[Overview] = Each(OverviewOf(), having=(TISSUE,))
    links: Each[list[Link]] = Each(LINKS, having=(TISSUE,))

    @property
    def name(self) -> str:
        """The kind of transforms."""
        return RECONSTRUCTION_NAME

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Align the sections and write their transforms; the facts count what a person should know."""
        placing, overviews, linked = inputs[self.stated], inputs[self.overviews], inputs[self.links]
        without = [one for one in overviews if one not in linked]
        if without:
            raise MissingInputError(
                f"brain {placing.brain_id}: {', '.join(without[:8])} have no links; link them first"
            )
        links = [link for of_section in linked.values() for link in of_section]
        stated = placing.stated(self.align.spacing_um)
        with single_threaded():
            brain = reconstruct(
                placing.brain_id, stated, overviews, self.align, placing.left_out, inputs.on_progress, links
            )
        staging.write(TRANSFORMS_FILE, brain.to_json().encode())
        staging.write(VIEWERS_FILE, json.dumps(viewers(brain), indent=1).encode())
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


def has_volume(brain: OpenBrain) -> bool:
    """Whether the reconstruction of an open brain knows where sections lie along the cutting axis."""
    return any(one.linked and one.z_um is not None for one in RECONSTRUCTION.open(Place(brain)))


@dataclass(frozen=True)
class AlignmentStep(Step[Path]):
    """Pictures of how the sections of a brain were put together: each of them, a contact sheet, a page."""

    step: ClassVar[str] = "alignment"
    version: ClassVar[int] = 4
    scope: ClassVar = "brain"
    view: ClassVar[bool] = True
    verb: ClassVar[str] = "draw the reconstruction"

    placed: Stored[Reconstruction] = RECONSTRUCTION
    overviews: Each[Overview] = Each(OverviewOf(), having=(TISSUE,))

    @property
    def name(self) -> str:
        """There is one page."""
        return ALIGNMENT_NAME

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Draw every section over the linked one before it; one overview and its neighbour are held at a time."""
        brain, overviews = inputs[self.placed], inputs[self.overviews]
        grid, on_sheet = alignment.plane_grid(brain), set(alignment.chosen_for_sheet(brain))
        before: alignment.Shown | None = None
        thumbnails: list[tuple[PlacedSection, alignment.Picture]] = []
        pictures: dict[str, str] = {}
        for number, section in enumerate(one for one in brain if one.section_id in overviews):
            here = alignment.shown(section, overviews[section.section_id], grid)
            pictures[section.section_id] = f"sections/{section.section_id}.png"
            staging.write(pictures[section.section_id], alignment.section_picture(here, before))
            if section.section_id in on_sheet:
                thumbnails.append((section, alignment.small(alignment.over_neighbour(here, before))))
            before = here if section.linked else before
            inputs.on_progress(number + 1, len(brain))
        staging.write(SHEET_FILE, alignment.contact_sheet(brain, thumbnails))
        staging.write(ALIGNMENT_PAGE, alignment.page(brain, pictures, SHEET_FILE))
        return {}

    @classmethod
    def opened(cls, folder: Path) -> Path:
        """Their folder."""
        return folder


ALIGNMENT = Stored(AlignmentStep, ALIGNMENT_NAME)
"""The pictures of the reconstruction of the brain at hand."""


@dataclass(frozen=True)
class VolumeStep(Step[Path]):
    """The sections of a brain as a volume."""

    step: ClassVar[str] = "volume"
    version: ClassVar[int] = 2
    scope: ClassVar = "brain"
    verb: ClassVar[str] = "make the volume"

    volume: VolumeSettings = field(default_factory=VolumeSettings)
    placed: Stored[Reconstruction] = RECONSTRUCTION
    overviews: Each[Overview] = Each(OverviewOf(), having=(TISSUE,))

    @property
    def name(self) -> str:
        """The edge of its voxels."""
        return f"{self.volume.voxel_um:g}um"

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Write the volume slab by slab."""
        brain = inputs[self.placed]
        grid = volume_grid(brain, self.volume.voxel_um)
        write_volume(staging, grid.voxels, slabs(brain, inputs[self.overviews], grid), brain.brain_id)
        return {"shape": list(grid.shape), "voxel_um": grid.voxel_um, "origin_um": list(grid.origin_um)}

    @classmethod
    def opened(cls, folder: Path) -> Path:
        """The folder of the NGFF image (z, y, x) uint8, um."""
        return folder
