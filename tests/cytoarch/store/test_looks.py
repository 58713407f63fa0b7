"""Files stand still when two looks find them the same, whatever clock dated them."""

import os
from pathlib import Path

import pytest

from cytoarch.errors import StoreError
from cytoarch.store import looks
from cytoarch.store.looks import LOOKS_FILE, Looks

NOW_S = 1_800_000_000.0


class Clock:
    """The clock of the file system, which tests set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = NOW_S
        monkeypatch.setattr(looks, "clock_s", self._read)

    def _read(self, path: Path) -> float:
        path.touch()
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    (tmp_path / "inbox").mkdir()
    path = tmp_path / "inbox" / "scan.tif"
    path.write_bytes(b"pixels")
    return path


def dated(path: Path, ahead_s: float) -> None:
    os.utime(path, (NOW_S + ahead_s, NOW_S + ahead_s))


def look(path: Path) -> float:
    """Look at a file and remember it; for how long it has stood still."""
    one = Looks(path.parent)
    still_s = one.still_s(path)
    one.keep()
    return still_s


@pytest.mark.parametrize("ahead_s", [0, 1, 3600, 10 * 365 * 86400])
def test_a_file_of_whatever_date_stands_still_from_the_first_look_that_saw_it_so(
    ahead_s: float, scan: Path, clock: Clock
) -> None:
    dated(scan, ahead_s)
    found = []
    for _ in range(4):
        found.append(look(scan))
        clock.now_s += 50
    assert found == [0, 50, 100, 150]


def test_an_old_date_is_believed_at_the_first_look(scan: Path, clock: Clock) -> None:
    dated(scan, -3600)
    assert look(scan) == 3600


def change_size(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")
    dated(path, 3600)


def change_date(path: Path) -> None:
    dated(path, 3601)


@pytest.mark.parametrize("change", [change_size, change_date])
def test_what_changes_begins_anew(change: "object", scan: Path, clock: Clock) -> None:
    dated(scan, 3600)
    assert look(scan) == 0
    clock.now_s += 50
    assert callable(change)
    change(scan)
    assert look(scan) == 0
    clock.now_s += 50
    assert look(scan) == 50


def test_a_clock_that_is_set_back_begins_anew(scan: Path, clock: Clock) -> None:
    dated(scan, 3600)
    look(scan)
    clock.now_s -= 1000
    assert look(scan) == 0
    clock.now_s += 50
    assert look(scan) == 50


def test_a_file_that_was_not_looked_at_in_between_is_new(scan: Path, clock: Clock) -> None:
    """It may have been away, and be copied again now."""
    dated(scan, 3600)
    look(scan)
    Looks(scan.parent).keep()
    clock.now_s += 50
    assert look(scan) == 0


def test_all_in_a_folder_counts(scan: Path, clock: Clock) -> None:
    folder = scan.parent / "scan.zarr"
    (folder / "0" / "c").mkdir(parents=True)
    chunk = folder / "0" / "c" / "0"
    chunk.write_bytes(b"pixels")
    for path in (chunk, *chunk.parents[:3]):
        dated(path, -3600)
    assert look(folder) == 3600
    chunk.write_bytes(b"pixels of")
    dated(chunk, -60)
    assert look(folder) == 60
    dated(chunk, 3600)
    assert look(folder) == 0
    clock.now_s += 50
    chunk.write_bytes(b"pixels of a chunk")
    dated(chunk, 3600)
    assert look(folder) == 0, "its size has changed"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"a": 1}', b"\xff\xfe", b"null"])
def test_damaged_memory_is_as_at_the_first_look(content: bytes, scan: Path, clock: Clock) -> None:
    dated(scan, 3600)
    (scan.parent / LOOKS_FILE).write_bytes(content)
    assert look(scan) == 0
    clock.now_s += 50
    assert look(scan) == 50


def test_names_that_are_no_unicode_are_remembered(scan: Path, clock: Clock) -> None:
    path = scan.with_name(os.fsdecode(b"sch\xe4del.tif"))
    scan.rename(path)
    dated(path, 3600)
    look(path)
    clock.now_s += 50
    assert look(path) == 50


def test_memory_is_written_whole_and_nothing_else_is_left(scan: Path, clock: Clock) -> None:
    look(scan)
    assert sorted(path.name for path in scan.parent.iterdir()) == [LOOKS_FILE, "scan.tif"]


def test_time_is_that_of_the_file_system(scan: Path) -> None:
    """What was written just now stands still for no time by the clock that dated it."""
    assert 0 <= Looks(scan.parent).still_s(scan) < 60
    assert Looks(scan.parent).now_s == (scan.parent / LOOKS_FILE).stat().st_mtime


@pytest.mark.parametrize(("ahead_s", "is_ahead"), [(-3600, False), (0, False), (1.9, False), (2.1, True), (1e9, True)])
def test_a_date_in_the_future_is_told(ahead_s: float, is_ahead: bool, scan: Path, clock: Clock) -> None:
    dated(scan, ahead_s)
    assert Looks(scan.parent).is_ahead(scan) is is_ahead


def test_a_folder_that_cannot_be_written_to_leaves_dates(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_arguments: object) -> float:
        raise PermissionError("read-only")

    monkeypatch.setattr(looks, "clock_s", refused)
    monkeypatch.setattr("time.time", lambda: NOW_S)
    dated(scan, -3600)
    one = Looks(scan.parent)
    assert one.still_s(scan) == 3600
    one.keep()
    assert not one.remembers
    assert [path.name for path in scan.parent.iterdir()] == ["scan.tif"]


def test_a_full_disk_ends_no_look(scan: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_path: Path, _content: bytes) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(looks, "write_atomically", full)
    one = Looks(scan.parent)
    one.keep()
    assert not one.remembers
