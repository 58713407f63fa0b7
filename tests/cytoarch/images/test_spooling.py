"""Planes that are decoded from top to bottom are read by window as if they lay in memory."""

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_scans import Array, noise

from cytoarch.errors import ScanError, StoreError
from cytoarch.images import spooling
from cytoarch.images.planes import Pixels, Rows
from cytoarch.images.spooling import readable

H, W = 83, 101


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 16 x 32 pixels and more: a small plane has many."""
    monkeypatch.setattr(spooling, "TILE_PX", 32)
    monkeypatch.setattr(spooling, "TILE_BYTES", 32 * 16)


@pytest.fixture
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Planes are kept in memory, or in a scratch file."""
    monkeypatch.setattr(spooling, "IN_MEMORY_BYTES", 1 << 20 if request.param == "memory" else 0)
    return str(request.param)


in_both = pytest.mark.parametrize("where", ["memory", "file"], indirect=True)


@pytest.fixture
def in_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spooling, "IN_MEMORY_BYTES", 0)


@pytest.fixture
def handles(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The scratch files that were opened."""
    found: list[int] = []
    dup = os.dup

    def recorded(handle: int) -> int:
        found.append(dup(handle))
        return found[-1]

    monkeypatch.setattr(os, "dup", recorded)
    return found


def is_open(handle: int) -> bool:
    try:
        os.fstat(handle)
    except OSError:
        return False
    return True


@dataclass
class Decoder:
    """Gives a plane in bands of these heights, over and over, and counts how often it was started."""

    pixels: Array
    heights: list[int] = field(default_factory=lambda: [7])
    starts: int = 0

    def bands(self) -> Iterator[Pixels]:
        self.starts += 1
        row, number = 0, 0
        while row < self.pixels.shape[1]:
            height = self.heights[number % len(self.heights)]
            yield self.pixels[:, row : row + height]
            row, number = row + height, number + 1

    def rows(self, alpha: bool = False, orientation: int = 1) -> Rows:
        kind: Any = "grey" if len(self.pixels) == 1 else "rgb"
        return Rows(self.pixels.shape, self.pixels.dtype, kind, alpha, orientation, (), ("as it was",), self.bands)


windows = st.tuples(st.integers(0, H - 1), st.integers(0, W - 1)).flatmap(
    lambda at: st.tuples(st.just(at[0]), st.just(at[1]), st.integers(1, H - at[0]), st.integers(1, W - at[1]))
)


# -- what is read ------------------------------------------------------------------------------------------------------


@in_both
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("heights", [[1], [16], [H], [5, 40, 1, 16]])
def test_the_whole_and_any_window_are_the_plane(
    where: str, tmp_path: Path, dtype: str, channels: int, heights: list[int]
) -> None:
    pixels = noise(channels, H, W, dtype=dtype)
    decoder = Decoder(pixels, heights)
    with ExitStack() as stack:
        scan = readable(decoder.rows(), tmp_path, stack)
        assert (scan.shape, scan.dtype, scan.remarks) == (pixels.shape, pixels.dtype, ("as it was",))

        @settings(max_examples=12, deadline=None, derandomize=True)
        @given(window=windows)
        def same(window: tuple[int, int, int, int]) -> None:
            y, x, height, width = window
            np.testing.assert_array_equal(scan.read(*window), pixels[:, y : y + height, x : x + width])

        same()
        np.testing.assert_array_equal(scan.read(0, 0, H, W), pixels)
    assert decoder.starts == 1


SHOWN: dict[int, Callable[[Array], Array]] = {
    1: lambda a: a,
    2: lambda a: a[:, :, ::-1],
    3: lambda a: a[:, ::-1, ::-1],
    4: lambda a: a[:, ::-1],
    5: lambda a: a.transpose(0, 2, 1),
    6: lambda a: np.rot90(a, -1, (1, 2)),
    7: lambda a: np.rot90(a, 2, (1, 2)).transpose(0, 2, 1),
    8: lambda a: np.rot90(a, 1, (1, 2)),
}


@in_both
@pytest.mark.parametrize("orientation", SHOWN)
@pytest.mark.parametrize("alpha", [False, True])
def test_the_plane_is_shown_as_its_orientation_asks_and_without_alpha(
    where: str, tmp_path: Path, orientation: int, alpha: bool
) -> None:
    pixels = noise(4 if alpha else 3, H, W)
    shown = SHOWN[orientation](pixels[:3])
    with ExitStack() as stack:
        scan = readable(Decoder(pixels).rows(alpha, orientation), tmp_path, stack)
        assert scan.shape == shown.shape
        assert ("alpha channel left out" in scan.remarks) == alpha
        assert (f"orientation tag {orientation} applied" in scan.remarks) == (orientation > 1)
        _, height, width = shown.shape
        for y, x, h, w in ((0, 0, height, width), (3, 20, 50, 33), (height - 1, width - 1, 1, 1)):
            np.testing.assert_array_equal(scan.read(y, x, h, w), shown[:, y : y + h, x : x + w])


# -- when it is decoded ------------------------------------------------------------------------------------------------


@in_both
def test_who_only_asks_for_the_size_decodes_nothing(where: str, tmp_path: Path, handles: list[int]) -> None:
    decoder = Decoder(noise(1, H, W))
    with ExitStack() as stack:
        assert readable(decoder.rows(), tmp_path / "scratch", stack).shape == (1, H, W)
    assert decoder.starts == 0
    assert handles == []
    assert not (tmp_path / "scratch").exists()


@in_both
def test_threads_that_read_at_once_decode_once(where: str, tmp_path: Path) -> None:
    pixels = noise(3, H, W)
    decoder = Decoder(pixels)
    together = threading.Barrier(8)
    with ExitStack() as stack, ThreadPoolExecutor(8) as pool:
        scan = readable(decoder.rows(), tmp_path, stack)

        def read(number: int) -> list[Array]:
            together.wait(60)
            return [scan.read(y, number, 10, W - number) for y in range(0, H - 10, 10)]

        for number, found in enumerate(pool.map(read, range(8))):
            for place, block in enumerate(found):
                np.testing.assert_array_equal(block, pixels[:, 10 * place : 10 * place + 10, number:])
    assert decoder.starts == 1


# -- what is not as announced ------------------------------------------------------------------------------------------


def whole(pixels: Array) -> list[Array]:
    return [pixels[:, :50], pixels[:, 50:]]


UNLIKE: dict[str, Callable[[Array], list[Array]]] = {
    "none": lambda a: [],
    "too few": lambda a: [a[:, :50]],
    "a row too few": lambda a: [a[:, :50], a[:, 50:-1]],
    "too many": lambda a: [*whole(a), a[:, :1]],
    "a band too high": lambda a: [a[:, :50], a[:, 40:]],
    "another type": lambda a: [a[:, :50], a[:, 50:].astype(np.uint16)],
    "signed": lambda a: [band.astype(np.int8) for band in whole(a)],
    "a channel too few": lambda a: [a[:2, :50], a[:2, 50:]],
    "a channel too many": lambda a: [np.concatenate([band, band[:1]]) for band in whole(a)],
    "too narrow": lambda a: [band[:, :, :-1] for band in whole(a)],
    "too wide": lambda a: [np.concatenate([band, band[:, :, :1]], axis=2) for band in whole(a)],
}


@in_both
@pytest.mark.parametrize("unlike", UNLIKE)
def test_bands_that_are_not_the_plane_that_was_announced_are_refused(
    where: str, tmp_path: Path, handles: list[int], unlike: str
) -> None:
    pixels = noise(3, H, W)
    rows = replace(Decoder(pixels).rows(), bands=lambda: iter(UNLIKE[unlike](pixels)))
    with ExitStack() as stack:
        scan = readable(rows, tmp_path, stack)
        for _ in range(2):  # asking again does not help
            with pytest.raises(ScanError):
                scan.read(0, 0, 1, 1)
        assert not any(map(is_open, handles))
    assert len(handles) == (2 if where == "file" else 0)
    assert list(tmp_path.iterdir()) == []


# -- the scratch file --------------------------------------------------------------------------------------------------


def test_the_scratch_file_has_no_name_and_is_closed_with_the_stack(
    in_file: None, tmp_path: Path, handles: list[int]
) -> None:
    scratch = tmp_path / "made" / "for it"
    with ExitStack() as stack:
        scan = readable(Decoder(noise(1, H, W)).rows(), scratch, stack)
        scan.read(0, 0, 1, 1)
        (handle,) = handles
        assert is_open(handle)
        assert os.fstat(handle).st_nlink == 0
        assert list(scratch.iterdir()) == []
        scan.read(5, 5, 1, 1)
    assert handles == [handle]
    assert not is_open(handle)


def test_two_planes_may_share_a_scratch_folder(in_file: None, tmp_path: Path) -> None:
    first, second = noise(1, H, W), noise(1, H, W)[:, ::-1]
    with ExitStack() as stack:
        scans = [readable(Decoder(pixels).rows(), tmp_path, stack) for pixels in (first, second)]
        for scan, pixels in zip(scans, (first, second), strict=True):
            np.testing.assert_array_equal(scan.read(0, 0, H, W), pixels)
        np.testing.assert_array_equal(scans[0].read(0, 0, H, W), first)


def test_what_lies_in_the_scratch_folder_is_left_alone(in_file: None, tmp_path: Path) -> None:
    """It may be the system's folder of temporary files, in which others write too."""
    precious, scratch = tmp_path / "precious", tmp_path / "scratch"
    precious.write_bytes(b"not to be lost")
    scratch.mkdir()
    (scratch / "spool").symlink_to(precious)
    pixels = noise(1, H, W)
    with ExitStack() as stack:
        np.testing.assert_array_equal(readable(Decoder(pixels).rows(), scratch, stack).read(0, 0, H, W), pixels)
    assert precious.read_bytes() == b"not to be lost"
    assert (scratch / "spool").is_symlink()


class DecoderError(Exception):
    pass


def test_a_decoder_that_fails_leaves_no_file_open(in_file: None, tmp_path: Path, handles: list[int]) -> None:
    pixels = noise(1, H, W)

    def bands() -> Iterator[Pixels]:
        yield pixels[:, :40]
        raise DecoderError

    with ExitStack() as stack:
        scan = readable(replace(Decoder(pixels).rows(), bands=bands), tmp_path, stack)
        with pytest.raises(DecoderError):
            scan.read(0, 0, 1, 1)
        (handle,) = handles
        assert not is_open(handle)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_where_there_is_no_room_left_the_store_is_at_fault_and_not_the_scan(
    in_file: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handles: list[int], code: int
) -> None:
    pwrite, calls = os.pwrite, 0

    def full(handle: int, data: Any, at: int) -> int:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise OSError(code, os.strerror(code))
        return pwrite(handle, data, at)

    monkeypatch.setattr(os, "pwrite", full)
    with ExitStack() as stack:
        scan = readable(Decoder(noise(1, H, W)).rows(), tmp_path, stack)
        with pytest.raises(StoreError, match="run again"):
            scan.read(0, 0, 1, 1)
    assert not is_open(handles[0])


def test_where_there_is_too_little_room_it_is_said_before_anything_is_decoded(
    in_file: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handles: list[int]
) -> None:
    decoder = Decoder(noise(3, H, W))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3 * H * W // 8 - 1))
    with ExitStack() as stack:
        scan = readable(decoder.rows(), tmp_path, stack)
        with pytest.raises(StoreError, match="Make room"):
            scan.read(0, 0, 1, 1)
        assert not is_open(handles[0])
        assert decoder.starts == 0
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3 * H * W // 8))
        np.testing.assert_array_equal(scan.read(0, 0, H, W), decoder.pixels)


def test_writes_that_the_system_cuts_short_go_on(
    in_file: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, pwrite = noise(3, H, W), os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda handle, data, at: pwrite(handle, data[:100], at))
    with ExitStack() as stack:
        np.testing.assert_array_equal(readable(Decoder(pixels).rows(), tmp_path, stack).read(0, 0, H, W), pixels)


# -- progress ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heights", [[1], [7], [16], [H], [5, 40, 1, 16]])
def test_progress_grows_with_every_band_up_to_all_bytes(in_file: None, tmp_path: Path, heights: list[int]) -> None:
    pixels = noise(3, H, W, dtype="uint16")
    told: list[tuple[int, int]] = []
    with ExitStack() as stack:
        scan = readable(
            Decoder(pixels, heights).rows(alpha=True),
            tmp_path,
            stack,
            lambda done, total: told.append((done, total)),
        )
        assert told == []
        scan.read(0, 0, 1, 1)
        heard = len(told)
        scan.read(5, 5, 9, 9)
    assert len(told) == heard == len(list(Decoder(pixels, heights).bands()))
    assert sorted(set(told)) == told
    assert told[-1] == (pixels.nbytes, pixels.nbytes)
    assert {total for _, total in told} == {pixels.nbytes}
