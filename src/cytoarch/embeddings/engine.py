"""The one loop that feeds a model: reading ahead, batches over all borders, writing behind.

Work comes as jobs (a section each) of lots (a shard each) of tiles. A batch is the next so many tiles in the order of
the jobs, whatever lot or job they belong to. Which tiles share a batch is therefore decided by the jobs alone: a run
that resumes computes the batches the first one would have computed, with zeros in place of tiles that are finished,
and gets the same bits. A producer thread has tiles read and fills batches, the calling thread computes, a writer thread
takes the results; the queues between them are short, so memory holds a few windows and one lot whatever the size of a
section. A model that runs on the processor keeps every core busy and loses more to a thread beside it than that thread
does in the time: then all is done in turn.
"""

import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from cytoarch.embeddings.jobs import Float32, Job, Lot
from cytoarch.errors import SectionError

READERS = 4
"""Threads that read, at most; one more window is read ahead than there are."""
AHEAD_BYTES = 192 << 20
"""Windows read ahead hold at most so many bytes, unless a single one holds more; reading takes some times as much."""
BATCHES_AHEAD = 2
"""Batches that wait for the model, and for the writer."""


@dataclass(frozen=True)
class Speed:
    """How fast the engine was."""

    tiles: int
    """Tiles computed."""
    model_s: float
    """Seconds in the model."""
    wall_s: float
    """Seconds in all."""

    @property
    def share(self) -> float:
        """Share of the time in which the model was at work: the speed relative to the model's own."""
        return self.model_s / self.wall_s if self.wall_s else 0.0

    def __add__(self, other: "Speed") -> "Speed":
        return Speed(self.tiles + other.tiles, self.model_s + other.model_s, self.wall_s + other.wall_s)


NO_SPEED = Speed(0, 0.0, 0.0)

GROUP_BATCHES = 64
GROUP_SECTIONS = 32
"""What one run computes at most beyond the section that reaches the first: small enough to be spread over workers."""


def grouped(tiles: Sequence[int], batch_size: int) -> list[range]:
    """Sections that follow each other, put together until they fill 64 batches or are 32: what one run computes.

    `tiles` counts those of each section. Small sections share batches, large ones stay alone.

    >>> grouped([5, 5, 500, 3], batch_size=1)
    [range(0, 3), range(3, 4)]
    """
    groups: list[range] = []
    start = total = 0
    for place, count in enumerate(tiles):
        total += count
        if total >= GROUP_BATCHES * batch_size or place + 1 - start == GROUP_SECTIONS or place + 1 == len(tiles):
            groups.append(range(start, place + 1))
            start, total = place + 1, 0
    return groups


Report = Callable[[str, int, int, Speed], None]
"""(section, tiles done, its tiles in all, speed so far)"""


def run_engine(
    jobs: Sequence[Job],
    compute: Callable[[Float32], Sequence[Float32]],
    batch_size: int,
    on_progress: Report | None = None,
    beside: bool = True,
) -> tuple[dict[str, str], Speed]:
    """Compute all unfinished lots of the jobs; returns sections that failed with the reason, and the speed.

    `compute` takes (b, c, T, T) float32 and gives arrays (b, ...), and must treat every tile for itself. A
    SectionError while a section is read or written costs that section only; anything else ends the run and is raised
    here. `beside`: reading and writing go on while the model computes; else all is done in turn, with the same
    result.
    """
    return _Run(jobs, compute, batch_size, on_progress).run(beside)


class _Places(NamedTuple):
    """The tiles of a window: their job, lot, and numbers in the lot."""

    job: Job
    lot: Lot
    numbers: range


_Read = Callable[[], Sequence[Float32]]
"""Gives the tiles of a window."""
_Waiting = deque[tuple[_Places, _Read | None]]
"""Windows in order, with what gives the tiles of those that are wanted."""


class _Tile(NamedTuple):
    """A tile on its way: where it belongs, and its pixels; None where nothing is to be computed."""

    job: Job
    lot: Lot
    number: int
    pixels: Float32 | None


class _Slot(NamedTuple):
    """A tile's place in a batch: where it belongs, and whether anything is computed there."""

    job: Job
    lot: Lot
    number: int
    wanted: bool


class _Batch(NamedTuple):
    """Tiles that are computed together."""

    slots: tuple[_Slot, ...]
    tiles: Float32 | None
    """(b, c, T, T), zeros in the slots that are not wanted; None where none is."""

    @classmethod
    def of(cls, tiles: Sequence[_Tile]) -> "_Batch":
        slots = tuple(_Slot(tile.job, tile.lot, tile.number, tile.pixels is not None) for tile in tiles)
        if not any(slot.wanted for slot in slots):
            return cls(slots, None)
        stack = np.zeros((len(tiles), *tiles[0].job.tile_shape), dtype=np.float32)
        for place, tile in enumerate(tiles):
            if tile.pixels is not None:
                stack[place] = tile.pixels
        return cls(slots, stack)


def _batches(tiles: Iterable[_Tile], batch_size: int) -> Iterator[_Batch]:
    """Tiles in order, so many at a time; a batch ends early where the next tile has another shape."""
    held: list[_Tile] = []
    for tile in tiles:
        if len(held) == batch_size or (held and tile.job.tile_shape != held[0].job.tile_shape):
            yield _Batch.of(held)
            held = []
        held.append(tile)
    if held:
        yield _Batch.of(held)


@dataclass
class _Run:
    jobs: Sequence[Job]
    compute: Callable[[Float32], Sequence[Float32]]
    batch_size: int
    on_progress: Report | None
    failed: dict[str, str] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)
    batches: "queue.Queue[_Batch | BaseException | None]" = field(default_factory=lambda: queue.Queue(BATCHES_AHEAD))
    done: dict[str, int] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)
    model_s: float = 0.0
    computed: int = 0
    taken: dict[str, int] = field(default_factory=dict)
    broken: bool = False

    def run(self, beside: bool) -> tuple[dict[str, str], Speed]:
        if beside:
            self._run_beside()
        else:
            self._run_in_turn()
        self._commit_empty()
        return self.failed, Speed(self.computed, self.model_s, time.perf_counter() - self.started)

    def _run_in_turn(self) -> None:
        for batch in _batches(self._read_ahead(lambda read: read, 1), self.batch_size):
            self._take(batch, self._results(batch))
            self._report(batch)

    def _run_beside(self) -> None:
        producer = threading.Thread(target=self._produce, name="embedding-reader", daemon=True)
        producer.start()
        writing: list[Future[None]] = []
        try:
            with ThreadPoolExecutor(1, thread_name_prefix="embedding-writer") as writer:
                while (batch := self.batches.get()) is not None:
                    if isinstance(batch, BaseException):
                        raise batch
                    results = self._results(batch)
                    while len(writing) > BATCHES_AHEAD:
                        writing.pop(0).result()
                    writing.append(writer.submit(self._take, batch, results))
                    self._report(batch)
                for one in writing:
                    one.result()
        finally:
            self.stop.set()
            producer.join()

    # -- reading -----------------------------------------------------------------------------------------------------

    def _produce(self) -> None:
        """Fill the queue of batches; runs in its own thread."""
        try:
            count = min(READERS, os.cpu_count() or 1)
            with ThreadPoolExecutor(count, thread_name_prefix="embedding-reader") as readers:
                begin: Callable[[_Read], _Read] = lambda read: readers.submit(read).result  # noqa: E731 - typed so
                for batch in _batches(self._read_ahead(begin, count + 1), self.batch_size):
                    if not self._offer(batch):
                        return
            self._offer(None)
        except BaseException as error:  # noqa: BLE001 - it is raised in the calling thread
            self._offer(error)

    def _offer(self, item: "_Batch | BaseException | None") -> bool:
        """Put an item into the queue, unless the run has ended meanwhile."""
        while not self.stop.is_set():
            with suppress(queue.Full):
                self.batches.put(item, timeout=0.2)
                return True
        return False

    def _read_ahead(self, begin: "Callable[[_Read], _Read]", ahead: int) -> "Iterator[_Tile]":
        """Every tile in order, without pixels where it is not wanted; some windows are begun ahead."""
        waiting: _Waiting = deque()
        held: deque[int] = deque()
        for job in self.jobs:
            for lot in self._lots(job):
                first = 0
                for window in lot.windows():
                    wanted = not lot.finished and job.section_id not in self.failed
                    places = _Places(job, lot, range(first, first + window.tiles))
                    nbytes = window.nbytes if wanted else 0
                    while held and (len(held) >= ahead or sum(held) + nbytes > AHEAD_BYTES):
                        yield from self._next(waiting, held)
                    waiting.append((places, begin(window.read) if wanted else None))
                    first += window.tiles
                    if wanted:
                        held.append(nbytes)
        while waiting:
            yield from self._next(waiting, held)

    def _next(self, waiting: "_Waiting", held: deque[int]) -> "Iterator[_Tile]":
        """The tiles of the window that has waited longest."""
        places, read = waiting.popleft()
        if read is not None:
            held.popleft()
        yield from self._tiles(places, read)

    def _lots(self, job: Job) -> Iterator[Lot]:
        try:
            yield from job.lots()
        except SectionError as error:
            self.failed.setdefault(job.section_id, str(error))

    def _tiles(self, places: "_Places", read: "_Read | None") -> "Iterator[_Tile]":
        tiles: Sequence[Float32] | None = None
        if read is not None:
            try:
                tiles = read()
            except SectionError as error:
                self.failed.setdefault(places.job.section_id, str(error))
        for at, number in enumerate(places.numbers):
            yield _Tile(places.job, places.lot, number, None if tiles is None else tiles[at])

    # -- computing ---------------------------------------------------------------------------------------------------

    def _results(self, batch: _Batch) -> Sequence[Float32]:
        if batch.tiles is None:
            return ()
        start = time.perf_counter()
        results = self.compute(batch.tiles)
        self.model_s += time.perf_counter() - start
        self.computed += sum(slot.wanted for slot in batch.slots)
        return results

    def _report(self, batch: _Batch) -> None:
        for slot in batch.slots:
            section_id = slot.job.section_id
            self.done[section_id] = self.done.get(section_id, 0) + 1
        if self.on_progress is not None:
            speed = Speed(self.computed, self.model_s, time.perf_counter() - self.started)
            for job in {slot.job.section_id: slot.job for slot in batch.slots}.values():
                self.on_progress(job.section_id, self.done[job.section_id], job.tiles, speed)

    # -- writing -----------------------------------------------------------------------------------------------------

    def _take(self, batch: _Batch, results: Sequence[Float32]) -> None:
        """Hand results to their lots, and close lots and jobs with their last tile."""
        if self.broken:
            return  # a lot may miss tiles of a batch that could not be taken: nothing more is written
        try:
            self._hand_over(batch, results)
        except BaseException:
            self.broken = True
            raise

    def _hand_over(self, batch: _Batch, results: Sequence[Float32]) -> None:
        for place, slot in enumerate(batch.slots):
            section_id = slot.job.section_id
            try:
                if slot.wanted and section_id not in self.failed:
                    slot.lot.put(slot.number, [layer[place] for layer in results])
                    if slot.number == slot.lot.tiles - 1:
                        slot.lot.close()
                self._commit_if_last(slot.job)
            except SectionError as error:
                self.failed.setdefault(section_id, str(error))

    def _commit_if_last(self, job: Job) -> None:
        self.taken[job.section_id] = self.taken.get(job.section_id, 0) + 1
        if self.taken[job.section_id] == job.tiles and job.section_id not in self.failed:
            job.commit()

    def _commit_empty(self) -> None:
        """Commit the jobs that hold no tile at all."""
        for job in self.jobs:
            if job.tiles == 0 and job.section_id not in self.failed:
                try:
                    job.commit()
                except SectionError as error:
                    self.failed.setdefault(job.section_id, str(error))
