"""What is remembered of a brain, and the metadata of groups."""

from typing import Any

import pytest

from cytoarch.brains import Brain, Section
from cytoarch.errors import StoreError
from cytoarch.store.brain_store import BrainStore, group_metadata
from tests.products import state


def brain(**changes: Any) -> Brain:
    section = Section(brain_id="B1", section_id="s1", section_number=1, path="a.tif", region_px=(0, 5, 0, 5))
    return Brain(brain_id="B1", sections=(section.model_copy(update=changes),))


def test_a_brain_is_read_as_it_was_written(store: BrainStore) -> None:
    store.write_brain(brain())
    assert store.read_brain("B1") == brain()
    assert store.brain_ids() == ("B1",)


def test_an_unchanged_brain_is_not_written_again_and_a_changed_one_is(store: BrainStore) -> None:
    store.write_brain(brain())
    before = state(store.root)
    store.write_brain(brain())
    assert state(store.root) == before
    store.write_brain(brain(stain="nissl"))
    assert store.read_brain("B1").sections[0].stain == "nissl"


def test_a_brain_that_is_not_there_is_named_with_those_that_are(store: BrainStore) -> None:
    with pytest.raises(StoreError, match=r"'B2'.*none"):
        store.read_brain("B2")
    store.write_brain(brain())
    with pytest.raises(StoreError, match=r"'B2'.*B1"):
        store.read_brain("B2")


def test_group_metadata_is_the_same_bytes_in_any_order() -> None:
    assert group_metadata({"b": 1, "a": 2}) == group_metadata({"a": 2, "b": 1})


def test_a_brain_that_is_not_there_is_not_locked_either(store: BrainStore) -> None:
    with pytest.raises(StoreError, match=r"'B2'.*none"), store.lock_existing("B2"):
        pass
    assert not store.root.exists(), "asking for the lock would have made its folder"
    store.write_brain(brain())
    with store.lock_existing("B1"):
        assert store.held(store.brain_path("B1")) is not None
