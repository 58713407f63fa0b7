"""How the kernels of the phantoms are compiled, and kept for the next process."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])

_waiting: list[Any] = []
"""Kernels that are not kept yet."""


def kernel(function: Function) -> Function:
    """The function, compiled by numba when it is first called, free of the GIL.

    Without fast-math, so that the same arithmetic gives the same bits in every window.
    """
    compiled = numba.njit(nogil=True, error_model="numpy")(function)
    _waiting.append(compiled)
    return cast("Function", compiled)


def keep_kernels() -> None:
    """Keep what is compiled from now on, beside the bytecode; called before kernels are first used.

    Numba's own cache asks only whether a kernel's own file has changed, not those of the kernels and constants it uses.
    So it is kept in a folder named by the digest of the whole package, and those of other digests are removed. Where
    that folder cannot be written, every process compiles for itself.
    """
    if not _waiting:
        return
    package = Path(__file__).parent
    sources = [path.read_bytes() for path in sorted(package.glob("*.py"))]
    digest = hashlib.sha256(b"\0".join(sources)).hexdigest()[:16]
    home = package / "__pycache__"
    kept = home / f"kernels-{digest}"
    try:
        kept.mkdir(parents=True, exist_ok=True)
    except OSError:
        _waiting.clear()
        return
    if not os.access(kept, os.W_OK):
        _waiting.clear()
        return
    for old in home.glob("kernels-*"):
        if old != kept:
            shutil.rmtree(old, ignore_errors=True)
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(kept)
    try:
        while _waiting:
            _waiting.pop().enable_caching()
    finally:
        numba.config.CACHE_DIR = before
