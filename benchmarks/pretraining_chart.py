"""The chart of the study of pretraining, drawn from its results: `python -m benchmarks.pretraining_chart`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "pretraining_study.json"
CHART = Path(__file__).parents[1] / "docs" / "pretraining.png"
SPLITS = {"seen": "#9aa7b1", "transfer": "#4878a8", "unseen": "#d08a3c"}
ORDER = ("scratch", "SupCon", "SpatialNCE", "SimCLR", "lite0", "random")
NAMES = {"scratch": "from labels", "random": "untrained", "lite0": "lite0 (ImageNet)"}


def main() -> None:
    """Draw it."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    runs = {name: [one["scores"] for one in results["methods"][name]] for name in ORDER if name in results["methods"]}
    runs |= {name: [one] for name, one in results["rivals"].items()}
    figure = Figure(figsize=(11, 4), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    areas, layers = figure.subplots(1, 2, width_ratios=(1.5, 1))
    _draw_areas(areas, runs)
    _draw_layers(layers, runs)
    figure.savefig(CHART, dpi=130)


def _draw_areas(axes: Any, runs: dict[str, list[dict[str, Any]]]) -> None:
    """Bars of the mean, a dot for each seed."""
    for place, (split, colour) in enumerate(SPLITS.items()):
        for row, name in enumerate(ORDER):
            found = [one["areas"][split]["macro_f1"] for one in runs[name]]
            at = row + 0.27 * (place - 1)
            axes.bar(at, np.mean(found), width=0.25, color=colour, label=split if row == 0 else None)
            axes.plot([at] * len(found), found, "o", ms=3, color="black", mec="white", mew=0.4)
    axes.set_xticks(
        range(len(ORDER)), [f"{NAMES.get(one, one)}\n{_seeds(len(runs[one]))}" for one in ORDER], fontsize=8
    )
    axes.set(ylim=(0, 1), ylabel="macro-F1", title="24 areas, linear probe on patches")
    axes.legend(title="brains", frameon=False, fontsize=8, title_fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _seeds(count: int) -> str:
    return f"{count} seed" + ("s" if count > 1 else "")


def _draw_layers(axes: Any, runs: dict[str, list[dict[str, Any]]]) -> None:
    """Layers of unseen brains by the share of labels."""
    for name in ORDER:
        shares = sorted(runs[name][0]["layers"], key=float)
        means = [np.mean([one["layers"][share]["unseen"] for one in runs[name]]) for share in shares]
        percent = [100 * float(share) for share in shares]
        axes.plot(percent, means, "o-", ms=3, lw=1.3, label=NAMES.get(name, name))
    axes.set_xscale("log")
    axes.set_xticks([1, 5, 10, 20, 100], ["1", "5", "10", "20", "100"])
    axes.set(ylim=(0.2, 1), xlabel="% of 800 labelled patches", title="Layers of unseen brains, linear probe on tokens")
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
