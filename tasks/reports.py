"""The report of a brain: gathers what the store holds and draws the page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from prefect import task

from cytoarch.brains import Brain, Section
from cytoarch.contents import (
    REPORT_NAME,
    labels_product,
    open_head,
    open_section,
    open_tissue,
    section_product,
    tissue_product,
)
from cytoarch.images.sections import LABEL_NAME
from cytoarch.images.views import StoredImage
from cytoarch.measures.overlap import accuracy, map_macro_f1
from cytoarch.palette import Rgb, class_colours, distinct_colours
from cytoarch.reporting import pictures
from cytoarch.reporting.charts import confusion_chart
from cytoarch.reporting.page import REPORT_VERSION, LegendEntry, Page, SectionEntry, render_page
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.products import Product, Step, Work
from cytoarch.store.records import Record
from cytoarch.store.staging import Staging
from tasks.learning import training_metrics
from tasks.sections import POLICY
from tasks.tracking import ModelVersion

PART_NAMES = {"fifth": "every fifth section", "block": "held-out block", "held_out": "both, held out"}


class Mapped(NamedTuple):
    """What was made of a brain: the names under which the store holds it."""

    embedding: str
    colours: str
    training: str | None = None
    parcellation: str | None = None
    clusters: str | None = None
    model: ModelVersion | None = None
    model_digest: str | None = None


@task(name="report", task_run_name="report of {brain.brain_id}", **POLICY)
def write_report(
    store_path: Path,
    brain: Brain,
    sections: tuple[Section, ...],
    failed: dict[str, str],
    mapped: Mapped,
    metrics: dict[str, float],
) -> bool:
    """Draw the page of a brain; says whether anything changed since it was drawn last."""
    store = BrainStore(store_path)
    records = {key: record for section in sections for key, record in _records(store, brain, section, mapped).items()}
    inputs = {key: record.digest for key, record in records.items()} | {"brain": brain.digest}
    if mapped.model_digest:
        inputs["model"] = mapped.model_digest
    stated = {
        "failed": failed,
        "model": list(mapped.model) if mapped.model else [],
        "metrics": {name: round(value, 6) for name, value in metrics.items()},
    }

    def write(staging: Staging) -> dict[str, Any]:
        entries = []
        for section in brain.sections:
            if section in sections:
                entries.append(_draw(store, section, mapped, records, staging))
            else:
                status, reason = (
                    ("excluded", section.reason)
                    if section.exclude
                    else ("failed", failed.get(section.section_id, "not ingested"))
                )
                entries.append(SectionEntry(section.section_id, section.section_number, status, reason))
        staging.write(
            "index.html", render_page(_page(store, brain, sections, entries, mapped, records, metrics, staging))
        )
        return {}

    _, made = store.ensure(Product(brain.brain_id, "report", REPORT_NAME), Work(REPORT_VERSION, inputs, stated), write)
    return made


def _records(store: BrainStore, brain: Brain, section: Section, mapped: Mapped) -> dict[str, Record]:
    """The records that a section's pictures are drawn from, by step and section."""
    brain_id, one = brain.brain_id, section.section_id
    products = [section_product(brain_id, one), tissue_product(brain_id, one)]
    products += [labels_product(brain_id, one)] if section.labels else []
    steps: dict[Step, str | None] = {
        "embeddings": mapped.embedding,
        "colours": mapped.colours,
        "parcellations": mapped.parcellation,
        "clusters": mapped.clusters,
    }
    products += [Product(brain_id, step, name, one) for step, name in steps.items() if name]
    return {f"{p.step}/{one}": store.require(p, "run map-brain") for p in products}


def _draw(
    store: BrainStore, section: Section, mapped: Mapped, records: Mapping[str, Record], staging: Staging
) -> SectionEntry:
    """Draw the pictures of one section into the report's folder."""
    brain_id, one = section.brain_id, section.section_id
    image = open_section(store, brain_id, one)
    height, width, size_um = pictures.picture_grid(image)
    base = pictures.stain_picture(image)
    shown = {"scan, tissue outlined": pictures.outlined(base, open_tissue(store, brain_id, one), size_um)}
    if section.labels:
        labels = StoredImage.open(store.path(labels_product(brain_id, one)) / LABEL_NAME)
        table = section_colours(store, section)
        values = pictures.label_values(labels, height, width, size_um)
        shown[f"labels ({section.labels_origin})"] = pictures.overlaid(base, values, table)
    colours = StoredImage.open(store.path(Product(brain_id, "colours", mapped.colours, one)))
    shown["embeddings, first three principal components"] = pictures.colour_picture(colours, height, width, size_um)
    if mapped.parcellation and mapped.model_digest:
        card = open_head(store, mapped.model_digest).card
        folder = store.path(Product(brain_id, "parcellations", mapped.parcellation, one))
        values = pictures.label_values(StoredImage.open(folder / "labels" / card.target), height, width, size_um)
        by_value = {c.ids[0]: rgb for c, rgb in zip(card.classes, class_colours(card.classes), strict=True)}
        shown[f"parcellation: {card.target}"] = pictures.overlaid(base, values, by_value)
    if mapped.clusters:
        folder = store.path(Product(brain_id, "clusters", mapped.clusters, one))
        values = pictures.label_values(StoredImage.open(folder / "labels" / "clusters"), height, width, size_um)
        by_value = dict(enumerate(distinct_colours(int(values.max(initial=1))), start=1))
        shown["clusters"] = pictures.painted(values, by_value)
    paths = {}
    for number, (caption, picture) in enumerate(shown.items()):
        key = f"sections/{one}-{number}.png"
        staging.write(key, pictures.png(pictures.oriented(picture, section.flip, section.rotation)))
        paths[caption] = key
    facts, tissue = records[f"sections/{one}"].facts, records[f"tissue/{one}"].facts
    details = {
        "pixel": f"{facts['pixel_size_um']:g} um ({facts['pixel_size_source']})",
        "size": " x ".join(str(edge) for edge in facts["shape"][1:]),
        "tissue": f"{tissue['area_mm2']:.1f} mm2",
    }
    return SectionEntry(one, section.section_number, "kept", "; ".join(facts["remarks"]), details, paths)


def section_colours(store: BrainStore, section: Section) -> dict[int, Rgb]:
    """Colours of the label ids in a section's brain."""
    table = store.read_brain(section.brain_id).label_table
    classes = table.classes(by_group=False) if table else ()
    return {one.ids[0]: rgb for one, rgb in zip(classes, class_colours(classes), strict=True)}


def _page(
    store: BrainStore,
    brain: Brain,
    sections: tuple[Section, ...],
    entries: list[SectionEntry],
    mapped: Mapped,
    records: Mapping[str, Record],
    metrics: Mapping[str, float],
    staging: Staging,
) -> Page:
    legends: dict[str, list[LegendEntry]] = {}
    charts: dict[str, str] = {}
    scores: list[dict[str, Any]] = []
    per_class: list[dict[str, Any]] = []
    if mapped.training and mapped.model_digest:
        card = open_head(store, mapped.model_digest).card
        names = [one.name for one in card.classes]
        legends[card.target.capitalize()] = [
            LegendEntry(one.name, rgb) for one, rgb in zip(card.classes, class_colours(card.classes), strict=True)
        ]
        _, parts = training_metrics(store, brain.brain_id, mapped.training)
        scores = [_score_row(PART_NAMES[part], facts) for part, facts in parts.items()]
        held_out = parts.get("held_out")
        if held_out:
            per_class = [{key: _shown(value) for key, value in row.items()} for row in held_out["classes"]]
            staging.write("confusion.png", confusion_chart(np.array(held_out["confusion"]), names, "held-out sections"))
            charts["Held-out sections: known classes by row, predicted by column, from embeddings"] = "confusion.png"
            on_map = _map_confusion(records, held_out["sections"])
            if on_map is not None:
                scores.append(_map_row(on_map, len(held_out["sections"])))
    if mapped.clusters:
        count = int(mapped.clusters[1 : mapped.clusters.index("-")])
        colours = distinct_colours(count)
        legends["Clusters"] = [LegendEntry(f"{i + 1}", rgb) for i, rgb in enumerate(colours)]
    return Page(
        brain_id=brain.brain_id,
        subtitle=_subtitle(brain),
        headline=_headline(brain, sections, entries, records, metrics),
        notices=_notices(sections, records),
        sections=entries,
        legends=legends,
        scores=scores,
        per_class=per_class,
        charts=charts,
        provenance=_provenance(brain, sections, mapped, records),
    )


def _subtitle(brain: Brain) -> str:
    """Species, stain and cutting plane, as far as the manifest states them."""
    columns = ([getattr(one, name) for one in brain.sections] for name in ("species", "stain", "plane"))
    stated = [sorted({value for value in column if value != "unstated"}) for column in columns]
    return ", ".join("/".join(values) for values in stated if values)


def _headline(
    brain: Brain,
    sections: tuple[Section, ...],
    entries: list[SectionEntry],
    records: Mapping[str, Record],
    metrics: Mapping[str, float],
) -> list[tuple[str, str]]:
    area = sum(records[f"tissue/{one.section_id}"].facts["area_mm2"] for one in sections)
    failed = sum(entry.status == "failed" for entry in entries)
    figures = [
        ("sections mapped", f"{len(sections)} of {len(brain.sections)}"),
        ("sections failed", str(failed)),
        ("mm2 of tissue", f"{area:.1f}"),
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


def _notices(sections: tuple[Section, ...], records: Mapping[str, Record]) -> list[str]:
    notices = []
    origins = sorted({section.labels_origin for section in sections if section.labels})
    doubtful = [origin for origin in origins if origin != "expert"]
    words = {
        "automatic": "made automatically (by registration to an atlas), not drawn by an expert",
        "molecular": "derived from gene expression, not from cytoarchitecture",
        "phantom": "those of a phantom",
        "unstated": "of unstated origin (column labels_origin of the manifest)",
    }
    notices += [
        f"The labels are {words[origin]}: scores say how well the map agrees with them, no more." for origin in doubtful
    ]
    upsampled = [one.section_id for one in sections if records[f"embeddings/{one.section_id}"].facts["upsampled"]]
    if upsampled:
        notices.append(
            f"{len(upsampled)} section(s) are coarser than the pixel size the encoder sees and were upsampled for it: "
            + ", ".join(upsampled[:8])
            + (", ..." if len(upsampled) > 8 else "")
        )
    if not any(section.labels for section in sections):
        notices.append("No section has labels: nothing was trained; embeddings and clusters only.")
    return notices


def _score_row(name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    shown = {key: _shown(facts[key]) for key in ("macro_f1", "top1", "top3")}
    return {"name": name, "sections": len(facts["sections"]), **shown}


def _map_confusion(
    records: Mapping[str, Record], held_out: list[str]
) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]] | None:
    found = [records[f"parcellations/{one}"].facts for one in held_out if f"parcellations/{one}" in records]
    counts = [np.array(facts["confusion"], dtype=np.int64) for facts in found if "confusion" in facts]
    return np.sum(counts, axis=0) if counts else None


def _map_row(confusion: np.ndarray[tuple[int, ...], np.dtype[np.int64]], sections: int) -> dict[str, Any]:
    return {
        "name": "the smoothed map, held-out sections",
        "sections": sections,
        "macro_f1": _shown(map_macro_f1(confusion)),
        "top1": _shown(accuracy(confusion)),
        "top3": "-",
    }


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _provenance(
    brain: Brain, sections: tuple[Section, ...], mapped: Mapped, records: Mapping[str, Record]
) -> list[tuple[str, str]]:
    rows = [("brain", brain.brain_id), ("manifest and label table", brain.digest), ("embeddings", mapped.embedding)]
    if sections:
        rows.append(("encoder digest", records[f"embeddings/{sections[0].section_id}"].inputs["encoder"]))
    if mapped.model is not None:
        alias = ", champion" if mapped.model.champion else ""
        rows.append(("model version", f"{mapped.model.name} version {mapped.model.version}{alias}"))
        rows.append(("MLflow run of the training", mapped.model.run_id))
    if mapped.model_digest:
        rows.append(("model digest", mapped.model_digest))
    for one in sections:
        rows.append((f"scan {one.section_id}", records[f"sections/{one.section_id}"].inputs["scan"]))
        if one.labels:
            rows.append((f"labels {one.section_id}", records[f"labels/{one.section_id}"].inputs["labels"]))
    return rows


def map_metrics(
    store: BrainStore, brain_id: str, sections: tuple[Section, ...], training: str, parcellation: str
) -> dict[str, float]:
    """Scores of the smoothed label maps of the held-out sections."""
    _, parts = training_metrics(store, brain_id, training)
    if "held_out" not in parts:
        return {}
    records = {
        f"parcellations/{one.section_id}": store.require(
            Product(brain_id, "parcellations", parcellation, one.section_id), "run parcellate-brain"
        )
        for one in sections
    }
    confusion = _map_confusion(records, parts["held_out"]["sections"])
    if confusion is None or not confusion.sum():
        return {}
    return {"map/macro_f1": map_macro_f1(confusion), "map/top1": accuracy(confusion)}
