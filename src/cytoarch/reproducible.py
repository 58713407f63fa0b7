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
