"""The HTML pages of a brain: no server, no network; pictures lie beside them, and only the viewer needs a script.

A brain of few sections is one page. Larger ones have a first page with a thumbnail a section, and further pages that
show some sections each, so that every page opens at once however many sections there are.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from cytoarch.palette import Rgb
from cytoarch.reporting.findings import Findings
from cytoarch.reporting.rendered import templates
from cytoarch.tiling import evenly

VIEWER_FILE = "viewer.html"
LAYERS = {
    "map": "map",
    "unsmoothed": "map before smoothing",
    "confidence": "confidence",
    "labels": "labels",
    "pca": "embeddings (PCA)",
    "clusters": "clusters",
}
"""What the viewer can lay over the scan, in the order of its keys."""
GLANCE = ("map", "clusters", "pca")
"""What is laid over the scans at the top of the first page: the first of these that there is."""
AT_A_GLANCE = 6
"""Sections shown there."""
FIRST_LOOKS = 24
"""Sections that are shown before all others."""
SECTIONS_A_PAGE = 60
"""Sections whose pictures share a page."""


@dataclass(frozen=True)
class SectionEntry:
    """A section on the page."""

    section_id: str
    section_number: int
    status: str
    """kept, excluded, or failed"""
    reason: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    pictures: Mapping[str, str] = field(default_factory=dict)
    """Caption -> path relative to the page."""
    thumbnail: str = ""
    """Path relative to the page; blank: none."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """What it was made from -> sha256."""
    layers: Mapping[str, str] = field(default_factory=dict)
    """What the viewer lays over the scan -> path relative to the page."""


@dataclass(frozen=True)
class LegendEntry:
    """A colour and what it means."""

    name: str
    colour: Rgb
    group: str = ""
    """What it belongs to; blank: it stands for itself."""


MOST_IN_LEGEND = 40
"""Entries of a legend that are all seen; more are shown by group, which opens."""


def legend_groups(entries: Sequence[LegendEntry]) -> list[tuple[str, list[LegendEntry]]]:
    """The entries of a legend by group, in order of first appearance; all under no name where they are few."""
    if len(entries) <= MOST_IN_LEGEND or not any(one.group for one in entries):
        return [("", list(entries))]
    found: dict[str, list[LegendEntry]] = {}
    for one in entries:
        found.setdefault(one.group or one.name, []).append(one)
    return list(found.items())


@dataclass(frozen=True)
class Placement:
    """How the sections were put together to a brain."""

    sheet: str
    """Path of the contact sheet, relative to the page."""
    page: str
    """Path of the page that shows every section."""
    figures: Sequence[tuple[str, str]]
    flags: Mapping[str, Sequence[str]]
    """Sections to be looked at -> reasons."""
    remarks: Sequence[str]


@dataclass(frozen=True)
class Page:
    """Everything the page shows."""

    brain_id: str
    subtitle: str
    """Species, stain, plane: what the manifest states of all sections."""
    headline: Sequence[tuple[str, str]]
    """Figures at the top: what, value."""
    notices: Sequence[str]
    sections: Sequence[SectionEntry]
    legends: Mapping[str, Sequence[LegendEntry]]
    scores: Sequence[Mapping[str, Any]]
    """Rows of the score table: name, sections, macro_f1, top1, top3."""
    per_class: Sequence[Mapping[str, Any]]
    charts: Mapping[str, str]
    """Caption -> path relative to the page."""
    provenance: Sequence[tuple[str, str]]
    placement: Placement | None = None
    familiarity: Sequence[Mapping[str, Any]] = ()
    """Rows of the table of how far the brain lies from what the model learned from: name, tokens, outside95, outside99,
    words."""
    findings: Findings = field(default_factory=Findings)
    quality: str = ""
    """Path of the page that shows the quality of every scan; blank: there is none."""


def render_pages(page: Page) -> dict[str, bytes]:
    """The pages by file name, `index.html` first; every text from outside is escaped."""
    environment = templates()
    ordered = list(page.sections)
    parts = [ordered[first : first + SECTIONS_A_PAGE] for first in range(0, len(ordered), SECTIONS_A_PAGE)]
    names = [f"sections-{number:03d}.html" for number in range(1, len(parts) + 1)] if len(parts) > 1 else []
    places = {one.section_id: file for file, part in zip(names, parts, strict=False) for one in part}
    by_id = {one.section_id: one for one in ordered}
    looks = [(by_id[one], why) for one, why in page.findings.first_looks.items() if one in by_id][:FIRST_LOOKS]
    environment.globals |= {"looks": looks, "glance": _glance(ordered), "legend_groups": legend_groups}
    pages = {"index.html": environment.get_template("page.html.jinja").render(page=page, places=places)}
    sections = environment.get_template("sections.html.jinja")
    for number, file in enumerate(names):
        around = {"before": names[number - 1] if number else "", "after": (*names, "")[number + 1]}
        pages[file] = sections.render(page=page, sections=parts[number], **around)
    if any(one.layers for one in ordered):
        pages[VIEWER_FILE] = _viewer(environment, page)
    return {name: text.encode() for name, text in pages.items()}


def _glance(sections: Sequence[SectionEntry]) -> list[tuple[SectionEntry, str]]:
    """Sections from all along the brain, each with what is laid over its scan."""
    kind = next((one for one in GLANCE if any(one in section.layers for section in sections)), "")
    drawn = [one for one in sections if kind in one.layers and "scan" in one.layers]
    inner = drawn[1:-1] if len(drawn) > AT_A_GLANCE + 1 else drawn  # the ends of a brain show little
    return [(inner[place], kind) for place in evenly(len(inner), AT_A_GLANCE)]


def _viewer(environment: Environment, page: Page) -> str:
    """The page that turns through the sections."""
    there = {kind for one in page.sections for kind in one.layers}
    kinds = {kind: title for kind, title in LAYERS.items() if kind in there}
    data = [
        {"id": one.section_id, "status": one.status, "remarks": one.reason, "layers": dict(one.layers)}
        for one in page.sections
    ]
    # "<" cannot end the script that the data stands in
    text = Markup(json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"))  # noqa: S704
    first = next((kind for kind in ("map", "labels", "clusters", "pca") if kind in kinds), "")
    return environment.get_template("viewer.html.jinja").render(page=page, kinds=kinds, first=first, data=text)
