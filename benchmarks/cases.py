"""What a benchmark is."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple


class Case(NamedTuple):
    """A piece of work, ours and the peers or limits it is held against; each writes into the folder it is given."""

    work: str
    ours: Callable[[Path], object]
    peers: Mapping[str, Callable[[Path], object]]
