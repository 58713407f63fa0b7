"""Arrays that a step keeps as npz: read back, and damage told as what it is."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from cytoarch.errors import CytoarchError, SectionError

DAMAGE = (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, BadZipFile, zlib.error)
"""What reading a file of arrays raises where bytes of it are lost or changed."""


def arrays_of(
    path: Path, names: Sequence[str] | None = None, error: type[CytoarchError] = SectionError
) -> dict[str, NDArray[Any]]:
    """The arrays of a file by name; all of them where none are named. Raises SectionError if it is damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
            return {one: held[one] for one in (held if names is None else names)}
    except DAMAGE as damage:
        raise error(f"{path} is damaged ({damage!r}); run verify") from damage
