"""A catalogue answers from records it has read once, sees what is committed through it, and is never wrong for long."""

import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from cytoarch.errors import StoreError
from cytoarch.paths import is_litter
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.catalogue import Catalogue
from cytoarch.store.drafts import ensure, remove
from cytoarch.store.products import WHOLE_BRAIN, Product, Work
from cytoarch.store.records import Committed
from tests.products import CHANGES, TISSUE, WORK, fresh, never, writes
from tests.verified import damaged

SECOND = replace(TISSUE, section_id="s2")


def content_of(product: Product) -> dict[str, bytes]:
    return {"a": b"alpha" + product.section_id.encode(), "deep/b": bytes(5000)}


@pytest.fixture
def filled(catalogue: Catalogue) -> Catalogue:
    """Of a brain with the tissue of two sections, all of it read already."""
    for product in (TISSUE, SECOND):
        ensure(catalogue, product, WORK, writes(content_of(product)))
        assert catalogue.record(product) is not None
    return catalogue


# -- records, verification, digests ------------------------------------------------------------------------------------


def test_records_come_in_the_order_of_their_addresses(filled: Catalogue) -> None:
    ensure(filled, Product("clusters", "k", WHOLE_BRAIN), WORK, writes({"fit": b"1"}))
    found = [(record.step, record.name, record.section) for record in filled.records()]
    assert found == [("clusters", "k", WHOLE_BRAIN), ("tissue", "slide", "s1"), ("tissue", "slide", "s2")]


def test_a_record_knows_what_it_is_the_record_of(filled: Catalogue) -> None:
    assert [record.product for record in filled.records()] == [TISSUE, SECOND]


def test_no_file_belongs_to_two_records(filled: Catalogue) -> None:
    keys = [key for record in filled.records() for key in record.files]
    assert len(keys) == len(set(keys)) == 4


@pytest.mark.parametrize("bit", [0, 7, 8 * 2500, 8 * 4999 + 3])
def test_verification_finds_any_flipped_bit(store: BrainStore, filled: Catalogue, bit: int) -> None:
    file = filled.path(TISSUE) / "deep" / "b"
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)
    assert damaged(store, "B1") == [f"{TISSUE.key}/deep/b"]


@pytest.mark.parametrize("damage", [lambda f: f.unlink(), lambda f: os.truncate(f, 4), lambda f: os.truncate(f, 9999)])
def test_a_missing_or_truncated_file_is_found_and_its_product_is_not_current(
    store: BrainStore, filled: Catalogue, damage: Callable[[Path], None]
) -> None:
    damage(filled.path(TISSUE) / "deep" / "b")
    later = fresh(filled)
    assert later.record(TISSUE) is None, "before anyone has verified it"
    assert later.is_committed(TISSUE)
    assert damaged(store, "B1") == [f"{TISSUE.key}/deep/b"]
    later = fresh(filled)
    assert later.current(TISSUE, WORK) is None
    ensure(later, TISSUE, WORK, writes(content_of(TISSUE)))
    assert later.current(TISSUE, WORK) is not None
    assert damaged(store, "B1") == []


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"[]", b"null", b"\xff\xfe"])
def test_a_damaged_record_is_no_record_and_its_product_is_made_again(filled: Catalogue, content: bytes) -> None:
    digest = filled.content_digest()
    filled.record_path(TISSUE).write_bytes(content)
    later = fresh(filled)
    assert later.record(TISSUE) is None
    assert later.current(TISSUE, WORK) is None
    assert later.names("tissue") == ["slide"], "it can still be named"
    with pytest.raises(StoreError, match=r"s1\.json is not a readable record"):
        later.content_digest()
    ensure(later, TISSUE, WORK, writes(content_of(TISSUE)))
    assert later.content_digest() == digest


def test_the_content_digest_knows_no_times_links_or_places(
    store: BrainStore, filled: Catalogue, tmp_path: Path
) -> None:
    before = filled.content_digest()
    elsewhere = BrainStore(tmp_path / "elsewhere")
    shutil.copytree(store.root, elsewhere.root)
    for file in elsewhere.root.rglob("*"):
        os.utime(file, (1, 1))
    assert elsewhere.catalogue("B1").content_digest() == before


def test_the_content_digest_knows_no_order_of_making_and_no_facts(filled: Catalogue, tmp_path: Path) -> None:
    other = BrainStore(tmp_path / "other").catalogue("B1")
    for product in (SECOND, TISSUE):
        reversed_content = dict(reversed(content_of(product).items()))
        ensure(other, product, WORK, writes(reversed_content, seconds=time.monotonic()))
    assert other.content_digest() == filled.content_digest()


def test_the_content_digest_changes_with_the_content(filled: Catalogue) -> None:
    before = filled.content_digest()
    ensure(filled, TISSUE, CHANGES[0], writes({"a": b"other", "deep/b": bytes(5000)}))
    assert filled.content_digest() != before


def test_the_content_digest_leaves_views_out(filled: Catalogue) -> None:
    before = filled.content_digest()
    picture = Product("pictures", "map", "s1")
    ensure(filled, picture, replace(WORK, view=True), writes({"map.png": b"1"}))
    assert filled.content_digest() == before
    ensure(filled, picture, replace(WORK, version=2), writes({"map.png": b"1"}))
    assert filled.content_digest() != before


# -- what is remembered ------------------------------------------------------------------------------------------------


def test_a_record_is_read_once_however_often_it_is_asked_for(filled: Catalogue) -> None:
    later = fresh(filled)
    first = later.record(TISSUE)
    assert later.records_read == 1
    for _ in range(3):
        assert later.record(TISSUE) is first
        assert later.require(TISSUE, "") is first
        assert later.current(TISSUE, WORK) is first
        assert later.current(TISSUE, CHANGES[0]) is None
        assert later.is_committed(TISSUE)
        assert first is not None
        assert later.outdated(first) == ""
    assert later.records_read == 1
    later.record(SECOND)
    assert later.records_read == 2


def test_that_there_is_no_record_is_remembered_too_and_costs_no_reading(filled: Catalogue) -> None:
    filled.record_path(SECOND).write_bytes(b"damaged")
    later = fresh(filled)
    for _ in range(3):
        assert later.record(replace(TISSUE, section_id="s3")) is None
        assert later.record(replace(TISSUE, name="other")) is None
        assert later.record(SECOND) is None
    assert later.records_read == 1, "the damaged one"


def test_threads_that_ask_at_once_read_a_record_once(filled: Catalogue) -> None:
    later = fresh(filled)
    together = threading.Barrier(8)

    def ask(_: int) -> Committed | None:
        together.wait()
        return later.record(TISSUE)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(8)))
    assert later.records_read == 1
    assert found == [found[0]] * 8


def test_what_is_committed_through_a_catalogue_is_seen_at_once(catalogue: Catalogue) -> None:
    assert catalogue.record(TISSUE) is None
    assert not catalogue.is_committed(TISSUE)
    first, _ = ensure(catalogue, TISSUE, WORK, writes({"a": b"1"}))
    assert catalogue.record(TISSUE) == first
    assert catalogue.is_committed(TISSUE)
    assert (catalogue.names("tissue"), catalogue.section_ids("tissue", "slide")) == (["slide"], ["s1"])
    second, _ = ensure(catalogue, TISSUE, CHANGES[0], writes({"a": b"2"}))
    assert catalogue.record(TISSUE) == second != first
    assert catalogue.current(TISSUE, WORK) is None


@pytest.mark.parametrize("away", ["forgotten", "removed", "damaged"])
def test_what_is_taken_away_through_a_catalogue_is_gone_at_once(filled: Catalogue, away: str) -> None:
    if away == "forgotten":
        filled.forget(TISSUE)
    elif away == "removed":
        remove(filled, TISSUE)
    else:
        filled.note_damage(TISSUE, ["a"])
    for one in (filled, fresh(filled)):
        assert one.record(TISSUE) is None
        assert one.is_committed(TISSUE) == (away == "damaged")
        assert one.section_ids("tissue", "slide") == (["s1", "s2"] if away == "damaged" else ["s2"])
        assert one.record(SECOND) is not None


def test_a_damage_that_was_noted_is_forgotten_when_the_product_is_made_again(filled: Catalogue) -> None:
    filled.note_damage(TISSUE, ["a"])
    record, made = ensure(filled, TISSUE, WORK, writes(content_of(TISSUE)))
    assert made
    for one in (filled, fresh(filled)):
        assert one.record(TISSUE) == record
        assert not one.damage_path(TISSUE).exists()


def test_refreshing_shows_what_others_have_committed_or_taken_away(filled: Catalogue) -> None:
    other, third = fresh(filled), replace(TISSUE, section_id="s3")
    assert filled.record(third) is None
    before = filled.record(TISSUE)
    changed, _ = ensure(other, TISSUE, CHANGES[0], writes({"a": b"2"}))
    added, _ = ensure(other, third, WORK, writes({"a": b"3"}))
    remove(other, SECOND)
    assert (filled.record(TISSUE), filled.record(third)) == (before, None), "it has not looked since"
    for product in (TISSUE, SECOND, third):
        filled.refresh(product)
    assert (filled.record(TISSUE), filled.record(third), filled.record(SECOND)) == (changed, added, None)
    assert filled.section_ids("tissue", "slide") == ["s1", "s3"]
    assert not filled.is_committed(SECOND)


# -- sources that have changed -----------------------------------------------------------------------------------------

EMBEDDINGS = Product("embeddings", "e", "s1")
CLUSTERS = Product("clusters", "k")
MAP = Product("pictures", "map")


def made_from(catalogue: Catalogue, product: Product, **sources: Product) -> Committed:
    """The record of a product that is made of others, as they are now."""
    records = {label: catalogue.require(source, "") for label, source in sources.items()}
    inputs = {label: record.digest for label, record in records.items()}
    work = Work(1, inputs, {}, {label: source.address for label, source in sources.items()})
    return ensure(catalogue, product, work, writes({"made": "".join(sorted(inputs.values())).encode()}))[0]


@pytest.fixture
def chain(filled: Catalogue) -> Catalogue:
    """Tissue of two sections -> embeddings of one -> clusters, of both -> map."""
    made_from(filled, EMBEDDINGS, tissue=TISSUE)
    made_from(filled, CLUSTERS, embeddings=EMBEDDINGS, second=SECOND)
    made_from(filled, MAP, clusters=CLUSTERS)
    assert [filled.outdated(record.committed()) for record in filled.records()] == [""] * 5
    return filled


def outdated(catalogue: Catalogue) -> dict[str, str]:
    """By step what is outdated, and which source has changed."""
    found = {record.step: catalogue.outdated(record.committed()) for record in catalogue.records()}
    return {step: source for step, source in found.items() if source}


def test_a_product_is_outdated_by_a_changed_source_and_so_is_all_that_was_made_of_it(chain: Catalogue) -> None:
    ensure(chain, TISSUE, CHANGES[0], writes({"a": b"other"}))
    for one in (chain, fresh(chain)):
        assert outdated(one) == {"embeddings": "tissue", "clusters": "tissue", "pictures": "tissue"}


def test_the_source_that_has_changed_is_named(chain: Catalogue) -> None:
    ensure(chain, SECOND, CHANGES[0], writes({"a": b"other"}))
    for one in (chain, fresh(chain)):
        assert outdated(one) == {"clusters": "second", "pictures": "second"}


def test_a_source_that_is_made_again_with_the_same_content_outdates_nothing(chain: Catalogue) -> None:
    assert ensure(chain, TISSUE, CHANGES[0], writes(content_of(TISSUE)))[1]
    for one in (chain, fresh(chain)):
        assert outdated(one) == {}


@pytest.mark.parametrize("loss", ["forgotten", "damage noted", "file lost", "record damaged"])
def test_a_source_that_is_lost_outdates_what_was_made_of_it_until_it_is_back(chain: Catalogue, loss: str) -> None:
    if loss == "forgotten":
        chain.forget(TISSUE)
    elif loss == "damage noted":
        chain.note_damage(TISSUE, ["a"])
    elif loss == "file lost":
        (chain.path(TISSUE) / "a").unlink()
        chain.refresh(TISSUE)
    else:
        chain.record_path(TISSUE).write_bytes(b"?")
        chain.refresh(TISSUE)
    above = [chain.require(one, "") for one in (EMBEDDINGS, CLUSTERS, MAP)]
    for one in (chain, fresh(chain)):
        assert [one.outdated(record) for record in above] == ["tissue"] * 3
    ensure(chain, TISSUE, WORK, writes(content_of(TISSUE)))
    for one in (chain, fresh(chain)):
        assert [one.outdated(record) for record in above] == [""] * 3


def test_what_is_made_again_from_the_changed_source_is_no_longer_outdated(chain: Catalogue) -> None:
    ensure(chain, TISSUE, CHANGES[0], writes({"a": b"other"}))
    made_from(chain, EMBEDDINGS, tissue=TISSUE)
    for one in (chain, fresh(chain)):
        assert outdated(one) == {"clusters": "embeddings", "pictures": "embeddings"}
    made_from(chain, CLUSTERS, embeddings=EMBEDDINGS, second=SECOND)
    made_from(chain, MAP, clusters=CLUSTERS)
    assert outdated(chain) == {}


def test_a_source_that_a_record_names_no_digest_of_outdates_it(chain: Catalogue) -> None:
    tissue = chain.require(TISSUE, "")
    work = Work(2, {"tissue": tissue.digest}, {}, {"tissue": TISSUE.address, "second": SECOND.address})
    record, _ = ensure(chain, EMBEDDINGS, work, writes({"made": b"1"}))
    assert chain.outdated(record) == "second"


def test_what_is_known_of_a_source_does_not_grow_with_every_look(chain: Catalogue) -> None:
    made_from_it = chain.require(MAP, "")
    for _ in range(5):
        chain.refresh(SECOND)
        assert chain.outdated(made_from_it) == ""
    assert {one.step: len(found) for one, found in chain._dependents.items()} == {
        "tissue": 1, "embeddings": 1, "clusters": 1
    }  # fmt: skip


def test_asking_whether_a_whole_chain_is_outdated_reads_each_record_once(chain: Catalogue) -> None:
    later = fresh(chain)
    records = [later.require(one, "") for one in (MAP, CLUSTERS, EMBEDDINGS)]
    for _ in range(3):
        assert [later.outdated(record) for record in records] == ["", "", ""]
    assert later.records_read == 5
    assert ensure(later, TISSUE, WORK, never)[1] is False


def test_what_is_used_for_many_sections_is_not_looked_at_again_for_each(
    chain: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fit to thousands of sections is asked about before every section that it is used on."""
    looked: list[str] = []
    changed_source = Catalogue._changed_source

    def counted(self: Catalogue, record: Committed) -> str:
        looked.append(record.product.step)
        return changed_source(self, record)

    monkeypatch.setattr(Catalogue, "_changed_source", counted)
    later = fresh(chain)
    clusters = later.require(CLUSTERS, "")
    for number in range(20):
        made_from(later, replace(MAP, section_id=f"s{number}"), clusters=CLUSTERS)
        assert later.outdated(clusters) == ""
    assert looked.count("clusters") == 1
    ensure(later, SECOND, CHANGES[1], writes({"a": b"other"}))
    assert later.outdated(clusters) == "second"
    assert looked.count("clusters") == 2


def test_the_names_of_a_step_are_known_from_a_file_of_each(filled: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be thousands of sections, and this is asked often."""
    for number in range(30):
        ensure(filled, replace(TISSUE, section_id=f"n{number}"), WORK, writes({"a": b"n"}))
    ensure(filled, replace(TISSUE, name="drawn"), WORK, writes({"a": b"d"}))
    (filled.folder / "records" / "tissue" / "empty").mkdir()
    (filled.folder / "records" / "tissue" / "drawn" / "._s1.json").write_bytes(b"of a Mac")
    looked: list[str] = []

    def counted(name: str) -> bool:
        looked.append(name)
        return is_litter(name)

    monkeypatch.setattr("cytoarch.store.catalogue.is_litter", counted)
    assert filled.names("tissue") == ["drawn", "slide"]
    assert len(looked) <= 3
