"""A tiny brain, mapped once per worker process by its steps alone."""

import os
import shutil
from pathlib import Path

import pytest

from cytoarch.steps import sections
from tests.cytoarch.steps.small_brain import InProcess, SmallBrain, Steps, write_files


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are read, and products written, in this process and without waiting for the disk."""
    monkeypatch.setattr(sections, "containment", InProcess)
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="session")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> SmallBrain:
    """The brain with everything made of it. Not to be changed."""
    small = SmallBrain(tmp_path_factory.mktemp("small"))
    write_files(small.scans)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sections, "containment", InProcess)
        patch.setattr(os, "fsync", lambda _: None)
        with small.opened() as opened:
            Steps(small, opened).make_all()
    return small


@pytest.fixture
def small(mapped: SmallBrain, tmp_path: Path, in_process: None) -> SmallBrain:
    """A copy of the mapped brain, to be changed."""
    shutil.copytree(mapped.folder, tmp_path / "copy")
    return SmallBrain(tmp_path / "copy")
