import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cytoarch.brains import Brain, Section
from cytoarch.errors import StoreError
from cytoarch.store.brain_store import BrainStore, Draft
from cytoarch.store.products import WHOLE_BRAIN, Product, Work
from cytoarch.store.staging import Staging
from tests.products import CHANGES, TISSUE, WORK, never, state, writes
from tests.verified import damaged


@pytest.fixture
def store(tmp_path: Path) -> BrainStore:
    return BrainStore(tmp_path / "store")


# -- addresses ---------------------------------------------------------------------------------------------------------

BAD_IDS = ["..", ".", "", "a/b", "../a", "/a", "a b", "ä", "a\0", "a\n", "-a", "x" * 65, "a\\b"]


@pytest.mark.parametrize("bad", BAD_IDS)
def test_what_cannot_be_an_id_cannot_be_part_of_an_address(store: BrainStore, bad: str) -> None:
    for names in ((bad, "otsu", "s1"), ("B1", bad, "s1"), ("B1", "otsu", bad)):
        with pytest.raises(StoreError):
            Product(names[0], "tissue", names[1], names[2])
    with pytest.raises(StoreError):
        store.brain_path(bad)
    with pytest.raises(StoreError):
        store.read_brain(bad)
    with pytest.raises(StoreError), store.lock(bad):
        pass


@pytest.mark.parametrize("bad", ["", "..", "0" * 63, "0" * 65, "G" * 64, "A" * 64, "../" + "0" * 61])
def test_what_is_no_digest_is_no_address_of_a_model(store: BrainStore, bad: str) -> None:
    with pytest.raises(StoreError):
        store.model_path(bad)


def test_addresses_of_different_products_differ_and_lie_in_their_brain(store: BrainStore) -> None:
    products = [
        Product(brain, step, name, section)
        for brain in ("B1", "B2")
        for step in ("tissue", "embeddings", "clusters")
        for name in ("a", "b")
        for section in ("s1", "s2", WHOLE_BRAIN)
    ]
    products += [Product("B1", step, "x", "s1") for step in ("sections", "labels", "report")]
    assert len({store.path(product) for product in products}) == len(products)
    assert all(store.brain_path(product.brain_id) in store.path(product).parents for product in products)


def test_asking_makes_no_folder(store: BrainStore) -> None:
    assert store.brain_ids() == ()
    assert store.record(TISSUE) is None
    assert store.current(TISSUE, WORK) is None
    assert list(store.records("B1")) == []
    store.path(TISSUE)
    store.forget(TISSUE)
    assert not store.root.exists()


# -- brains ------------------------------------------------------------------------------------------------------------


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


# -- ensure ------------------------------------------------------------------------------------------------------------


def test_a_product_is_made_once_and_then_not_a_byte_is_written(store: BrainStore) -> None:
    record, made = store.ensure(TISSUE, WORK, writes({"a": b"1", "deep/b": b"2"}, area_mm2=3.5))
    assert made
    assert record.facts == {"area_mm2": 3.5}
    assert (store.path(TISSUE) / "deep" / "b").read_bytes() == b"2"
    before = state(store.root)
    again, made_again = store.ensure(TISSUE, WORK, never)
    assert not made_again
    assert again == record
    assert state(store.root) == before


@pytest.mark.parametrize("changed", CHANGES)
def test_another_version_input_or_setting_makes_the_product_again(store: BrainStore, changed: Work) -> None:
    store.ensure(TISSUE, WORK, writes({"a": b"1", "only-before": b""}))
    assert store.current(TISSUE, changed) is None
    record, made = store.ensure(TISSUE, changed, writes({"a": b"2"}))
    assert made
    assert list(record.files) == [f"{TISSUE.key}/a"]
    assert [p.name for p in store.path(TISSUE).iterdir()] == ["a"]
    assert store.current(TISSUE, WORK) is None


def test_settings_that_are_the_same_json_are_the_same_settings(store: BrainStore) -> None:
    store.ensure(TISSUE, replace(WORK, settings={"a": (1, 2), "b": 1}), writes({"a": b"1"}))
    assert not store.ensure(TISSUE, replace(WORK, settings={"b": 1, "a": [1, 2]}), never)[1]


def test_a_product_whose_writing_failed_is_not_there(store: BrainStore) -> None:
    def fails(staging: Staging) -> Mapping[str, Any]:
        staging.write("a", b"1")
        raise RuntimeError("mid-way")

    with pytest.raises(RuntimeError):
        store.ensure(TISSUE, WORK, fails)
    assert store.record(TISSUE) is None
    assert not store.path(TISSUE).exists()
    with pytest.raises(StoreError, match="run find-tissue"):
        store.require(TISSUE, "run find-tissue first")


def test_finished_files_of_a_failed_run_are_adopted_and_the_rest_is_written(store: BrainStore) -> None:
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
        store.ensure(TISSUE, WORK, fails)
    resumed, _ = store.ensure(TISSUE, WORK, goes_on)
    straight, _ = store.ensure(replace(TISSUE, section_id="s2"), WORK, writes({"a": b"1", "b": b"2"}))
    assert [s.sha256 for s in resumed.files.values()] == [s.sha256 for s in straight.files.values()]


def test_finished_files_of_another_fingerprint_are_not_adopted(store: BrainStore) -> None:
    def fails(staging: Staging) -> Mapping[str, Any]:
        staging.write("a", b"1")
        raise RuntimeError("mid-way")

    with pytest.raises(RuntimeError):
        store.ensure(TISSUE, WORK, fails)
    seen: list[bool] = []

    def write(staging: Staging) -> Mapping[str, Any]:
        seen.append(staging.has("a"))
        staging.write("b", b"2")
        return {}

    record, _ = store.ensure(TISSUE, CHANGES[0], write)
    assert seen == [False]
    assert list(record.files) == [f"{TISSUE.key}/b"]


def test_a_product_that_was_sealed_but_not_published_is_published_without_being_made_again(
    store: BrainStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Staging, "publish", dies)
        with pytest.raises(KeyboardInterrupt):
            store.ensure(TISSUE, WORK, writes({"a": b"1"}))
    assert store.record(TISSUE) is None
    record, made = store.ensure(TISSUE, WORK, never)
    assert made
    assert store.current(TISSUE, WORK) == record
    assert damaged(store, "B1") == []


def begun(store: BrainStore, work: Work = WORK) -> Draft:
    found = store.begin(TISSUE, work)
    assert isinstance(found, Draft)
    return found


def test_a_draft_that_is_committed_is_what_ensuring_makes(store: BrainStore, tmp_path: Path) -> None:
    draft = begun(store)
    assert draft.sealed is None
    draft.staging.write("a", b"1")
    record = draft.commit({"n": 1})
    other = BrainStore(tmp_path / "other")
    assert other.ensure(TISSUE, WORK, writes({"a": b"1"}, n=1)) == (record, True)
    assert store.begin(TISSUE, WORK) == record == store.record(TISSUE)
    assert store.content_digest("B1") == other.content_digest("B1")
    assert not list((store.brain_path("B1") / "staging").iterdir())


def test_a_draft_that_is_begun_again_adopts_what_is_finished(store: BrainStore) -> None:
    begun(store).staging.write("a", b"1")
    again = begun(store)
    assert again.staging.has("a")
    assert not begun(store, replace(WORK, version=2)).staging.has("a")


@pytest.mark.parametrize("renames", [0, 1])
def test_a_draft_that_was_sealed_but_not_published_is_published_by_the_next_run(
    store: BrainStore, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    """The run dies before, or after, the content is renamed into place."""
    draft = begun(store)
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
    assert store.record(TISSUE) is None
    again = begun(store)
    assert again.sealed is not None
    record = again.commit({"n": 2})
    assert record.facts == {"n": 1}, "what was sealed is what is published"
    assert store.begin(TISSUE, WORK) == record
    assert damaged(store, "B1") == []
    assert not list((store.brain_path("B1") / "staging").iterdir())


def test_what_a_crash_left_of_a_published_draft_is_cleared_away(
    store: BrainStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = begun(store)
    draft.staging.write("a", b"1")
    with monkeypatch.context() as patch:
        patch.setattr("cytoarch.store.staging.shutil.rmtree", lambda _: None)
        record = draft.commit({})
    assert list((store.brain_path("B1") / "staging").iterdir())
    assert store.begin(TISSUE, WORK) == record
    assert not list((store.brain_path("B1") / "staging").iterdir())


def test_an_old_record_never_speaks_for_new_content(store: BrainStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.ensure(TISSUE, WORK, writes({"a": b"old"}))
    replace_file = Path.replace

    def dies_at_the_record(path: Path, target: Path) -> Path:
        if path.name == "record.json" and target.parent.name == "otsu":
            raise KeyboardInterrupt
        return replace_file(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dies_at_the_record)
        with pytest.raises(KeyboardInterrupt):
            store.ensure(TISSUE, CHANGES[0], writes({"a": b"new"}))
    store.ensure(TISSUE, WORK, writes({"a": b"old"}))
    assert (store.path(TISSUE) / "a").read_bytes() == b"old"
    assert damaged(store, "B1") == []


def test_a_killed_run_leaves_a_store_from_which_the_next_run_makes_the_same_bytes(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.products import Product, Work
store, product, work = BrainStore(Path(sys.argv[1])), Product("B1", "tissue", "otsu", "s1"), Work(1, {}, {})
def write(staging):
    for number in range(50):
        if not staging.has(f"c/{number}"):
            staging.write(f"c/{number}", bytes([number]) * 1000)
            print(number, flush=True)
    return {}
with store.lock("B1"):
    store.ensure(product, work, write)
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
    assert BrainStore(killed).content_digest("B1") == BrainStore(clean).content_digest("B1")
    assert damaged(BrainStore(killed), "B1") == []


def test_a_forgotten_product_is_made_again(store: BrainStore) -> None:
    store.ensure(TISSUE, WORK, writes({"a": b"1"}))
    store.forget(TISSUE)
    assert store.record(TISSUE) is None
    assert store.ensure(TISSUE, WORK, writes({"a": b"1"}))[1]


def test_a_section_made_again_takes_its_old_labels_with_it_and_they_are_made_again_too(store: BrainStore) -> None:
    section, labels = Product("B1", "sections", "scan", "s1"), Product("B1", "labels", "manifest", "s1")
    store.ensure(section, WORK, writes({"zarr.json": b"{}"}))
    store.ensure(labels, WORK, writes({"zarr.json": b"[]"}))
    assert damaged(store, "B1") == []
    store.ensure(section, CHANGES[0], writes({"zarr.json": b"{}"}))
    assert store.record(labels) is None
    store.ensure(labels, WORK, writes({"zarr.json": b"[]"}))
    assert damaged(store, "B1") == []


# -- a product inside another ------------------------------------------------------------------------------------------

SECTION = Product("B1", "sections", "scan", "s1")
LABELS = Product("B1", "labels", "manifest", "s1")
PIXELS = {"zarr.json": b"{}", "0/c/0/0/0": b"shard", "0/c/0/0/1": b"another"}


def test_healing_a_section_leaves_its_labels_as_they_are(store: BrainStore) -> None:
    store.ensure(SECTION, WORK, writes(PIXELS))
    labels, _ = store.ensure(LABELS, WORK, writes({"zarr.json": b"{}", "labels/0/c/0/0": b"shard"}))
    before = state(store.path(LABELS))
    (store.path(SECTION) / "0/c/0/0/0").write_bytes(b"shards")

    def heal(staging: Staging) -> Mapping[str, Any]:
        missing = {key: data for key, data in PIXELS.items() if not staging.has(key)}
        assert list(missing) == ["0/c/0/0/0"]
        return writes(missing)(staging)

    record, made = store.ensure(SECTION, WORK, heal)
    assert made
    assert state(store.path(LABELS)) == before
    assert not any("labels/" in key for key in record.files)
    assert store.ensure(LABELS, WORK, never) == (labels, False)
    assert damaged(store, "B1") == []


def test_labels_go_with_a_section_whose_pixels_are_others(store: BrainStore) -> None:
    store.ensure(SECTION, WORK, writes(PIXELS))
    store.ensure(LABELS, WORK, writes({"zarr.json": b"{}"}))
    store.ensure(SECTION, CHANGES[0], writes(PIXELS))
    assert store.record(LABELS) is None


def test_what_is_unfinished_of_other_work_goes_though_the_product_is_current(store: BrainStore) -> None:
    store.ensure(TISSUE, WORK, writes({"mask.png": b"1"}))
    begun(store, CHANGES[0]).staging.write("mask.png", b"2")
    rooms = store.brain_path("B1") / "staging"
    assert len(list(rooms.iterdir())) == 1
    store.ensure(TISSUE, WORK, never)
    assert list(rooms.iterdir()) == []


def test_what_is_unfinished_of_a_section_that_is_not_kept_goes_too(store: BrainStore) -> None:
    for section in ("s1", "s2", WHOLE_BRAIN):
        begun = store.begin(replace(TISSUE, section_id=section), WORK)
        assert isinstance(begun, Draft)
        begun.staging.write("mask.png", b"1")
    rooms = store.brain_path("B1") / "staging"
    assert store.remove_others("B1", "tissue", "otsu", {"s1"}) == ()
    assert sorted(room.name.split("+")[2] for room in rooms.iterdir()) == sorted([WHOLE_BRAIN, "s1"])


# -- records, verification, digests ------------------------------------------------------------------------------------


@pytest.fixture
def filled(store: BrainStore) -> BrainStore:
    for section in ("s1", "s2"):
        content = {"a": b"alpha" + section.encode(), "deep/b": bytes(5000)}
        store.ensure(replace(TISSUE, section_id=section), WORK, writes(content))
    return store


def test_records_come_in_the_order_of_their_addresses(filled: BrainStore) -> None:
    filled.ensure(Product("B1", "clusters", "k", WHOLE_BRAIN), WORK, writes({"fit": b"1"}))
    found = [(record.step, record.name, record.section) for record in filled.records("B1")]
    assert found == [("clusters", "k", WHOLE_BRAIN), ("tissue", "otsu", "s1"), ("tissue", "otsu", "s2")]


def test_no_file_belongs_to_two_records(filled: BrainStore) -> None:
    keys = [key for record in filled.records("B1") for key in record.files]
    assert len(keys) == len(set(keys)) == 4


@pytest.mark.parametrize("bit", [0, 7, 8 * 2500, 8 * 4999 + 3])
def test_verification_finds_any_flipped_bit(filled: BrainStore, bit: int) -> None:
    file = filled.path(TISSUE) / "deep" / "b"
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)
    assert damaged(filled, "B1") == [f"{TISSUE.key}/deep/b"]


@pytest.mark.parametrize("damage", [lambda f: f.unlink(), lambda f: os.truncate(f, 4), lambda f: os.truncate(f, 9999)])
def test_a_missing_or_truncated_file_is_found_and_its_product_is_not_current(
    filled: BrainStore, damage: Callable[[Path], None]
) -> None:
    damage(filled.path(TISSUE) / "deep" / "b")
    assert damaged(filled, "B1") == [f"{TISSUE.key}/deep/b"]
    assert filled.current(TISSUE, WORK) is None
    filled.ensure(TISSUE, WORK, writes({"a": b"alphas1", "deep/b": bytes(5000)}))
    assert damaged(filled, "B1") == []


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"[]", b"null", b"\xff\xfe"])
def test_a_damaged_record_is_no_record_and_its_product_is_made_again(filled: BrainStore, content: bytes) -> None:
    digest = filled.content_digest("B1")
    path = filled.record_path(TISSUE)
    path.write_bytes(content)
    assert filled.record(TISSUE) is None
    assert filled.current(TISSUE, WORK) is None
    assert filled.names("B1", "tissue") == ["otsu"], "it can still be named"
    with pytest.raises(StoreError, match=r"s1\.json is not a readable record"):
        filled.content_digest("B1")
    filled.ensure(TISSUE, WORK, writes({"a": b"alphas1", "deep/b": bytes(5000)}))
    assert filled.content_digest("B1") == digest


def test_the_content_digest_knows_no_times_links_or_places(filled: BrainStore, tmp_path: Path) -> None:
    before = filled.content_digest("B1")
    elsewhere = BrainStore(tmp_path / "elsewhere")
    shutil.copytree(filled.root, elsewhere.root)
    for file in elsewhere.root.rglob("*"):
        os.utime(file, (1, 1))
    assert elsewhere.content_digest("B1") == before


def test_the_content_digest_knows_no_order_of_making_and_no_facts(filled: BrainStore, tmp_path: Path) -> None:
    other = BrainStore(tmp_path / "other")
    for section in ("s2", "s1"):
        content = {"deep/b": bytes(5000), "a": b"alpha" + section.encode()}
        other.ensure(replace(TISSUE, section_id=section), WORK, writes(content, seconds=time.monotonic()))
    assert other.content_digest("B1") == filled.content_digest("B1")


def test_the_content_digest_changes_with_the_content(filled: BrainStore) -> None:
    before = filled.content_digest("B1")
    filled.ensure(TISSUE, CHANGES[0], writes({"a": b"other", "deep/b": bytes(5000)}))
    assert filled.content_digest("B1") != before


# -- groups and models -------------------------------------------------------------------------------------------------


def test_group_metadata_is_written_once(store: BrainStore) -> None:
    store.write_group(store.root / "g", {"b": 1, "a": 2})
    before = state(store.root)
    store.write_group(store.root / "g", {"a": 2, "b": 1})
    assert state(store.root) == before


def test_a_model_is_kept_under_the_digest_of_its_files(store: BrainStore) -> None:
    files = {"head.safetensors": b"weights", "head.json": b"{}"}
    digest = store.add_model(files)
    assert {p.name: p.read_bytes() for p in store.model_path(digest).iterdir()} == files
    before = state(store.root)
    assert store.add_model(dict(reversed(files.items()))) == digest
    assert state(store.root) == before
    assert store.add_model({**files, "head.json": b"[]"}) != digest
