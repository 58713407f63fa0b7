"""Charts as PNG files."""

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cytoarch.reporting.rendered import figure_png

MAX_NUMBERED = 16
"""Confusion matrices of more classes are drawn without numbers in the cells."""


def confusion_chart(confusion: NDArray[np.int64], names: Sequence[str], title: str) -> bytes:
    """A confusion matrix, each row as shares of its true class, as PNG."""
    count = len(names)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    edge = float(np.clip(2.2 + 0.42 * count, 4.2, 16))
    figure = Figure(figsize=(edge + 1, edge), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    step = max(1, count // 60)
    axes.set_xticks(range(0, count, step), [names[i] for i in range(0, count, step)], rotation=90)
    axes.set_yticks(range(0, count, step), [names[i] for i in range(0, count, step)])
    axes.tick_params(labelsize=9 if count <= 30 else 6, length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("known")
    axes.set_title(title, fontsize=10)
    if count <= MAX_NUMBERED:
        for row, column in np.ndindex(count, count):
            if confusion[row].sum():
                share = shares[row, column]
                colour = "white" if share > 0.55 else "#333"
                axes.text(column, row, f"{share:.2f}", ha="center", va="center", fontsize=8, color=colour)
    figure.colorbar(picture, ax=axes, shrink=0.8, label="share of the known class")
    return figure_png(figure)


def loss_chart(losses: Sequence[float]) -> bytes:
    """The loss of every step, faint, and its running mean over a fiftieth of them, as PNG."""
    values = np.asarray(losses, dtype=np.float64)
    width = max(1, len(values) // 50)
    running = np.convolve(values, np.full(width, 1 / width), mode="valid")
    figure = Figure(figsize=(9, 2.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(np.arange(1, len(values) + 1), values, color="#b9c7e0", linewidth=0.7)
    axes.plot(np.arange(width, len(values) + 1), running, color="#2a5db0", linewidth=1.6)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.spines[["top", "right"]].set_visible(False)
    return figure_png(figure)
