"""How a brain stands, what can be removed of a store, and what a run would cost."""

import os
import time
from pathlib import Path

import pytest

from cytoarch.brains import Brain, Section
from cytoarch.errors import BrainBusyError, StoreError
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.catalogue import Catalogue
from cytoarch.store.drafts import Draft, begin, ensure
from cytoarch.store.durations import DURATIONS_FILE, Duration, Speed, note_duration, read_durations, speeds
from cytoarch.store.leftovers import leftovers, remove
from cytoarch.store.products import Product, Work
from cytoarch.store.standing import Standing, absent, cost, standings
from tests.products import WORK, writes

SECTIONS = ("s1", "s2", "s3")
MODEL = {"head.json": b"{}", "head.safetensors": bytes(64)}


@pytest.fixture
def store(tmp_path: Path) -> BrainStore:
    """A brain of three sections, of which two are in the store, and one of these has tissue."""
    store = BrainStore(tmp_path / "store")
    rows = [Section(brain_id="B1", section_id=one, section_number=at, path="x") for at, one in enumerate(SECTIONS)]
    store.write_brain(Brain(brain_id="B1", sections=tuple(rows)))
    for one in SECTIONS[:2]:
        ensure(store.catalogue("B1"), Product("sections", "scan", one), WORK, writes({"zarr.json": bytes(100)}))
    make_tissue(store)
    return store


def make_tissue(store: BrainStore) -> None:
    catalogue = store.catalogue("B1")
    section = Product("sections", "scan", "s1")
    record = catalogue.record(section)
    assert record is not None
    work = Work(1, {"section": record.digest}, {}, {"section": section.address})
    ensure(catalogue, Product("tissue", "slide", "s1"), work, writes({"mask": bytes(50)}))


def of(store: BrainStore, step: str) -> Standing:
    (found,) = (one for one in standings(store, "B1") if one.step == step)
    return found


def test_what_is_there_is_current_and_what_is_not_is_missing(store: BrainStore) -> None:
    assert of(store, "sections") == Standing("sections", "scan", 2, 0, 1, 0, 200)
    assert of(store, "tissue") == Standing("tissue", "slide", 1, 0, 2, 0, 50)
    assert standings(store, "B1")[0].step == "sections", "what all is made from comes first"


def test_what_was_made_from_something_older_is_stale(store: BrainStore) -> None:
    changed = Work(2, WORK.inputs, WORK.settings)
    ensure(store.catalogue("B1"), Product("sections", "scan", "s1"), changed, writes({"zarr.json": b"other"}))
    assert (of(store, "tissue").current, of(store, "tissue").stale) == (0, 1)
    make_tissue(store)
    assert (of(store, "tissue").current, of(store, "tissue").stale) == (1, 0)


def test_a_file_cut_short_is_damage(store: BrainStore) -> None:
    (store.brain_path("B1") / "derived/tissue/slide/s1/mask").write_bytes(b"")
    found = of(store, "tissue")
    assert (found.current, found.damaged, found.due) == (0, 1, 3)


def test_a_record_that_cannot_be_read_is_damage_and_costs_no_other(store: BrainStore) -> None:
    catalogue = store.catalogue("B1")
    before = {(one.step, one.name): one for one in standings(store, "B1")}
    path = catalogue.record_paths()[0]
    path.write_bytes(path.read_bytes()[:40])
    after = {(one.step, one.name): one for one in standings(store, "B1")}
    step, name = path.parts[-3:-1]
    assert after[step, name].damaged == before[step, name].damaged + 1
    assert after[step, name].missing == before[step, name].missing
    assert after.keys() == before.keys()


def test_a_brain_of_which_nothing_is_ingested_misses_its_sections(tmp_path: Path) -> None:
    store = BrainStore(tmp_path)
    row = Section(brain_id="B1", section_id="s1", section_number=1, path="x")
    store.write_brain(Brain(brain_id="B1", sections=(row,)))
    assert standings(store, "B1") == [Standing("sections", "", 0, 0, 1, 0, 0)]
    with pytest.raises(StoreError, match="brains there: B1"):
        standings(store, "B2")


def test_costs_are_those_of_lately_and_steps_that_run_together_count_once(tmp_path: Path) -> None:
    rows = [Standing("sections", "scan", 8, 0, 2, 0, 800), Standing("tissue", "slide", 0, 6, 4, 0, 600)]
    assert cost(rows, []).seconds is None
    note_duration(tmp_path, Duration("A", ("sections", "tissue"), 10, 20.0))
    note_duration(tmp_path, Duration("A", ("report",), 1, 5.0))
    with (tmp_path / DURATIONS_FILE).open("a") as file:
        file.write('{"brain_id": "A", "steps"')  # a crash
    durations = read_durations(tmp_path)
    assert speeds(durations) == {("sections", "tissue"): Speed(2.0, 0.0, 0.0), ("report",): Speed(5.0, 0.0, 0.0)}
    assert cost(rows, durations) == (20.0, 2 * 100 + 4 * 100)


@pytest.mark.parametrize(
    ("timed", "speed", "seconds"),
    [
        ([(10, 30.0, 10.0), (5, 45.0, 20.0)], (1.0, 2.0), 10 * (1 + 2 * 8)),
        ([(10, 40.0, 10.0), (5, 10.0, 40.0)], (50 / 15, 0.0), 10 * 50 / 15),  # larger ones took less
        (
            [(10, 10.0, 10.0), (10, 100.0, 20.0)],
            (0.0, 210 / 50),
            10 * 210 / 50 * 8,
        ),  # none would take less than nothing
        ([(10, 30.0, 10.0), (10, 36.0, 12.0)], (0.0, 3.0), 10 * 3 * 8),  # alike
        ([(10, 30.0, 0.0), (4, 24.0, 8.0)], (0.0, 3.0), 10 * 3 * 8),  # of an earlier version
    ],
)
def test_larger_sections_cost_more(
    timed: list[tuple[int, float, float]], speed: tuple[float, float], seconds: float
) -> None:
    durations = [Duration("A", ("tissue",), *one) for one in timed]
    found = speeds(durations)["tissue",]
    assert found[:2] == pytest.approx(speed)
    row = Standing("tissue", "slide", 0, 0, 10, 0, 0)
    assert cost([row], durations, 8.0).seconds == pytest.approx(seconds)


def test_a_brain_that_is_only_ingested_costs_what_mapping_takes(store: BrainStore) -> None:
    """Times and room are those of the brain that was mapped, a step of a whole brain once."""
    row = Section(brain_id="B2", section_id="s9", section_number=9, path="x")
    store.write_brain(Brain(brain_id="B2", sections=(row,)))
    ensure(store.catalogue("B2"), Product("sections", "scan", "s9"), WORK, writes({"zarr.json": bytes(10)}))
    rows = standings(store, "B2")
    assert absent(store, "B2", rows, ()) == []
    (missing,) = absent(store, "B2", rows, ("sections", "tissue", "training"))
    assert missing == Standing("tissue", "", 0, 0, 1, 0, 0, 50)
    assert cost([*rows, missing], [Duration("B1", ("tissue",), 2, 6.0)]) == (3.0, 50)


# -- leftovers ---------------------------------------------------------------------------------------------------------


def test_what_nothing_speaks_of_is_found_and_removed_and_nothing_else(store: BrainStore) -> None:
    catalogue = store.catalogue("B1")
    used, registered, unused = (store.models.add({**MODEL, "n": bytes([n])}) for n in range(3))
    ensure(catalogue, Product("training", "areas"), WORK, writes({"x": b"1"}, model=used))
    begun = begin(catalogue, Product("tissue", "slide", "s2"), WORK)
    assert isinstance(begun, Draft)
    begun.staging.write("mask", bytes(1000))
    stray = store.brain_path("B1") / "derived/colours/old/s1"
    stray.mkdir(parents=True)
    (stray / "zarr.json").write_bytes(bytes(10))
    found = leftovers(store, 0, {registered})
    assert [(one.kind, one.path.name) for one in found] == [
        ("unfinished", found[0].path.name), ("model", unused), ("unrecorded", "s1"),
    ]  # fmt: skip
    assert found[0].nbytes > 1000
    assert leftovers(store, 3600, {registered}) == [], "it may be at work"
    before = standings(store, "B1")
    for one in found:
        remove(store, one)
    assert leftovers(store, 0, {registered}) == []
    assert standings(store, "B1") == before
    assert store.models.is_whole(used)
    assert store.models.is_whole(registered)


def test_age_is_that_of_the_newest_file(store: BrainStore) -> None:
    stray = store.brain_path("B1") / "derived/colours/old/s1"
    stray.mkdir(parents=True)
    for name, age_s in (("a", 9000), ("b", 5000)):
        (stray / name).write_bytes(b"1")
        os.utime(stray / name, (time.time() - age_s,) * 2)
    (one,) = leftovers(store, 4000, set())
    assert 4990 < one.age_s < 5100
    assert leftovers(store, 6000, set()) == []


def test_a_brain_that_a_run_has_is_left_alone(store: BrainStore) -> None:
    from contextvars import Context

    stray = store.brain_path("B1") / "derived/colours/old/s1"
    stray.mkdir(parents=True)
    (one,) = leftovers(store, 0, set())
    with store.lock("B1"), pytest.raises(BrainBusyError):
        Context().run(remove, store, one)
    assert stray.exists()
    assert Catalogue(store.brain_path("B1")).names("tissue") == ["slide"]
