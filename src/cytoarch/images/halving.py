"""An image at half its resolution: pixels by their mean, labels by the most frequent."""

from collections.abc import Callable
from typing import Any

import numpy as np

from cytoarch.images.shards import Array

BAND_PX = 1 << 18
"""Pixels halved at a time: what they need on the way stays in the processor's cache."""
_TWICE_AS_WIDE: dict[int, np.dtype[Any]] = {1: np.dtype(np.uint16), 2: np.dtype(np.uint32), 4: np.dtype(np.uint64)}


def halve_mean(block: Array) -> Array:
    """Every 2 x 2 pixels averaged, integers rounded to nearest; a lone last row or column is averaged with itself.

    (..., y, x) -> (..., ceil(y/2), ceil(x/2)), same dtype.
    """
    halve = _halve_floats if block.dtype.kind == "f" else _pair_means
    if block.dtype.kind not in "uf" or (block.dtype.kind == "u" and block.dtype.itemsize not in _TWICE_AS_WIDE):
        raise TypeError(f"{block.dtype} cannot be halved by its mean; unsigned integers or floats are needed")
    return _halved(block.astype(block.dtype.newbyteorder("="), copy=False), halve).astype(block.dtype, copy=False)


def _halved(block: Array, halve: Callable[[Array], Array]) -> Array:
    """The block halved band by band; `halve` takes planes of even edges, so a lone last row or column is doubled."""
    h, w = block.shape[-2], block.shape[-1]
    half = np.empty((*block.shape[:-2], -(-h // 2), -(-w // 2)), dtype=block.dtype)
    rows = max(1, BAND_PX // max(w, 1) // 2)
    for lead in np.ndindex(*block.shape[:-2]):
        plane, target = block[lead], half[lead]
        for y in range(0, h // 2, rows):
            stop = min(y + rows, h // 2)
            if w > 1:
                target[y:stop, : w // 2] = halve(plane[2 * y : 2 * stop, : w // 2 * 2])
            if w % 2:
                target[y:stop, w // 2 :] = halve(np.repeat(plane[2 * y : 2 * stop, w - 1 :], 2, axis=1))
        if h % 2:
            last = np.repeat(plane[h - 1 :], 2, axis=0)
            last = np.concatenate([last, last[:, w - 1 :]], axis=1) if w % 2 else last
            target[h // 2 :] = halve(last)
    return half


def _halve_floats(rows: Array) -> Array:
    four = rows.astype(np.float32)
    total = _quarter(four, 0) + _quarter(four, 1) + _quarter(four, 2) + _quarter(four, 3)
    return np.asarray((total / 4).astype(rows.dtype))


def _pair_means(rows: Array) -> Array:
    """Means of 2 x 2 pixels (y, x) of unsigned integers.

    Two neighbours in a row are read as one integer twice as wide, and split by a mask and a shift: this runs through
    memory in order, which taking every second pixel does not.
    """
    pairs = _TWICE_AS_WIDE[rows.dtype.itemsize]
    wide: Array = np.ascontiguousarray(rows).view(pairs)
    bits = 4 * pairs.itemsize
    upper, lower = wide[0::2], wide[1::2]
    total: Array = upper & pairs.type(2**bits - 1)
    part: Array = lower & pairs.type(2**bits - 1)  # used again for every further term, so that no other array is made
    total += part
    for row in (upper, lower):
        np.right_shift(row, pairs.type(bits), out=part)
        total += part
    total += pairs.type(2)
    total >>= pairs.type(2)
    return total


def halve_mode(block: Array) -> Array:
    """The most frequent of every 2 x 2 label values; ties go to the first in reading order. Shapes as `halve_mean`."""
    return _halved(block, _modes)


def _modes(rows: Array) -> Array:
    four = np.stack([_quarter(rows, i) for i in range(4)])
    votes = (four[:, None] == four[None]).sum(axis=1)
    return np.asarray(np.take_along_axis(four, votes.argmax(axis=0)[None], axis=0)[0])


def _quarter(block: Array, index: int) -> Array:
    return block[..., index // 2 :: 2, index % 2 :: 2]
