"""The head of a report: figures, what is to be known of the data, and what colours mean."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cytoarch.brains import Brain, LabelTable
from cytoarch.exports.legends import legend_of_classes
from cytoarch.learning.cards import HeadCard
from cytoarch.palette import distinct_colours
from cytoarch.reporting.page import LegendEntry, SectionEntry
from cytoarch.steps.report_scores import PART_NAMES
from cytoarch.steps.sources import Sections
from cytoarch.steps.step import Facts


def legends(
    card: HeadCard | None, table: LabelTable | None, clusters: int, drawn: Iterable[Facts] = ()
) -> dict[str, Sequence[LegendEntry]]:
    """What colours mean: those of the classes of a map that pictures show, then those of so many clusters.

    A label table may name hundreds of classes that are nowhere in the brain; `drawn` are the facts of its pictures.
    """
    legends: dict[str, Sequence[LegendEntry]] = {}
    if card is not None:
        shown = {one for facts in drawn for one in facts.get("classes", ())}
        rows = [row for one, row in enumerate(legend_of_classes(card.classes, table)) if one in shown]
        legends[card.target.capitalize()] = [LegendEntry(one.name, one.colour, one.group) for one in rows]
    if clusters:
        legends["Clusters"] = [LegendEntry(f"{i + 1}", rgb) for i, rgb in enumerate(distinct_colours(clusters))]
    return legends


def subtitle(brain: Brain) -> str:
    """Species, stain and cutting plane, as far as the manifest states them."""
    columns = ([getattr(one, name) for one in brain.sections] for name in ("species", "stain", "plane"))
    stated = [sorted({value for value in column if value != "unstated"}) for column in columns]
    return ", ".join("/".join(values) for values in stated if values)


def headline(
    brain: Brain, entries: Iterable[SectionEntry], drawn: Sections[Facts], metrics: Mapping[str, float], hardest: str
) -> list[tuple[str, str]]:
    """The figures at the top: what, value; `hardest` is the part of the scores that `headline/macro_f1` is of."""
    figures = [
        ("sections mapped", f"{len(drawn)} of {len(brain.sections)}"),
        ("sections failed", str(sum(entry.status == "failed" for entry in entries))),
        ("mm2 of tissue", f"{sum(one['area_mm2'] for one in drawn.values()):.1f}"),
    ]
    for name, what in (
        ("headline/macro_f1", f"macro-F1, {PART_NAMES.get(hardest, hardest)}"),
        ("map/macro_f1", "macro-F1 of the map, sections not learned from"),
        ("clusters/purity_labels", "cluster purity against labels"),
        ("clusters/purity_sections", "cluster purity against sections"),
    ):
        if name in metrics:
            figures.append((what, f"{metrics[name]:.3f}"))
    if "familiarity/outside95" in metrics:
        figures.append(
            ("of it looks unlike what the model learned from", f"{100 * metrics['familiarity/outside95']:.0f} %")
        )
    return figures


def notices(
    brain: Brain, embedded: Mapping[str, Facts], labels: Mapping[str, Any], pixels: Mapping[str, str]
) -> list[str]:
    """What is to be known of labels, pixel sizes and pixels; `labels` and `pixels` are digests by section."""
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
        notices.append("No section has labels: nothing was trained on this brain.")
    return notices
