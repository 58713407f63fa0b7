"""The sheet of nearest neighbours: patches as the encoder saw them, each row a query and what is most like it."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cytoarch.reporting.pictures import Picture
from cytoarch.reporting.rendered import figure_png

SAME, OTHER, UNTOLD, QUERY = "#2e7d32", "#c62828", "#9e9e9e", "#1d2330"
"""Frames: of the same label as the query, of another, of none that is known, and of the query itself."""


class Patch(NamedTuple):
    """A square of a section on the sheet."""

    picture: Picture
    section: str
    label: str
    """An area, a layer; blank: not known."""


class Row(NamedTuple):
    """A query and its nearest neighbours, the most alike first."""

    query: Patch
    near: Sequence[Patch]


def retrieval_sheet(rows: Sequence[Row], edge_um: float) -> bytes:
    """A PNG of all rows: frames say whether neighbours have the query's label, bold that they are of its section."""
    columns = 1 + max(len(one.near) for one in rows)
    figure = Figure(figsize=(1.5 * columns + 0.2, 1.78 * len(rows) + 0.75), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for row, line in zip(rows, axes, strict=True):
        for empty in line[1 + len(row.near) :]:
            empty.axis("off")
        _draw(line[0], row.query, QUERY, is_own=False)
        for patch, place in zip(row.near, line[1:], strict=False):
            known = bool(patch.label and row.query.label)
            ink = UNTOLD if not known else SAME if patch.label == row.query.label else OTHER
            _draw(place, patch, ink, is_own=patch.section == row.query.section)
    axes[0][0].set_title("query", fontsize=9, loc="left")
    if columns > 1:
        axes[0][1].set_title("most alike, falling", fontsize=9, loc="left")
    figure.suptitle(
        f"patches of {edge_um:,.0f} um; green frame: label of the query, red: another, grey: unknown; "
        "bold: section of the query",
        fontsize=9, x=0.01, ha="left",
    )  # fmt: skip
    return figure_png(figure)


def _draw(axes: Axes, patch: Patch, ink: str, *, is_own: bool) -> None:
    axes.imshow(patch.picture, interpolation="antialiased")
    height, width = patch.picture.shape[:2]
    axes.add_patch(Rectangle((-0.5, -0.5), width, height, fill=False, edgecolor=ink, linewidth=5))
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    text = patch.section if not patch.label else f"{patch.section}\n{patch.label}"
    axes.set_xlabel(text, fontsize=7, fontweight="bold" if is_own else "normal", labelpad=2)
