"""What the engine works on: a job a section, made of lots, a shard each, whose tiles are read in windows."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Results = Sequence[Float32]
"""What was computed on one tile: an array per layer."""


class Window(Protocol):
    """A part of a section that holds some tiles and is read in one go."""

    @property
    def tiles(self) -> int:
        """How many tiles it holds."""

    @property
    def nbytes(self) -> int:
        """Bytes of what it reads."""

    def read(self) -> Sequence[Float32]:
        """Its tiles (c, T, T) float32, in order; SectionError if the section cannot be read."""


class Lot(Protocol):
    """The tiles of one shard: where they are read from, and where what is computed on them goes."""

    @property
    def tiles(self) -> int:
        """How many tiles there are."""

    @property
    def finished(self) -> bool:
        """Whether an earlier run finished the shard."""

    def windows(self) -> Sequence[Window]:
        """What is read in one go each, for all tiles in order."""

    def put(self, index: int, results: Results) -> None:
        """Take what was computed on a tile; SectionError if it cannot be kept."""

    def close(self) -> None:
        """Write the shard, after its last tile."""


class Job(Protocol):
    """The lots of one section, or of the points in it."""

    @property
    def section_id(self) -> str:
        """The section."""

    @property
    def tiles(self) -> int:
        """How many tiles all its lots hold."""

    @property
    def tile_shape(self) -> tuple[int, int, int]:
        """(c, T, T)."""

    @property
    def committed(self) -> bool:
        """Whether the product is there already: nothing is computed, but its tiles keep their places in the batches."""

    def lots(self) -> Iterator[Lot]:
        """Its lots, in an order that never changes."""

    def commit(self) -> None:
        """Make the product of what the lots wrote; called once, after the last."""
