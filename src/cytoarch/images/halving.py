"""An image at half its resolution: pixels by their mean, labels by the most frequent."""

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
    block = _evened(block)
    if block.dtype.kind == "f":
        four = block.astype(np.float32)
        return ((_quarter(four, 0) + _quarter(four, 1) + _quarter(four, 2) + _quarter(four, 3)) / 4).astype(block.dtype)
    pairs = _TWICE_AS_WIDE.get(block.dtype.itemsize)
    if block.dtype.kind != "u" or pairs is None:
        raise TypeError(f"{block.dtype} cannot be halved by its mean; unsigned integers or floats are needed")
    half = np.empty((*block.shape[:-2], block.shape[-2] // 2, block.shape[-1] // 2), dtype=block.dtype)
    rows = max(1, BAND_PX // max(block.shape[-1], 1) // 2)
    for lead in np.ndindex(*block.shape[:-2]):
        plane, target = block[lead], half[lead]
        for y in range(0, len(target), rows):
            target[y : y + rows] = _pair_means(plane[2 * y : 2 * (y + rows)], pairs)
    return half


def _pair_means(rows: Array, pairs: np.dtype[Any]) -> Array:
    """Means of 2 x 2 pixels (y, x), of which two neighbours are read as one number twice as wide.

    Taking the halves of such numbers apart runs over memory in order; taking every second pixel does not.
    """
    wide: Array = np.ascontiguousarray(rows).view(pairs)
    bits = 4 * pairs.itemsize
    upper, lower = wide[0::2], wide[1::2]
    total: Array = upper & pairs.type(2**bits - 1)
    part: Array = lower & pairs.type(2**bits - 1)  # the one array that every further term goes through
    total += part
    for row in (upper, lower):
        np.right_shift(row, pairs.type(bits), out=part)
        total += part
    total += pairs.type(2)
    total >>= pairs.type(2)
    return total


def halve_mode(block: Array) -> Array:
    """The most frequent of every 2 x 2 label values; ties go to the first in reading order. Shapes as `halve_mean`."""
    four = np.stack([_quarter(_evened(block), i) for i in range(4)])
    votes = (four[:, None] == four[None]).sum(axis=1)
    return np.asarray(np.take_along_axis(four, votes.argmax(axis=0)[None], axis=0)[0])


def _evened(block: Array) -> Array:
    odd = [(0, 0)] * (block.ndim - 2) + [(0, block.shape[-2] % 2), (0, block.shape[-1] % 2)]
    return np.pad(block, odd, mode="edge") if any(pad for _, pad in odd) else block


def _quarter(block: Array, index: int) -> Array:
    return block[..., index // 2 :: 2, index % 2 :: 2]
