"""Lloyd's passes of k-means over tokens that are read in blocks: as many as there are, in memory that does not grow."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from cytoarch.reproducible import fixed_torch_threads

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Tokens = NDArray[Any]
"""(n, c), float16 or float32."""
T = TypeVar("T")

SETTLED = 1e-4
"""Passes end once the squared distances fell by less than this share of themselves."""
BLOCK_VALUES = 1 << 20
"""Values that are computed on at once: they stay near the processor, and sums of float32 stay exact enough."""


class Passed(NamedTuple):
    """What passes over tokens gave."""

    centres: Float32
    """(k, c), in units of the spread."""
    inertia: float
    """Squared distance of a token from its centre, on average, with the centres before the last pass moved them."""
    passes: int
    tokens: int


def lloyd(
    blocks: Callable[[], Iterable[Tokens]], mean: Float32, spread: Float32, centres: Float32, passes: int
) -> Passed:
    """Move centres (k, c) to the means of their tokens, in at most so many passes over all of them.

    `blocks` gives the tokens anew for every pass, the same in the same order; they are measured less the mean (c,) in
    units of the spread (c,), as the centres are. A centre that no token is nearest to stays. Torch takes the sums with
    a fixed number of threads, so that their bits do not depend on how many there are.
    """
    moved, before, count = centres.astype(np.float64), float("inf"), 0
    done = 0
    with fixed_torch_threads():
        while done < passes:
            sums, sizes, total = _one_pass(blocks(), mean, spread, moved.astype(np.float32))
            done, count = done + 1, int(sizes.sum())
            filled = sizes > 0
            moved[filled] = sums[filled] / sizes[filled, None]
            settled = total > (1 - SETTLED) * before
            before = total
            if settled:
                break
    return Passed(moved.astype(np.float32), before / max(1, count), done, count)


def _one_pass(
    blocks: Iterable[Tokens], mean: Float32, spread: Float32, centres: Float32
) -> tuple[Float64, NDArray[np.int64], float]:
    """Sums (k, c) and numbers (k,) of the tokens nearest to every centre, and the sum of their squared distances."""
    import torch

    middle, scale = torch.from_numpy(mean), torch.from_numpy(1 / spread)
    towards = torch.from_numpy(np.ascontiguousarray(2 * centres.T))
    lengths = torch.from_numpy((centres.astype(np.float64) ** 2).sum(axis=1).astype(np.float32))
    sums = torch.zeros(centres.shape, dtype=torch.float64)
    sizes = torch.zeros(len(centres), dtype=torch.int64)
    total = 0.0
    rows = max(1, BLOCK_VALUES // centres.shape[1])
    for block in read_ahead(blocks):
        for start in range(0, len(block), rows):
            part = torch.from_numpy(np.ascontiguousarray(block[start : start + rows])).to(torch.float32, copy=True)
            part.sub_(middle).mul_(scale)
            best, nearest = (torch.addmm(-lengths, part, towards)).max(dim=1)
            chosen = torch.nn.functional.one_hot(nearest, len(centres)).to(torch.float32)
            sums += (chosen.T @ part).to(torch.float64)
            sizes += torch.bincount(nearest, minlength=len(centres))
            total += float((part * part).sum(dim=1).sub_(best).clamp_(min=0).sum(dtype=torch.float64))
    return sums.numpy(), sizes.numpy(), total


def read_ahead(items: Iterable[T]) -> Iterator[T]:
    """The same items, each made by another thread while the one before is used."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(max_workers=1) as reader:
        coming = reader.submit(next, iterator, end)
        while (item := coming.result()) is not end:
            coming = reader.submit(next, iterator, end)
            yield item  # type: ignore[misc]  # the end is no item
