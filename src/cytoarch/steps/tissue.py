"""Where a section holds tissue, and how good its scan is."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cytoarch.anatomy.tissue import TissueMask, TissueSettings, closer, find_tissue, overview_channels, write_tissue
from cytoarch.brains import Section
from cytoarch.errors import SectionError
from cytoarch.images.sections import IngestSettings
from cytoarch.images.views import StoredImage
from cytoarch.reporting.quality import (
    QualityEntry,
    quality_picture,
    render_quality_page,
    sample_section,
    section_quality,
    shown_figures,
)
from cytoarch.steps.sections import SECTION, ManifestFile, contained
from cytoarch.steps.sources import Each, FactsOf, Failures, Maybe, Row, Statements
from cytoarch.steps.step import Facts, Inputs, Step, Stored, conduct
from cytoarch.store.staging import Staging

TISSUE_NAME = "slide"
DRAWN_NAME = "person"
QUALITY_NAME = "scan"
QUALITY_PAGE_NAME = "page"
PICTURE_FILE = "quality.png"
PAGE_FILE = "index.html"


@dataclass(frozen=True)
class DrawnTissueStep(Step[TissueMask]):
    """The tissue that a person drew for a section, on its overview grid."""

    step: ClassVar[str] = "drawn-tissue"
    version: ClassVar[int] = 2
    verb: ClassVar[str] = "ingest"

    drawn: ManifestFile
    overview_um: float = TissueSettings().pixel_size_um
    stated: Row = Row(("region_px",))
    section: Stored[StoredImage] = SECTION
    ingest: IngestSettings = conduct(IngestSettings())

    @property
    def name(self) -> str:
        """It was drawn."""
        return DRAWN_NAME

    def applies(self, section: Section) -> bool:
        """Only where the manifest names a drawing."""
        return section.tissue_path is not None

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Read the drawing in a child process, which writes the classes."""
        drawn, image = inputs[self.drawn], inputs[self.section]
        arguments = {
            "section": {**inputs[self.stated], "tissue_path": drawn.stated},
            "shape": image.grid.shape,
            "pixel_size_um": image.pixel_size_um,
            "origin_um": image.grid.origin_um,
            "overview_um": self.overview_um,
        }
        return contained("cytoarch.anatomy.drawn:drawn_work", inputs, staging, self.ingest, drawn, arguments)

    @classmethod
    def opened(cls, folder: Path) -> TissueMask:
        """The mask."""
        return TissueMask.of(StoredImage.open(folder))


DRAWN = Stored(DrawnTissueStep, DRAWN_NAME)
"""The drawn tissue of the section at hand."""


@dataclass(frozen=True)
class TissueStep(Step[TissueMask]):
    """The tissue of a section, on an overview grid."""

    step: ClassVar[str] = "tissue"
    version: ClassVar[int] = 6
    verb: ClassVar[str] = "find tissue"

    found: TissueSettings = field(default_factory=TissueSettings)
    section: Stored[StoredImage] = SECTION
    drawn: Maybe[TissueMask] = Maybe(DRAWN)
    stated: Row = Row(("tissue_path",))

    @property
    def name(self) -> str:
        """The same for every method: a section has one tissue."""
        return TISSUE_NAME

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Find the tissue and write it over the overview."""
        image = inputs[self.section]
        pixels, grid = overview_channels(image, self.found.pixel_size_um)
        drawn, stated = inputs[self.drawn], inputs[self.stated]["tissue_path"]
        if stated is not None and drawn is None:
            raise SectionError(f"{stated}: is not in the store yet; run the ingestion of the manifest that names it")
        classes = None if drawn is None else drawn.classes_on_grid(grid)
        tissue = find_tissue(pixels, grid.cell_um, self.found, classes, closer(image, grid))
        write_tissue(staging, np.asarray(pixels.mean(axis=0)), tissue, grid)
        return {
            "origin": "found" if classes is None else "person",
            "area_mm2": tissue.area_mm2,
            "white_mm2": tissue.white_mm2,
            "fraction": tissue.fraction,
            "pieces": tissue.pieces,
            "polarity": tissue.polarity,
            "pixel_size_um": grid.cell_um,
            "threshold": float(np.round(tissue.threshold, 3)),
            "doubts": list(tissue.doubts),
        }

    @classmethod
    def opened(cls, folder: Path) -> TissueMask:
        """The mask."""
        return TissueMask.open(folder)


TISSUE = Stored(TissueStep, TISSUE_NAME)
"""The tissue of the section at hand."""


@dataclass(frozen=True)
class QualityStep(Step[Path]):
    """Figures and picture of how good the scan of a section is."""

    step: ClassVar[str] = "quality"
    version: ClassVar[int] = 3
    view: ClassVar[bool] = True
    verb: ClassVar[str] = "judge"

    section: Stored[StoredImage] = SECTION
    tissue: Stored[TissueMask] = TISSUE

    @property
    def name(self) -> str:
        """It is the scan that is judged."""
        return QUALITY_NAME

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Draw the picture; the facts are its figures."""
        image, tissue = inputs[self.section], inputs[self.tissue]
        samples = sample_section(image, tissue)
        figures = section_quality(image, tissue, samples)
        facts = {"section": inputs.name, **shown_figures(figures)}
        facts["pixel"] += f" ({image.attributes['pixel_size_source']})"
        remarks = image.attributes["remarks"]
        facts |= {"remark": "; ".join(remarks)} if remarks else {}
        staging.write(PICTURE_FILE, quality_picture(image, tissue, facts, samples))
        return figures

    @classmethod
    def opened(cls, folder: Path) -> Path:
        """Its picture."""
        return folder / PICTURE_FILE


QUALITY = Stored(QualityStep, QUALITY_NAME)
"""The quality of the section at hand."""


@dataclass(frozen=True)
class QualityPageStep(Step[Path]):
    """The page that shows how good the scans of a brain are."""

    step: ClassVar[str] = "quality"
    version: ClassVar[int] = 3
    scope: ClassVar = "brain"
    view: ClassVar[bool] = True
    verb: ClassVar[str] = "judge"

    stated: Statements = Statements()
    figures: Each[Mapping[str, Any]] = Each(FactsOf(QUALITY), having=(QUALITY,))
    pictures: Each[Path] = Each(QUALITY)
    tissue: Each[Mapping[str, Any]] = Each(FactsOf(TISSUE), having=(TISSUE,))
    failures: Failures = Failures()

    @property
    def name(self) -> str:
        """There is one page."""
        return QUALITY_PAGE_NAME

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Write the page; it shows the pictures where they lie."""
        brain, figures, pictures = inputs[self.stated], inputs[self.figures], inputs[self.pictures]
        failures, tissue = inputs[self.failures], inputs[self.tissue]
        entries = []
        for section in brain.sections:
            one = section.section_id
            measured = figures.get(one, {})
            status = "excluded" if section.exclude else "kept" if measured else "failed"
            reason = section.reason if section.exclude else failures.get(one, "" if measured else "not ingested")
            shown = os.path.relpath(pictures[one], inputs.folder) if measured else ""
            doubts = tissue[one]["doubts"] if measured else ()
            entries.append(QualityEntry(one, section.section_number, status, reason, shown, measured, doubts))
        staging.write(PAGE_FILE, render_quality_page(brain.brain_id, entries))
        return {}

    @classmethod
    def opened(cls, folder: Path) -> Path:
        """The page."""
        return folder / PAGE_FILE
