"""The picture of embeddings that were laid out: the same points again and again, coloured by what is known of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from cytoarch.palette import Rgb, hex_colour
from cytoarch.reporting.rendered import figure_png

Int64 = NDArray[np.int64]

COLUMNS = 3
"""Panels in a row; four panels share one."""
MOST_NAMED = 12
"""Values that stand in the legend of a panel; more are drawn without one."""
GREY = (0.8, 0.8, 0.8)
SIDES = (
    ("in three dimensions", 22, -60),
    ("turned by 90 degrees", 22, 30),
    ("from above", 75, -60),
    ("turned by 180 degrees", 22, 120),
)
"""From where three dimensions are seen: as it is called, elevation, turn."""
WIDTH, TITLE, LEGEND, EDGE = 12.5, 0.65, 0.9, 0.12
"""Of the figure, above it, below a panel, and around all (inches)."""


class Coloured(NamedTuple):
    """What a panel colours points by."""

    title: str
    values: Int64
    """(n,) index into names and colours, -1 unknown."""
    names: Sequence[str]
    colours: Sequence[Rgb]


def layout_picture(flat: NDArray[Any], deep: NDArray[Any], panels: Sequence[Coloured], title: str) -> bytes:
    """A PNG: points (n, 2) once for each way of colouring them, and points (n, 3) by the first way from all sides."""
    columns = len(panels) if len(panels) == COLUMNS + 1 else COLUMNS
    rows = -(-len(panels) // columns)
    edge = (WIDTH - EDGE) / columns - EDGE
    height = TITLE + rows * (edge + LEGEND) + edge + EDGE
    figure = Figure(figsize=(WIDTH, height), dpi=90)
    FigureCanvasAgg(figure)

    def panel_at(row: int, column: int, **kind: Any) -> Axes:
        top = TITLE + row * (edge + LEGEND)
        place = (EDGE + column * (edge + EDGE)) / WIDTH, 1 - (top + edge) / height, edge / WIDTH, edge / height
        return figure.add_axes(place, **kind)

    order = np.random.default_rng(0).permutation(len(flat))  # what is drawn last hides what lies below
    size = float(np.clip(9000 / max(1, len(flat)), 1.5, 14))
    for number, panel in enumerate(panels):
        axes = panel_at(*divmod(number, columns))
        axes.scatter(flat[order, 0], flat[order, 1], c=_inks(panel)[order], s=size, linewidths=0, rasterized=True)
        _finish(axes, panel)
    for number, (side, elevation, turn) in enumerate(SIDES[:columns]):
        axes = panel_at(rows, number, projection="3d")
        drawn: Any = axes
        drawn.scatter(*deep[order].T, c=_inks(panels[0])[order], s=size, linewidths=0, depthshade=False)
        drawn.view_init(elevation, turn)
        for axis in (drawn.xaxis, drawn.yaxis, drawn.zaxis):
            axis.set_ticklabels([])
        axes.set_title(f"{panels[0].title}, {side}" if number == 0 else side, fontsize=9)
    figure.text(EDGE / WIDTH, 1 - 0.12 / height, title, fontsize=11, va="top")
    return figure_png(figure)


def _inks(panel: Coloured) -> NDArray[np.float64]:
    table = np.array([*(np.array(one) / 255 for one in panel.colours), GREY])
    return np.asarray(table[panel.values])


def _finish(axes: Axes, panel: Coloured) -> None:
    axes.set_title(panel.title, fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#ccc")
    named = [(name, colour) for name, colour in zip(panel.names, panel.colours, strict=True) if name]
    if 0 < len(named) <= MOST_NAMED:
        dots = [
            Line2D([], [], marker="o", linestyle="", markersize=5, color=hex_colour(colour), label=name)
            for name, colour in named
        ]
        axes.legend(handles=dots, fontsize=7.5, loc="upper left", bbox_to_anchor=(0, -0.01), ncols=3, frameon=False,
                    handletextpad=0.2, columnspacing=0.8)  # fmt: skip


def ramp(count: int) -> list[Rgb]:
    """Colours of values that have an order, dark to bright.

    >>> len(ramp(5))
    5
    """
    from matplotlib import colormaps

    shades = colormaps["viridis"](np.linspace(0, 1, max(count, 2)))[:count, :3]
    return [(round(red * 255), round(green * 255), round(blue * 255)) for red, green, blue in shades.tolist()]
