"""The picture of how good the scan of a section is."""

import textwrap
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.geometry import Grid
from cytoarch.images.views import StoredImage
from cytoarch.measures import quality
from cytoarch.reporting.pictures import outlined, picture_grid, stain_picture
from cytoarch.reporting.quality.figures import OVERVIEW_PX, Samples, sample_section
from cytoarch.reporting.rendered import figure_png

SHARPNESS_RANGE = (0.005, 1.0)
"""What the colours of the map of sharpness span, the same in all pictures so that they can be compared."""
LINEAR = 256
"""Grey value up to which the histograms of 16-bit scans are linear."""


def quality_picture(
    image: StoredImage, tissue: TissueMask, facts: Mapping[str, str], samples: Samples | None = None
) -> bytes:
    """One wide PNG: the stain with its tissue outlined, a map of sharpness, histograms, and `facts` as a list.

    Everything is shown as it was scanned: neither flipped nor turned.
    """
    samples = sample_section(image, tissue) if samples is None else samples
    figure = Figure(figsize=(13.2, 3.3), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    stain = stain_picture(image, OVERVIEW_PX)
    grid = picture_grid(image, OVERVIEW_PX)
    shown = figure.add_axes((0.004, 0.02, 0.29, 0.96))
    shown.imshow(outlined(stain, tissue, grid), interpolation="antialiased")
    _scale_bar(shown, stain, grid.cell_um)
    _draw_sharpness(figure, stain, samples, grid)
    _draw_histograms(figure, image, samples)
    lines = [line for what, value in facts.items() for line in textwrap.wrap(plain(f"{what}: {value}"), 33)[:4]]
    for row, line in enumerate(lines[:20]):
        figure.text(0.842, 0.955 - row * 0.047, line, fontsize=8, va="top", parse_math=False, color="#1d2330")
    return figure_png(figure)


def plain(text: str) -> str:
    """Text that the font of the pictures can show: other letters become question marks.

    >>> plain("brain 7,  %s" % chr(0x8111))
    'brain 7,  ?'
    """
    kept = "".join(letter if letter.isprintable() else " " for letter in text)
    return kept.encode("latin-1", "replace").decode("latin-1")


def scale_bar_um(width_um: float) -> float:
    """Length of a scale bar: 1, 2 or 5 times a power of ten, at most a quarter of the width.

    >>> scale_bar_um(10_000), scale_bar_um(700)
    (2000.0, 100.0)
    """
    power = 10.0 ** np.floor(np.log10(width_um / 4))
    return float(max(step * power for step in (1, 2, 5) if step * power <= width_um / 4 * (1 + 1e-9)))


def _scale_bar(axes: Axes, stain: NDArray[np.uint8], size_um: float) -> None:
    axes.autoscale(enable=False)  # what is drawn on the section does not change how much of it is shown
    height, width = stain.shape[:2]
    length_um = scale_bar_um(width * size_um)
    words = f"{length_um / 1000:g} mm" if length_um >= 1000 else f"{length_um:g} um"
    left, low = 0.03 * width, height * 0.95
    corner = stain[int(0.85 * height) :, : max(1, int(0.3 * width))]
    ink, rim = ("black", "white") if corner.mean() > 110 else ("white", "black")
    around = [withStroke(linewidth=3, foreground=rim)]
    right = left + length_um / size_um
    axes.plot([left, right], [low, low], color=ink, linewidth=3, solid_capstyle="butt", path_effects=around)
    axes.text(left, low - 0.02 * height, words, fontsize=9, va="bottom", color=ink, path_effects=around)
    axes.set_axis_off()


def _draw_sharpness(figure: Figure, stain: NDArray[np.uint8], samples: Samples, grid: Grid) -> None:
    """The map of sharpness over the pale grey section, where the windows are."""
    axes = figure.add_axes((0.30, 0.02, 0.29, 0.96))
    axes.imshow(stain.mean(axis=-1), cmap="gray", vmin=-400, vmax=255, interpolation="antialiased")
    corners_um = np.reshape(samples.box_um, (2, 2)) + np.array(grid.corner_um)
    (y0, x0), (y1, x1) = grid.cells(corners_um).tolist()
    norm = LogNorm(*SHARPNESS_RANGE, clip=True)
    drawn = axes.imshow(
        np.ma.masked_invalid(samples.sharpness), extent=(x0, x1, y1, y0), norm=norm, alpha=0.8, interpolation="nearest"
    )
    axes.set_xlim(x0, x1)
    axes.set_ylim(y1, y0)
    axes.set_axis_off()
    ticks = (0.01, 0.03, 0.1, 0.3, 1.0)
    bar = figure.colorbar(drawn, cax=figure.add_axes((0.595, 0.14, 0.008, 0.72)))
    bar.set_ticks(list(ticks), labels=[f"{tick:g}" for tick in ticks])
    bar.minorticks_off()
    bar.ax.tick_params(labelsize=7, length=2)
    figure.text(0.594, 0.89, "sharp", fontsize=8)
    figure.text(0.594, 0.07, "blurred", fontsize=8)


def _draw_histograms(figure: Figure, image: StoredImage, samples: Samples) -> None:
    """Grey values of tissue and slide, a panel per channel (four at most), with what is clipped marked in red."""
    shown = min(image.channels, 4)
    numbered = tuple(f"channel {i}" for i in range(shown)) if shown > 1 else ("grey",)
    names = ("red", "green", "blue") if image.attributes.get("kind") == "rgb" else numbered
    dark, bright = quality.clipped(samples.tissue_counts, samples.full_scale)
    end = samples.full_scale
    # the values of 16-bit scans crowd at the lower end: from LINEAR on, their axis is logarithmic
    edges = np.linspace(0, 256, 129) if end == 255 else np.r_[0:LINEAR:16, np.geomspace(LINEAR, end + 1, 96)]
    for channel in range(shown):
        height = 0.86 / shown
        axes = figure.add_axes((0.655, 0.97 - (channel + 1) * height, 0.17, height * 0.86))
        for counts, colour, fill in (
            (samples.slide_counts, "#9aa3b5", False),
            (samples.tissue_counts, "#2a5db0", True),
        ):
            of = counts[channel, : end + 1]
            share = np.histogram(np.arange(len(of)), bins=edges, weights=of)[0] / max(1, of.sum())
            axes.stairs(share, edges, color=colour, fill=fill, linewidth=1.0, alpha=0.75 if fill else 1.0)
        for at, lost, side in ((0, dark[channel], "left"), (end, bright[channel], "right")):
            if lost > 0.0005:
                axes.axvline(at, color="#b3261e", linewidth=2)
                where = {"left": 0.03, "right": 0.97}[side]
                axes.text(where, 0.6, f"{lost:.1%}", ha=side, fontsize=7, color="#b3261e", transform=axes.transAxes)
        axes.text(0.5, 0.98, names[channel], ha="center", va="top", fontsize=7, transform=axes.transAxes)
        axes.set_yscale("symlog", linthresh=0.001)
        axes.set_ylim(0, 1)
        axes.set_yticks([])
        axes.margins(x=0.01)
        last = channel == shown - 1
        if end > 255:
            axes.set_xscale("symlog", linthresh=LINEAR, linscale=0.4)
        ticks = [0, 64, 128, 192, 255] if end == 255 else [0, *(at for at in (256, 1000, 10_000) if at < end / 2), end]
        axes.set_xticks(ticks, labels=[f"{tick}" if last else "" for tick in ticks])
        axes.minorticks_off()
        axes.tick_params(labelsize=7, length=2)
        axes.spines[["top", "right", "left"]].set_visible(False)
    figure.text(0.655, 0.012, "tissue", fontsize=7, color="#2a5db0")
    figure.text(0.69, 0.012, "slide", fontsize=7, color="#7a8396")
    figure.text(0.72, 0.012, "red: clipped in tissue", fontsize=7, color="#b3261e")
