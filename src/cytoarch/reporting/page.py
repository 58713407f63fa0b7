"""One HTML page per brain: no server, no network, no script needed; pictures lie beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from cytoarch.palette import Rgb

REPORT_VERSION = 1


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


@dataclass(frozen=True)
class LegendEntry:
    """A colour and what it means."""

    name: str
    colour: Rgb


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


def render_page(page: Page) -> bytes:
    """The page as HTML; every text from outside is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("cytoarch.reporting") / "page.html.jinja").read_text(encoding="utf-8"))
    return template.render(page=page).encode()
