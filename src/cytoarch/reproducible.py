"""Fits whose bits depend neither on how many cores a machine has nor on what else its process computes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

_lock = threading.RLock()


@contextmanager
def single_threaded() -> Iterator[None]:
    """Sums of BLAS and OpenMP are taken by one thread, in one order.

    The limit of BLAS is the process's: overlapping ones would be undone in the wrong order, so that there is one at a
    time. scikit-learn sets it too, within its fits.
    """
    with _lock, threadpool_limits(limits=1):
        yield


TORCH_THREADS = 2
"""Threads of every fit by torch, however many cores there are: its sums are cut by threads."""


@contextmanager
def fixed_torch_threads(count: int = TORCH_THREADS) -> Iterator[None]:
    """Torch computes with the same number of threads on every machine, as long as this thread is in here.

    Where every step is short, one is fastest: two wait for each other, and burn the processor meanwhile.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
