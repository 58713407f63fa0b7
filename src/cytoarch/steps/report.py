"""The report of a brain: what the store holds of it, gathered into pages."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from cytoarch.brains import Brain
from cytoarch.learning.cards import HeadCard
from cytoarch.reporting.charts import MAX_NUMBERED, confusion_chart
from cytoarch.reporting.findings import AcrossSaid
from cytoarch.reporting.page import Page, Placement, SectionEntry, render_pages
from cytoarch.steps.across import Across, AcrossStep
from cytoarch.steps.agreement import AgreementStep, parted
from cytoarch.steps.cluster_checks import ClusterChecksStep
from cytoarch.steps.clusters import ClustersStep, purities
from cytoarch.steps.embeddings import EmbeddingsStep
from cytoarch.steps.exports import AreasStep
from cytoarch.steps.familiarity import Familiarity, FamiliarityStep
from cytoarch.steps.layouts import FACTS_FILE, LayoutStep
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.parcellations import ParcellationStep
from cytoarch.steps.pictures import PICTURES_NAME, THUMBNAIL_FILE, PicturesStep, Shown
from cytoarch.steps.reconstruction import ALIGNMENT, ALIGNMENT_PAGE, RECONSTRUCTION, SHEET_FILE
from cytoarch.steps.report_findings import findings, of_clusters, said_across
from cytoarch.steps.report_head import headline, legends, notices, subtitle
from cytoarch.steps.report_scores import (
    UNTESTED,
    class_rows,
    confused,
    percent,
    said_of_model,
    said_of_nowhere,
    said_of_order,
    score_rows,
    there_or_found,
)
from cytoarch.steps.retrieval import RetrievalStep
from cytoarch.steps.sections import LABELS, SECTION, PixelsDigest
from cytoarch.steps.sources import (
    Each,
    FactsOf,
    Failures,
    HeadSource,
    MadeFrom,
    Maybe,
    Statements,
)
from cytoarch.steps.step import Facts, Inputs, Step, Stored
from cytoarch.steps.tissue import QualityPageStep
from cytoarch.steps.training import HARDEST, Training, TrainingStep
from cytoarch.store.products import Product
from cytoarch.store.staging import Staging

REPORT_NAME = "page"
INDEX_FILE = "index.html"
CONFUSION_FILE = "confusion.png"
QUALITY_PAGE = QualityPageStep().name
PICTURES = Stored(PicturesStep, PICTURES_NAME)


@dataclass(frozen=True)
class RegisteredModel:
    """A version of a registered model."""

    name: str
    version: int
    is_champion: bool
    run_id: str
    verdict: str
    """Why it is the champion, or not."""

    @property
    def label(self) -> str:
        """How people call it."""
        return f"{self.name} version {self.version}" + (", champion" if self.is_champion else "")


@dataclass(frozen=True)
class ReportStep(Step[Path]):
    """The pages of a brain."""

    step: ClassVar[str] = "report"
    version: ClassVar[int] = 9
    scope: ClassVar = "brain"
    view: ClassVar[bool] = True
    verb: ClassVar[str] = "report"

    embedding: str
    model_name: str
    model_version: int
    model_run: str
    is_champion: bool
    pictures: Each[Path]
    drawn: Each[Facts]
    embedded: Each[Facts]
    encoder: Each[Mapping[str, str]]
    scans: Each[Mapping[str, str]]
    label_files: Each[Mapping[str, str]]
    pixels: Each[str]
    agreement: Each[Facts] | None = None
    familiarity: Each[Facts] | None = None
    clusters: Each[Facts] | None = None
    areas: Each[Facts] | None = None
    maps: Each[Facts] | None = None
    head: HeadSource | None = None
    training: Stored[Training] | None = None
    trained: FactsOf | None = None
    placed: FactsOf | None = None
    alignment: Stored[Path] | None = None
    checks: Maybe[Facts] | None = None
    retrieval: Maybe[Path] | None = None
    layout: Maybe[Path] | None = None
    across: Maybe[Across] | None = None
    quality: Maybe[Path] = Maybe(Stored(QualityPageStep, QUALITY_PAGE), "gap")
    failures: Failures = Failures()
    stated: Statements = Statements()

    @classmethod
    def of(
        cls,
        embedding: str,
        shown: Shown,
        training: str | None = None,
        model: RegisteredModel | None = None,
        reconstructed: bool = False,
    ) -> "ReportStep":
        """The report of what was made of a brain; `model` is the version under which its head is registered."""
        embeddings = Stored(EmbeddingsStep, embedding)
        having = (PICTURES,)
        agreement = Stored(AgreementStep, shown.parcellation) if shown.parcellation else None
        compared = Stored(FamiliarityStep, shown.parcellation) if shown.parcellation and shown.is_compared else None
        clusters = Stored(ClustersStep, shown.clusters) if shown.clusters else None
        areas = AreasStep.of(shown.parcellation).stored if shown.parcellation else None
        maps = Stored(ParcellationStep, shown.parcellation) if shown.parcellation else None
        return cls(
            embedding,
            model.name if model else "",
            model.version if model else 0,
            model.run_id if model else "",
            model.is_champion if model else False,
            Each(PICTURES),
            Each(FactsOf(PICTURES), having),
            Each(FactsOf(embeddings), (*having, embeddings)),
            Each(MadeFrom(embeddings), (*having, embeddings)),
            Each(MadeFrom(SECTION), (*having, SECTION)),
            Each(MadeFrom(LABELS), (*having, LABELS)),
            Each(PixelsDigest(), (*having, SECTION)),
            Each(FactsOf(agreement), (*having, agreement)) if agreement else None,
            Each(FactsOf(compared), (*having, compared)) if compared else None,
            Each(FactsOf(clusters), (*having, clusters)) if clusters else None,
            Each(FactsOf(areas), (*having, areas)) if areas else None,
            Each(FactsOf(maps), (*having, maps)) if maps else None,
            HeadSource(shown.model_digest) if shown.parcellation and shown.model_digest else None,
            Stored(TrainingStep, training) if training else None,
            FactsOf(Stored(TrainingStep, training)) if training else None,
            FactsOf(RECONSTRUCTION) if reconstructed else None,
            ALIGNMENT if reconstructed else None,
            Maybe(Stored(ClusterChecksStep, shown.clusters), "gap") if shown.clusters else None,
            Maybe(Stored(RetrievalStep, shown.clusters), "gap") if shown.clusters else None,
            Maybe(Stored(LayoutStep, shown.clusters), "gap") if shown.clusters else None,
            Maybe(Stored(AcrossStep, shown.parcellation), "gap") if shown.parcellation and shown.is_across else None,
        )

    @property
    def name(self) -> str:
        """There is one report."""
        return REPORT_NAME

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Write the pages; they show the pictures where they lie."""
        brain, entries = inputs[self.stated], self._entries(inputs)
        drawn, found = inputs[self.drawn], {} if self.agreement is None else inputs[self.agreement]
        clusters = {} if self.clusters is None else inputs[self.clusters]
        training = None if self.training is None else inputs[self.training]
        card = None if self.head is None else inputs[self.head].card
        unseen, learned = (None, None) if card is None else parted(card, brain.brain_id, found)
        is_tested = training is None or bool(training.metrics)
        compared = None
        if self.familiarity is not None and is_tested:  # how far sections lie from themselves says nothing
            compared = Familiarity.of(inputs[self.familiarity].values())
        metrics = ({} if unseen is None else unseen.metrics("map")) | ({} if compared is None else compared.metrics())
        metrics |= {} if not clusters else purities(clusters.values())
        held_out = training.metrics.get("held_out") if training else None
        scored = unseen or (None if held_out else learned)
        charts = {}
        where, counts = confused(held_out, scored)
        if card is not None and counts is not None and len(card.classes) <= MAX_NUMBERED:
            staging.write(CONFUSION_FILE, confusion_chart(counts, [one.name for one in card.classes], where))
            charts[f"{where}: known classes by row"] = CONFUSION_FILE
        quality = inputs[self.quality]
        all_found = findings(
            brain,
            card,
            drawn,
            {} if self.areas is None else inputs[self.areas],
            (where, counts),
            None if self.trained is None else inputs[self.trained].get("smoothing"),
            inputs[self.failures],
            {**self._clustered(inputs), "across": self._across(inputs, card)},
        )
        hardest = next((one for one in HARDEST if one in training.metrics), "") if training else ""
        if training and hardest and training.metrics[hardest]["macro_f1"] is not None:
            metrics |= {"headline/macro_f1": training.metrics[hardest]["macro_f1"]}
        of_data = notices(brain, inputs[self.embedded], inputs[self.label_files], inputs[self.pixels])
        label = f"{self.model_name} version {self.model_version}" + (", champion" if self.is_champion else "")
        label = label if self.model_name else ""
        of_model = [] if card is None else said_of_model(label, brain.brain_id, card, compared, (unseen, learned))
        of_model += [] if is_tested else [UNTESTED]
        classes = class_rows(card, held_out, scored)
        shown_classes = there_or_found(classes)
        of_model += said_of_nowhere(len(classes) - len(shown_classes))
        if card is not None and self.maps is not None:
            tried = None if self.trained is None else inputs[self.trained].get("ordering")
            of_model += said_of_order(inputs[self.maps].values(), tried)
        page = Page(
            brain_id=brain.brain_id,
            subtitle=subtitle(brain),
            headline=headline(brain, entries, drawn, metrics, hardest),
            notices=[*of_model, *of_data],
            sections=entries,
            legends=legends(
                card, brain.label_table, next((len(one["sizes"]) for one in clusters.values()), 0), drawn.values()
            ),
            scores=score_rows(training, unseen, learned, self._is_chosen_on(inputs)),
            per_class=shown_classes,
            charts=charts,
            provenance=self._provenance(brain, inputs),
            placement=self._placement(inputs),
            familiarity=[] if compared is None or card is None else [percent(one) for one in compared.rows(card)],
            findings=all_found,
            quality="" if quality is None else os.path.relpath(quality, inputs.folder),
        )
        for name, content in render_pages(page).items():
            staging.write(name, content)
        return {"shown": self._shown()}

    def _clustered(self, inputs: Inputs) -> dict[str, Any]:
        """What is known of clusters, of neighbours and of the layout of tokens, and where their pictures lie."""
        sheet, layout = (None if one is None else inputs[one] for one in (self.retrieval, self.layout))
        found = of_clusters(None if self.checks is None else inputs[self.checks], _beside(layout), _beside(sheet))
        paths = {"sheet": sheet, "layout": layout}
        return found | {name: os.path.relpath(path, inputs.folder) for name, path in paths.items() if path is not None}

    def _across(self, inputs: Inputs, card: HeadCard | None) -> AcrossSaid | None:
        """What smoothing from section to section changed, where the map was."""
        found = None if self.across is None else inputs[self.across]
        return None if found is None or card is None else said_across(found.facts, [one.name for one in card.classes])

    def _is_chosen_on(self, inputs: Inputs) -> bool:
        """Whether how strongly the map is smoothed across sections was chosen on labelled sections."""
        found = None if self.across is None else inputs[self.across]
        return found is not None and found.facts["choice"] is not None

    def _shown(self) -> dict[str, Any]:
        """What the pages show, so that they can be drawn again."""
        return {
            "colours": self.embedding,
            "clusters": _name_of(self.clusters),
            "parcellation": _name_of(self.agreement),
            "model_digest": self.head.digest if self.head else None,
            "is_compared": self.familiarity is not None,
            "is_across": self.across is not None,
            "training": self.training.name if self.training else None,
            "model": [self.model_name, self.model_version, self.model_run, self.is_champion],
        }

    def _entries(self, inputs: Inputs) -> list[SectionEntry]:
        brain, failures = inputs[self.stated], inputs[self.failures]
        pictures, drawn = inputs[self.pictures], inputs[self.drawn]
        scans, labels = inputs[self.scans], inputs[self.label_files]
        entries = []
        for section in brain.sections:
            one, number = section.section_id, section.section_number
            if one not in drawn:
                failed = failures.get(one, "not ingested")
                status, reason = ("excluded", section.reason) if section.exclude else ("failed", failed)
                entries.append(SectionEntry(one, number, status, reason))
                continue
            facts, folder = drawn[one], os.path.relpath(pictures[one], inputs.folder)
            in_order = sorted(facts["pictures"].items(), key=lambda named: int(named[1].partition(".")[0]))
            files = {caption: f"{folder}/{file}" for caption, file in in_order}  # records keep no order of names
            digests = {"scan": scans[one]["scan"], **({"labels": labels[one]["labels"]} if one in labels else {})}
            small = f"{folder}/{THUMBNAIL_FILE}"
            layers = {kind: f"{folder}/{file}" for kind, file in facts["layers"].items()}
            kept = SectionEntry(one, number, "kept", facts["remarks"], facts["details"], files, small, digests, layers)
            entries.append(kept)
        return entries

    def _placement(self, inputs: Inputs) -> Placement | None:
        """How the sections were put together, where they were."""
        if self.placed is None or self.alignment is None:
            return None
        facts, folder = inputs[self.placed], os.path.relpath(inputs[self.alignment], inputs.folder)
        figures = [
            ("sections linked", f"{facts['linked']} of {facts['sections']}"),
            ("flipped", str(facts["flipped"])),
            ("base section", facts["base"] or "none"),
        ]
        figures += [("correlation of neighbours", f"{facts['correlation']:.2f}")] if "correlation" in facts else []
        figures += [("overlap of neighbours", f"{facts['dice']:.2f}")] if "dice" in facts else []
        return Placement(
            f"{folder}/{SHEET_FILE}", f"{folder}/{ALIGNMENT_PAGE}", figures, facts["flagged"], facts["remarks"]
        )  # fmt: skip

    def _provenance(self, brain: Brain, inputs: Inputs) -> list[tuple[str, str]]:
        rows = [("brain", brain.brain_id), ("manifest and label table", brain.digest), ("embeddings", self.embedding)]
        rows += [("encoder digest", one["encoder"]) for one in list(inputs[self.encoder].values())[:1]]
        if self.model_name:
            alias = ", champion" if self.is_champion else ""
            rows.append(("model version", f"{self.model_name} version {self.model_version}{alias}"))
            rows.append(("MLflow run of the training", self.model_run))
        if self.head is not None:
            rows.append(("model digest", self.head.digest))
        return rows

    @classmethod
    def opened(cls, folder: Path) -> Path:
        """The first page."""
        return folder / INDEX_FILE


def _beside(picture: Path | None) -> Facts | None:
    """What is told of a picture in the file beside it."""
    if picture is None:
        return None
    facts: Facts = json.loads((picture.parent / FACTS_FILE).read_text())
    return facts


def drawn_steps(shown: Shown) -> list[Step[Any]]:
    """The steps by which every section gets its part of the report: pictures, and the sizes of its areas."""
    areas = [AreasStep.of(shown.parcellation)] if shown.parcellation else []
    return [PicturesStep.of(shown), *areas]


class ShownBefore(NamedTuple):
    """What the report of a brain shows."""

    shown: Shown
    training: str | None
    model: RegisteredModel | None
    reconstructed: bool


def shown_before(brain: OpenBrain) -> ShownBefore | None:
    """What the report in the store shows, whether or not it is current; None: there is none that says it."""
    record = brain.catalogue.record(Product(ReportStep.step, REPORT_NAME))
    said = record.facts.get("shown") if record else None
    if record is None or said is None:
        return None
    name, version, run_id, is_champion = said["model"]
    model = RegisteredModel(name, version, is_champion, run_id, "") if name else None
    names = (said["colours"], said["clusters"], said["parcellation"], said["model_digest"])
    shown = Shown(*names, bool(said["is_compared"]), bool(said.get("is_across")))
    return ShownBefore(shown, said["training"], model, any(one.partition("/")[0] == "placed" for one in record.inputs))


def _name_of(each: Each[Facts] | None) -> str | None:
    """The name of the products whose facts these are."""
    return each.source.source.name if each is not None and isinstance(each.source, FactsOf) else None
