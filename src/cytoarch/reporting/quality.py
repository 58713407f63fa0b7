"""Which scans went wrong: figures and a picture of every section, and a page that puts the doubtful ones first.

However large a section is, at most 12 x 12 windows of its full resolution are read; the rest comes from an overview.
"""

import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.images.views import StoredImage
from cytoarch.measures import quality
from cytoarch.reporting.pictures import outlined, picture_grid, stain_picture

QUALITY_VERSION = 1

GRID = 12
"""Most windows along an edge of the tissue."""
WINDOW_PX, SMALLEST_WINDOW_PX = 256, 32
"""Edges of the windows of full resolution: the usual one, and the least in small sections."""
CELL_PX, SMALL_CELL_PX = 64, 32
"""Edges of the cells within which sharpness is judged: in windows of the usual size, and in smaller ones."""
OVERVIEW_PX = 480
"""Longer edge of the section in its picture."""
SHARPNESS_RANGE = (0.005, 1.0)
"""What the colours of the map of sharpness span, the same in all pictures so that they can be compared."""
LINEAR = 256
"""Grey value up to which the histograms of 16-bit scans are linear."""
BLURRED = 0.5
"""A window is blurred if its sharpness is below this share of the section's median."""


@dataclass(frozen=True)
class Samples:
    """What the windows of a section showed."""

    sharpness: NDArray[np.float32]
    """(gy, gx), NaN in windows without tissue."""
    box_um: tuple[float, float, float, float]
    """(y0, x0, y1, x1) of the grid of windows."""
    window_px: int
    tissue_counts: NDArray[np.int64]
    """(c, values): pixels of the tissue by value."""
    slide_counts: NDArray[np.int64]
    full_scale: int
    """The value at which the camera saturates."""


def sample_section(image: StoredImage, tissue: TissueMask) -> Samples:
    """Look at windows of full resolution, spread evenly over the tissue and its surroundings."""
    level = image.levels[0]
    y0, x0, y1, x1 = box = _box_px(image, tissue)
    cell = max((y1 - y0) / GRID, (x1 - x0) / GRID, float(SMALLEST_WINDOW_PX))
    rows, columns = (max(1, int(np.ceil(edge / cell - 1e-9))) for edge in (y1 - y0, x1 - x0))
    window = min(WINDOW_PX, int(cell), *level.size)
    values = int(np.iinfo(level.array.dtype).max) + 1
    counts = np.zeros((2, image.channels, values), dtype=np.int64)
    sharp = np.full((rows, columns), np.nan, dtype=np.float32)
    for row, column in np.ndindex(rows, columns):
        y = _start(y0 + (row + 0.5) * (y1 - y0) / rows, window, level.array.chunks[-2], level.size[0])
        x = _start(x0 + (column + 0.5) * (x1 - x0) / columns, window, level.array.chunks[-1], level.size[1])
        pixels = level.pixels(slice(y, y + window), slice(x, x + window)).reshape(image.channels, window, window)
        inside = _inside(tissue, y, x, window, image.pixel_size_um)
        for channel, plane in enumerate(pixels):
            counts[0, channel] += np.bincount(plane[inside], minlength=values)
            counts[1, channel] += np.bincount(plane[~inside], minlength=values)
        grey = pixels.mean(axis=0, dtype=np.float32)
        cell_px = CELL_PX if window == WINDOW_PX else SMALL_CELL_PX
        sharp[row, column] = quality.pooled_sharpness(grey, inside, cell_px)
    largest = int(np.flatnonzero(counts.any(axis=(0, 1))).max(initial=0))
    end = min(quality.full_scale(largest), values - 1)
    edges = [edge * image.pixel_size_um for edge in box]
    return Samples(sharp, (edges[0], edges[1], edges[2], edges[3]), window, counts[0], counts[1], end)


def _box_px(image: StoredImage, tissue: TissueMask) -> tuple[float, float, float, float]:
    """(y0, x0, y1, x1) of the tissue and a rim of slide, in pixels of full resolution; the whole image if empty."""
    height, width = image.level_for(image.pixel_size_um).size
    if not tissue.mask.any():
        return 0.0, 0.0, float(height), float(width)
    ratio = tissue.pixel_size_um / image.pixel_size_um
    found = []
    for axis, edge in ((1, height), (0, width)):
        at = np.flatnonzero(tissue.mask.any(axis=axis))
        rim = 0.05 * (at[-1] + 1 - at[0]) * ratio
        found.append((max(0.0, at[0] * ratio - rim), min(float(edge), (at[-1] + 1) * ratio + rim)))
    (y0, y1), (x0, x1) = found
    return y0, x0, y1, x1


def _start(centre: float, window: int, chunk: int, size: int) -> int:
    """First pixel of the window nearest to a centre that lies within one chunk, so that one is decoded, not four."""
    start = round(centre - window / 2)
    if chunk >= window:
        first = int(centre) // chunk * chunk
        start = min(max(start, first), first + chunk - window)
    return min(max(start, 0), size - window)


def _inside(tissue: TissueMask, y: int, x: int, window: int, pixel_size_um: float) -> NDArray[np.bool_]:
    """The tissue (window, window) at full resolution."""
    rows, columns = (
        np.minimum(((at + np.arange(window) + 0.5) * pixel_size_um / tissue.pixel_size_um).astype(int), size - 1)
        for at, size in zip((y, x), tissue.mask.shape, strict=True)
    )
    return np.asarray(tissue.mask[np.ix_(rows, columns)])


def section_quality(image: StoredImage, tissue: TissueMask, samples: Samples | None = None) -> dict[str, float]:
    """Figures of a section, all finite; those that cannot be measured are 0.

    sharpness (median over the windows, see `measures.quality.sharpness`), detail_um (the same as the width of a blur),
    blurred_share (of windows), clipped_dark and clipped_bright (shares of tissue pixels, worst channel), tissue_level
    and slide_level (median grey values), contrast (positive: tissue is darker), separation (of the two, in standard
    deviations), tissue_mm2, tissue_share (of the scan), edge_share (share of the scan's edge that is tissue),
    full_scale, pixel_size_um, height_px, width_px.
    """
    samples = sample_section(image, tissue) if samples is None else samples
    height, width, size_um = picture_grid(image, OVERVIEW_PX)
    grey = image.at(size_um).read(0, 0, height, width).mean(axis=0)
    inside = tissue.on_grid(height, width, size_um)
    levels = [float(np.median(grey[where])) if where.any() else 0.0 for where in (inside, ~inside)]
    seen = samples.sharpness[np.isfinite(samples.sharpness)]
    sharp = float(np.median(seen)) if len(seen) else 0.0
    dark, bright = quality.clipped(samples.tissue_counts, samples.full_scale)
    figures = {
        "sharpness": sharp,
        "detail_um": quality.detail_px(sharp) * image.pixel_size_um if sharp > 0 else 0.0,
        "blurred_share": float((seen < BLURRED * sharp).mean()) if len(seen) else 0.0,
        "clipped_dark": float(dark.max()),
        "clipped_bright": float(bright.max()),
        "tissue_level": levels[0],
        "slide_level": levels[1],
        "contrast": quality.contrast(*levels) if inside.any() and not inside.all() else 0.0,
        "separation": quality.separation(grey[inside], grey[~inside]),
        "tissue_mm2": float(tissue.mask.sum()) * (tissue.pixel_size_um / 1000) ** 2,
        "tissue_share": float(tissue.mask.mean()),
        "edge_share": quality.edge_share(tissue.mask),
        "full_scale": float(samples.full_scale),
        "pixel_size_um": image.pixel_size_um,
        "height_px": float(image.levels[0].size[0]),
        "width_px": float(image.levels[0].size[1]),
    }
    return {name: float(f"{value:.6g}") for name, value in figures.items()}


# -- the picture -----------------------------------------------------------------------------------------------------


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
    size_um = picture_grid(image, OVERVIEW_PX)[2]
    shown = figure.add_axes((0.004, 0.02, 0.29, 0.96))
    shown.imshow(outlined(stain, tissue, size_um), interpolation="antialiased")
    _scale_bar(shown, stain, size_um)
    _draw_sharpness(figure, stain, samples, size_um)
    _draw_histograms(figure, image, samples)
    lines = [line for what, value in facts.items() for line in textwrap.wrap(plain(f"{what}: {value}"), 33)[:4]]
    for row, line in enumerate(lines[:20]):
        figure.text(0.842, 0.955 - row * 0.047, line, fontsize=8, va="top", parse_math=False, color="#1d2330")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


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
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    axes.set_axis_off()


def _draw_sharpness(figure: Figure, stain: NDArray[np.uint8], samples: Samples, size_um: float) -> None:
    """The map of sharpness over the pale grey section, where the windows are."""
    axes = figure.add_axes((0.30, 0.02, 0.29, 0.96))
    axes.imshow(stain.mean(axis=-1), cmap="gray", vmin=-400, vmax=255, interpolation="antialiased")
    y0, x0, y1, x1 = (edge / size_um - 0.5 for edge in samples.box_um)
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


# -- which sections stand out ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """When a figure is told of: an outlier of its brain that differs by so much that it matters."""

    figure: str
    high: str = ""
    """What to say of a value that is too high; blank: nothing. May show {value}, {usual} and {whom}."""
    low: str = ""
    least_ratio: float = 1.0
    """Least factor between the value and the usual one."""
    least: float = 0.0
    """Least difference."""
    percent: bool = False
    """Show the figure as one."""
    neighbours: bool = False
    """Compare with the neighbours in the series instead of all sections."""


OUTLIER_Z = 3.5
FEWEST = 5
"""Fewer sections than this are not compared with each other."""
CLIPPED, EDGE, SMALLEST_MM2, LARGEST_MM2, SEPARATION = 0.1, 0.5, 0.05, 40_000.0, 0.5
"""A section is told of in any company beyond these shares of clipped tissue and of tissue along the edge, these areas,
and below this separation of tissue and slide (noise cut in two gives about 0.2)."""

_BLUR = "blurred compared with {whom}: finest detail {value} um, usual is {usual} um"
RULES = (
    Rule("detail_um", _BLUR, least_ratio=1.35, neighbours=True),
    Rule("detail_um", _BLUR, least_ratio=1.35),
    Rule(
        "blurred_share", "blurred in parts: {value} of the places looked at, usual is {usual}", percent=True, least=0.15
    ),
    Rule(
        "tissue_mm2",
        "more tissue than in its neighbours: {value} mm2, about {usual} expected (mask? pixel size?)",
        "less tissue than in its neighbours: {value} mm2, about {usual} expected (mask? pixel size?)",
        least_ratio=1.3,
        neighbours=True,
    ),
    Rule(
        "clipped_bright", "over-exposed: {value} of the tissue is saturated, usual is {usual}", percent=True, least=0.01
    ),
    Rule("clipped_dark", "under-exposed: {value} of the tissue is black, usual is {usual}", percent=True, least=0.01),
    Rule(
        "tissue_level",
        "tissue brighter than in {whom}: grey value {value}, usual is {usual} (exposure? stain?)",
        "tissue darker than in {whom}: grey value {value}, usual is {usual} (exposure? stain?)",
        least_ratio=1.4,
    ),
    Rule(
        "edge_share",
        "tissue on {value} of the scan's edge, usual is {usual} (cut off? mask?)",
        percent=True,
        least=0.15,
    ),
)


def flags(figures: Mapping[str, Mapping[str, float]]) -> dict[str, list[str]]:
    """What is doubtful about each section, in plain words, from the figures of a brain's sections in cutting order.

    A section stands out where its figure is an outlier by the robust z-score of all sections, or of all differences
    from the neighbours, and differs by enough to matter. Sections without tissue are compared with none.
    """
    found = {name: dict(_alone(one)) for name, one in figures.items()}
    names = [name for name, one in figures.items() if one["tissue_mm2"] > 0]
    if len(names) >= FEWEST:
        compared = {"pixel_size_um", "contrast", *(rule.figure for rule in RULES)}
        columns = {key: np.array([figures[name][key] for name in names], dtype=np.float64) for key in compared}
        for name, about, text in _against_most(names, columns):
            found[name][about] = text
        for rule in RULES:
            for name, text in _outliers(rule, names, columns[rule.figure]):
                found[name].setdefault(rule.figure, text)
    # another pixel size explains another sharpness
    return {
        name: [text for about, text in said.items() if about != "detail_um" or "pixel_size_um" not in said]
        for name, said in found.items()
    }


def _alone(figures: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    """What can be said of a section without looking at others, by the figure it is about."""
    area, share = figures["tissue_mm2"], figures["tissue_share"]
    dark, bright = figures["clipped_dark"], figures["clipped_bright"]
    if area <= 0:
        yield "tissue_mm2", "no tissue found: empty scan, or wrong threshold or polarity"
        return
    if 0 < share < 1 and figures["separation"] < SEPARATION:
        yield "separation", "tissue and slide are of the same grey: empty scan, or wrong mask"
    if figures["sharpness"] <= 0:
        yield "sharpness", "no structure in the tissue to judge its sharpness by"
    if bright > CLIPPED:
        yield "clipped_bright", f"over-exposed: {percent(bright)} of the tissue is saturated"
    if dark > CLIPPED:
        yield "clipped_dark", f"under-exposed: {percent(dark)} of the tissue is black"
    if not SMALLEST_MM2 < area < LARGEST_MM2:
        yield "tissue_mm2", f"tissue of {number(area)} mm2: check the pixel size"
    if figures["edge_share"] > EDGE:
        yield "edge_share", "most of the scan's edge is tissue: cut off, or wrong mask or polarity"


def _against_most(names: Sequence[str], columns: Mapping[str, NDArray[np.float64]]) -> Iterator[tuple[str, str, str]]:
    """(section, figure, what to say) of sections of another pixel size or polarity than most of their brain."""
    sizes, contrasts = columns["pixel_size_um"], columns["contrast"]
    usual, side = float(np.median(sizes)), float(np.median(np.sign(contrasts)))
    for name, size, contrast in zip(names, sizes, contrasts, strict=True):
        if not 0.98 < size / usual < 1.02:
            yield name, "pixel_size_um", f"pixel size {size:.4g} um where most sections have {usual:.4g} um"
        if contrast * side < 0:
            here, there = ("darker", "brighter") if contrast > 0 else ("brighter", "darker")
            text = f"tissue is {here} than the slide where in most sections it is {there}: check polarity"
            yield name, "contrast", text


def _outliers(rule: Rule, names: Sequence[str], values: NDArray[np.float64]) -> Iterator[tuple[str, str]]:
    near = rule.neighbours
    usual = quality.expected_from_neighbours(values) if near else np.full_like(values, np.median(values))
    scores = quality.robust_z(values - usual)
    whom = "its neighbours" if near else "the other sections"
    for name, value, expected, z in zip(names, values, usual, scores, strict=True):
        text = rule.high if z > 0 else rule.low
        large, small = max(value, expected), min(value, expected)
        matters = large >= small * rule.least_ratio and large - small > rule.least
        if text and value > 0 and abs(z) > OUTLIER_Z and matters:
            shown = percent if rule.percent else number
            yield name, text.format(value=shown(value), usual=shown(expected), whom=whom)


# -- the page --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class QualityEntry:
    """A section on the page of quality."""

    section_id: str
    section_number: int
    status: str = "kept"
    """kept, excluded, or failed"""
    reason: str = ""
    picture: str = ""
    """Path relative to the page; blank: none."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Those of `section_quality`; empty: not measured."""


CURVES = {
    "detail_um": "finest detail (um): low is sharp",
    "tissue_mm2": "tissue (mm2)",
    "tissue_level": "grey value of the tissue",
    "clipped": "clipped tissue (share)",
}
CURVE_WIDTH, CURVE_HEIGHT = 1000, 56


def render_quality_page(brain_id: str, entries: Sequence[QualityEntry], subtitle: str = "") -> bytes:
    """All sections in cutting order as one HTML page without script; failed and flagged ones are listed first.

    Pictures are loaded as they are scrolled to. Every text from outside is escaped.
    """
    ordered = sorted(entries, key=lambda one: one.section_number)
    measured = {one.section_id: one.figures for one in ordered if one.figures}
    found = flags(measured)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("cytoarch.reporting") / "quality.html.jinja").read_text(encoding="utf-8"))
    return template.render(
        brain_id=brain_id,
        subtitle=subtitle,
        entries=ordered,
        flags=found,
        failed=[one for one in ordered if one.status == "failed"],
        flagged=[one for one in ordered if found.get(one.section_id)],
        facts={name: shown_figures(one) for name, one in measured.items()},
        curves=[_curve(key, words, measured, found) for key, words in CURVES.items()] if len(measured) > 1 else [],
        curve_size=(CURVE_WIDTH, CURVE_HEIGHT),
    ).encode()


def shown_figures(figures: Mapping[str, float]) -> dict[str, str]:
    """The figures of a section as its row and its picture show them."""
    pixel, detail, sharp = figures["pixel_size_um"], figures["detail_um"], figures["sharpness"]
    return {
        "size": f"{figures['height_px']:.0f} x {figures['width_px']:.0f} px",
        "pixel": f"{pixel:.4g} um",
        "tissue": f"{number(figures['tissue_mm2'])} mm2, {percent(figures['tissue_share'])} of the scan",
        "finest detail": f"{number(detail)} um ({number(detail / pixel)} px)" if sharp > 0 else "-",
        "sharpness": f"{sharp:.2g}" if sharp > 0 else "-",
        "blurred in parts": percent(figures["blurred_share"]),
        "saturated": percent(figures["clipped_bright"]),
        "black": percent(figures["clipped_dark"]),
        "grey value": f"{number(figures['tissue_level'])} tissue, {number(figures['slide_level'])} slide",
    }


def number(value: float) -> str:
    """A figure without needless digits.

    >>> number(12345.6), number(12.345), number(0.01234)
    ('12346', '12.3', '0.0123')
    """
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def percent(share: float) -> str:
    """A share without needless digits.

    >>> percent(0.321), percent(0.0123), percent(0.0)
    ('32%', '1.2%', '0%')
    """
    return f"{share:.1%}" if 0 < share < 0.1 else f"{share:.0%}"


def _curve(
    key: str, words: str, measured: Mapping[str, Mapping[str, float]], found: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """A figure along the cutting order: points of a line, and the flagged sections as dots. Far values are cut off."""
    values = np.array(
        [max(one["clipped_dark"], one["clipped_bright"]) if key == "clipped" else one[key] for one in measured.values()]
    )
    top = max(min(float(values.max()), 4 * float(np.median(values))), 0.01 if key == "clipped" else 1e-6)
    x = (np.arange(len(values)) + 0.5) / len(values) * CURVE_WIDTH
    y = CURVE_HEIGHT - 4 - np.minimum(values / top, 1) * (CURVE_HEIGHT - 8)
    dots = [
        {"id": name, "x": f"{x[i]:.1f}", "y": f"{y[i]:.1f}", "text": f"{name}: {'; '.join(found[name])}"}
        for i, name in enumerate(measured)
        if found[name]
    ]
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return {"words": words, "points": points, "dots": dots, "top": number(top)}
