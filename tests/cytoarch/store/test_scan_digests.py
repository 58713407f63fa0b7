"""A scan is hashed once, and again only if it changed or this is asked for."""

import os
from pathlib import Path

import pytest

from cytoarch.store.brain_store import BrainStore
from tests.products import state


def scan_digest(store: BrainStore, scan: Path, rehash: bool = False) -> str:
    return store.scan_digest("B1", scan, [scan], rehash)


EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_the_digest_of_a_scan_is_its_sha256(store: BrainStore, tmp_path: Path) -> None:
    (tmp_path / "empty.tif").write_bytes(b"")
    assert scan_digest(store, tmp_path / "empty.tif") == EMPTY_SHA256


def test_a_scan_is_read_once_and_again_only_if_it_changed_or_is_asked_for(
    store: BrainStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = tmp_path / "a.tif"
    scan.write_bytes(b"one")
    first = scan_digest(store, scan)
    before = state(store.root)
    with monkeypatch.context() as patch:
        patch.delattr("cytoarch.store.scan_digests.hash_file")
        assert scan_digest(store, scan) == first
        assert state(store.root) == before
    assert scan_digest(store, scan, rehash=True) == first
    assert state(store.root) == before
    scan.write_bytes(b"three")
    assert scan_digest(store, scan) != first


def test_a_touched_scan_keeps_its_digest(store: BrainStore, tmp_path: Path) -> None:
    scan = tmp_path / "a.tif"
    scan.write_bytes(b"one")
    first = scan_digest(store, scan)
    os.utime(scan, (1, 1))
    assert scan_digest(store, scan) == first


def test_a_scan_replaced_by_another_of_equal_size_and_time_is_noticed(store: BrainStore, tmp_path: Path) -> None:
    scan, other = tmp_path / "a.tif", tmp_path / "b.tif"
    scan.write_bytes(b"one")
    other.write_bytes(b"two")
    for file in (scan, other):
        os.utime(file, ns=(5, 5))
    first = scan_digest(store, scan)
    other.replace(scan)
    assert scan_digest(store, scan) != first


def test_rehash_notices_bytes_that_changed_under_the_same_size_time_and_inode(
    store: BrainStore, tmp_path: Path
) -> None:
    scan = tmp_path / "a.tif"
    scan.write_bytes(b"one")
    os.utime(scan, ns=(5, 5))
    first = scan_digest(store, scan)
    scan.write_bytes(b"two")
    os.utime(scan, ns=(5, 5))
    changed = scan_digest(store, scan, rehash=True)
    assert changed != first
    assert scan_digest(store, scan) == changed


def test_scans_of_the_same_name_in_different_folders_are_told_apart(store: BrainStore, tmp_path: Path) -> None:
    digests = set()
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.tif").write_bytes(name.encode())
        digests.add(scan_digest(store, tmp_path / name / "a.tif"))
    assert len(digests) == 2


def test_the_digest_of_a_scan_of_several_files_tells_names_contents_and_their_number(
    store: BrainStore, tmp_path: Path
) -> None:
    scan = tmp_path / "a.zarr"
    scan.mkdir()
    seen = set()
    for names in (("x", "y"), ("x", "z"), ("x",)):
        for file in scan.iterdir():
            file.unlink()
        for name in names:
            (scan / name).write_bytes(name[:1].encode())
        seen.add(store.scan_digest("B1", scan, [scan / name for name in names]))
    (scan / "x").write_bytes(b"other")
    seen.add(store.scan_digest("B1", scan, [scan / "x"]))
    assert len(seen) == 4


def test_a_remembered_digest_with_a_flipped_bit_is_not_believed(store: BrainStore, tmp_path: Path) -> None:
    scan = tmp_path / "a.tif"
    scan.write_bytes(b"one")
    digest = scan_digest(store, scan)
    (memory,) = (store.brain_path("B1") / "scan-digests").iterdir()
    memory.write_bytes(memory.read_bytes().replace(digest[:4].encode(), b"0000"))
    assert store.known_digest("B1", scan, [scan]) is None
    assert scan_digest(store, scan) == digest
