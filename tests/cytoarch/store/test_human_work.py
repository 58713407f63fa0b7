"""Human work is committed once; the store never makes, heals or replaces it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cytoarch.errors import StoreError
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.drafts import Draft, begin, ensure
from cytoarch.store.products import Product
from cytoarch.store.staging import Staging
from tests.products import CHANGES, WORK, never, state, writes


@pytest.fixture
def store(tmp_path: Path) -> BrainStore:
    return BrainStore(tmp_path / "store")


NOTES = Product("annotations", "ada", "s1")
DRAWN = {"scribbles.json": b"[1]"}


def lose_record(store: BrainStore) -> None:
    store.catalogue("B1").record_path(NOTES).unlink()


def damage_record(store: BrainStore) -> None:
    path = store.catalogue("B1").record_path(NOTES)
    path.write_bytes(path.read_bytes()[:-3])


def lose_file(store: BrainStore) -> None:
    (store.catalogue("B1").path(NOTES) / "scribbles.json").unlink()


def lose_content(store: BrainStore) -> None:
    shutil.rmtree(store.catalogue("B1").path(NOTES))


def mark(store: BrainStore) -> None:
    store.catalogue("B1").note_damage(NOTES, ["scribbles.json"])


def other_work(_: BrainStore) -> None:
    pass


@pytest.mark.parametrize("change", [lose_record, damage_record, lose_file, lose_content, mark, other_work])
def test_annotations_that_are_there_are_never_made_again(
    store: BrainStore, change: Callable[[BrainStore], None]
) -> None:
    ensure(store.catalogue("B1"), NOTES, WORK, writes(DRAWN))
    change(store)
    before = state(store.root)
    work = CHANGES[0] if change is other_work else WORK
    for _ in range(2):
        with pytest.raises(StoreError, match=r"human work.*restore it from a copy, or choose a new version"):
            ensure(store.catalogue("B1"), NOTES, work, never)
        assert state(store.root) == before


def test_annotations_are_committed_once_and_then_current(store: BrainStore) -> None:
    record, made = ensure(store.catalogue("B1"), NOTES, WORK, writes(DRAWN))
    assert made
    assert ensure(store.catalogue("B1"), NOTES, WORK, never) == (record, False)


def drawn(store: BrainStore) -> Draft:
    """Annotations that are written but not committed."""
    begun = begin(store.catalogue("B1"), NOTES, WORK)
    assert isinstance(begun, Draft)
    writes(DRAWN)(begun.staging)
    return begun


@pytest.mark.parametrize("step", ["sealed", "renamed"])
def test_other_work_never_takes_the_place_of_annotations_on_their_way(
    store: BrainStore, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = drawn(store)
    with monkeypatch.context() as patch:
        patch.setattr(Staging, "publish", lambda *_: None)  # the run dies there
        begun.commit({})
    if step == "renamed":
        store.catalogue("B1").path(NOTES).parent.mkdir(parents=True)
        begun.staging.path.rename(store.catalogue("B1").path(NOTES))
    before = state(store.root)
    with pytest.raises(StoreError, match="human work"):
        ensure(store.catalogue("B1"), NOTES, CHANGES[0], never)
    assert state(store.root) == before
    ensure(store.catalogue("B1"), NOTES, WORK, never)
    assert (store.catalogue("B1").path(NOTES) / "scribbles.json").read_bytes() == DRAWN["scribbles.json"]


@pytest.mark.parametrize("step", ["rename", "record"])
def test_annotations_a_crash_left_on_their_way_are_published(
    store: BrainStore, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = drawn(store)
    moved = store.catalogue("B1").path(NOTES)
    with monkeypatch.context() as patch:
        if step == "rename":
            patch.setattr(Staging, "publish", lambda *_: None)
            begun.commit({})
        else:
            begun.commit({})  # then the record alone goes back, as if it had not been moved yet
            begun.staging.folder.mkdir(parents=True)
            store.catalogue("B1").record_path(NOTES).replace(begun.staging.folder / "record.json")
            assert moved.exists()
    record, _ = ensure(store.catalogue("B1"), NOTES, WORK, never)
    assert (moved / "scribbles.json").read_bytes() == DRAWN["scribbles.json"]
    assert store.catalogue("B1").record(NOTES) == record
