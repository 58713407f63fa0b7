"""The report of a brain: what the store holds of it, gathered into pages."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cytoarch.brains import Brain
from cytoarch.learning.cards import HeadCard
from cytoarch.measures.overlap import accuracy, map_macro_f1
from cytoarch.palette import class_colours, distinct_colours
from cytoarch.reporting.charts import confusion_chart
from cytoarch.reporting.page import LegendEntry, Page, Placement, SectionEntry, render_pages
from cytoarch.steps.clusters import ClustersStep, purities
from cytoarch.steps.embeddings import EmbeddingsStep
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.parcellations import ParcellationStep
from cytoarch.steps.pictures import PICTURES_NAME, THUMBNAIL_FILE, PicturesStep, Shown
from cytoarch.steps.reconstruction import ALIGNMENT, ALIGNMENT_PAGE, RECONSTRUCTION, SHEET_FILE
from cytoarch.steps.sections import LABELS, SECTION, PixelsDigest
from cytoarch.steps.sources import Each, FactsOf, Failures, HeadSource, MadeFrom, Sections, Statements, sections_with
from cytoarch.steps.step import Facts, Inputs, Place, Step, Stored
from cytoarch.steps.tissue import TISSUE
from cytoarch.steps.training import Training, TrainingStep, training_of
from cytoarch.store.staging import Staging

REPORT_NAME = "page"
INDEX_FILE = "index.html"
CONFUSION_FILE = "confusion.png"
PART_NAMES = {"fifth": "every fifth section", "block": "held-out block", "held_out": "both, held out"}
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


@dataclass(frozen=True)
class ReportStep(Step[Path]):
    """The pages of a brain."""

    step: ClassVar[str] = "report"
    version: ClassVar[int] = 3
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
    mapped: Each[Facts] | None = None
    clusters: Each[Facts] | None = None
    head: HeadSource | None = None
    training: Stored[Training] | None = None
    placed: FactsOf | None = None
    alignment: Stored[Path] | None = None
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
        mapped = Stored(ParcellationStep, shown.parcellation) if shown.parcellation else None
        clusters = Stored(ClustersStep, shown.clusters) if shown.clusters else None
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
            Each(FactsOf(mapped), (*having, mapped)) if mapped else None,
            Each(FactsOf(clusters), (*having, clusters)) if clusters else None,
            HeadSource(shown.model_digest) if training and shown.model_digest else None,
            Stored(TrainingStep, training) if training else None,
            FactsOf(RECONSTRUCTION) if reconstructed else None,
            ALIGNMENT if reconstructed else None,
        )

    @property
    def name(self) -> str:
        """There is one report."""
        return REPORT_NAME

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Write the pages; they show the pictures where they lie."""
        brain, entries = inputs[self.stated], self._entries(inputs)
        drawn, mapped = inputs[self.drawn], {} if self.mapped is None else inputs[self.mapped]
        clusters = {} if self.clusters is None else inputs[self.clusters]
        training = None if self.training is None else inputs[self.training]
        card = None if self.head is None else inputs[self.head].card
        metrics = map_metrics(training, mapped) | ({} if not clusters else purities(clusters.values()))
        scores, per_class = _scores(training, mapped)
        held_out = training.metrics.get("held_out") if training else None
        charts = {}
        if held_out and card is not None:
            names = [one.name for one in card.classes]
            staging.write(CONFUSION_FILE, confusion_chart(np.array(held_out["confusion"]), names, "held-out sections"))
            charts["Held-out sections: known classes by row, predicted by column, from embeddings"] = CONFUSION_FILE
            metrics |= {"held_out/macro_f1": held_out["macro_f1"]} if held_out["macro_f1"] is not None else {}
        page = Page(
            brain_id=brain.brain_id,
            subtitle=_subtitle(brain),
            headline=_headline(brain, entries, drawn, metrics),
            notices=_notices(brain, inputs[self.embedded], inputs[self.label_files], inputs[self.pixels]),
            sections=entries,
            legends=_legends(card, next((len(one["sizes"]) for one in clusters.values()), 0)),
            scores=scores,
            per_class=per_class,
            charts=charts,
            provenance=self._provenance(brain, inputs),
            placement=self._placement(inputs),
        )
        for name, content in render_pages(page).items():
            staging.write(name, content)
        return {}

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
            files = {caption: f"{folder}/{file}" for caption, file in facts["pictures"].items()}
            digests = {"scan": scans[one]["scan"], **({"labels": labels[one]["labels"]} if one in labels else {})}
            small = f"{folder}/{THUMBNAIL_FILE}"
            kept = SectionEntry(one, number, "kept", facts["remarks"], facts["details"], files, small, digests)
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


def brain_metrics(brain: OpenBrain, shown: Shown, training: str | None) -> dict[str, float]:
    """The figures by which a brain is compared with others: sections, tissue, scores of head and map, purities."""
    tissue = [TISSUE.record(Place(brain, one)).facts["area_mm2"] for one in sections_with(brain, TISSUE)]
    metrics: dict[str, float] = {
        "sections/mapped": len(brain.sections),
        "sections/failed": len(brain.failed),
        "sections/excluded": len(brain.brain.sections) - len(brain.brain.kept),
        "tissue/area_mm2": sum(tissue),
    }
    if training is not None and shown.parcellation is not None:
        record, known = training_of(brain, training)
        mapped = Stored(ParcellationStep, shown.parcellation)
        found = {one.section_id: mapped.record(Place(brain, one)).facts for one in sections_with(brain, mapped)}
        metrics |= record.facts["scores"] | map_metrics(known, found)
    if shown.clusters is not None:
        clusters = Stored(ClustersStep, shown.clusters)
        metrics |= purities(clusters.record(Place(brain, one)).facts for one in sections_with(brain, clusters))
    return {name: value for name, value in metrics.items() if np.isfinite(value)}


def map_metrics(training: Training | None, mapped: Mapping[str, Facts]) -> dict[str, float]:
    """Scores of the smoothed label maps of the held-out sections, where there are any."""
    confusion = _map_confusion(training, mapped)
    if confusion is None or not confusion.sum():
        return {}
    return {"map/macro_f1": map_macro_f1(confusion), "map/top1": accuracy(confusion)}


def _map_confusion(training: Training | None, mapped: Mapping[str, Facts]) -> NDArray[np.int64] | None:
    held_out = training.metrics.get("held_out", {}).get("sections", []) if training else []
    found = [mapped[one] for one in held_out if one in mapped]
    counts = [np.array(facts["confusion"], dtype=np.int64) for facts in found if "confusion" in facts]
    return np.sum(counts, axis=0) if counts else None


Rows = list[Mapping[str, Any]]


def _scores(training: Training | None, mapped: Mapping[str, Facts]) -> tuple[Rows, Rows]:
    """The rows of the table of scores, and those of the classes."""
    if training is None:
        return [], []
    rows: Rows = [_score_row(PART_NAMES[part], facts) for part, facts in training.metrics.items()]
    held_out = training.metrics.get("held_out")
    if not held_out:
        return rows, []
    confusion = _map_confusion(training, mapped)
    if confusion is not None:
        rows.append(
            {
                "name": "the smoothed map, held-out sections",
                "sections": len(held_out["sections"]),
                "macro_f1": _shown(map_macro_f1(confusion)),
                "top1": _shown(accuracy(confusion)),
                "top3": "-",
            }
        )
    return rows, [{key: _shown(value) for key, value in row.items()} for row in held_out["classes"]]


def _score_row(name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    shown = {key: _shown(facts[key]) for key in ("macro_f1", "top1", "top3")}
    return {"name": name, "sections": len(facts["sections"]), **shown}


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _legends(card: HeadCard | None, clusters: int) -> dict[str, Sequence[LegendEntry]]:
    legends: dict[str, Sequence[LegendEntry]] = {}
    if card is not None:
        colours = class_colours(card.classes)
        entries = [LegendEntry(one.name, rgb) for one, rgb in zip(card.classes, colours, strict=True)]
        legends[card.target.capitalize()] = entries
    if clusters:
        legends["Clusters"] = [LegendEntry(f"{i + 1}", rgb) for i, rgb in enumerate(distinct_colours(clusters))]
    return legends


def _subtitle(brain: Brain) -> str:
    """Species, stain and cutting plane, as far as the manifest states them."""
    columns = ([getattr(one, name) for one in brain.sections] for name in ("species", "stain", "plane"))
    stated = [sorted({value for value in column if value != "unstated"}) for column in columns]
    return ", ".join("/".join(values) for values in stated if values)


def _headline(
    brain: Brain, entries: Iterable[SectionEntry], drawn: Sections[Facts], metrics: Mapping[str, float]
) -> list[tuple[str, str]]:
    figures = [
        ("sections mapped", f"{len(drawn)} of {len(brain.sections)}"),
        ("sections failed", str(sum(entry.status == "failed" for entry in entries))),
        ("mm2 of tissue", f"{sum(one['area_mm2'] for one in drawn.values()):.1f}"),
    ]
    for name, what in (
        ("held_out/macro_f1", "macro-F1, held out"),
        ("map/macro_f1", "macro-F1 of the smoothed map"),
        ("clusters/purity_labels", "cluster purity against labels"),
        ("clusters/purity_sections", "cluster purity against sections"),
    ):
        if name in metrics:
            figures.append((what, f"{metrics[name]:.3f}"))
    return figures


def _notices(
    brain: Brain, embedded: Mapping[str, Facts], labels: Mapping[str, Any], pixels: Mapping[str, str]
) -> list[str]:
    origins = sorted({section.labels_origin for section in brain.sections if section.section_id in labels})
    words = {
        "automatic": "made automatically (by registration to an atlas), not drawn by an expert",
        "molecular": "derived from gene expression, not from cytoarchitecture",
        "phantom": "those of a phantom",
        "unstated": "of unstated origin (column labels_origin of the manifest)",
    }
    notices = [
        f"The labels are {words[origin]}: scores say how well the map agrees with them, no more."
        for origin in origins
        if origin in words
    ]
    upsampled = [one for one, facts in embedded.items() if facts["upsampled"]]
    if upsampled:
        notices.append(
            f"{len(upsampled)} section(s) are coarser than the pixel size the encoder sees and were upsampled for it: "
            + ", ".join(upsampled[:8])
            + (", ..." if len(upsampled) > 8 else "")
        )
    alike: dict[str, list[str]] = {}
    for one, digest in pixels.items():
        alike.setdefault(digest, []).append(one)
    notices += [
        f"Sections {', '.join(ids)} show the very same pixels: check the manifest. No score compares them."
        for ids in alike.values()
        if len(ids) > 1
    ]
    if not labels:
        notices.append("No section has labels: nothing was trained; embeddings and clusters only.")
    return notices
