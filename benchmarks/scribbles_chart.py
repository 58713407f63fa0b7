"""The curve of scores against strokes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

COLOURS = ("#0072b2", "#56b4e9", "#009e73", "#cc79a7")
FOREST_COLOUR = "#d55e00"


def curve(path: Path, found: Mapping[str, Mapping[str, Sequence[Sequence[Any]]]]) -> None:
    """Draw macro-F1 against strokes, mean and range over runs: a row a kind of brain, drawn on and not."""
    mpl.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4 * len(found)), layout="constrained")
    axes = np.atleast_2d(figure.subplots(len(found), 2, sharey=True))
    for row, (kind, table) in zip(axes, found.items(), strict=True):
        for axis, (name, field) in zip(
            row, (("the section drawn on", "drawn"), ("another section", "unseen")), strict=True
        ):
            spare = iter(COLOURS)
            for method, runs in table.items():
                colour = FOREST_COLOUR if "forest" in method else next(spare)
                x = np.mean([[one.strokes for one in run] for run in runs], axis=0)
                y = np.array([[getattr(one, field) for one in run] for run in runs])
                axis.plot(x, y.mean(axis=0), marker="o", markersize=3, color=colour, label=method)
                axis.fill_between(x, y.min(axis=0), y.max(axis=0), color=colour, alpha=0.15, linewidth=0)
            axis.set(title=f"{kind}: {name}", xlabel="strokes", ylim=(0, 1), xlim=(0, None))
            axis.grid(alpha=0.3)
        row[0].set_ylabel("macro-F1 of the layers")
    axes[0, 0].legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=130)
