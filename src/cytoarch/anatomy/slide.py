"""The slide that a section lies on: how bright it is at every place, how noisy, and what of the picture is no scan.

Tissue is told from the slide beside it, not from a fixed grey: every channel is compared with the bare slide at the
same place, and the difference is judged by the noise of that slide.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cytoarch.errors import SectionError

Float32 = NDArray[np.float32]
Mask = NDArray[np.bool_]
Polarity = Literal["dark", "bright"]

RIM_PX = 4
"""Width of the rim of the scan that is looked at first."""
MODE_SHARE = 0.25
"""The slide is at least this share of the rim."""
NOISE_FLOOR = 0.004
"""Least noise of a slide, as a share of the picture's range: 1 grey level of 255. A clipped slide shows none at all."""
PADDING_SHARE = 0.005
"""Least share of a picture that is looked at as padding."""
STRAIGHT = 0.6
"""Share of an edge that lies along two directions: a frame's is 0.85-0.95, a brain's 0.15-0.4."""
SEPARATE = 0.1
"""Padding differs from the glass beside it by this share of the spread of what is inside, and by 3 times its noise."""
ROUNDS = 3
"""How often the slide is fitted on the rim, and then everywhere, each time to what looked like it the time before."""
UNEVEN = 0.15
"""Share of the picture's range by which uneven light may change the slide."""


@dataclass(frozen=True)
class Slide:
    """The bare slide, as it would look where tissue lies on it."""

    level: Float32
    """(c, y, x) what the slide shows at every place."""
    noise: float
    """Standard deviation of the slide (mean of the channels, pixels smoothed by 1 px)."""
    polarity: Polarity
    """Whether tissue is darker or brighter than the slide."""
    scanned: Mask
    """(y, x) what is no padding."""
    bare: Mask
    """(y, x) what looks like the slide and is connected with the rim."""

    @property
    def sign(self) -> float:
        """-1 where tissue is dark, 1 where it is bright."""
        return -1.0 if self.polarity == "dark" else 1.0

    def differences(self, pixels: Float32) -> Float32:
        """By how much every channel (c, y, x) differs from the slide, positive towards tissue."""
        return np.asarray((pixels - self.level) * np.float32(self.sign))


def find_slide(pixels: Float32, polarity: Polarity | None = None) -> Slide:
    """The slide of a picture (c, y, x) float32 of any range.

    Its level is the commonest one on the rim of the scan, followed inwards as a smooth surface (a polynomial of degree
    2). Where the scan is padded, the rim is that of the scan and not of the picture. Tissue lies on the side on which
    there is more to see, unless `polarity` is stated. Raises SectionError if the picture is flat.
    """
    smooth = ndimage.gaussian_filter(pixels, (0, 1, 1))
    grey = smooth.mean(axis=0)
    if float(np.ptp(grey)) < 1e-6:
        raise SectionError("the scan is one flat grey: there is no tissue to find; check the scan")
    scanned = ~_padding(pixels)
    rim = scanned & ~ndimage.binary_erosion(scanned, iterations=RIM_PX)
    low, high = np.percentile(grey[scanned], (1, 99))
    span = max(float(high - low), 1e-6)
    level = _along(smooth, rim, span)
    excess = np.where(scanned, grey - level.mean(axis=0), 0)
    sign = -1.0 if -excess[excess < 0].sum() > excess[excess > 0].sum() else 1.0
    stated = {"dark": -1.0, "bright": 1.0, None: sign}[polarity]
    if stated != sign:  # the rim is tissue: the slide is what lies on the other side of it
        rim = scanned & (stated * excess < -0.5 * np.abs(excess).max())
        level = _along(smooth, rim, span)
    return _grown(smooth, scanned, rim, level, NOISE_FLOOR * span, stated)


def commonest(values: NDArray[np.floating]) -> tuple[float, float]:
    """The commonest value, and the standard deviation of a normal population around it.

    It is the middle of the shortest interval that holds MODE_SHARE of the values (a half-sample mode, Bickel and
    Fruehwirth 2006, not halved further); a normal population holds a quarter within 0.3186 deviations of its mean.

    >>> commonest(np.r_[np.full(30, 7.0), np.linspace(0, 100, 70)])
    (7.0, 0.0)
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    count = min(len(ordered), max(2, int(MODE_SHARE * len(ordered))))
    lengths = ordered[count - 1 :] - ordered[: len(ordered) - count + 1]
    first = int(lengths.argmin())
    return float(ordered[first : first + count].mean()), float(lengths[first]) / 2 / 0.3186


def _along(smooth: Float32, rim: Mask, span: float) -> Float32:
    """The surface through what is near the commonest grey of the rim: a wide band at first, for uneven light."""
    middle, noise = commonest(smooth.mean(axis=0)[rim])
    level = np.full_like(smooth, middle)
    for number in range(ROUNDS):
        reach = max(3 * noise, UNEVEN * span) / 2**number
        on = rim & (np.abs((smooth - level).mean(axis=0)) < reach)
        level = _surface(smooth, on, degree=1 if number == 0 else 2)
    return level


def _grown(smooth: Float32, scanned: Mask, rim: Mask, level: Float32, floor: float, sign: float) -> Slide:
    """The surface through all that looks like it and is connected with the rim, and the noise of that."""
    excess = sign * (smooth - level).mean(axis=0)
    noise = max(commonest(excess[rim])[1], floor)
    bare = rim
    for _ in range(ROUNDS):
        bare = connected(scanned & (np.abs(excess) < 3 * noise), rim)
        level = _surface(smooth, bare, degree=2)
        excess = sign * (smooth - level).mean(axis=0)
        off = excess[bare & (excess < 0)]  # tissue lies on the other side: this one is all slide
        noise = max(float(np.sqrt((off**2).mean())) if len(off) else 0.0, floor)
    return Slide(level, noise, "dark" if sign < 0 else "bright", scanned, bare)


def _surface(planes: Float32, on: Mask, degree: int, most: int = 20_000) -> Float32:
    """(c, y, x) polynomials of y and x fitted to the pixels of a mask, some `most` of which are used."""
    height, width = on.shape
    y, x = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)[None]
    powers = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    rows, columns = (one[:: max(1, len(one) // most)] for one in np.nonzero(on))
    terms = np.stack([(y[rows, 0] ** i) * (x[0, columns] ** j) for i, j in powers], axis=1).astype(np.float64)
    factors = np.linalg.lstsq(terms, planes[:, rows, columns].T.astype(np.float64), rcond=None)[0].astype(np.float32)
    level = np.zeros_like(planes)
    for (i, j), own in zip(powers, factors, strict=True):
        level += own[:, None, None] * (y**i * x**j)
    return level


def _padding(pixels: Float32) -> Mask:
    """What was put around a scan: one exact value up to straight edges, beside which lies the glass, which differs."""
    spread = ndimage.maximum_filter(pixels, (1, 3, 3)) - ndimage.minimum_filter(pixels, (1, 3, 3))
    flat = connected(spread.max(axis=0) == 0, border(spread.shape[1:]))
    nothing = np.zeros_like(flat)
    if flat.mean() < PADDING_SHARE or flat.all():
        return nothing
    near = ndimage.binary_dilation(flat, iterations=2)  # flat leaves out the last pixel, and the next may be mixed
    ring = ndimage.binary_dilation(near, iterations=RIM_PX) & ~near
    inside = pixels.mean(axis=0)[~ndimage.binary_dilation(near, iterations=2 * RIM_PX)]
    if not ring.any() or len(inside) < ring.sum():
        return nothing
    grey = pixels.mean(axis=0)
    level, noise = commonest(grey[ring])
    lower, upper = np.percentile(inside, (25, 75))
    difference, within = abs(level - float(np.median(grey[flat]))), float(upper - lower)
    is_glass = noise < within / 4 and difference > max(3 * noise, SEPARATE * within)
    return near if is_glass and _straightness(flat) > STRAIGHT else nothing


def _straightness(mask: Mask) -> float:
    """Share of a mask's edge that runs along its two commonest directions, each 10 degrees wide."""
    soft = ndimage.gaussian_filter(mask.astype(np.float32), 2.5, mode="nearest")
    edge = mask & ~ndimage.binary_erosion(mask, border_value=1)
    angles = np.arctan2(ndimage.sobel(soft, 0)[edge], ndimage.sobel(soft, 1)[edge]) % np.pi
    counts = np.histogram(angles, bins=36, range=(0, np.pi))[0]
    shares = (counts + np.roll(counts, 1)) / max(1, len(angles))
    first = int(shares.argmax())
    apart = (np.arange(36) - first) % 36
    return float(shares[first] + shares[(apart > 1) & (apart < 35)].max())


def connected(mask: Mask, seeds: Mask) -> Mask:
    """The parts of a mask that hold a seed; pixels touch at their corners, too."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    kept = np.zeros(count + 1, dtype=np.bool_)
    kept[labels[seeds & mask]] = True
    kept[0] = False
    return np.asarray(kept[labels])


def border(shape: tuple[int, ...]) -> Mask:
    """The outermost pixels of a picture (y, x)."""
    mask = np.ones(shape, dtype=np.bool_)
    mask[1:-1, 1:-1] = False
    return mask
