"""One walk writes every shard of a pyramid once, whatever the number of threads and whatever is there already."""

import errno
import io
import json
import os
import shutil
import tempfile
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import IO, Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_pyramids import Array, make_shards_small, noise, tree, window

from cytoarch.errors import StoreError
from cytoarch.images import layout, shard_tree
from cytoarch.images.halving import halve_mean
from cytoarch.images.layout import Pyramid
from cytoarch.images.pyramids import write_pyramid
from cytoarch.images.shard_tree import ShardTree
from cytoarch.store.staging import Staging

Read = Callable[[int, int, int, int], Array]
SHAPE = (2, 86, 107)
LEVELS = 4
THREADS = [1, 2, 4, 7]
LONGEST_S = 60.0


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for the disk."""
    make_shards_small(monkeypatch)
    monkeypatch.setattr(os, "fsync", lambda _: None)


def write(
    staging: Staging, pixels: Array, reduction: Any = "mean", read: Read | None = None, **options: Any
) -> Pyramid:
    pyramid = Pyramid(pixels.shape, pixels.dtype, 2.0, reduction, levels=LEVELS)
    write_pyramid(staging, pyramid, read or window(pixels), name="image", **options)
    return pyramid


def is_shard(key: str) -> bool:
    return not key.endswith("zarr.json")


class Reader:
    """Gives the windows of an image, and remembers how often each was asked for."""

    def __init__(self, pixels: Array) -> None:
        self.pixels = pixels
        self.asked: Counter[tuple[int, int, int, int]] = Counter()
        self._lock = threading.Lock()

    def __call__(self, y: int, x: int, h: int, w: int) -> Array:
        with self._lock:
            self.asked[y, x, h, w] += 1
        return self.pixels[..., y : y + h, x : x + w]


# -- the number of threads ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "mode"])
@pytest.mark.parametrize("shape", [(86, 107), (2, 65, 33), (1, 1)])
def test_the_number_of_threads_changes_no_byte_and_no_window_is_read_twice(
    tmp_path: Path, reduction: str, shape: tuple[int, ...]
) -> None:
    pixels = noise(*shape, dtype="uint16", most=3 if reduction == "mode" else None)
    trees = []
    for threads in THREADS:
        staging = Staging(tmp_path / str(threads)).open()
        reader = Reader(pixels)
        pyramid = write(staging, pixels, reduction, reader, threads=threads)
        rows, columns = pyramid.shard_grid(0)
        places = [pyramid.shard_window(0, row, column) for row in range(rows) for column in range(columns)]
        assert reader.asked == Counter(places)
        trees.append(tree(staging.path))
    assert all(one == trees[0] for one in trees)
    shards = [len(list(np.ndindex(*pyramid.shard_grid(level)))) for level in range(LEVELS)]
    assert sum(map(is_shard, trees[0])) == sum(shards)


@pytest.mark.parametrize("threads", THREADS)
def test_progress_ends_at_all_bytes_and_counts_every_one_once(staging: Staging, threads: int) -> None:
    pixels = noise(*SHAPE)
    told: list[tuple[int, int]] = []
    write(staging, pixels, on_progress=lambda done, total: told.append((done, total)), threads=threads)
    assert {total for _, total in told} == {pixels.nbytes}
    assert len({done for done, _ in told}) == len(told) == 1 + 12, "threads may tell it out of order, but not twice"
    assert max(told) == (pixels.nbytes, pixels.nbytes)
    assert min(told) == (0, pixels.nbytes)


# -- faults ------------------------------------------------------------------------------------------------------------


class BadWindowError(Exception):
    pass


@pytest.mark.parametrize("threads", THREADS)
def test_a_fault_in_one_window_stops_all_threads_and_is_what_is_raised(
    staging: Staging, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    pixels = noise(*SHAPE)
    together, stopped = threading.Barrier(threads), threading.Event()
    asked: list[int] = []
    work = ShardTree._work

    def tells_its_end(self: ShardTree, steps: Any) -> None:
        try:
            work(self, steps)
        finally:
            stopped.set()

    def read(y: int, x: int, h: int, w: int) -> Array:
        asked.append(1)
        if together.wait(LONGEST_S) == 0:  # one of those that read at once
            raise BadWindowError
        assert stopped.wait(LONGEST_S)
        return pixels[:, y : y + h, x : x + w]

    monkeypatch.setattr(ShardTree, "_work", tells_its_end)
    with pytest.raises(BadWindowError):
        write(staging, pixels, read=read, threads=threads)
    assert len(asked) == threads, "nobody took another window"
    assert not staging.has("zarr.json")
    assert sum(key.startswith("0/c/") and staging.has(key) for key in tree(staging.path)) == threads - 1


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("bad", [0, 5, 11])
def test_what_was_finished_before_a_fault_is_adopted(tmp_path: Path, threads: int, bad: int) -> None:
    pixels = noise(*SHAPE)
    clean = Staging(tmp_path / "clean").open()
    pyramid = write(clean, pixels)
    at = pyramid.shard_window(0, *divmod(bad, pyramid.shard_grid(0)[1]))

    def read(*place: int) -> Array:
        if place == at:
            raise BadWindowError
        return window(pixels)(*place)

    staging = Staging(tmp_path / "broken").open()
    with pytest.raises(BadWindowError):
        write(staging, pixels, read=read, threads=threads)
    before = {key: (staging.path / key).stat().st_ino for key in tree(staging.path) if staging.has(key)}
    again, reader = Staging(tmp_path / "broken").open(), Reader(pixels)
    write(again, pixels, read=reader, threads=threads)
    assert tree(again.path) == tree(clean.path)
    assert {key: (again.path / key).stat().st_ino for key in before} == before
    assert len(reader.asked) == 12 - sum(key.startswith("0/c/") for key in before)
    assert set(reader.asked.values()) == {1}


# -- what is there already ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The room of a staging folder in which a whole image lies."""
    room = tmp_path_factory.mktemp("finished") / "room"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "CHUNK_PX", 16)
        patch.setattr(layout, "SHARD_CHUNKS", 2)
        write(Staging(room).open(), noise(*SHAPE))
    return room


ALL_SHARDS = [
    f"{level}/c/0/{row}/{column}"
    for level, (rows, columns) in enumerate([(3, 4), (2, 2), (1, 1), (1, 1)])
    for row in range(rows)
    for column in range(columns)
]


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    missing=st.one_of(
        st.sets(st.sampled_from(ALL_SHARDS)),
        st.sets(st.sampled_from([key for key in ALL_SHARDS if key[0] != "0"])),
        st.sets(st.sampled_from(ALL_SHARDS)).map(lambda kept: set(ALL_SHARDS) - kept),
    ),
    forgotten=st.booleans(),
    threads=st.sampled_from(THREADS),
)
def test_of_any_shards_that_are_missing_only_those_are_written(
    finished: Path, missing: set[str], forgotten: bool, threads: int
) -> None:
    """The files are gone, or are there but never came into the journal, as a crash leaves them."""
    whole = tree(finished / "content")
    assert set(ALL_SHARDS) == set(filter(is_shard, whole))
    with TemporaryDirectory() as folder:
        room = Path(folder) / "room"
        shutil.copytree(finished, room)
        if forgotten:
            journal = room / "journal.jsonl"
            lines = journal.read_text().splitlines(keepends=True)
            journal.write_text("".join(line for line in lines if json.loads(line)["key"] not in missing))
        else:
            for key in missing:
                (room / "content" / key).unlink()
        kept = set(ALL_SHARDS) - missing
        before = {key: (room / "content" / key).stat().st_mtime_ns for key in kept}
        inodes = {key: (room / "content" / key).stat().st_ino for key in kept}
        staging, written = Staging(room).open(), set()
        writes = staging.write

        def write_noted(key: str, parts: bytes | Iterable[bytes]) -> None:
            written.add(key)
            writes(key, parts)

        staging.write = write_noted  # type: ignore[method-assign]
        told: list[int] = []
        reader = Reader(noise(*SHAPE))
        pyramid = write(
            staging, reader.pixels, read=reader, threads=threads, on_progress=lambda done, _: told.append(done)
        )
        assert tree(staging.path) == whole
        assert set(filter(is_shard, written)) == missing
        assert {key: (staging.path / key).stat().st_mtime_ns for key in kept} == before
        assert {key: (staging.path / key).stat().st_ino for key in kept} == inodes
        leaves = [tuple(map(int, key.split("/")[3:])) for key in missing if key.startswith("0/")]
        assert reader.asked == Counter(pyramid.shard_window(0, *leaf) for leaf in leaves)
        assert max(told) == reader.pixels.nbytes
        assert min(told) == reader.pixels.nbytes - sum(
            reader.pixels[(..., *_slices(place))].nbytes for place in reader.asked
        )


def _slices(place: tuple[int, int, int, int]) -> tuple[slice, slice]:
    y, x, h, w = place
    return slice(y, y + h), slice(x, x + w)


# -- memory and scratch ------------------------------------------------------------------------------------------------


class Forgetful:
    """A journal that keeps nothing but what was written, so that a walk over very many shards is quick."""

    path = Path()

    def __init__(self, scratch: Path, on_write: Callable[[str], None]) -> None:
        self.scratch, self.on_write = scratch, on_write
        self.written: Counter[str] = Counter()
        self._lock = threading.Lock()

    def has(self, key: str) -> bool:
        return False

    def seal(self, key: str) -> None:
        raise AssertionError("no array is made here")

    def write(self, key: str, parts: bytes | Iterable[bytes]) -> None:
        self.on_write(key)
        with self._lock:
            self.written[key] += 1


GRID = 16
GRID_LEVELS = 5
ALL_OF_GRID = sum((GRID >> level) ** 2 for level in range(GRID_LEVELS))


class Walk:
    """A walk over 16 x 16 shards of 4 pixels, watched.

    `first_waits`: who reads the first window ends only after another thread has read all the others.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, scratch: Path, threads: int, first_waits: bool = False) -> None:
        monkeypatch.setattr(layout, "CHUNK_PX", 4)
        monkeypatch.setattr(layout, "SHARD_CHUNKS", 1)
        monkeypatch.setattr(shard_tree, "tempfile", SimpleNamespace(TemporaryFile=self._scratch_file))
        self.pyramid = Pyramid((GRID * 4, GRID * 4), np.dtype(np.uint8), 1.0, "mean", levels=GRID_LEVELS)
        assert self.pyramid.shard_grid(0) == (GRID, GRID)
        self.first_waits = first_waits
        self.blocks: list[weakref.ref[Array]] = []
        self.files: list[IO[bytes]] = []
        self.most_blocks: dict[str, int] = {"read": 0, "above": 0}
        self.most_files = 0
        self._pixels = noise(GRID * 4, GRID * 4)
        self._lock, self._others = threading.Lock(), threading.Event()
        self.journal = Forgetful(scratch, lambda key: self._look("read" if key.startswith("0/") else "above"))
        self.tree = ShardTree(self.journal, self.pyramid, self._read, "", [])
        self.tree.write(threads)

    def _scratch_file(self, dir: Path, buffering: int) -> IO[bytes]:  # noqa: A002 - as it is called
        file = cast("IO[bytes]", tempfile.TemporaryFile(dir=dir, buffering=buffering))  # noqa: SIM115
        with self._lock:
            self.files.append(file)
        return file

    def _look(self, moment: str) -> None:
        with self._lock:
            alive = sum(one() is not None for one in self.blocks)
            self.most_blocks[moment] = max(self.most_blocks[moment], alive)
            self.most_files = max(self.most_files, sum(not one.closed for one in self.files))

    def _read(self, y: int, x: int, h: int, w: int) -> Array:
        block = self._pixels[y : y + h, x : x + w].copy()
        with self._lock:
            self.blocks.append(weakref.ref(block))
            if len(self.blocks) == GRID * GRID:
                self._others.set()
        if self.first_waits and y == x == 0:
            assert self._others.wait(LONGEST_S)
        return block


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("first_waits", [False, True])
def test_a_thread_holds_one_window_at_most_and_none_while_it_writes_a_shard_above(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, threads: int, first_waits: bool
) -> None:
    walk = Walk(monkeypatch, tmp_path, threads, first_waits and threads > 1)
    assert len(walk.journal.written) == ALL_OF_GRID
    assert set(walk.journal.written.values()) == {1}
    assert walk.most_blocks["read"] <= threads
    assert walk.most_blocks["above"] <= threads - 1
    assert all(one() is None for one in walk.blocks)


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("first_waits", [False, True])
def test_shards_that_wait_for_others_wait_in_files_without_a_name_few_at_a_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, threads: int, first_waits: bool
) -> None:
    """What a thread works on keeps one shard a level waiting, and so does the place up to which the walk has come."""
    walk = Walk(monkeypatch, tmp_path, threads, first_waits and threads > 1)
    assert len(walk.files) == ALL_OF_GRID - GRID * GRID
    assert walk.most_files <= (GRID_LEVELS - 1 if threads == 1 else (threads + 1) * (GRID_LEVELS - 1))
    assert all(file.closed for file in walk.files)
    assert list(tmp_path.iterdir()) == []
    assert walk.tree._waiting == {}


@pytest.mark.parametrize("threads", THREADS)
def test_a_walk_that_ends_early_leaves_no_scratch_file_open(
    staging: Staging, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    files: list[IO[bytes]] = []

    def recorded(dir: Path, buffering: int) -> IO[bytes]:  # noqa: A002 - as it is called
        files.append(cast("IO[bytes]", tempfile.TemporaryFile(dir=dir, buffering=buffering)))  # noqa: SIM115
        return files[-1]

    def read(y: int, x: int, h: int, w: int) -> Array:
        if (y, x) == (64, 96):  # the last
            raise BadWindowError
        return noise(*SHAPE)[:, y : y + h, x : x + w]

    monkeypatch.setattr(shard_tree, "tempfile", SimpleNamespace(TemporaryFile=recorded))
    with pytest.raises(BadWindowError):
        write(staging, noise(*SHAPE), read=read, threads=threads)
    assert files
    assert all(file.closed for file in files)
    assert list(staging.scratch.iterdir()) == []


class FullDisk(io.RawIOBase):
    """A file on a disk that is full after some bytes."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return offset

    def tell(self) -> int:
        return 0

    def write(self, data: Any) -> int:
        written = min(len(data), self.room)
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= written
        return written


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize(
    ("edge", "room"),
    [(512, 0), (512, 70_000), (512, 60_000), (32, 0)],
)
def test_where_there_is_no_room_for_what_waits_the_store_is_at_fault(
    staging: Staging, monkeypatch: pytest.MonkeyPatch, threads: int, edge: int, room: int
) -> None:
    """Halves of 64 KiB or of 256 bytes."""
    monkeypatch.setattr(layout, "CHUNK_PX", edge // 2)
    files = SimpleNamespace(TemporaryFile=lambda **_: FullDisk(room))
    monkeypatch.setattr(shard_tree, "tempfile", files)
    with pytest.raises(StoreError, match="the disk is full"):
        write(staging, noise(2 * edge, 2 * edge), threads=threads)


def test_the_shards_of_the_walk_are_the_image_halved_again_and_again(staging: Staging) -> None:
    import zarr

    pixels = noise(*SHAPE)
    write(staging, pixels, threads=4)
    for level in range(LEVELS):
        np.testing.assert_array_equal(zarr.open_array(staging.path / str(level), mode="r")[...], pixels)
        pixels = halve_mean(pixels)
