"""A file that the manifest names is known by its content, read only where it may have changed, and the one it means."""

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from cytoarch.brains import Brain, Section
from cytoarch.errors import ScanError
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.sections import ManifestFile
from cytoarch.steps.step import Place
from cytoarch.store.brain_store import BrainStore

CONTENT = b"scan"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A folder with a scan and a label image."""
    folder = tmp_path / "scans"
    folder.mkdir()
    (folder / "a.tif").write_bytes(CONTENT)
    (folder / "a.png").write_bytes(b"labels")
    return folder


def place(scans: Path, **stated: Any) -> Place:
    """A section in a brain of a store beside the scans."""
    row = {"brain_id": "B1", "section_id": "s1", "section_number": 1, "path": "a.tif", "labels": "a.png", **stated}
    section = Section.model_validate(row)
    brain = Brain.model_construct(brain_id="B1", sections=(section,))
    store = BrainStore(scans.parent / "store")
    return Place(OpenBrain(store, store.catalogue("B1"), "brain B1", brain), section)


def test_a_statement_of_another_checksum_is_refused_and_the_true_one_accepted(scans: Path) -> None:
    scan = ManifestFile(scans, "path")
    assert scan.digests(place(scans)) == {"": DIGEST}
    assert scan.digests(place(scans, sha256=DIGEST)) == {"": DIGEST}
    with pytest.raises(ScanError, match=r"a\.tif.*sha256"):
        scan.digests(place(scans, sha256="0" * 64))


def test_the_statement_is_about_the_scan_and_not_about_the_labels(scans: Path) -> None:
    labels = ManifestFile(scans, "labels").digests(place(scans, sha256="0" * 64))
    assert labels == {"": hashlib.sha256(b"labels").hexdigest()}


def test_at_once_a_scan_is_known_only_when_it_was_read_before_and_looks_the_same(scans: Path) -> None:
    scan, at = ManifestFile(scans, "path"), place(scans)
    assert scan.known_digests(at) is None, "it would have to be read"
    scan.digests(at)
    assert scan.known_digests(at) == {"": DIGEST}
    assert scan.known_digests(place(scans, sha256=DIGEST)) == {"": DIGEST}
    assert scan.known_digests(place(scans, sha256="0" * 64)) is None, "it is not the one that is meant"
    assert ManifestFile(scans, "path", rehash=True).known_digests(at) is None, "it is to be read again"
    os.utime(scans / "a.tif", ns=(1, 1))
    assert scan.known_digests(at) is None
    (scans / "a.tif").unlink()
    assert scan.known_digests(at) is None


def test_a_scan_that_changed_without_a_trace_is_seen_when_it_is_read_again(scans: Path) -> None:
    scan, at, path = ManifestFile(scans, "path"), place(scans), scans / "a.tif"
    scan.digests(at)
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"SCAN")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert scan.digests(at) == {"": DIGEST}, "size, time and inode are as they were"
    assert ManifestFile(scans, "path", rehash=True).digests(at) == {"": hashlib.sha256(b"SCAN").hexdigest()}
    with pytest.raises(ScanError, match="sha256"):
        scan.digests(place(scans, sha256=DIGEST))


def test_a_scan_that_is_not_there_is_named_as_the_manifest_names_it(scans: Path) -> None:
    with pytest.raises(ScanError, match=r"^b\.tif: no such file below .*scans; check the path in the manifest"):
        ManifestFile(scans, "path").digests(place(scans, path="b.tif"))
