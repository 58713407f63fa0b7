"""How good a scan is: its sharpness, how much of it is clipped, and which of a series of values stand out."""

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Mask = NDArray[np.bool_]

FULL_SCALES = (255, 1023, 4095, 16383, 65472, 65520, 65532, 65535)
"""Where cameras of 8 to 16 bits saturate, their bits at the lower or the upper end of a 16-bit number."""
FLAT = 1e-9
"""Variance relative to the squared mean below which a cell shows nothing."""
NEIGHBOURS = 4
"""Values on either side that one in a series is compared with."""


def roughness(grey: Float32, cell_px: int) -> tuple[Float64, Float64]:
    """Two maps (gy, gx): half the mean squared difference of neighbouring pixels, and the variance, of every cell.

    `grey` (y, x) is averaged over 2 x 2 pixels first: that takes three quarters of the variance of a camera's noise,
    and little of cells that are worth scanning. Cells of `cell_px` pixels (even) lie side by side from the corner;
    what is left at the far edges is not looked at.
    """
    edge = cell_px // 2
    rows, columns = grey.shape[0] // (2 * edge), grey.shape[1] // (2 * edge)
    kept = grey[: rows * 2 * edge, : columns * 2 * edge].astype(np.float64)
    cells = kept.reshape(rows, edge, 2, columns, edge, 2).mean(axis=(2, 5))
    centred = cells - cells.mean(axis=(1, 3), keepdims=True)
    down, across = np.diff(centred, axis=1), np.diff(centred, axis=3)
    rough = ((down**2).mean(axis=(1, 3)) + (across**2).mean(axis=(1, 3))) / 4
    spread = (centred**2).mean(axis=(1, 3))
    flat = spread <= FLAT * cells.mean(axis=(1, 3)) ** 2
    return np.where(flat, 0.0, rough), np.where(flat, 0.0, spread)


def sharpness(grey: Float32, cell_px: int) -> Float32:
    """Sharpness (gy, gx) of every cell of a grey image (y, x): 0 all blurred, 1 as unlike as noise; NaN where flat.

    One minus the correlation of neighbouring pixels, which is the focus measure of Vollath ("Automatic focusing by
    correlative methods", J. Microscopy 147, 1987) divided by the variance, also known as Geary's contiguity ratio
    (The Incorporated Statistician 5, 1954). Brightness and contrast of the stain cancel out; smoothing lowers it.
    """
    rough, spread = roughness(grey, cell_px)
    return _divided(rough, spread).astype(np.float32)


def pooled_sharpness(grey: Float32, inside: Mask, cell_px: int) -> float:
    """Sharpness of the cells that lie inside a mask (y, x), taken together; NaN where there are none or all are flat.

    Cells count by their variance: where the tissue is empty there is only noise, which looks sharp.
    """
    rough, spread = roughness(grey, cell_px)
    edge = cell_px // 2 * 2
    rows, columns = rough.shape
    whole = inside[: rows * edge, : columns * edge].reshape(rows, edge, columns, edge).all(axis=(1, 3))
    return float(_divided(rough[whole].sum(), spread[whole].sum()))


def detail_px(sharp: float) -> float:
    """Width (sigma, in pixels) of the Gaussian blur that makes noise as smooth as an image of this sharpness.

    The correlation of noise blurred by sigma is exp(-d^2 / 4 sigma^2) at distance d, here the 2 pixels averaged.

    >>> round(detail_px(1 - np.exp(-0.25)), 6)
    2.0
    """
    return float(2 * np.sqrt(-0.25 / np.log1p(-np.clip(sharp, 1e-6, 0.99))))


def _divided(over: Float64, under: Float64) -> Float64:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(under > 0, over / under, np.nan)


def full_scale(largest: int) -> int:
    """The value at which a camera that gave `largest` saturates: the end of the smallest range that holds it.

    >>> full_scale(200), full_scale(4095), full_scale(5000)
    (255, 4095, 16383)
    """
    return next(end for end in FULL_SCALES if end >= largest)


def clipped(counts: Int64, end: int) -> tuple[Float64, Float64]:
    """Shares (c,) of pixels at 0 and at `end` or above, from counts (c, values) of every value; 0 without pixels."""
    total = np.maximum(counts.sum(axis=1), 1)
    return counts[:, 0] / total, counts[:, end:].sum(axis=1) / total


def contrast(tissue: float, slide: float) -> float:
    """Michelson's contrast of slide against tissue, -1 to 1: positive where the tissue is the darker one.

    >>> contrast(50.0, 150.0), contrast(0.0, 0.0)
    (0.5, 0.0)
    """
    return (slide - tissue) / (slide + tissue) if slide + tissue > 0 else 0.0


def separation(tissue: Float32, slide: Float32) -> float:
    """How far the medians of two samples of grey values (n,), (m,) lie apart, in robust standard deviations of both.

    At most 1000, where both are constant; 0 where one of them is empty.
    """
    if not len(tissue) or not len(slide):
        return 0.0
    middles = [float(np.median(one)) for one in (tissue, slide)]
    spreads = [1.4826 * float(np.median(np.abs(one - at))) for one, at in zip((tissue, slide), middles, strict=True)]
    apart = abs(middles[0] - middles[1])
    return min(1000.0, apart / max(float(np.mean(spreads)), apart / 1000)) if apart else 0.0


def edge_share(mask: Mask) -> float:
    """Share of the pixels along the edge of a mask (y, x) that are set."""
    return float(np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean()) if mask.size else 0.0


def robust_z(values: Float64) -> Float64:
    """How far values (n,) lie from their median, in standard deviations estimated from the median absolute deviation.

    The modified z-score of Iglewicz and Hoaglin (How to Detect and Handle Outliers, 1993), who call it an outlier
    beyond 3.5. Where more than half of the values are equal, all others are infinitely far.

    >>> robust_z(np.array([1.0, 2.0, 3.0, 4.0, 5.0])).round(3).tolist()
    [-1.349, -0.674, 0.0, 0.674, 1.349]
    """
    away = values - np.median(values)
    spread = float(np.median(np.abs(away))) / 0.6744897501960817
    return away / spread if spread > 0 else np.where(away == 0, 0.0, np.copysign(np.inf, away))


def expected_from_neighbours(values: Float64) -> Float64:
    """For every value of a series (n,) what its neighbours let expect.

    Two values are expected from up to `NEIGHBOURS` on either side: their median, and that of the line through them
    (Theil-Sen: the median of the slopes of all pairs), so that a series that rises or ends is no surprise. What is
    returned is the value itself if it lies between the two, else the nearer one. In a series of less than three every
    value is as expected.
    """
    if len(values) < 3:
        return values.copy()
    place = np.array([at for at in range(-NEIGHBOURS, NEIGHBOURS + 1) if at], dtype=np.int64)
    padded = np.pad(values.astype(np.float64), NEIGHBOURS, constant_values=np.nan)
    near = padded[np.arange(len(values))[:, None] + NEIGHBOURS + place]  # (n, neighbours), NaN beyond the ends
    first, second = np.triu_indices(len(place), 1)
    slope = np.nanmedian((near[:, second] - near[:, first]) / (place[second] - place[first]), axis=1)
    line = np.nanmedian(near - slope[:, None] * place, axis=1)
    middle = np.nanmedian(near, axis=1)
    return np.clip(values, np.minimum(line, middle), np.maximum(line, middle))
