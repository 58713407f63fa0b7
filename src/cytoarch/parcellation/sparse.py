"""Class probabilities of a section kept sparse: the few most likely classes of every cell, the others as one remainder.

Kept are two images (m, y, x): the channel of each of the m classes, most likely first, and its share in 1/65535. A cell
takes m x 3 bytes (m x 4 beyond 255 classes) before compression, however many classes there are: six of 113 take 18
bytes instead of 456. Which class is the most likely is exact; a class that is not named has at most 1 / (m + 1).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import zarr
from numpy.typing import NDArray

from cytoarch.errors import SectionError, StoreError
from cytoarch.geometry import Grid
from cytoarch.images.bands import BandTarget, ShardWriter
from cytoarch.images.layout import Journal, Pyramid
from cytoarch.images.ngff import label_dtype
from cytoarch.images.pyramids import write_group
from cytoarch.images.views import Level, StoredImage

Float32 = NDArray[np.float32]
UInt16 = NDArray[np.uint16]
Mask = NDArray[np.bool_]

CHANNELS_FILE, SHARES_FILE = "classes", "shares"
"""Names of the two images."""
OUTSIDE = "outside tissue"
"""Channel 0; the classes follow."""
WHOLE = 65535
"""What a share of 1 is kept as."""
CHUNK_CELLS = 256
"""Edge of a chunk, or a little less where a token has a number of cells that does not divide it."""
SHARD_CHUNKS = 4


class Likeliest(NamedTuple):
    """The most likely classes of some cells; what their shares lack of 1 belongs to classes that are not named."""

    channels: UInt16
    """(m, y, x), most likely first; 0 is outside tissue, and with no share that there are no more."""
    shares: UInt16
    """(m, y, x) in 1/65535."""

    @classmethod
    def empty(cls, kept: int, height: int, width: int) -> Self:
        """Cells of which nothing is known yet."""
        shape = (kept, height, width)
        return cls(np.zeros(shape, dtype=np.uint16), np.zeros(shape, dtype=np.uint16))

    @classmethod
    def of(cls, probabilities: Float32, kept: int) -> Self:
        """The `kept` most likely of the classes (k, y, x) float32, as channels 1 to k.

        The first is the one that `argmax` names: of equal ones the first in order.

        >>> found = Likeliest.of(np.array([[[0.25]], [[0.5]], [[0.125]], [[0.125]]], dtype=np.float32), 2)
        >>> found.channels.ravel().tolist(), (found.shares.ravel() / WHOLE).round(3).tolist()
        ([2, 1], [0.5, 0.25])
        """
        shape = (min(kept, len(probabilities)), *probabilities.shape[1:])
        channels, best = np.zeros(shape, dtype=np.uint16), np.zeros(shape, dtype=np.float32)
        _keep_kernel()(np.ascontiguousarray(probabilities, dtype=np.float32), channels, best)
        return cls(channels, np.rint(np.minimum(best, 1) * WHOLE).astype(np.uint16))

    def dense(self, channels: int) -> Float32:
        """Probabilities (channels, y, x) float32, outside tissue first; they sum to 1.

        What belongs to classes that a cell does not name is spread over them evenly.
        """
        result = np.zeros((channels, *self.shares.shape[1:]), dtype=np.float32)
        named = np.zeros(result.shape, dtype=bool)
        cells = np.indices(result.shape[1:])
        for channel, share in zip(self.channels, self.shares, strict=True):
            result[channel, *cells] += share / np.float32(WHOLE)
            named[channel, *cells] |= share > 0
        named[0] = True  # a cell lies in tissue or it does not
        unnamed = ~named & (result[0] == 0)
        rest = np.maximum(1 - result.sum(axis=0), 0) / np.maximum(unnamed.sum(axis=0), 1)
        result += unnamed * rest
        return np.asarray(result / result.sum(axis=0), dtype=np.float32)

    def weighted(self, factors: Float32) -> Self:
        """The same with the share of every class that is named multiplied by its factor (m, y, x), in their new order.

        Shares are divided by their sum; classes that are not named keep theirs before that.
        """
        shares = self.shares / np.float32(WHOLE)
        rest = np.maximum(1 - shares.sum(axis=0), 0)
        new = shares * factors
        new /= np.maximum(new.sum(axis=0) + rest, 1e-9)
        order = np.argsort(-new, axis=0, kind="stable")
        sorted_shares = np.floor(np.take_along_axis(new, order, 0) * WHOLE).astype(np.uint16)
        return type(self)(np.take_along_axis(self.channels, order, 0), sorted_shares)

    def including(self, channel: UInt16, classes: int) -> Self:
        """The same where a cell names this class of so many too: in its last place, with an even share of what is left.

        `channel` (y, x); 0: nothing to include. Cells stay as they are that name the class already, that name one class
        only, or of which nothing is left; a class that loses its place counts to what is left.

        >>> cells = Likeliest(*(np.array(one, dtype=np.uint16)[:, None, None] for one in ([1, 3, 4], [40000, 9000, 5])))
        >>> found = cells.including(np.array([[2]], dtype=np.uint16), 5)
        >>> found.channels.ravel().tolist(), found.shares.ravel().tolist()
        ([1, 3, 2], [40000, 9000, 8265])
        """
        named = (self.shares > 0).sum(axis=0)
        left = np.maximum(WHOLE - self.shares.sum(axis=0, dtype=np.int64), 0)
        even = left // np.maximum(classes - named, 1)
        has = ((self.channels == channel) & (self.shares > 0)).any(axis=0)
        wanted = (channel > 0) & ~has & (even > 0) & (len(self.shares) > 1)
        channels, shares = self.channels.copy(), self.shares.copy()
        channels[-1], shares[-1] = np.where(wanted, channel, channels[-1]), np.where(wanted, even, shares[-1])
        return type(self)(channels, shares)

    def masked(self, inside: Mask) -> Self:
        """The same with cells (y, x) that lie outside tissue said to be so."""
        channels, shares = self.channels * inside, self.shares * inside
        shares[0][~inside] = WHOLE
        return type(self)(channels, shares)


@cache
def _keep_kernel() -> Callable[[Float32, UInt16, Float32], None]:
    """Compiled when it is first needed."""
    import numba

    compiled: Callable[[Float32, UInt16, Float32], None] = numba.njit(nogil=True)(_keep)
    return compiled


def _keep(probabilities: Float32, channels: UInt16, best: Float32) -> None:  # pragma: no cover - compiled
    """Insert class after class where it is larger than the least that is kept so far."""
    count, height, width = probabilities.shape
    last = len(best) - 1
    for one in range(count):
        for y in range(height):
            for x in range(width):
                value = probabilities[one, y, x]
                if value > best[last, y, x]:
                    at = last
                    while at > 0 and value > best[at - 1, y, x]:
                        best[at, y, x] = best[at - 1, y, x]
                        channels[at, y, x] = channels[at - 1, y, x]
                        at -= 1
                    best[at, y, x] = value
                    channels[at, y, x] = one + 1


class Readable(Protocol):
    """Probabilities that maps are drawn from."""

    @property
    def grid(self) -> Grid:
        """Where the cells lie."""

    @property
    def names(self) -> tuple[str, ...]:
        """What the channels mean: outside tissue, then the classes."""

    def read(self, y: int, x: int, height: int, width: int) -> Likeliest:
        """The most likely classes of a window of cells."""


@dataclass(frozen=True)
class Reweighted:
    """Probabilities that are read from others cell by cell: on their grid, of their classes."""

    probabilities: Readable

    @property
    def grid(self) -> Grid:
        """Where the cells lie."""
        return self.probabilities.grid

    @property
    def names(self) -> tuple[str, ...]:
        """What the channels mean."""
        return self.probabilities.names


@dataclass(frozen=True)
class SparseProbabilities:
    """The class probabilities of a section in the store."""

    channels: Level
    shares: Level
    names: tuple[str, ...]
    """What the channels mean: outside tissue, then the classes."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the folder of a committed product. Raises SectionError if what describes it cannot be read."""
        try:
            own: Any = zarr.open_group(path, mode="r", zarr_format=3).attrs["cytoarch"]
            images = [StoredImage.open(path / one) for one in (CHANNELS_FILE, SHARES_FILE)]
        except (FileNotFoundError, KeyError, ValueError, StoreError) as error:
            raise SectionError(
                f"{path} holds no readable probabilities ({error}): run parcellate-brain again"
            ) from None
        return cls(images[0].levels[0], images[1].levels[0], tuple(own["channels"]))

    @property
    def grid(self) -> Grid:
        """Where the cells lie."""
        return self.channels.grid

    @property
    def kept(self) -> int:
        """How many classes a cell names."""
        return int(self.channels.array.shape[0])

    def read(self, y: int, x: int, height: int, width: int) -> Likeliest:
        """The most likely classes of a window of cells. Raises SectionError if what is stored is damaged."""
        window = slice(y, y + height), slice(x, x + width)
        channels, shares = self.channels.pixels(*window), self.shares.pixels(*window)
        return Likeliest(channels.astype(np.uint16, copy=False), shares)

    def dense(self, y: int, x: int, height: int, width: int) -> Float32:
        """Probabilities (k + 1, height, width) float32 of a window, see `Likeliest.dense`."""
        return self.read(y, x, height, width).dense(len(self.names))

    def first(self, grid: Grid) -> NDArray[np.int64]:
        """The channel of the most likely class at the centres of another grid's cells (y, x)."""
        rows, columns = grid.nearest_in(self.grid)
        result = np.zeros(grid.shape, dtype=np.int64)
        step = max(1, self.channels.array.chunks[-1])
        for block in np.unique(rows // step):
            own = rows // step == block
            top, stop = int(rows[own].min()), int(rows[own].max()) + 1
            result[own] = self.channels.pixels(slice(top, stop))[0][np.ix_(rows[own] - top, columns)]
        return result


def cell_bytes(classes: int, kept: int) -> int:
    """Bytes that a cell takes before compression.

    >>> cell_bytes(9, 6), cell_bytes(113, 6), cell_bytes(554, 6), cell_bytes(3, 6)
    (18, 18, 24, 9)
    """
    return min(kept, classes) * (label_dtype(classes).itemsize + np.dtype(np.uint16).itemsize)


@dataclass(frozen=True)
class SparseWriter:
    """Writes probabilities shard by shard, in any order; shards of an earlier run are kept."""

    journal: Journal
    channels: ShardWriter
    shares: ShardWriter
    names: tuple[str, ...]

    @classmethod
    def create(cls, journal: Journal, grid: Grid, names: tuple[str, ...], kept: int, cells_per_token: int) -> Self:
        """Make the two images, or go on with those of an earlier run; a shard is made of whole tokens."""
        chunk = max(1, CHUNK_CELLS // cells_per_token) * cells_per_token
        lead = (min(kept, len(names) - 1),)

        def writer(name: str, dtype: np.dtype[Any]) -> ShardWriter:
            pyramid = Pyramid.on(grid, dtype, "mode", lead, chunk=chunk, shard=chunk * SHARD_CHUNKS)
            return ShardWriter.create(journal, BandTarget(name, name, pyramid, slice(None), {}))

        channels = writer(CHANNELS_FILE, label_dtype(len(names) - 1))
        return cls(journal, channels, writer(SHARES_FILE, np.dtype(np.uint16)), names)

    @property
    def kept(self) -> int:
        """How many classes a cell names."""
        return int(self.channels.target.pyramid.lead[0])

    @property
    def edge(self) -> int:
        """Edge of a shard in cells."""
        return self.channels.target.pyramid.shard_px()

    def has(self, row: int, column: int) -> bool:
        """Whether a shard is finished."""
        return all(self.journal.has(one.key(row, column)) for one in (self.channels, self.shares))

    def write(self, row: int, column: int, cells: Likeliest) -> None:
        """Write a whole shard."""
        dtype = self.channels.target.pyramid.dtype
        self.channels.write(row, column, cells.channels.astype(dtype))
        self.shares.write(row, column, cells.shares)

    def close(self) -> None:
        """Write what describes the images, once all shards are there."""
        self.channels.close()
        self.shares.close()
        write_group(self.journal, "", {"cytoarch": {"channels": list(self.names)}})
