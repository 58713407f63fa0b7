"""Human work is committed once; the store never makes, heals or replaces it."""

import shutil
from collections.abc import Callable

import pytest

from cytoarch.errors import StoreError
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.catalogue import Catalogue
from cytoarch.store.drafts import Draft, begin, ensure
from cytoarch.store.products import Product
from cytoarch.store.staging import Staging
from tests.products import CHANGES, WORK, fresh, never, state, writes

NOTES = Product("annotations", "ada", "s1")
DRAWN = {"scribbles.json": b"[1]"}


def lose_record(catalogue: Catalogue) -> None:
    catalogue.record_path(NOTES).unlink()


def damage_record(catalogue: Catalogue) -> None:
    path = catalogue.record_path(NOTES)
    path.write_bytes(path.read_bytes()[:-3])


def lose_file(catalogue: Catalogue) -> None:
    (catalogue.path(NOTES) / "scribbles.json").unlink()


def lose_content(catalogue: Catalogue) -> None:
    shutil.rmtree(catalogue.path(NOTES))


def mark(catalogue: Catalogue) -> None:
    catalogue.note_damage(NOTES, ["scribbles.json"])


def other_work(_: Catalogue) -> None:
    pass


@pytest.mark.parametrize("change", [lose_record, damage_record, lose_file, lose_content, mark, other_work])
def test_annotations_that_are_there_are_never_made_again(
    store: BrainStore, catalogue: Catalogue, change: Callable[[Catalogue], None]
) -> None:
    ensure(catalogue, NOTES, WORK, writes(DRAWN))
    change(catalogue)
    before = state(store.root)
    work = CHANGES[0] if change is other_work else WORK
    for _ in range(2):
        with pytest.raises(StoreError, match=r"human work.*restore it from a copy, or choose a new version"):
            ensure(fresh(catalogue), NOTES, work, never)
        assert state(store.root) == before


def test_annotations_are_committed_once_and_then_current(catalogue: Catalogue) -> None:
    record, made = ensure(catalogue, NOTES, WORK, writes(DRAWN))
    assert made
    for one in (catalogue, fresh(catalogue)):
        assert ensure(one, NOTES, WORK, never) == (record, False)


def drawn(catalogue: Catalogue) -> Draft:
    """Annotations that are written but not committed."""
    begun = begin(catalogue, NOTES, WORK)
    assert isinstance(begun, Draft)
    writes(DRAWN)(begun.staging)
    return begun


@pytest.mark.parametrize("step", ["sealed", "renamed"])
def test_other_work_never_takes_the_place_of_annotations_on_their_way(
    store: BrainStore, catalogue: Catalogue, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = drawn(catalogue)
    with monkeypatch.context() as patch:
        patch.setattr(Staging, "publish", lambda *_: None)  # the run dies there
        begun.commit({})
    if step == "renamed":
        catalogue.path(NOTES).parent.mkdir(parents=True)
        begun.staging.path.rename(catalogue.path(NOTES))
    before = state(store.root)
    with pytest.raises(StoreError, match="human work"):
        ensure(fresh(catalogue), NOTES, CHANGES[0], never)
    assert state(store.root) == before
    ensure(fresh(catalogue), NOTES, WORK, never)
    assert (catalogue.path(NOTES) / "scribbles.json").read_bytes() == DRAWN["scribbles.json"]


@pytest.mark.parametrize("step", ["rename", "record"])
def test_annotations_a_crash_left_on_their_way_are_published(
    catalogue: Catalogue, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = drawn(catalogue)
    moved = catalogue.path(NOTES)
    with monkeypatch.context() as patch:
        if step == "rename":
            patch.setattr(Staging, "publish", lambda *_: None)
            begun.commit({})
        else:
            begun.commit({})  # then the record alone goes back, as if it had not been moved yet
            begun.staging.folder.mkdir(parents=True)
            catalogue.record_path(NOTES).replace(begun.staging.folder / "record.json")
            assert moved.exists()
    record, _ = ensure(fresh(catalogue), NOTES, WORK, never)
    assert (moved / "scribbles.json").read_bytes() == DRAWN["scribbles.json"]
    assert fresh(catalogue).record(NOTES) == record
