"""The sheet of attention: patches as the encoder saw them, and where its class token looks."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cytoarch.reporting.pictures import Picture
from cytoarch.reporting.rendered import figure_png
from cytoarch.tiling import evenly

Float32 = NDArray[np.float32]

GAMMA = 0.5
"""Attention is shown as its square root (Schiffer et al.): few tokens take most of it."""
HEADS = 6
"""Heads that are drawn by themselves, evenly chosen."""
PANEL_INCH = 1.45


class Looked(NamedTuple):
    """A patch and the attention in it."""

    picture: Picture
    maps: Float32
    """(heads, gy, gx)."""
    section: str


def attention_sheet(rows: Sequence[Looked], edge_um: float) -> bytes:
    """A PNG: a row a patch, with the mean over heads and some heads beside it, each map from nothing to its most."""
    heads = evenly(len(rows[0].maps), HEADS)
    columns = 2 + len(heads)
    figure = Figure(figsize=(PANEL_INCH * columns + 0.2, PANEL_INCH * (0.94 * len(rows) + 0.35)), dpi=100)
    figure.set_layout_engine("constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        _bare(line[0], row.picture)
        line[0].set_ylabel(row.section, fontsize=7)
        for place, one in zip(line[1:], (row.maps.mean(axis=0), *row.maps[heads]), strict=True):
            _bare(place, (one / max(float(one.max()), 1e-12)) ** GAMMA, cmap="magma", vmin=0, vmax=1)
    for place, title in zip(axes[0], ("patch", "all heads", *(f"head {one + 1}" for one in heads)), strict=True):
        place.set_title(title, fontsize=8, loc="left")
    figure.suptitle(f"patches of {edge_um:,.0f} um; bright: where the class token looks", fontsize=9, x=0.01, ha="left")
    return figure_png(figure)


def _bare(axes: Axes, values: NDArray[np.generic], **how: object) -> None:
    axes.imshow(values, interpolation="nearest" if how else "antialiased", **how)  # type: ignore[arg-type]
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
