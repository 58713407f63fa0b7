"""Jobs whose tiles are numbers: what the engine reads, computes and hands on is written down."""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cytoarch.embeddings.engine import Speed, run_engine

Hook = Callable[[str], None]


def nothing(_: str) -> None:
    """Happens at no place."""


@dataclass
class Ledger:
    """What happened in a run; `hook` is called with every place (`read/s0/1/0`) before anything is done there."""

    hook: Hook = nothing
    batches: list[list[int]] = field(default_factory=list)
    kept: dict[int, tuple[float, float]] = field(default_factory=dict)
    closed: dict[str, list[int]] = field(default_factory=dict)
    committed: list[str] = field(default_factory=list)
    reported: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    speeds: list[Speed] = field(default_factory=list)
    read: list[int] = field(default_factory=list)
    _lock: Any = field(default_factory=threading.Lock)

    def compute(self, tiles: np.ndarray) -> list[np.ndarray]:
        """Twice a tile, and its number."""
        assert tiles.dtype == np.float32
        numbers = tiles[:, 0, 0, 0]
        np.testing.assert_array_equal(tiles, np.broadcast_to(numbers[:, None, None, None], tiles.shape))
        self.hook(f"compute/{len(self.batches)}")
        self.batches.append([int(number) for number in numbers])
        return [2 * tiles, numbers]

    def report(self, section_id: str, done: int, total: int, speed: Speed) -> None:
        self.hook(f"report/{section_id}/{done}")
        self.reported[section_id].append((done, total))
        self.speeds.append(speed)

    def note_read(self, numbers: Sequence[int]) -> None:
        with self._lock:
            self.read += numbers


@dataclass(frozen=True)
class FakeWindow:
    lot: "FakeLot"
    at: int
    first: int
    tiles: int

    @property
    def nbytes(self) -> int:
        return self.lot.job.window_bytes

    def read(self) -> list[np.ndarray]:
        job, numbers = self.lot.job, self.lot.numbers[self.first : self.first + self.tiles]
        job.ledger.hook(f"read/{job.section_id}/{self.lot.place}/{self.at}")
        job.ledger.note_read(numbers)
        return [np.full(job.tile_shape, number, dtype=np.float32) for number in numbers]


@dataclass
class FakeLot:
    job: "FakeJob"
    place: int
    numbers: list[int]
    finished: bool
    taken: list[int] = field(default_factory=list)

    @property
    def tiles(self) -> int:
        return len(self.numbers)

    def windows(self) -> list[FakeWindow]:
        self.job.ledger.hook(f"windows/{self.job.section_id}/{self.place}")
        size = self.job.window_tiles
        starts = range(0, self.tiles, size)
        return [FakeWindow(self, at, first, min(size, self.tiles - first)) for at, first in enumerate(starts)]

    def put(self, index: int, results: Sequence[np.ndarray]) -> None:
        self.job.ledger.hook(f"put/{self.job.section_id}/{self.place}/{index}")
        twice, number = results
        assert twice.shape == self.job.tile_shape
        assert int(number) == self.numbers[index]
        self.taken.append(self.numbers[index])
        self.job.ledger.kept[self.numbers[index]] = (float(twice.flat[0]), float(number))

    def close(self) -> None:
        self.job.ledger.hook(f"close/{self.job.section_id}/{self.place}")
        self.job.ledger.closed[f"{self.job.section_id}/{self.place}"] = self.taken


@dataclass
class FakeJob:
    ledger: Ledger
    section_id: str
    first_number: int
    lot_tiles: Sequence[int]
    window_tiles: int = 1
    edge: int = 2
    window_bytes: int = 1
    committed: bool = False
    finished: frozenset[int] = frozenset()
    """Lots an earlier run finished."""

    @property
    def tiles(self) -> int:
        return sum(self.lot_tiles)

    @property
    def tile_shape(self) -> tuple[int, int, int]:
        return 1, self.edge, self.edge

    @property
    def numbers(self) -> range:
        """The numbers of its tiles; never 0, which stands for a slot that is not wanted."""
        return range(self.first_number, self.first_number + self.tiles)

    def lots(self) -> Iterator[FakeLot]:
        first = self.first_number
        for place, count in enumerate(self.lot_tiles):
            self.ledger.hook(f"lots/{self.section_id}/{place}")
            yield FakeLot(self, place, list(range(first, first + count)), self.committed or place in self.finished)
            first += count

    def commit(self) -> None:
        self.ledger.hook(f"commit/{self.section_id}")
        self.ledger.committed.append(self.section_id)


def jobs_of(
    ledger: Ledger, shapes: Sequence[Sequence[int]], window_tiles: int = 1, edges: Sequence[int] | None = None
) -> list[FakeJob]:
    """Jobs s0, s1, ... with so many tiles in each of their lots; tiles are numbered from 1 through all of them."""
    jobs: list[FakeJob] = []
    number = 1
    for place, lots in enumerate(shapes):
        jobs.append(FakeJob(ledger, f"s{place}", number, lots, window_tiles, edges[place] if edges else 2))
        number += sum(lots)
    return jobs


def run_jobs(
    ledger: Ledger, jobs: Sequence[FakeJob], batch_size: int, beside: bool = True
) -> tuple[dict[str, str], Speed]:
    return run_engine(jobs, ledger.compute, batch_size, ledger.report, beside)


def parts_of(numbers: Sequence[int], size: int) -> list[list[int]]:
    """So many at a time."""
    return [list(numbers[first : first + size]) for first in range(0, len(numbers), size)]
