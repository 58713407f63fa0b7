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
from cytoarch.store.brain_store import BrainStore, write_group
from cytoarch.store.drafts import Draft, begin, ensure, remove_others
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
        store.models.path(bad)


def test_addresses_of_different_products_differ_and_lie_in_their_brain(store: BrainStore) -> None:
    products = [
        Product(brain, step, name, section)
        for brain in ("B1", "B2")
        for step in ("tissue", "embeddings", "clusters")
        for name in ("a", "b")
        for section in ("s1", "s2", WHOLE_BRAIN)
    ]
    products += [Product(step, "x", "s1") for step in ("sections", "labels", "report")]
    assert len({store.catalogue("B1").path(product) for product in products}) == len(products)
    assert all(
        store.brain_path(product.brain_id) in store.catalogue("B1").path(product).parents for product in products
    )


def test_asking_makes_no_folder(store: BrainStore) -> None:
    assert store.brain_ids() == ()
    assert store.catalogue("B1").record(TISSUE) is None
    assert store.catalogue("B1").current(TISSUE, WORK) is None
    assert list(store.catalogue("B1").records()) == []
    store.catalogue("B1").path(TISSUE)
    store.catalogue("B1").forget(TISSUE)
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
    record, made = ensure(store.catalogue("B1"), TISSUE, WORK, writes({"a": b"1", "deep/b": b"2"}, area_mm2=3.5))
    assert made
    assert record.facts == {"area_mm2": 3.5}
    assert (store.catalogue("B1").path(TISSUE) / "deep" / "b").read_bytes() == b"2"
    before = state(store.root)
    again, made_again = ensure(store.catalogue("B1"), TISSUE, WORK, never)
    assert not made_again
    assert again == record
    assert state(store.root) == before


@pytest.mark.parametrize("changed", CHANGES)
def test_another_version_input_or_setting_makes_the_product_again(store: BrainStore, changed: Work) -> None:
    ensure(store.catalogue("B1"), TISSUE, WORK, writes({"a": b"1", "only-before": b""}))
    assert store.catalogue("B1").current(TISSUE, changed) is None
    record, made = ensure(store.catalogue("B1"), TISSUE, changed, writes({"a": b"2"}))
    assert made
    assert list(record.files) == [f"{TISSUE.key}/a"]
    assert [p.name for p in store.catalogue("B1").path(TISSUE).iterdir()] == ["a"]
    assert store.catalogue("B1").current(TISSUE, WORK) is None


def test_settings_that_are_the_same_json_are_the_same_settings(store: BrainStore) -> None:
    ensure(store.catalogue("B1"), TISSUE, replace(WORK, settings={"a": (1, 2), "b": 1}), writes({"a": b"1"}))
    assert not ensure(store.catalogue("B1"), TISSUE, replace(WORK, settings={"b": 1, "a": [1, 2]}), never)[1]


def test_a_product_whose_writing_failed_is_not_there(store: BrainStore) -> None:
    def fails(staging: Staging) -> Mapping[str, Any]:
        staging.write("a", b"1")
        raise RuntimeError("mid-way")

    with pytest.raises(RuntimeError):
        ensure(store.catalogue("B1"), TISSUE, WORK, fails)
    assert store.catalogue("B1").record(TISSUE) is None
    assert not store.catalogue("B1").path(TISSUE).exists()
    with pytest.raises(StoreError, match="run find-tissue"):
        store.catalogue("B1").require(TISSUE, "run find-tissue first")


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
        ensure(store.catalogue("B1"), TISSUE, WORK, fails)
    resumed, _ = ensure(store.catalogue("B1"), TISSUE, WORK, goes_on)
    straight, _ = ensure(store.catalogue("B1"), replace(TISSUE, section_id="s2"), WORK, writes({"a": b"1", "b": b"2"}))
    assert [s.sha256 for s in resumed.files.values()] == [s.sha256 for s in straight.files.values()]


def test_finished_files_of_another_fingerprint_are_not_adopted(store: BrainStore) -> None:
    def fails(staging: Staging) -> Mapping[str, Any]:
        staging.write("a", b"1")
        raise RuntimeError("mid-way")

    with pytest.raises(RuntimeError):
        ensure(store.catalogue("B1"), TISSUE, WORK, fails)
    seen: list[bool] = []

    def write(staging: Staging) -> Mapping[str, Any]:
        seen.append(staging.has("a"))
        staging.write("b", b"2")
        return {}

    record, _ = ensure(store.catalogue("B1"), TISSUE, CHANGES[0], write)
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
            ensure(store.catalogue("B1"), TISSUE, WORK, writes({"a": b"1"}))
    assert store.catalogue("B1").record(TISSUE) is None
    record, made = ensure(store.catalogue("B1"), TISSUE, WORK, never)
    assert made
    assert store.catalogue("B1").current(TISSUE, WORK) == record
    assert damaged(store, "B1") == []


def begun(store: BrainStore, work: Work = WORK) -> Draft:
    found = begin(store.catalogue("B1"), TISSUE, work)
    assert isinstance(found, Draft)
    return found


def test_a_draft_that_is_committed_is_what_ensuring_makes(store: BrainStore, tmp_path: Path) -> None:
    draft = begun(store)
    assert draft.sealed is None
    draft.staging.write("a", b"1")
    record = draft.commit({"n": 1})
    other = BrainStore(tmp_path / "other")
    assert other.ensure(TISSUE, WORK, writes({"a": b"1"}, n=1)) == (record, True)
    assert begin(store.catalogue("B1"), TISSUE, WORK) == record == store.catalogue("B1").record(TISSUE)
    assert store.catalogue("B1").content_digest() == other.content_digest("B1")
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
    assert store.catalogue("B1").record(TISSUE) is None
    again = begun(store)
    assert again.sealed is not None
    record = again.commit({"n": 2})
    assert record.facts == {"n": 1}, "what was sealed is what is published"
    assert begin(store.catalogue("B1"), TISSUE, WORK) == record
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
    assert begin(store.catalogue("B1"), TISSUE, WORK) == record
    assert not list((store.brain_path("B1") / "staging").iterdir())


def test_an_old_record_never_speaks_for_new_content(store: BrainStore, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure(store.catalogue("B1"), TISSUE, WORK, writes({"a": b"old"}))
    replace_file = Path.replace

    def dies_at_the_record(path: Path, target: Path) -> Path:
        if path.name == "record.json" and target.parent.name == "otsu":
            raise KeyboardInterrupt
        return replace_file(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dies_at_the_record)
        with pytest.raises(KeyboardInterrupt):
            ensure(store.catalogue("B1"), TISSUE, CHANGES[0], writes({"a": b"new"}))
    ensure(store.catalogue("B1"), TISSUE, WORK, writes({"a": b"old"}))
    assert (store.catalogue("B1").path(TISSUE) / "a").read_bytes() == b"old"
    assert damaged(store, "B1") == []


def test_a_killed_run_leaves_a_store_from_which_the_next_run_makes_the_same_bytes(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from cytoarch.store.brain_store import BrainStore, write_group
from cytoarch.store.products import Product, Work
store, product, work = BrainStore(Path(sys.argv[1])), Product("tissue", "otsu", "s1"), Work(1, {}, {})
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
    assert BrainStore(killed).content_digest("B1") == BrainStore(clean).content_digest("B1")
    assert damaged(BrainStore(killed), "B1") == []


def test_a_forgotten_product_is_made_again(store: BrainStore) -> None:
    ensure(store.catalogue("B1"), TISSUE, WORK, writes({"a": b"1"}))
    store.catalogue("B1").forget(TISSUE)
    assert store.catalogue("B1").record(TISSUE) is None
    assert ensure(store.catalogue("B1"), TISSUE, WORK, writes({"a": b"1"}))[1]


def test_a_section_made_again_takes_its_old_labels_with_it_and_they_are_made_again_too(store: BrainStore) -> None:
    section, labels = Product("sections", "scan", "s1"), Product("labels", "manifest", "s1")
    ensure(store.catalogue("B1"), section, WORK, writes({"zarr.json": b"{}"}))
    ensure(store.catalogue("B1"), labels, WORK, writes({"zarr.json": b"[]"}))
    assert damaged(store, "B1") == []
    ensure(store.catalogue("B1"), section, CHANGES[0], writes({"zarr.json": b"{}"}))
    assert store.catalogue("B1").record(labels) is None
    ensure(store.catalogue("B1"), labels, WORK, writes({"zarr.json": b"[]"}))
    assert damaged(store, "B1") == []


# -- a product inside another ------------------------------------------------------------------------------------------

SECTION = Product("sections", "scan", "s1")
LABELS = Product("labels", "manifest", "s1")
PIXELS = {"zarr.json": b"{}", "0/c/0/0/0": b"shard", "0/c/0/0/1": b"another"}


def test_healing_a_section_leaves_its_labels_as_they_are(store: BrainStore) -> None:
    ensure(store.catalogue("B1"), SECTION, WORK, writes(PIXELS))
    labels, _ = ensure(store.catalogue("B1"), LABELS, WORK, writes({"zarr.json": b"{}", "labels/0/c/0/0": b"shard"}))
    before = state(store.catalogue("B1").path(LABELS))
    (store.catalogue("B1").path(SECTION) / "0/c/0/0/0").write_bytes(b"shards")

    def heal(staging: Staging) -> Mapping[str, Any]:
        missing = {key: data for key, data in PIXELS.items() if not staging.has(key)}
        assert list(missing) == ["0/c/0/0/0"]
        return writes(missing)(staging)

    record, made = ensure(store.catalogue("B1"), SECTION, WORK, heal)
    assert made
    assert state(store.catalogue("B1").path(LABELS)) == before
    assert not any("labels/" in key for key in record.files)
    assert ensure(store.catalogue("B1"), LABELS, WORK, never) == (labels, False)
    assert damaged(store, "B1") == []


def test_labels_go_with_a_section_whose_pixels_are_others(store: BrainStore) -> None:
    ensure(store.catalogue("B1"), SECTION, WORK, writes(PIXELS))
    ensure(store.catalogue("B1"), LABELS, WORK, writes({"zarr.json": b"{}"}))
    ensure(store.catalogue("B1"), SECTION, CHANGES[0], writes(PIXELS))
    assert store.catalogue("B1").record(LABELS) is None


def test_what_is_unfinished_of_other_work_goes_though_the_product_is_current(store: BrainStore) -> None:
    ensure(store.catalogue("B1"), TISSUE, WORK, writes({"mask.png": b"1"}))
    begun(store, CHANGES[0]).staging.write("mask.png", b"2")
    rooms = store.brain_path("B1") / "staging"
    assert len(list(rooms.iterdir())) == 1
    ensure(store.catalogue("B1"), TISSUE, WORK, never)
    assert list(rooms.iterdir()) == []


def test_what_is_unfinished_of_a_section_that_is_not_kept_goes_too(store: BrainStore) -> None:
    for section in ("s1", "s2", WHOLE_BRAIN):
        begun = begin(store.catalogue("B1"), replace(TISSUE, section_id=section), WORK)
        assert isinstance(begun, Draft)
        begun.staging.write("mask.png", b"1")
    rooms = store.brain_path("B1") / "staging"
    assert remove_others(store.catalogue("B1"), "tissue", "otsu", {"s1"}) == ()
    assert sorted(room.name.split("+")[2] for room in rooms.iterdir()) == sorted([WHOLE_BRAIN, "s1"])


# -- records, verification, digests ------------------------------------------------------------------------------------


@pytest.fixture
def filled(store: BrainStore) -> BrainStore:
    for section in ("s1", "s2"):
        content = {"a": b"alpha" + section.encode(), "deep/b": bytes(5000)}
        ensure(store.catalogue("B1"), replace(TISSUE, section_id=section), WORK, writes(content))
    return store


def test_records_come_in_the_order_of_their_addresses(filled: BrainStore) -> None:
    filled.ensure(Product("clusters", "k", WHOLE_BRAIN), WORK, writes({"fit": b"1"}))
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
    write_group(store.root / "g", {"b": 1, "a": 2})
    before = state(store.root)
    write_group(store.root / "g", {"a": 2, "b": 1})
    assert state(store.root) == before


def test_a_model_is_kept_under_the_digest_of_its_files(store: BrainStore) -> None:
    files = {"head.safetensors": b"weights", "head.json": b"{}"}
    digest = store.models.add(files)
    assert {p.name: p.read_bytes() for p in store.models.path(digest).iterdir()} == files
    before = state(store.root)
    assert store.models.add(dict(reversed(files.items()))) == digest
    assert state(store.root) == before
    assert store.models.add({**files, "head.json": b"[]"}) != digest
