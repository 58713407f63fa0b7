"""The page that shows what embeddings know of the structure of cortex: R2 by components, their shares, places."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cytoarch.reporting.rendered import figure_png, templates

COLUMNS = 4
LOWEST = -0.25
"""R2 is drawn from here; what is lower lies on the edge."""
COLOURS = {"embedding": "#1f5fa8", "profile": "#9a9a9a"}
LINES = {"points": "-", "sections": "--"}

Rows = Sequence[Mapping[str, str]]
"""Rows of a CSV table."""


@dataclass(frozen=True)
class JudgedEntry:
    """A brain on the page."""

    brain_id: str
    points: int
    left_out: int
    layers: str
    """What is said of its layers."""
    best: Sequence[tuple[str, Mapping[str, str]]]
    """Measure -> best R2 by features and folds, as text."""
    curves: str
    """Path of the figure of R2 by components, relative to the page."""
    shares: str
    """Path of the figure of the shares of components; blank: none could be fitted."""
    attention: str = ""
    """Path of the sheet of attention; blank: none was drawn."""
    attended_by: str = ""
    """Whose attention it is."""
    as_embedded: bool = True
    """Whether that is exactly what embedded the points."""


@dataclass(frozen=True)
class StructurePage:
    """Everything the page shows."""

    study: str
    points: str
    """What was embedded, and how."""
    brains: Sequence[JudgedEntry]
    places: Rows
    settings: Sequence[tuple[str, str]]


def structure_curves(scores: Rows) -> bytes:
    """One small plot a measure: R2 on points held out, by the number of components, as PNG."""
    measures = list(dict.fromkeys(one["measure"] for one in scores))
    rows = -(-len(measures) // COLUMNS)
    figure = Figure(figsize=(3.1 * COLUMNS, 2.2 * rows + 0.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    plots = np.atleast_1d(figure.subplots(rows, COLUMNS, sharey=True, squeeze=False)).ravel()
    counts = sorted({int(one["components"]) for one in scores} - {0})
    for axes, measure in zip(plots, measures, strict=False):
        _curves(axes, [one for one in scores if one["measure"] == measure], counts)
        axes.set_title(measure, fontsize=9, loc="left")
    for axes in plots[len(measures) :]:
        axes.set_axis_off()
    handles, labels = plots[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    figure.supylabel("R2 on points held out", fontsize=9)
    return figure_png(figure)


def _curves(axes: Axes, scores: Rows, counts: Sequence[int]) -> None:
    """The curves of one measure; a mark at the right for the features as they are."""
    for features, colour in COLOURS.items():
        for way, line in LINES.items():
            mine = [one for one in scores if (one["features"], one["folds_of"]) == (features, way)]
            known = {int(one["components"]): float(one["r2"]) for one in mine}
            at = [counts.index(one) if one else len(counts) for one in known]
            values = np.clip(list(known.values()), LOWEST, 1)
            axes.plot(at, values, line, color=colour, marker="o", markersize=3, label=f"{features}, folds of {way}")
    axes.axhline(0, color="#ccc", linewidth=0.8, zorder=0)
    axes.set_ylim(LOWEST, 1)
    axes.set_xticks(range(len(counts) + 1), [*map(str, counts), "all"], fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def share_chart(shares: Rows) -> bytes:
    """How much each component has to do with each measure, as PNG: a row a measure."""
    measures = list(dict.fromkeys(one["measure"] for one in shares))
    count = max(int(one["component"]) for one in shares)
    values: NDArray[np.float64] = np.full((len(measures), count), np.nan)
    for one in shares:
        values[measures.index(one["measure"]), int(one["component"]) - 1] = float(one["share"])
    figure = Figure(figsize=(3.2 + 0.28 * count, 1.3 + 0.26 * len(measures)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    picture = axes.imshow(values, cmap="Blues", vmin=0, vmax=max(0.2, float(np.nanmax(values))), aspect="auto")
    axes.set_yticks(range(len(measures)), measures, fontsize=8)
    step = max(1, count // 16)
    axes.set_xticks(range(0, count, step), [str(one + 1) for one in range(0, count, step)], fontsize=8)
    axes.tick_params(length=0)
    axes.set_xlabel("principal component", fontsize=9)
    figure.colorbar(picture, ax=axes, shrink=0.9, label="share, |beta|")
    return figure_png(figure)


def render_structure(page: StructurePage) -> bytes:
    """The page; every text from outside is escaped."""
    environment = templates()
    kinds: dict[str, Any] = {f"{features}/{way}": f"{features}, {way}" for features in COLOURS for way in LINES}
    return environment.get_template("structure.html.jinja").render(page=page, kinds=kinds).encode()
