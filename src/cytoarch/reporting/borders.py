"""The picture of borders along the cortex of a section: on its scan, and as signals along its longest lines."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cytoarch.geometry import Transform
from cytoarch.palette import Rgb
from cytoarch.reporting.pictures import Picture
from cytoarch.reporting.rendered import figure_png

if TYPE_CHECKING:
    import pandas as pd

STRETCHES = 3
"""Longest stretches whose signals are drawn."""
INKS = ("#c2185b", "#00796b")
"""Of the ways borders are found, in their order."""
MARKS = ("o", "D")
NO_AREA = (0.92, 0.92, 0.92)


def borders_picture(
    scan: Picture, to_picture: Transform, tables: Mapping[str, "pd.DataFrame"], colours: Mapping[str, Rgb]
) -> bytes:
    """A PNG: the scan as it was scanned with the borders marked on it; below, signals along the longest stretches.

    `tables` holds borders by how they were found, with the columns of `steps.borders.FOUND_COLUMNS`; `to_picture` leads
    from pixels (y, x) of the scan to those of the picture; `colours` are those of areas by name, drawn as a strip where
    labels say which area a point lies in.
    """
    rows = [(name, table, stretch) for name, table in tables.items() for stretch in longest(table)]
    figure = Figure(figsize=(11, 6.4 + 1.35 * len(rows)), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1 + len(rows), 1, height_ratios=[4.6, *[1.0] * len(rows)], squeeze=False)[:, 0]
    _draw_scan(axes[0], scan, to_picture, tables)
    for one, (name, table, stretch) in zip(axes[1:], rows, strict=True):
        ink = INKS[list(tables).index(name) % len(INKS)]
        _draw_stretch(one, name, table[table["stretch"] == stretch], ink, colours)
    if rows:
        axes[-1].set_xlabel("mm along the line")
    return figure_png(figure)


def longest(table: "pd.DataFrame") -> list[int]:
    """The stretches with the most points that have a signal, longest first, at most `STRETCHES`."""
    counts = table[table["signal"].notna()].groupby("stretch").size().sort_values(ascending=False, kind="stable")
    return [int(one) for one in counts.index[:STRETCHES]]


def _draw_scan(axes: Axes, scan: Picture, to_picture: Transform, tables: Mapping[str, "pd.DataFrame"]) -> None:
    axes.imshow(scan)
    for number, (name, table) in enumerate(tables.items()):
        places = to_picture(table[["y_px", "x_px"]].to_numpy())
        axes.plot(places[:, 1], places[:, 0], ".", color="#4a6fa5", markersize=1.6, zorder=2)
        borders = places[table["border"].to_numpy(dtype=bool)]
        axes.plot(
            borders[:, 1], borders[:, 0], MARKS[number % len(MARKS)], color=INKS[number % len(INKS)], markersize=7,
            markerfacecolor="none", markeredgewidth=1.8, label=f"{name}: {len(borders)}", zorder=3,
        )  # fmt: skip
    axes.set_xlim(-0.5, scan.shape[1] - 0.5)
    axes.set_ylim(scan.shape[0] - 0.5, -0.5)
    axes.axis("off")
    if tables:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9, frameon=False, title="borders found by")


def _draw_stretch(axes: Axes, name: str, part: "pd.DataFrame", ink: str, colours: Mapping[str, Rgb]) -> None:
    along, signal = part["along_mm"].to_numpy(), part["signal"].to_numpy()
    axes.plot(along, signal, color=ink, linewidth=1.2)
    top = float(np.nanmax(signal)) * 1.12
    if name == "embeddings":
        axes.axhline(float(part["threshold"].iloc[0]), color="#888", linewidth=0.8, linestyle="--")
        top = max(top, float(part["threshold"].iloc[0]) * 1.12)
    for at in along[part["border"].to_numpy(dtype=bool)]:
        axes.axvline(at, color=ink, linewidth=1.6)
    if (part["area"] != "").any():
        _draw_areas(axes, along, part["area"].to_numpy(), colours)
    axes.set_ylim(0, max(top, 1e-9))
    axes.set_xlim(along[0], along[-1])
    axes.set_ylabel(f"{name}\nline {int(part['line'].iloc[0])}", fontsize=8)
    axes.tick_params(labelsize=8, length=2)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_areas(axes: Axes, along: NDArray[Any], areas: NDArray[Any], colours: Mapping[str, Rgb]) -> None:
    """A strip above the signal with the areas of the labels."""
    filled = np.array([np.array(colours[one]) / 255 if one in colours else NO_AREA for one in areas])
    strip = axes.inset_axes((0, 1.02, 1, 0.12))
    half = float(np.median(np.diff(along))) / 2 if len(along) > 1 else 0.5
    strip.imshow(filled[None], aspect="auto", extent=(along[0] - half, along[-1] + half, 0, 1), interpolation="nearest")
    strip.set_xlim(along[0], along[-1])
    strip.axis("off")
