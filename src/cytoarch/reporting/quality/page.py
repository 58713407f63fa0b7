"""The page of all sections, with the doubtful ones first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cytoarch.geometry import centres
from cytoarch.reporting.quality.figures import number, shown_figures
from cytoarch.reporting.quality.flags import flags
from cytoarch.reporting.rendered import templates


@dataclass(frozen=True)
class QualityEntry:
    """A section on the page of quality."""

    section_id: str
    section_number: int
    status: str = "kept"
    """kept, excluded, or failed"""
    reason: str = ""
    picture: str = ""
    """Path relative to the page; blank: none."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Those of `section_quality`; empty: not measured."""
    doubts: Sequence[str] = ()
    """Why its tissue should be looked at."""


CURVES = {
    "detail_um": "finest detail (um): low is sharp",
    "tissue_mm2": "tissue (mm2)",
    "tissue_level": "grey value of the tissue",
    "clipped": "clipped tissue (share)",
}
CURVE_WIDTH, CURVE_HEIGHT = 1000, 56


def render_quality_page(brain_id: str, entries: Sequence[QualityEntry], subtitle: str = "") -> bytes:
    """All sections in cutting order as one HTML page without script; failed and flagged ones are listed first.

    Pictures are loaded as they are scrolled to. Every text from outside is escaped.
    """
    ordered = sorted(entries, key=lambda one: one.section_number)
    measured = {one.section_id: one.figures for one in ordered if one.figures}
    doubts = {one.section_id: list(one.doubts) for one in ordered}
    found = {name: [*said, *doubts[name]] for name, said in flags(measured).items()}
    template = templates().get_template("quality/page.html.jinja")
    return template.render(
        brain_id=brain_id,
        subtitle=subtitle,
        entries=ordered,
        flags=found,
        failed=[one for one in ordered if one.status == "failed"],
        flagged=[one for one in ordered if found.get(one.section_id)],
        facts={name: shown_figures(one) for name, one in measured.items()},
        curves=[_curve(key, words, measured, found) for key, words in CURVES.items()] if len(measured) > 1 else [],
        curve_size=(CURVE_WIDTH, CURVE_HEIGHT),
    ).encode()


def _curve(
    key: str, words: str, measured: Mapping[str, Mapping[str, float]], found: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """A figure along the cutting order: points of a line, and the flagged sections as dots. Far values are cut off."""
    values = np.array(
        [max(one["clipped_dark"], one["clipped_bright"]) if key == "clipped" else one[key] for one in measured.values()]
    )
    top = max(min(float(values.max()), 4 * float(np.median(values))), 0.01 if key == "clipped" else 1e-6)
    x = centres(0, CURVE_WIDTH, len(values))
    y = CURVE_HEIGHT - 4 - np.minimum(values / top, 1) * (CURVE_HEIGHT - 8)
    dots = [
        {"id": name, "x": f"{x[i]:.1f}", "y": f"{y[i]:.1f}", "text": f"{name}: {'; '.join(found[name])}"}
        for i, name in enumerate(measured)
        if found[name]
    ]
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return {"words": words, "points": points, "dots": dots, "top": number(top)}
