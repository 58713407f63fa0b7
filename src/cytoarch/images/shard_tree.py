"""Writes the shards of all levels in one pass over the source, by several threads, each shard once and whole.

The shards form a tree: a shard of level k is made of the four below it, halved. Level 0 is walked depth first, so that
a shard's four children follow each other; whoever brings the last of them writes the shard itself. What waits for the
others waits in a scratch file, so that memory holds one shard a thread whatever the size of the image. Every shard is a
pure function of the source: the number of threads changes nothing.
"""

import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import zarr

from cytoarch.errors import ScanError
from cytoarch.images.halving import halve_mean, halve_mode
from cytoarch.images.layout import Journal, Pyramid
from cytoarch.images.segments import read_exactly
from cytoarch.images.shards import Array
from cytoarch.progress import Progress
from cytoarch.store.disk import writing

ReadWindow = Callable[[int, int, int, int], Array]
"""(y, x, height, width) -> (c, height, width) or (height, width); called from several threads"""


class _Place(NamedTuple):
    """A shard's place in the tree."""

    level: int
    row: int
    column: int

    @property
    def above(self) -> "_Place":
        return _Place(self.level + 1, self.row // 2, self.column // 2)


class _Assembly:
    """A shard while it is put together from the shards below it, halved; its parts wait in a scratch file."""

    def __init__(self, parts: int, shape: tuple[int, ...], dtype: np.dtype[Any], scratch: Path) -> None:
        self.missing = self._count = parts
        self._shape, self._dtype, self._scratch = shape, dtype, scratch
        self._only: Array | None = None
        self._file: IO[bytes] | None = None
        self._parts: list[tuple[tuple[int, ...], int, int, tuple[int, ...]]] = []
        self._lock = threading.Lock()

    def put(self, lead: tuple[int, ...], half: Array, y: int, x: int) -> None:
        """Keep one channel (`lead`) of a shard below, halved, which begins at (y, x) of this shard."""
        if self._count == 1:
            if self._only is None:
                self._only = np.empty(self._shape, dtype=self._dtype)
            self._only[lead] = half
            return
        with self._lock, writing(self._scratch):
            if self._file is None:
                self._scratch.mkdir(parents=True, exist_ok=True)
                self._file = tempfile.TemporaryFile(dir=self._scratch, buffering=0)  # noqa: SIM115 - closed by `drop`
            left = np.ascontiguousarray(half).reshape(-1).view(np.uint8).data
            while left:
                left = left[self._file.write(left) :]
            self._parts.append((lead, y, x, half.shape))

    def take(self) -> Array:
        """The shard, once all halves are there."""
        if self._only is not None:
            return self._only
        block = np.empty(self._shape, dtype=self._dtype)
        if self._file is None:
            raise ValueError("a shard is asked for of which no part is there")
        at = 0
        for lead, y, x, shape in self._parts:
            size = int(np.prod(shape)) * self._dtype.itemsize
            half = np.frombuffer(read_exactly(self._file.fileno(), at, size), dtype=self._dtype).reshape(shape)
            block[lead][y : y + shape[0], x : x + shape[1]] = half
            at += size
        self.drop()
        return block

    def drop(self) -> None:
        """Give the scratch file's space back."""
        if self._file is not None:
            self._file.close()


@dataclass
class ShardTree:
    """One walk over the tree of shards. Shards that the journal holds are left as they are."""

    journal: Journal
    pyramid: Pyramid
    read: ReadWindow
    prefix: str
    """What the keys of the levels begin with."""
    arrays: "list[zarr.Array[Any]]"
    """The levels, to read finished shards back."""
    on_progress: Progress | None = None
    """(bytes of level 0 that are done, bytes in all)"""
    _done: int = 0
    _waiting: dict[_Place, _Assembly] = field(default_factory=dict)
    _whole: dict[_Place, bool] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def write(self, threads: int = 1) -> None:
        """Write every shard that is missing. Raises ScanError if the source gives another block than announced."""
        top = self.pyramid.levels - 1
        rows, columns = self.pyramid.shard_grid(top)
        places = (_Place(top, row, column) for row in range(rows) for column in range(columns))
        steps = iter([step for place in places for step in self._plan(place, wanted=False)])
        self._advance(0)
        with ThreadPoolExecutor(threads, thread_name_prefix="shards") as pool:
            running = [pool.submit(self._work, steps) for _ in range(threads)]
            try:
                for one in running:
                    one.result()
            finally:
                wait(running)
                for assembly in self._waiting.values():
                    assembly.drop()

    def _plan(self, place: _Place, wanted: bool) -> Iterator[tuple[_Place, bool]]:
        """The shards to read for a shard and those below it, depth first, each with whether it comes from the source.

        A shard that is finished is read back only where the one above it still has to be made of it (`wanted`).
        """
        finished = self.journal.has(self._key(place))
        if place.level == 0:
            if finished:
                self._done += self._nbytes(place)
            if wanted or not finished:
                yield place, not finished
            return
        below = self._below(place)
        if not finished:
            _, _, h, w = self.pyramid.shard_window(*place)
            shape = (*self.pyramid.lead, h, w)
            self._waiting[place] = _Assembly(len(below), shape, self.pyramid.dtype, self.journal.scratch)
        for one in below:
            if finished or not self._is_whole(one) or one.level == 0:
                yield from self._plan(one, wanted=not finished)
            else:
                self._done += sum(map(self._nbytes, self._leaves(one)))
                yield one, False
        if finished and wanted:
            yield place, False

    def _work(self, steps: Iterator[tuple[_Place, bool]]) -> None:
        """Take steps until there are none; the first fault ends the walk for all threads."""
        while True:
            with self._lock:
                step = next(steps, None)
            if step is None:
                return
            try:
                self._take(*step)
            except BaseException:
                with self._lock:
                    for _ in steps:  # nobody takes another
                        pass
                raise

    def _take(self, place: _Place, from_source: bool) -> None:
        self._give(place, self._written(place) if from_source else self._read_back(place))

    def _written(self, place: _Place) -> Array:
        block = self._from_source(place)
        self.journal.write(self._key(place), self.pyramid.encoded(block))
        self._advance(self._nbytes(place))
        return block

    def _read_back(self, place: _Place) -> Array:
        y, x, h, w = self.pyramid.shard_window(*place)
        return np.asarray(self.arrays[place.level][..., y : y + h, x : x + w])

    def _give(self, place: _Place, block: Array) -> None:
        """Hand a shard's pixels to the one above it, and write that one too if they were the last it waited for."""
        halve = halve_mean if self.pyramid.reduction == "mean" else halve_mode
        edge = self.pyramid.shard_px() // 2
        while (assembly := self._waiting.get(place.above)) is not None:
            for lead in np.ndindex(*block.shape[:-2]):
                assembly.put(lead, halve(block[lead]), (place.row % 2) * edge, (place.column % 2) * edge)
            del block  # not held while the next is made
            place = place.above
            with self._lock:
                assembly.missing -= 1
                if assembly.missing:
                    return
                del self._waiting[place]
            block = assembly.take()
            del assembly
            self.journal.write(self._key(place), self.pyramid.encoded(block))

    def _from_source(self, place: _Place) -> Array:
        y, x, h, w = self.pyramid.shard_window(*place)
        block = self.read(y, x, h, w)
        if block.shape != (*self.pyramid.lead, h, w) or block.dtype != self.pyramid.dtype:
            raise ScanError(
                f"the source gave {block.dtype} {block.shape} where {self.pyramid.dtype} "
                f"{(*self.pyramid.lead, h, w)} was announced"
            )
        if block.dtype.kind == "f" and not np.isfinite(block).all():
            raise ScanError(f"values in the window at y={y}, x={x} are not finite (NaN, infinite or overflowing)")
        return block

    def _key(self, place: _Place) -> str:
        lead = "0/" * len(self.pyramid.lead)
        return f"{self.prefix}{place.level}/c/{lead}{place.row}/{place.column}"

    def _below(self, place: _Place) -> list[_Place]:
        rows, columns = self.pyramid.shard_grid(place.level - 1)
        children = [(2 * place.row + i, 2 * place.column + j) for i in (0, 1) for j in (0, 1)]
        return [_Place(place.level - 1, r, c) for r, c in children if r < rows and c < columns]

    def _leaves(self, place: _Place) -> list[_Place]:
        """The shards of level 0 that a shard stands for."""
        if place.level == 0:
            return [place]
        return [leaf for one in self._below(place) for leaf in self._leaves(one)]

    def _is_whole(self, place: _Place) -> bool:
        """Whether a shard and all below it are finished."""
        if place not in self._whole:
            below = self._below(place) if place.level else []
            self._whole[place] = self.journal.has(self._key(place)) and all(map(self._is_whole, below))
        return self._whole[place]

    def _nbytes(self, place: _Place) -> int:
        _, _, h, w = self.pyramid.shard_window(*place)
        return int(np.prod(self.pyramid.lead)) * h * w * self.pyramid.dtype.itemsize

    def _advance(self, nbytes: int) -> None:
        with self._lock:
            self._done += nbytes
            done = self._done
        if self.on_progress is not None:
            self.on_progress(done, self.pyramid.nbytes)
