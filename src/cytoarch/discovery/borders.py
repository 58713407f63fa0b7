"""Borders along the cortex, found without an observer: by embeddings, and by profiles as the field has it."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy import stats
from scipy.signal import find_peaks

from cytoarch.settings import Settings

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

BLOCK = 9
"""Neighbouring points whose mean is compared with that of the next as many (Schiffer et al.: 9, 200 um apart)."""
KEPT_STEPS = 0.98
"""Share of the steps from point to point, the smallest, that the null is made of: the largest may be borders."""


OWN = 0.85
"""Neighbours tell something of their own that differ by this share of how far those differ that are three apart."""


class Borders(NamedTuple):
    """Borders along a line of points."""

    signal: Float64
    """(n,) how much changes at every point; NaN near the ends."""
    places: Int64
    """(m,) the points at which it is significant and largest around."""
    threshold: float


def border_signal(embeddings: NDArray[np.floating], block: int = BLOCK) -> Float64:
    """Squared distance between the mean embedding of the `block` points before and from every point on (n,).

    NaN where there are not so many. A step of height h gives h^2 where it is, h^2 (1 - k / block)^2 at k points from
    it.

    >>> border_signal(np.repeat([[0.0], [2.0]], 9, axis=0)).tolist()[9]
    4.0
    """
    points = np.asarray(embeddings, dtype=np.float64)
    sums = np.concatenate([np.zeros((1, points.shape[1])), np.cumsum(points, axis=0)])
    signal = np.full(len(points), np.nan)
    at = np.arange(block, len(points) - block + 1)
    if len(at):
        before, after = sums[at] - sums[at - block], sums[at + block] - sums[at]
        signal[at] = (((after - before) / block) ** 2).sum(axis=1)
    return signal


def embedding_borders(
    embeddings: NDArray[np.floating], block: int = BLOCK, level: float = 0.05, shuffles: int = 200, seed: int = 0
) -> Borders:
    """Peaks of the border signal of points (n, c) that chance hardly reaches.

    The null is a line without borders whose neighbours differ as much as those of this line: its steps from point to
    point, over the square root of two, the largest left out, stand for points, drawn with random signs. The threshold
    is what the largest value of such a line exceeds in a share `level` of the draws. Noise
    that neighbouring points share is not in their steps: with patches that overlap, the threshold is too low.
    """
    points = np.asarray(embeddings, dtype=np.float64)
    signal = border_signal(points, block)
    if not np.isfinite(signal).any():
        return Borders(signal, np.zeros(0, dtype=np.int64), float("nan"))
    steps = np.diff(points, axis=0) / np.sqrt(2)
    sizes = (steps**2).sum(axis=1)
    steps = steps[sizes <= np.quantile(sizes, KEPT_STEPS)]
    rng = np.random.default_rng(seed)
    tops = []
    for _ in range(shuffles):
        line = steps[rng.choice(len(steps), len(points))] * rng.choice([-1.0, 1.0], (len(points), 1))
        tops.append(np.nanmax(border_signal(line, block)))
    threshold = float(np.quantile(tops, 1 - level))
    places, _ = find_peaks(np.nan_to_num(signal, nan=0.0), height=threshold, distance=block, prominence=threshold / 2)
    return Borders(signal, places, threshold)


class ProfileBorders(Settings):
    """How profiles are compared (Schleicher et al., 1999)."""

    smallest_block: int = Field(default=8, ge=6, le=200, description="Profiles in the smallest block.")
    largest_block: int = Field(default=20, ge=6, le=200, description="Profiles in the largest block; every other size.")
    level: float = Field(default=0.05, gt=0, lt=1, description="Chance of a border on a line that has none.")
    agree: int = Field(
        default=3, ge=1, le=50, description="Block sizes at which the same place is significant and largest."
    )

    @model_validator(mode="after")
    def _some_size(self) -> "ProfileBorders":
        if self.smallest_block > self.largest_block:
            raise ValueError(
                f"smallest_block is {self.smallest_block} and largest_block {self.largest_block}: there is no block "
                "between them; raise largest_block, or lower smallest_block"
            )
        return self


SCHLEICHER = ProfileBorders()
LEAST_SPREAD = 1e-3
"""Standard deviation of a confound: a thousandth of a thickness by its logarithm, or of a radian of bend a cell."""


def profile_features(profiles: NDArray[np.floating]) -> Float64:
    """Ten features (n, 10) of profiles across the cortex (n, depths) from the surface to the white matter.

    The mean, the centre of gravity, the standard deviation, the skewness and the kurtosis of the profile, read as a
    distribution over depth, and the same of its absolute derivative (Zilles et al., 2002).
    """
    values = np.asarray(profiles, dtype=np.float64)
    slopes = np.abs(np.diff(values, axis=1))
    return np.concatenate([_moments(values), _moments(slopes)], axis=1)


def _moments(values: Float64) -> Float64:
    depth = (np.arange(values.shape[1]) + 0.5) / values.shape[1]
    weights = np.maximum(values, 0)
    weights = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
    centre = weights @ depth
    away = depth[None] - centre[:, None]
    spread = np.sqrt(np.maximum((weights * away**2).sum(axis=1), 1e-12))
    skew = (weights * away**3).sum(axis=1) / spread**3
    tails = (weights * away**4).sum(axis=1) / spread**4 - 3
    return np.stack([values.mean(axis=1), centre, spread, skew, tails], axis=1)


def mahalanobis(features: Float64, block: int) -> tuple[Float64, Float64]:
    """Squared Mahalanobis distance of the blocks on either side of every profile (n,), and Hotelling's p; NaN at ends.

    The covariance is that of both blocks together. T^2 = b / 2 D^2 and F = (2 b - p - 1) / (p (2 b - 2)) T^2 with p and
    2 b - p - 1 degrees of freedom; 2 b must exceed p + 1.
    """
    count, width = features.shape
    distance, chance = np.full(count, np.nan), np.full(count, np.nan)
    freedom = 2 * block - width - 1
    if freedom <= 0:
        raise ValueError(f"blocks of {block} profiles are too few for {width} features; {width // 2 + 1} are needed")
    for at in range(block, count - block + 1):
        before, after = features[at - block : at], features[at : at + block]
        pooled = (np.cov(before.T) + np.cov(after.T)) / 2
        apart = after.mean(axis=0) - before.mean(axis=0)
        scale = np.trace(pooled) / width
        squared = float(apart @ np.linalg.solve(pooled + 1e-9 * max(scale, 1e-12) * np.eye(width), apart))
        statistic = freedom / (width * (2 * block - 2)) * (block / 2) * squared
        distance[at], chance[at] = squared, stats.f.sf(statistic, width, freedom)
    return distance, chance


def free_of(features: Float64, confounds: Float64) -> Float64:
    """Features (n, p) less what confounds (n, q), their squares and products explain of them by least squares.

    A confound that varies by less than `LEAST_SPREAD` explains nothing: what follows it would be chance.

    >>> left = free_of(np.array([[1.0], [4.0], [9.0], [16.0]]), np.arange(1.0, 5.0)[:, None])
    >>> bool(np.abs(left).max() < 1e-9)
    True
    """
    confounds = confounds[:, confounds.std(axis=0) > LEAST_SPREAD]
    known = (confounds - confounds.mean(axis=0)) / confounds.std(axis=0)
    first, second = np.triu_indices(known.shape[1])
    design = np.concatenate([np.ones((len(known), 1)), known, known[:, first] * known[:, second]], axis=1)
    return np.asarray(features - design @ np.linalg.lstsq(design, features, rcond=None)[0]) + 0.0


def binned(features: Float64, size: int) -> Float64:
    """The means (n // size, p) of so many neighbours each; those left over at the end of the line are left out."""
    count = len(features) // size
    return np.asarray(features[: count * size].reshape(count, size, -1).mean(axis=1))


def independent_size(features: Float64, fewest: int) -> int:
    """How many neighbours (n, p) are to be averaged for the means to be independent of each other, as chance is told.

    The means that lie three apart differ hardly more than those side by side: by the median, so that borders, which few
    of them lie across, do not count. Larger where fewer than `fewest` means would be left.
    """
    size = 1
    while len(features) // size >= fewest:
        means = binned(features, size)
        beside, apart = (np.median(((means[lag:] - means[:-lag]) ** 2).sum(axis=1)) for lag in (1, 3))
        if beside >= OWN * apart:
            break
        size += 1
    return size


def profile_borders(profiles: NDArray[np.floating], settings: ProfileBorders = SCHLEICHER) -> Borders:
    """Borders in profiles (n, depths) along the cortex by Schleicher's method: `feature_borders` of their features."""
    return feature_borders(profile_features(profiles), settings)


def feature_borders(features: Float64, settings: ProfileBorders = SCHLEICHER) -> Borders:
    """Borders in features (n, p) of profiles along the cortex; the signal is that of the middle size of blocks.

    For every block size a place counts whose distance is a maximum and whose p, by Bonferroni for all places, is below
    the level; borders are places that count at several sizes, within half the smallest block of each other. Where
    neighbours are alike, as profiles closer together than their noise reaches, means of them stand for profiles.
    """
    spread = features.std(axis=0)
    features = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1)
    size = independent_size(features, 2 * settings.smallest_block)
    found = _borders(binned(features, size), settings)
    signal = np.full(len(features), np.nan)
    signal[: len(found.signal) * size] = np.repeat(found.signal, size)
    return Borders(signal, found.places * size, found.threshold)


def _borders(features: Float64, settings: ProfileBorders) -> Borders:
    if len(features) < 2 * settings.smallest_block:
        return Borders(np.full(len(features), np.nan), np.zeros(0, dtype=np.int64), float(settings.agree))
    votes = np.zeros(len(features))
    sizes = range(settings.smallest_block, settings.largest_block + 1, 2)
    signals = {}
    for block in sizes:
        distance, chance = mahalanobis(features, block)
        signals[block] = distance
        tests = max(1, int(np.isfinite(chance).sum()))
        peaks, _ = find_peaks(np.nan_to_num(distance, nan=0.0), distance=block)
        votes[[one for one in peaks if chance[one] * tests < settings.level]] += 1
    reach = settings.smallest_block // 2
    gathered = np.convolve(votes, np.ones(2 * reach + 1), mode="same")
    places, _ = find_peaks(np.pad(gathered, 1), height=settings.agree, distance=settings.smallest_block, plateau_size=1)
    middle = list(sizes)[len(list(sizes)) // 2]
    return Borders(signals[middle], np.asarray(places - 1, dtype=np.int64), float(settings.agree))


class Against(NamedTuple):
    """Borders that were found beside borders that are known, and beside as many places at random."""

    known: int
    hit: int
    """Known borders that one was found near to."""
    found: int
    false: int
    """Of those found, how many have no known border near."""
    hit_by_chance: float
    """What `hit` would be, on average, of as many places at random."""
    false_by_chance: float

    def __add__(self, other: "Against") -> "Against":  # type: ignore[override]  # sums of stretches
        """Both together."""
        return Against(
            self.known + other.known,
            self.hit + other.hit,
            self.found + other.found,
            self.false + other.false,
            self.hit_by_chance + other.hit_by_chance,
            self.false_by_chance + other.false_by_chance,
        )


NOTHING_KNOWN = Against(0, 0, 0, 0, 0.0, 0.0)
UNKNOWN_AREA = -1


def against_known(places: Int64, areas: Int64, judged: NDArray[np.bool_], reach: int) -> Against:
    """Borders at `places` (m,) of a line of points whose areas (n,) are known, `UNKNOWN_AREA` where they are not.

    A known border lies between neighbours of different areas, at the second one. Only points that were `judged` (n,)
    count, by either side; near is at most `reach` points away. Several borders may be near to the same one.

    >>> against_known(np.array([3, 7]), np.array([0, 0, 1, 1, 1, 1, 1, 1]), np.ones(8, bool), 1)[:4]
    (1, 1, 2, 1)
    """
    counted = judged & (areas != UNKNOWN_AREA)
    steps = np.flatnonzero((np.diff(areas) != 0) & (areas[1:] != UNKNOWN_AREA) & (areas[:-1] != UNKNOWN_AREA)) + 1
    known, found = steps[counted[steps]], places[counted[places]]
    points = np.flatnonzero(counted)
    if not len(points):
        return NOTHING_KNOWN
    near = np.abs(known[:, None] - found[None]) <= reach
    within = np.abs(known[:, None] - points[None]) <= reach
    by_chance = 1 - (1 - within.sum(axis=1) / len(points)) ** len(found)
    beside = 1 - within.any(axis=0).mean()
    return Against(
        len(known), int(near.any(axis=1).sum()), len(found), int((~near.any(axis=0)).sum()),
        float(by_chance.sum()), float(beside * len(found)),
    )  # fmt: skip
