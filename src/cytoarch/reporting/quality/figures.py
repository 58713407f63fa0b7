"""Figures of how good the scan of a section is.

However large a section is, at most 12 x 12 windows of its full resolution are read; the rest comes from an overview.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.geometry import centres, first_around
from cytoarch.images.views import StoredImage
from cytoarch.measures import quality
from cytoarch.reporting.pictures import picture_grid

GRID = 12
"""Most windows along an edge of the tissue."""
WINDOW_PX, SMALLEST_WINDOW_PX = 256, 32
"""Edges of the windows of full resolution: the usual one, and the least in small sections."""
CELL_PX, SMALL_CELL_PX = 64, 32
"""Edges of the cells within which sharpness is judged: in windows of the usual size, and in smaller ones."""
OVERVIEW_PX = 480
"""Longer edge of the section in its picture, and where its grey values are taken."""
RIM = 0.05
"""Width of the slide around the tissue that is looked at, as a share of the tissue's."""
BLURRED = 0.5
"""A window is blurred if its sharpness is below this share of the section's median."""


@dataclass(frozen=True)
class Samples:
    """What the windows of a section showed."""

    sharpness: NDArray[np.float32]
    """(gy, gx), NaN in windows without tissue."""
    box_um: tuple[float, float, float, float]
    """(y0, x0, y1, x1) of the grid of windows, from the corner of the section."""
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
    middles = centres(y0, y1, rows), centres(x0, x1, columns)
    for row, column in np.ndindex(rows, columns):
        y = _start(float(middles[0][row]), window, level.array.chunks[-2], level.size[0])
        x = _start(float(middles[1][column]), window, level.array.chunks[-1], level.size[1])
        pixels = level.pixels(slice(y, y + window), slice(x, x + window)).reshape(image.channels, window, window)
        inside = tissue.on_grid(level.grid.window(y, x, window, window))
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
    whole = np.array(image.grid.shape, dtype=np.float64)
    if not tissue.mask.any():
        return 0.0, 0.0, float(whole[0]), float(whole[1])
    held = [np.flatnonzero(tissue.mask.any(axis=axis)) for axis in (1, 0)]
    first, count = np.array([at[0] for at in held]), np.array([at[-1] + 1 - at[0] for at in held])
    held_grid = tissue.grid.window(int(first[0]), int(first[1]), int(count[0]), int(count[1]))
    corner = image.grid.from_corner(np.array(held_grid.corner_um))
    size = count * tissue.pixel_size_um / image.pixel_size_um
    y0, x0 = np.maximum(corner - RIM * size, 0).tolist()
    y1, x1 = np.minimum(corner + size + RIM * size, whole).tolist()
    return y0, x0, y1, x1


def _start(centre: float, window: int, chunk: int, size: int) -> int:
    """First pixel of the window nearest to a centre that lies within one chunk, so that one is decoded, not four."""
    start = first_around(centre, window)
    if chunk >= window:
        first = int(centre) // chunk * chunk
        start = min(max(start, first), first + chunk - window)
    return min(max(start, 0), size - window)


def section_quality(image: StoredImage, tissue: TissueMask, samples: Samples | None = None) -> dict[str, float]:
    """Figures of a section, all finite; those that cannot be measured are 0.

    sharpness (median over the windows, see `measures.quality.sharpness`), detail_um (the same as the width of a blur),
    blurred_share (of windows), clipped_dark and clipped_bright (shares of tissue pixels, worst channel), tissue_level
    and slide_level (median grey values), contrast (positive: tissue is darker), separation (of the two, in standard
    deviations), tissue_mm2, tissue_share (of the scan), edge_share (share of the scan's edge that is tissue),
    full_scale, pixel_size_um, height_px, width_px.
    """
    samples = sample_section(image, tissue) if samples is None else samples
    grid = picture_grid(image, OVERVIEW_PX)
    grey = image.on(grid).read(0, 0, *grid.shape).mean(axis=0)
    inside = tissue.on_grid(grid)
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
