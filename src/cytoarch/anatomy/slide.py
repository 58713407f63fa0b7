"""The slide that a section lies on: how bright it is at every place, how noisy, and what of the picture is no scan.

Tissue is told from the slide beside it, not from a fixed grey: every channel is compared with the bare slide at the
same place, and the difference is judged by the noise of that slide.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cytoarch.errors import SectionError
from cytoarch.geometry import centres

Float32 = NDArray[np.float32]
Mask = NDArray[np.bool_]
Polarity = Literal["dark", "bright"]

ENOUGH_PX = 384
"""Longer edge of the sample of a picture that the slide is fitted to."""
SOFT_PX = 0.6
"""Smoothing of a picture before anything is looked for (sd): more closes sulci, less breaks up noisy pale tissue."""
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
BROAD = 0.1
"""Share of the picture over which what remains of uneven light is smoothed (sd)."""
UNEVEN = 0.15
"""Share of the picture's range by which uneven light may change the slide."""


@dataclass(frozen=True)
class Slide:
    """The bare slide, as it would look where tissue lies on it."""

    level: Float32
    """(c, y, x) what the slide shows at every place."""
    noise: float
    """Standard deviation of the slide (mean of the channels, pixels smoothed by SOFT_PX)."""
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
    scanned = ~_padding(pixels)
    step = max(1, round(max(scanned.shape) / ENOUGH_PX))  # a slide is smooth: a sample of its pixels tells all of it
    smooth = ndimage.gaussian_filter(pixels, (0, SOFT_PX, SOFT_PX))[:, ::step, ::step]
    if float(np.ptp(smooth.mean(axis=0))) < 1e-6:
        raise SectionError("the scan is one flat grey: there is no tissue to find; check the scan")
    sampled = _slide(smooth, scanned[::step, ::step], polarity)
    down, along = (_between(n, step) for n in scanned.shape)
    level = np.stack([down @ plane @ along.T for plane in sampled.level])
    bare = np.repeat(np.repeat(sampled.bare, step, axis=0), step, axis=1)[: len(scanned), : scanned.shape[1]]
    return replace(sampled, level=level, scanned=scanned, bare=bare & scanned)


def _slide(smooth: Float32, scanned: Mask, polarity: Polarity | None) -> Slide:
    grey = smooth.mean(axis=0)
    rim = scanned & ~ndimage.binary_erosion(scanned, iterations=max(1, min(RIM_PX, min(grey.shape) // 12)))
    low, high = np.percentile(grey[scanned], (1, 99))
    span = max(float(high - low), 1e-6)
    level = _along(smooth, rim, span)
    excess = np.where(scanned, grey - level.mean(axis=0), 0)
    sign = -1.0 if -excess[excess < 0].sum() > excess[excess > 0].sum() else 1.0
    stated = {"dark": -1.0, "bright": 1.0, None: sign}[polarity]
    if stated != sign:  # the rim is tissue: the slide is what lies on the other side of it
        rim = scanned & (stated * excess < -0.5 * np.abs(excess).max())
        level = _along(smooth, rim, span)
    return _grown(smooth, scanned, rim, level, span, stated)


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
    for number in range(2 * ROUNDS):  # light that falls off is followed round by round, then the band narrows
        reach = max(3 * noise, UNEVEN * span) / 2 ** max(0, number - ROUNDS)
        on = rim & (np.abs((smooth - level).mean(axis=0)) < reach)
        level = _surface(smooth, on, degree=1 if number == 0 else 2)
    return level


def _grown(smooth: Float32, scanned: Mask, rim: Mask, level: Float32, span: float, sign: float) -> Slide:
    """The surface through all that looks like it and is connected with the rim, and the noise of that."""
    floor = NOISE_FLOOR * span
    excess = sign * (smooth - level).mean(axis=0)
    noise, bare = max(commonest(excess[rim])[1], floor), rim
    for number in range(ROUNDS):
        reach = max(3 * noise, UNEVEN * span / 2 ** (number + 2))
        bare = connected(scanned & (np.abs(excess) < reach), rim)
        level = _surface(smooth, bare, degree=2)
        level += _broadly(smooth - level, bare)
        excess = sign * (smooth - level).mean(axis=0)
        off = excess[bare & (excess < 0)]  # tissue lies on the other side: this one is all slide
        noise = max(float(np.sqrt((off**2).mean())) if len(off) else 0.0, floor)
    bare = connected(scanned & (np.abs(excess) < 3 * noise), rim)
    return Slide(level, noise, "dark" if sign < 0 else "bright", scanned, bare)


def _surface(planes: Float32, on: Mask, degree: int, most: int = 20_000) -> Float32:
    """(c, y, x) polynomials of y and x fitted to the pixels of a mask, some `most` of which are used."""
    y, x = (np.vander(np.linspace(-1, 1, n), degree + 1, increasing=True) for n in on.shape)
    powers = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    rows, columns = (one[:: max(1, len(one) // most)] for one in np.nonzero(on))
    terms = np.stack([y[rows, i] * x[columns, j] for i, j in powers], axis=1)
    fitted = np.linalg.lstsq(terms, planes[:, rows, columns].T.astype(np.float64), rcond=None)[0]
    factors = np.zeros((len(planes), degree + 1, degree + 1), dtype=np.float32)
    for (i, j), own in zip(powers, fitted, strict=True):
        factors[:, i, j] = own
    down, along = y.astype(np.float32), x.astype(np.float32).T
    return np.stack([down @ one @ along for one in factors])


def _broadly(planes: Float32, on: Mask) -> Float32:
    """(c, y, x) what planes show on a mask, smoothed over a tenth of the picture: what no polynomial follows.

    It is worked out on blocks of pixels. A camera that saturates shows a slide that is flat here and falls there.
    """
    block = max(1, max(on.shape) // 64)
    height, width = (-(-n // block) for n in on.shape)
    rows, columns = np.nonzero(on)
    cells = (rows // block) * width + columns // block
    sd = max(height, width) * BROAD

    def spread(weights: NDArray[np.floating] | None) -> NDArray[np.float64]:
        sums = np.bincount(cells, weights=weights, minlength=height * width).astype(np.float64)
        return np.asarray(ndimage.gaussian_filter(sums.reshape(height, width), sd, mode="constant"))

    counts = spread(None) + 1e-3 * block**2
    down, along = (_between(n, block) for n in on.shape)
    means = [(spread(plane[on]) / counts).astype(np.float32) for plane in planes]
    return np.stack([down @ one @ along.T for one in means])


def _between(count: int, step: int) -> Float32:
    """(count, n) weights that interpolate linearly between the centres of n blocks of so many pixels."""
    blocks = -(-count // step)
    at, fine = centres(0, blocks * step, blocks), centres(0, count, count)
    return np.stack([np.interp(fine, at, one) for one in np.eye(blocks)], axis=1).astype(np.float32)


def _padding(pixels: Float32) -> Mask:
    """What was put around a scan: one exact value up to straight edges, beside which lies the glass, which differs."""
    flat = connected(_constant(pixels), border(pixels.shape[1:]))
    nothing = np.zeros_like(flat)
    if flat.mean() < PADDING_SHARE or flat.all():
        return nothing
    near = ndimage.binary_dilation(
        flat, iterations=2
    )  # the outermost constant pixel is left out, the next may be mixed
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


def _constant(pixels: Float32) -> Mask:
    """Where a pixel (c, y, x) equals all four beside it."""
    down, along = ((np.diff(pixels, axis=axis) == 0).all(axis=0) for axis in (1, 2))
    same = np.ones(pixels.shape[1:], dtype=np.bool_)
    same[1:] &= down
    same[:-1] &= down
    same[:, 1:] &= along
    same[:, :-1] &= along
    return same


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
