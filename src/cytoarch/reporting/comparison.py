"""Brains side by side in one figure: their scores, and the classes that are told well or badly in each."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cytoarch.reporting.rendered import figure_png

MOST_BRAINS, MOST_CLASSES = 40, 60
MARKS = ("o", "s", "D", "^", "v")


class ComparedRow(NamedTuple):
    """A brain in the figure."""

    name: str
    scores: Mapping[str, float]
    """Name of the score -> value from 0 to 1."""
    classes: Mapping[str, float]
    """Class -> F1."""


def comparison_chart(rows: Sequence[ComparedRow], title: str) -> bytes:
    """One PNG: a line a brain with its scores on the left, F1 by class on the right where any is known.

    Shows the first MOST_BRAINS brains and MOST_CLASSES classes; the title says how many more there are.
    """
    shown = list(rows[:MOST_BRAINS])
    classes = list(dict.fromkeys(name for one in shown for name in one.classes))[:MOST_CLASSES]
    widths = [5.0, *([max(2.0, 0.42 * len(classes) + 1.2)] if classes else [])]
    figure = Figure(figsize=(sum(widths) + 2.2, 1.6 + 0.42 * len(shown)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = np.atleast_1d(figure.subplots(1, len(widths), sharey=True, width_ratios=widths))
    _draw_scores(axes[0], shown)
    if classes:
        _draw_classes(figure, axes[1], shown, classes)
    more = f" (the first {len(shown)} of {len(rows)})" if len(rows) > len(shown) else ""
    figure.suptitle(f"{title}{more}", fontsize=11, x=0.01, ha="left")
    return figure_png(figure)


def _draw_scores(axes: Axes, rows: Sequence[ComparedRow]) -> None:
    names = list(dict.fromkeys(name for one in rows for name in one.scores))
    for at, name in enumerate(names):
        known = [(one.scores[name], place) for place, one in enumerate(rows) if name in one.scores]
        colour = colormaps["tab10"](at % 10)
        values, places = zip(*known, strict=True)
        axes.scatter(values, places, label=name, color=colour, marker=MARKS[at % len(MARKS)], s=42, zorder=3)
    axes.set_yticks(range(len(rows)), [one.name for one in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.grid(axis="x", color="#ddd")
    axes.grid(axis="y", color="#f0f0f0")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
    if names:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.09), ncols=2, fontsize=8, frameon=False)


def _draw_classes(figure: Figure, axes: Axes, rows: Sequence[ComparedRow], classes: Sequence[str]) -> None:
    values = np.array([[one.classes.get(name, np.nan) for name in classes] for one in rows])
    picture = axes.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=8)
    axes.tick_params(length=0)
    for row, column in np.ndindex(*values.shape):
        if np.isfinite(values[row, column]):
            ink = "white" if values[row, column] > 0.55 else "#333"
            axes.text(column, row, f"{values[row, column]:.2f}", ha="center", va="center", fontsize=7, color=ink)
    axes.set_title("F1 by class", fontsize=9)
    figure.colorbar(picture, ax=axes, shrink=0.9)
