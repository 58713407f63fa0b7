"""A model is kept under the digest of its files, and whole or not at all."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cytoarch.store.brain_store import BrainStore
from cytoarch.store.models import Models
from tests.products import state

FILES = {"head.safetensors": b"weights", "head.json": b"{}"}


@pytest.fixture
def models(store: BrainStore) -> Models:
    return store.models


def kept(models: Models, digest: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in models.path(digest).iterdir()}


def test_a_model_is_kept_under_the_digest_of_its_files(models: Models) -> None:
    digest = models.add(FILES)
    assert kept(models, digest) == FILES
    assert models.is_whole(digest)
    before = state(models.folder)
    assert models.add(dict(reversed(FILES.items()))) == digest
    assert state(models.folder) == before
    assert models.add({**FILES, "head.json": b"[]"}) != digest


def test_a_model_that_is_not_there_is_not_whole(models: Models) -> None:
    assert not models.is_whole("0" * 64)
    assert not models.folder.exists()


def changed(folder: Path) -> None:
    (folder / "head.json").write_bytes(b"[]")


def cut(folder: Path) -> None:
    (folder / "head.safetensors").write_bytes(b"weight")


def lost(folder: Path) -> None:
    (folder / "head.safetensors").unlink()


def added(folder: Path) -> None:
    (folder / "more.py").write_text("import os")


def emptied(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def renamed(folder: Path) -> None:
    (folder / "head.json").rename(folder / "card.json")


@pytest.mark.parametrize("damage", [changed, cut, lost, added, emptied, renamed])
def test_a_model_that_was_damaged_is_not_whole_and_adding_it_again_replaces_it(
    models: Models, damage: Callable[[Path], None]
) -> None:
    digest, other = models.add(FILES), models.add({"head.json": b"other"})
    damage(models.path(digest))
    assert not models.is_whole(digest)
    assert models.is_whole(other)
    assert models.add(FILES) == digest
    assert kept(models, digest) == FILES
    assert models.is_whole(digest)
    assert sorted(path.name for path in models.folder.iterdir()) == sorted([digest, other])


def test_a_model_that_is_removed_is_gone_and_removing_it_again_is_no_error(models: Models) -> None:
    digest, other = models.add(FILES), models.add({"head.json": b"other"})
    for _ in range(2):
        models.remove(digest)
        assert not models.is_whole(digest)
    assert models.is_whole(other)


def test_a_model_whose_keeping_was_interrupted_is_not_there_and_is_kept_next_time(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dies)
        with pytest.raises(KeyboardInterrupt):
            models.add(FILES)
    digest = models.add(FILES)
    assert kept(models, digest) == FILES
    assert [path.name for path in models.folder.iterdir()] == [digest]
