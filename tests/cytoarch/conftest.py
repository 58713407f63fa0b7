"""What the tests of the library share: a store, a staging folder to write into, a manifest in a folder."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cytoarch.brains import Brain, read_manifest
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.catalogue import Catalogue
from cytoarch.store.staging import Staging

if TYPE_CHECKING:
    from tests.cytoarch.steps.small_brain import SmallBrain

HEADER = "brain_id,section_id,section_number,path"


@pytest.fixture
def store(tmp_path: Path) -> BrainStore:
    """A store in which nothing is yet."""
    return BrainStore(tmp_path / "store")


@pytest.fixture
def catalogue(store: BrainStore) -> Catalogue:
    """Of its brain B1. It remembers what it read: whoever changes files by hand asks a `fresh` one."""
    return store.catalogue("B1")


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    """An open staging folder; its content lies in `.path`."""
    return Staging(tmp_path / "staging").open()


@pytest.fixture
def write_manifest(tmp_path: Path) -> Callable[..., Path]:
    """Writes a manifest of the given rows (the header is given by `header`) and returns its path."""

    def write(*rows: str, header: str = HEADER) -> Path:
        path = tmp_path / "manifest.csv"
        path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
        return path

    return write


@pytest.fixture
def brains_of(tmp_path: Path, write_manifest: Callable[..., Path]) -> Callable[..., tuple[Brain, ...]]:
    """Writes a manifest and a label table of A = 1, B = 2, and reads them."""

    def read(*rows: str, header: str = HEADER) -> tuple[Brain, ...]:
        table = tmp_path / "table.csv"
        table.write_text("id,name\n1,A\n2,B\n", encoding="utf-8")
        return read_manifest(write_manifest(*rows, header=header), tmp_path, table)

    return read


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are read, and products written, in this process and without waiting for the disk."""
    from cytoarch.steps import sections
    from tests.cytoarch.steps.small_brain import InProcess

    monkeypatch.setattr(sections, "containment", InProcess)
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="session")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> "SmallBrain":
    """A tiny brain with everything made of it by its steps, once per worker process. Not to be changed."""
    from cytoarch.steps import sections
    from tests.cytoarch.steps.small_brain import InProcess, SmallBrain, Steps, write_files

    small = SmallBrain(tmp_path_factory.mktemp("small"))
    write_files(small.scans)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sections, "containment", InProcess)
        patch.setattr(os, "fsync", lambda _: None)
        with small.opened() as opened:
            Steps(small, opened).make_all()
    return small


@pytest.fixture
def small(mapped: "SmallBrain", tmp_path: Path, in_process: None) -> "SmallBrain":
    """A copy of the mapped brain, to be changed."""
    from tests.cytoarch.steps.small_brain import SmallBrain

    shutil.copytree(mapped.folder, tmp_path / "copy")
    return SmallBrain(tmp_path / "copy")
