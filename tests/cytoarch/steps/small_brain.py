"""A labelled brain of six tiny sections, each with a mark of its own, and the steps that map it without any flow."""

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict

from cytoarch.anatomy.tissue import TissueSettings
from cytoarch.brains import Brain, Label, LabelTable, Section
from cytoarch.discovery.clusters import ClusterSettings
from cytoarch.discovery.layout import LayoutSettings
from cytoarch.embeddings import EmbedSettings
from cytoarch.learning.training import ProbeSettings
from cytoarch.parcellation.inference import ParcellateSettings
from cytoarch.parcellation.smoothing import SmoothSettings
from cytoarch.steps.agreement import AgreementStep
from cytoarch.steps.cluster_checks import CheckSettings, ClusterChecksStep
from cytoarch.steps.clusters import ClusterFitStep, ClustersStep
from cytoarch.steps.colours import ColourFitStep, ColoursStep
from cytoarch.steps.embeddings import EmbeddingsStep
from cytoarch.steps.familiarity import FamiliarityStep
from cytoarch.steps.known_tokens import KnownTokensStep
from cytoarch.steps.layouts import LayoutStep
from cytoarch.steps.opened import OpenBrain, open_brain
from cytoarch.steps.parcellations import ParcellationStep, ProbabilitiesStep, parcellation_steps
from cytoarch.steps.pictures import Shown
from cytoarch.steps.report import ReportStep, drawn_steps
from cytoarch.steps.retrieval import RetrievalSettings, RetrievalStep
from cytoarch.steps.running import make, make_sections
from cytoarch.steps.scales import ScaleStep
from cytoarch.steps.sections import LabelsStep, ManifestFile, SectionStep
from cytoarch.steps.sources import open_head
from cytoarch.steps.step import Place, Step, is_current
from cytoarch.steps.tissue import QualityPageStep, QualityStep, TissueStep
from cytoarch.steps.training import TrainingStep, keep_head

HEIGHT, WIDTH, SIZE_UM = 96, 128, 16.0
IDS = tuple(f"s{number}" for number in range(6))
TRAIN, HELD_OUT = ("s0", "s1", "s3", "s5"), ("s2", "s4")
"""Of six sections the block is s4, and of the others the third is the first of every fifth."""
CORTEX, WHITE_MATTER = 3, 7
TABLE = LabelTable(
    labels=(
        Label(id=CORTEX, name="cortex", colour="#ff0000"),
        Label(id=WHITE_MATTER, name="white matter", colour="#0000ff"),
    )
)
MARK_PX = 12
TOKENS = 600
"""Drawn of all sections, to be looked at."""


def mark_of(section_id: str) -> tuple[int, int]:
    """The corner (y, x) of the black square that only this section has."""
    number = IDS.index(section_id)
    return 16 + 9 * number, 16 + 14 * number


def scan_of(section_id: str) -> NDArray[np.uint8]:
    """Tissue on a bright slide: even grey on the left, coarse grain on the right, and the section's mark."""
    noise = np.random.default_rng(IDS.index(section_id)).integers(-40, 41, (HEIGHT, WIDTH))
    pixels = np.full((HEIGHT, WIDTH), 235)
    pixels[8:88, 8:64] = 150 + noise[8:88, 8:64] // 10
    pixels[8:88, 64:120] = 110 + noise[8:88, 64:120]
    y, x = mark_of(section_id)
    pixels[y : y + MARK_PX, x : x + MARK_PX] = 5
    return pixels.astype(np.uint8)


def labels_of() -> NDArray[np.uint8]:
    """Cortex on the left, white matter on the right."""
    labels = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    labels[8:88, 8:64], labels[8:88, 64:120] = CORTEX, WHITE_MATTER
    return labels


def write_files(folder: Path) -> None:
    """The scans and label images of the brain."""
    folder.mkdir(parents=True)
    for one in IDS:
        tifffile.imwrite(folder / f"{one}.tif", scan_of(one), metadata=None)
        Image.fromarray(labels_of()).save(folder / f"{one}.png")


class InProcess:
    """Does contained work in this process: these files are our own, and starting children takes its time."""

    def run(self, work: str, arguments: Mapping[str, Any], _limits: object, on_progress: Any, *_: object) -> Any:
        module, _, name = work.partition(":")
        return getattr(importlib.import_module(module), name)(arguments, on_progress)


class Chain(BaseModel):
    """The settings by which the brain is mapped."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tissue: TissueSettings = TissueSettings()
    embed: EmbedSettings = EmbedSettings(pixel_size_um=SIZE_UM, tile_px=128)
    train: ProbeSettings = ProbeSettings()
    parcellate: ParcellateSettings = ParcellateSettings()
    smooth: SmoothSettings = SmoothSettings()
    cluster: ClusterSettings = ClusterSettings(clusters=3)


DEFAULTS = Chain()


@dataclass(frozen=True)
class SmallBrain:
    """The brain's files and store below a folder."""

    folder: Path
    chain: Chain = DEFAULTS
    sections: tuple[Section, ...] = tuple(
        Section(
            brain_id="B1",
            section_id=one,
            section_number=number,
            path=f"{one}.tif",
            labels=f"{one}.png",
            pixel_size_um=SIZE_UM,
        )
        for number, one in enumerate(IDS)
    )

    @property
    def scans(self) -> Path:
        return self.folder / "scans"

    @contextmanager
    def opened(self) -> Iterator[OpenBrain]:
        """The brain, open for writing."""
        brain = Brain(brain_id="B1", sections=self.sections, label_table=TABLE)
        with open_brain(self.folder / "store", brain) as opened:
            yield opened

    def ingestion(self) -> tuple[Step[Any], ...]:
        """The steps up to tissue and quality."""
        scan, labels = ManifestFile(self.scans, "path"), ManifestFile(self.scans, "labels")
        return SectionStep(scan), LabelsStep(labels), TissueStep(self.chain.tissue), QualityStep()


class Steps:
    """The steps of a chain for an open brain, each as it is declared when those before it are made."""

    def __init__(self, small: SmallBrain, opened: OpenBrain) -> None:
        self.small, self.chain, self.opened = small, small.chain, opened

    @cached_property
    def embeddings(self) -> EmbeddingsStep:
        return EmbeddingsStep.of(self.chain.embed, self.opened)

    @cached_property
    def colour_fit(self) -> ColourFitStep:
        return ColourFitStep.of(self.embeddings.stored)

    @cached_property
    def colours(self) -> ColoursStep:
        return ColoursStep.of(self.colour_fit)

    @cached_property
    def training(self) -> TrainingStep:
        return TrainingStep.of(self.opened.brain_id, self.embeddings.stored, "probe", self.chain.train)

    @cached_property
    def model(self) -> str:
        """The digest of the head, whether or not its training is current."""
        return str(self.opened.catalogue.require(self.training.product(), "train first").facts["model"])

    @cached_property
    def parcellation(self) -> tuple[ProbabilitiesStep, ParcellationStep]:
        card = open_head(self.opened.store, self.model).card
        chain = self.chain
        return parcellation_steps(card, self.model, self.embeddings.stored, chain.parcellate, chain.smooth, {})

    @cached_property
    def agreement(self) -> AgreementStep:
        return AgreementStep.of(self.parcellation[1])

    @cached_property
    def familiarity(self) -> FamiliarityStep:
        return FamiliarityStep.of(self.parcellation[1], self.parcellation[0], self.embeddings.stored)

    @cached_property
    def scale(self) -> ScaleStep:
        return ScaleStep.of(self.embeddings.stored)

    @cached_property
    def cluster_fit(self) -> ClusterFitStep:
        return ClusterFitStep.of(self.embeddings.stored, self.chain.cluster)

    @cached_property
    def clusters(self) -> ClustersStep:
        return ClustersStep.of(self.cluster_fit)

    @cached_property
    def shown(self) -> Shown:
        return Shown(self.embeddings.name, self.clusters.name, self.parcellation[1].name, self.model, True)

    def make_all(self) -> None:
        """Ingest, embed, train, map, cluster and report; raises where a section fails."""
        self.ingest()
        self.embed()
        make(self.scale, self.opened)
        make(self.training, self.opened)
        assert keep_head(self.opened, self.training.name) == self.model
        self.each(*self.parcellation, self.agreement, self.familiarity)
        make(self.cluster_fit, self.opened)
        self.each(self.clusters)
        check = CheckSettings(runs=3, counts=(2,), tokens=TOKENS)
        make(KnownTokensStep.of(self.cluster_fit, check.tokens), self.opened)
        make(ClusterChecksStep.of(self.cluster_fit, check), self.opened)
        make(LayoutStep.of(self.cluster_fit, LayoutSettings()), self.opened)
        make(RetrievalStep.of(self.cluster_fit, RetrievalSettings(queries=2, neighbours=3)), self.opened)
        self.report()

    def ingest(self) -> None:
        self.each(*self.small.ingestion())
        make(QualityPageStep(), self.opened)

    def embed(self) -> None:
        self.each(self.embeddings)
        make(self.colour_fit, self.opened)
        self.each(self.colours)

    def report(self) -> None:
        self.each(*drawn_steps(self.shown))
        make(ReportStep.of(self.embeddings.name, self.shown, self.training.name), self.opened)

    def each(self, *steps: Step[Any]) -> list[str]:
        """Make steps for every section; how each ended."""
        outcomes = make_sections(steps, self.opened)
        failed = [one for one in outcomes if one.status == "failed"]
        assert not failed, failed
        return [one.status for one in outcomes]

    def current(self, step: Step[Any]) -> list[str]:
        """The sections for which a step has nothing to make; for a step of the whole brain `brain` or nothing."""
        if step.scope == "brain":
            return ["brain"] if is_current(step, Place(self.opened)) else []
        return [one.section_id for one in self.opened.sections if is_current(step, Place(self.opened, one))]
