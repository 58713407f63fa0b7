"""Layers follow each other along depth: a hidden Markov model from the pial to the white surface, where depth is known.

Depth is cut into steps. At every place the neighbourhood says, step by step, how likely each class is there; from one
step to the next a class stays or gives way to the next one in the order of the table, seldom to one further on, never
to one before it. Forward and backward sums give the share of every class at the depth of the place.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Float32 = NDArray[np.float32]
Mask = NDArray[np.bool_]

STEPS = 24
"""Steps of depth: four for each of six layers."""
AROUND_CELLS = 2.0
"""Standard deviation of the neighbourhood that a place is told by, in cells."""
WEIGHT = 2.0
"""A step of the neighbourhood counts as so many cells that say the same: neighbours err alike."""
DOUBT = 0.05
"""Share of even odds mixed into what a head says."""
SKIPPED = 0.05
"""How likely a class is left out, beside one that follows: not every area has every layer."""


def along_depth(probabilities: Float32, depth: Float32, cortex: Mask) -> Float32:
    """The shares (k, y, x) of classes in cortex, from probabilities (k, y, x) and depth (y, x) of 0 to 1.

    Classes are in order from the pial surface inwards; the last may lie beneath the cortex. They sum to 1 over k in the
    cortex and are 0 elsewhere. Takes some `STEPS` times the probabilities twice.
    """
    if not cortex.any():
        return np.zeros(probabilities.shape, dtype=np.float32)
    step = np.clip((depth * STEPS).astype(np.int64), 0, STEPS - 1)
    told = _told(probabilities, step, cortex)[:, :, cortex]
    own = step[cortex]
    goes = _transitions(len(probabilities))
    forward = np.empty_like(told)
    forward[:, 0] = _normed(told[:, 0] * _begin(len(probabilities))[:, None])
    for one in range(1, STEPS):
        forward[:, one] = _normed((goes.T @ forward[:, one - 1]) * told[:, one])
    backward = np.ones_like(told[:, 0])
    shares = np.zeros(probabilities.shape, dtype=np.float32)
    found = np.empty((len(probabilities), len(own)), dtype=np.float32)
    for one in range(STEPS - 1, -1, -1):
        here = own == one
        found[:, here] = _normed(forward[:, one] * backward)[:, here]
        backward = _normed(goes @ (told[:, one] * backward))
    shares[:, cortex] = found
    return shares


def _told(probabilities: Float32, step: NDArray[np.int64], cortex: Mask) -> Float32:
    """How likely (k, steps, y, x) the neighbourhood makes each class at each depth; even where it has no such depth."""
    k = len(probabilities)
    p = probabilities / np.maximum(probabilities.sum(axis=0), 1e-9)
    logs = np.log((1 - DOUBT) * p + DOUBT / k).astype(np.float32)
    found = np.zeros((k, STEPS, *step.shape), dtype=np.float32)
    for one in range(STEPS):
        here = (cortex & (step == one)).astype(np.float32)
        if not here.any():
            continue
        near = gaussian_filter(here, AROUND_CELLS)
        for place in range(k):
            mean = gaussian_filter(here * logs[place], AROUND_CELLS) / (near + 1e-2 * float(near.max()))
            found[place, one] = WEIGHT * mean
    return np.asarray(np.exp(found - found.max(axis=0)), dtype=np.float32)


def _transitions(k: int) -> Float32:
    """How likely (k, k) a class in a step is followed by another in the next."""
    ahead = np.arange(k)[None] - np.arange(k)[:, None]
    onwards = min(0.9, k / STEPS)
    goes = np.where(ahead == 0, 1 - onwards, np.where(ahead > 0, onwards * SKIPPED ** np.maximum(ahead - 1, 0), 0.0))
    return np.asarray(goes / goes.sum(axis=1, keepdims=True), dtype=np.float32)


def _begin(k: int) -> Float32:
    """How likely each class lies at the pial surface: the first; others where it is torn off, or the area has none."""
    likely = SKIPPED ** np.arange(k)
    return np.asarray(likely / likely.sum(), dtype=np.float32)


def _normed(values: Float32) -> Float32:
    return np.asarray(values / np.maximum(values.sum(axis=0), 1e-30), dtype=np.float32)
