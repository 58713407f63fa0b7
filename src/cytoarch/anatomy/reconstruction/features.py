"""Alignment by features: SIFT, a ratio test and RANSAC with a rigid model."""

import warnings
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from skimage.feature import SIFT, match_descriptors
from skimage.measure import ransac
from skimage.transform import EuclideanTransform

from cytoarch.anatomy.reconstruction.likeness import MOST, Float32, Likeness
from cytoarch.anatomy.reconstruction.rigid import Rigid
from cytoarch.geometry import Float64

RATIO = 0.8
"""Nearest over second nearest descriptor (Lowe 2004)."""
NEAR_CELLS = 3.0
"""A matched feature lies so near to its partner."""
TRIALS = 1000
SURE = 0.9999
"""RANSAC stops early where a better sample is less likely than 1 in 10000."""
KEPT = 96
"""Pictures whose features are kept (some 100 kB each): more than a dozen workers ask for at once."""
_LATELY: dict[tuple[bytes, tuple[int, ...]], tuple[Float64, NDArray[np.uint8]]] = {}
"""Cells and descriptors by what a picture shows, the last ones used last."""


@dataclass(frozen=True)
class Features:
    """Features of a picture."""

    places_um: Float64
    """(n, 2) in the frame of the section, also where they were found in its mirror image."""
    descriptors: NDArray[np.uint8]
    """(n, 128)."""


class Matched(NamedTuple):
    """Two sections aligned by features."""

    way: Rigid
    """From the fixed section's um to the moving one's."""
    inliers: int
    matches: int
    residual_um: float
    """Median distance of inliers from their partners."""


def features_of(section: Likeness, mirrored: bool) -> Features:
    """The SIFT features (Lowe 2004) of a section or of its mirror image; none where nothing in it stands out.

    Those of the last pictures are kept, since a section is linked to several others, one after another.
    """
    values, grid = section.plane.values / MOST, section.plane.grid
    values = np.ascontiguousarray(values[:, ::-1] if mirrored else values)
    picture = (blake2b(values.tobytes(), digest_size=16).digest(), values.shape)
    known = _LATELY.pop(picture, None)
    cells, descriptors = _LATELY[picture] = known if known is not None else _found(values)
    for oldest in list(_LATELY)[:-KEPT]:
        _LATELY.pop(oldest, None)
    if mirrored:
        cells = np.stack([cells[:, 0], grid.shape[1] - 1 - cells[:, 1]], axis=1)
    return Features(grid.um(cells), descriptors)


def _found(values: Float32) -> tuple[Float64, NDArray[np.uint8]]:
    finder = SIFT(upsampling=1)
    try:
        finder.detect_and_extract(values)
    except RuntimeError:  # how scikit-image says that it found no feature
        return np.empty((0, 2)), np.empty((0, 128), np.uint8)
    return finder.keypoints.astype(np.float64), finder.descriptors


def matched(fixed: Features, moving: Features, mirrored: bool, cell_um: float, least: int) -> Matched | None:
    """Two sections aligned by their features, those of `moving` mirrored or not; None with fewer than `least` matches.

    RANSAC (Fischler and Bolles 1981) draws the same samples for the same matches.
    """
    if min(len(fixed.places_um), len(moving.places_um)) < least:
        return None
    pairs = match_descriptors(fixed.descriptors, moving.descriptors, cross_check=True, max_ratio=RATIO)
    if len(pairs) < least:
        return None
    source, target = fixed.places_um[pairs[:, 0]], moving.places_um[pairs[:, 1]]
    flip = np.array([1.0, -1.0 if mirrored else 1.0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it says that there are no inliers, as its result does
        model, inliers = ransac(
            (source * flip, target),
            EuclideanTransform,
            min_samples=2,
            residual_threshold=NEAR_CELLS * cell_um,
            max_trials=TRIALS,
            stop_probability=SURE,
            rng=0,
        )
    if model is None or inliers is None or inliers.sum() < 2:
        return None
    way = Rigid.fitted(source[inliers], target[inliers], mirrored)
    residual = np.linalg.norm(way(source[inliers]) - target[inliers], axis=1)
    return Matched(way, int(inliers.sum()), len(pairs), float(np.median(residual)))
