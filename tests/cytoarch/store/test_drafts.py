"""A product is made once, whole or not at all, and what a run left unfinished is gone on with."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cytoarch.errors import StoreError
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.catalogue import Catalogue
from cytoarch.store.drafts import Draft, begin, ensure, remove, remove_others
from cytoarch.store.products import WHOLE_BRAIN, Product, Work
from cytoarch.store.staging import Staging
from tests.products import CHANGES, TISSUE, WORK, fresh, never, seals, state, writes
from tests.verified import damaged


def test_a_product_is_made_once_and_then_not_a_byte_is_written(store: BrainStore, catalogue: Catalogue) -> None:
    record, made = ensure(catalogue, TISSUE, WORK, writes({"a": b"1", "deep/b": b"2"}, area_mm2=3.5))
    assert made
    assert record.facts == {"area_mm2": 3.5}
    assert (catalogue.path(TISSUE) / "deep" / "b").read_bytes() == b"2"
    before = state(store.root)
    for one in (catalogue, fresh(catalogue)):
        assert ensure(one, TISSUE, WORK, never) == (record, False)
        assert state(store.root) == before


@pytest.mark.parametrize("changed", CHANGES)
def test_another_version_input_or_setting_makes_the_product_again(catalogue: Catalogue, changed: Work) -> None:
    ensure(catalogue, TISSUE, WORK, writes({"a": b"1", "only-before": b""}))
    assert catalogue.current(TISSUE, changed) is None
    _, made = ensure(catalogue, TISSUE, changed, writes({"a": b"2"}))
    assert made
    assert list(seals(catalogue, TISSUE)) == [f"{TISSUE.key}/a"]
    assert [p.name for p in catalogue.path(TISSUE).iterdir()] == ["a"]
    assert catalogue.current(TISSUE, WORK) is None


def test_settings_that_are_the_same_json_are_the_same_settings(catalogue: Catalogue) -> None:
    ensure(catalogue, TISSUE, replace(WORK, settings={"a": (1, 2), "b": 1}), writes({"a": b"1"}))
    assert not ensure(catalogue, TISSUE, replace(WORK, settings={"b": 1, "a": [1, 2]}), never)[1]


def test_a_product_whose_writing_failed_is_not_there(catalogue: Catalogue) -> None:
    def fails(staging: Staging) -> Mapping[str, Any]:
        staging.write("a", b"1")
        raise RuntimeError("mid-way")

    with pytest.raises(RuntimeError):
        ensure(catalogue, TISSUE, WORK, fails)
    for one in (catalogue, fresh(catalogue)):
        assert one.record(TISSUE) is None
        assert not one.path(TISSUE).exists()
        with pytest.raises(StoreError, match="run find-tissue"):
            one.require(TISSUE, "run find-tissue first")


def test_finished_files_of_a_failed_run_are_adopted_and_the_rest_is_written(catalogue: Catalogue) -> None:
    def fails(staging: Staging) -> Mapping[str, Any]:
        staging.write("a", b"1")
        (staging.path / "b").write_bytes(b"half")
        raise RuntimeError("mid-way")

    def goes_on(staging: Staging) -> Mapping[str, Any]:
        assert staging.has("a")
        assert not staging.has("b")
        assert not (staging.path / "b").exists()
        staging.write("b", b"2")
        return {}

    with pytest.raises(RuntimeError):
        ensure(catalogue, TISSUE, WORK, fails)
    resumed, _ = ensure(catalogue, TISSUE, WORK, goes_on)
    straight, _ = ensure(catalogue, replace(TISSUE, section_id="s2"), WORK, writes({"a": b"1", "b": b"2"}))
    assert resumed.facts == straight.facts == {}
    resumed_files, straight_files = (seals(catalogue, replace(TISSUE, section_id=one)) for one in ("s1", "s2"))
    assert [s.sha256 for s in resumed_files.values()] == [s.sha256 for s in straight_files.values()]


def test_finished_files_of_another_fingerprint_are_not_adopted(catalogue: Catalogue) -> None:
    def fails(staging: Staging) -> Mapping[str, Any]:
        staging.write("a", b"1")
        raise RuntimeError("mid-way")

    with pytest.raises(RuntimeError):
        ensure(catalogue, TISSUE, WORK, fails)
    seen: list[bool] = []

    def write(staging: Staging) -> Mapping[str, Any]:
        seen.append(staging.has("a"))
        staging.write("b", b"2")
        return {}

    ensure(catalogue, TISSUE, CHANGES[0], write)
    assert seen == [False]
    assert list(seals(catalogue, TISSUE)) == [f"{TISSUE.key}/b"]


def test_a_product_that_was_sealed_but_not_published_is_published_without_being_made_again(
    store: BrainStore, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Staging, "publish", dies)
        with pytest.raises(KeyboardInterrupt):
            ensure(catalogue, TISSUE, WORK, writes({"a": b"1"}))
    after = fresh(catalogue)
    assert after.record(TISSUE) is None
    record, made = ensure(after, TISSUE, WORK, never)
    assert made
    assert after.current(TISSUE, WORK) == record
    assert damaged(store, "B1") == []


def begun(catalogue: Catalogue, work: Work = WORK) -> Draft:
    found = begin(catalogue, TISSUE, work)
    assert isinstance(found, Draft)
    return found


def test_a_draft_that_is_committed_is_what_ensuring_makes(
    store: BrainStore, catalogue: Catalogue, tmp_path: Path
) -> None:
    draft = begun(catalogue)
    assert draft.sealed is None
    draft.staging.write("a", b"1")
    record = draft.commit({"n": 1})
    other = BrainStore(tmp_path / "other").catalogue("B1")
    assert ensure(other, TISSUE, WORK, writes({"a": b"1"}, n=1)) == (record, True)
    assert begin(catalogue, TISSUE, WORK) == record == catalogue.record(TISSUE)
    assert catalogue.content_digest() == other.content_digest()
    assert not list((store.brain_path("B1") / "staging").iterdir())


def test_a_draft_that_is_begun_again_adopts_what_is_finished(catalogue: Catalogue) -> None:
    begun(catalogue).staging.write("a", b"1")
    again = begun(catalogue)
    assert again.staging.has("a")
    assert not begun(catalogue, replace(WORK, version=2)).staging.has("a")


@pytest.mark.parametrize("renames", [0, 1])
def test_a_draft_that_was_sealed_but_not_published_is_published_by_the_next_run(
    store: BrainStore, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    """The run dies before, or after, the content is renamed into place."""
    draft = begun(catalogue)
    draft.staging.write("a", b"1")
    with monkeypatch.context() as patch:
        publish = Staging.publish

        def dies(self: Staging, target: Path, record_path: Path) -> None:
            if renames:
                target.parent.mkdir(parents=True)
                self.path.rename(target)
            raise KeyboardInterrupt

        patch.setattr(Staging, "publish", dies)
        with pytest.raises(KeyboardInterrupt):
            draft.commit({"n": 1})
        assert Staging.publish is not publish
    after = fresh(catalogue)
    assert after.record(TISSUE) is None
    again = begun(after)
    assert again.sealed is not None
    record = again.commit({"n": 2})
    assert record.facts == {"n": 1}, "what was sealed is what is published"
    assert begin(after, TISSUE, WORK) == record
    assert damaged(store, "B1") == []
    assert not list((store.brain_path("B1") / "staging").iterdir())


def test_what_a_crash_left_of_a_published_draft_is_cleared_away(
    store: BrainStore, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = begun(catalogue)
    draft.staging.write("a", b"1")
    with monkeypatch.context() as patch:
        patch.setattr("cytoarch.store.staging.shutil.rmtree", lambda _: None)
        record = draft.commit({})
    assert list((store.brain_path("B1") / "staging").iterdir())
    assert begin(fresh(catalogue), TISSUE, WORK) == record
    assert not list((store.brain_path("B1") / "staging").iterdir())


def test_an_old_record_never_speaks_for_new_content(
    store: BrainStore, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure(catalogue, TISSUE, WORK, writes({"a": b"old"}))
    replace_file = Path.replace

    def dies_at_the_record(path: Path, target: Path) -> Path:
        if path.name == "record.json" and target.parent.name == "slide":
            raise KeyboardInterrupt
        return replace_file(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dies_at_the_record)
        with pytest.raises(KeyboardInterrupt):
            ensure(catalogue, TISSUE, CHANGES[0], writes({"a": b"new"}))
    ensure(fresh(catalogue), TISSUE, WORK, writes({"a": b"old"}))
    assert (catalogue.path(TISSUE) / "a").read_bytes() == b"old"
    assert damaged(store, "B1") == []


def test_a_killed_run_leaves_a_store_from_which_the_next_run_makes_the_same_bytes(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.drafts import ensure
from cytoarch.store.products import Product, Work
store, product, work = BrainStore(Path(sys.argv[1])), Product("tissue", "slide", "s1"), Work(1, {}, {})
def write(staging):
    for number in range(50):
        if not staging.has(f"c/{number}"):
            staging.write(f"c/{number}", bytes([number]) * 1000)
            print(number, flush=True)
    return {}
with store.lock("B1"):
    ensure(store.catalogue("B1"), product, work, write)
"""
    clean, killed = tmp_path / "clean", tmp_path / "killed"
    subprocess.run([sys.executable, "-c", program, clean], check=True, capture_output=True)
    with subprocess.Popen([sys.executable, "-c", program, killed], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        lines = [run.stdout.readline() for _ in range(10)]
        run.kill()
    assert lines[-1] == "9\n"
    resumed = subprocess.run([sys.executable, "-c", program, killed], check=True, capture_output=True, text=True)
    assert 0 < len(resumed.stdout.splitlines()) <= 40
    assert BrainStore(killed).catalogue("B1").content_digest() == BrainStore(clean).catalogue("B1").content_digest()
    assert damaged(BrainStore(killed), "B1") == []


def test_a_forgotten_product_is_made_again(catalogue: Catalogue) -> None:
    ensure(catalogue, TISSUE, WORK, writes({"a": b"1"}))
    catalogue.forget(TISSUE)
    assert catalogue.record(TISSUE) is None
    assert ensure(catalogue, TISSUE, WORK, writes({"a": b"1"}))[1]


# -- a product inside another ------------------------------------------------------------------------------------------


SECTION = Product("sections", "scan", "s1")
LABELS = Product("labels", "manifest", "s1")
PIXELS = {"zarr.json": b"{}", "0/c/0/0/0": b"shard", "0/c/0/0/1": b"another"}


def test_healing_a_section_leaves_its_labels_as_they_are(store: BrainStore, catalogue: Catalogue) -> None:
    ensure(catalogue, SECTION, WORK, writes(PIXELS))
    labels, _ = ensure(catalogue, LABELS, WORK, writes({"zarr.json": b"{}", "labels/0/c/0/0": b"shard"}))
    before = state(catalogue.path(LABELS))
    (catalogue.path(SECTION) / "0/c/0/0/0").write_bytes(b"shards")

    def heal(staging: Staging) -> Mapping[str, Any]:
        missing = {key: data for key, data in PIXELS.items() if not staging.has(key)}
        assert list(missing) == ["0/c/0/0/0"]
        return writes(missing)(staging)

    later = fresh(catalogue)
    _, made = ensure(later, SECTION, WORK, heal)
    assert made
    assert state(catalogue.path(LABELS)) == before
    assert not any("labels/" in key for key in seals(later, SECTION))
    assert ensure(later, LABELS, WORK, never) == (labels, False)
    assert damaged(store, "B1") == []


def test_a_section_made_again_takes_its_old_labels_with_it_and_they_are_made_again_too(
    store: BrainStore, catalogue: Catalogue
) -> None:
    ensure(catalogue, SECTION, WORK, writes({"zarr.json": b"{}"}))
    ensure(catalogue, LABELS, WORK, writes({"zarr.json": b"[]"}))
    assert catalogue.record(LABELS) is not None
    assert damaged(store, "B1") == []
    ensure(catalogue, SECTION, CHANGES[0], writes({"zarr.json": b"{}"}))
    assert catalogue.record(LABELS) is None, "though it was remembered"
    ensure(catalogue, LABELS, WORK, writes({"zarr.json": b"[]"}))
    assert damaged(store, "B1") == []


def test_labels_go_with_a_section_whose_pixels_are_others(catalogue: Catalogue) -> None:
    ensure(catalogue, SECTION, WORK, writes(PIXELS))
    ensure(catalogue, LABELS, WORK, writes({"zarr.json": b"{}"}))
    ensure(catalogue, SECTION, CHANGES[0], writes(PIXELS))
    assert catalogue.record(LABELS) is None
    assert fresh(catalogue).record(LABELS) is None


def test_what_is_unfinished_of_other_work_goes_though_the_product_is_current(
    store: BrainStore, catalogue: Catalogue
) -> None:
    ensure(catalogue, TISSUE, WORK, writes({"mask.png": b"1"}))
    begun(catalogue, CHANGES[0]).staging.write("mask.png", b"2")
    folders = store.brain_path("B1") / "staging"
    assert len(list(folders.iterdir())) == 1
    ensure(catalogue, TISSUE, WORK, never)
    assert list(folders.iterdir()) == []


def test_what_is_unfinished_of_a_section_that_is_not_kept_goes_too(store: BrainStore, catalogue: Catalogue) -> None:
    for section in ("s1", "s2", WHOLE_BRAIN):
        begun = begin(catalogue, replace(TISSUE, section_id=section), WORK)
        assert isinstance(begun, Draft)
        begun.staging.write("mask.png", b"1")
    folders = store.brain_path("B1") / "staging"
    assert remove_others(catalogue, "tissue", "slide", {"s1"}) == ()
    assert sorted(one.name.split("+")[2] for one in folders.iterdir()) == sorted([WHOLE_BRAIN, "s1"])


# -- removing ----------------------------------------------------------------------------------------------------------


def test_a_product_that_is_removed_is_gone_at_once_and_for_good(store: BrainStore, catalogue: Catalogue) -> None:
    ensure(catalogue, TISSUE, WORK, writes({"a": b"1"}))
    catalogue.note_damage(TISSUE, ["a"])
    assert remove(catalogue, TISSUE)
    for one in (catalogue, fresh(catalogue)):
        assert not one.is_committed(TISSUE)
        assert not one.path(TISSUE).exists()
        assert not one.damage_path(TISSUE).exists()
    assert not remove(catalogue, TISSUE)
    assert damaged(store, "B1") == []


def test_products_of_sections_that_are_not_kept_are_removed_and_named(catalogue: Catalogue) -> None:
    for section in ("s1", "s2", "s3", WHOLE_BRAIN):
        ensure(catalogue, replace(TISSUE, section_id=section), WORK, writes({"a": b"1"}))
    ensure(catalogue, Product("tissue", "other", "s2"), WORK, writes({"a": b"1"}))
    assert remove_others(catalogue, "tissue", "slide", {"s1"}) == ("s2", "s3")
    for one in (catalogue, fresh(catalogue)):
        assert one.section_ids("tissue", "slide") == ["s1"]
        assert one.record(replace(TISSUE, section_id=WHOLE_BRAIN)) is not None
        assert one.section_ids("tissue", "other") == ["s2"]
