"""Whatever is damaged is named, and the next run makes it whole without touching what is not damaged."""

import random
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest

from cytoarch.store.brain_store import BrainStore
from cytoarch.store.collection import COLLECTION
from cytoarch.store.drafts import ensure
from cytoarch.store.products import Product, Work
from cytoarch.store.records import read_record
from cytoarch.store.staging import Staging
from cytoarch.store.verification import verify_brain
from tests.endurance.conftest import Ingested, Measured, trials
from tests.endurance.damages import KINDS, committed_files
from tests.endurance.runs import Runs
from tests.endurance.traces import CHANGING, identities, identity, temporary

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("endurance 2")]

MOST_AT_ONCE = 12
ANNOTATION = Product("annotations", "ada", "s1")


def copied(ingested: Ingested, root: Path) -> BrainStore:
    shutil.copytree(ingested.store.root, root)
    return BrainStore(root)


def planned(draw: random.Random) -> list[str]:
    """Kinds of damage in the order in which they are done."""
    kinds = ["flip"] * trials(500, 20) + ["truncate"] * trials(100, 6) + ["delete"] * trials(25, 3)
    draw.shuffle(kinds)
    return kinds


def chosen(draw: random.Random, store: BrainStore, count: int) -> list[str]:
    """Files to damage, every kind of file as likely as another."""
    files = committed_files(store, "E1")
    picked: set[str] = set()
    while len(picked) < count:
        picked.add(draw.choice(files[draw.choice(sorted(files))]))
    return sorted(picked)


def unnamed(store: BrainStore, damaged: dict[str, str]) -> list[str]:
    """Damaged files that verification does not name.

    A damaged record is named for all of its files; one that is gone is told of by its files, which belong to none.
    """
    found = verify_brain(store, "E1")
    named = {fault.key for fault in found.faults}
    for record in [key for key in damaged if key.startswith("records/")]:
        lead = f"{product_of(record).key}/"
        if not (store.brain_path("E1") / record).exists() and any(one.startswith(lead) for one in found.strays):
            named.add(record)
        if record in named:
            named |= {key for key in damaged if key.startswith(lead)}
    return sorted(f"{damaged[key]} {key}" for key in set(damaged) - named)


def product_of(record_key: str) -> Product:
    _, step, name, file = record_key.split("/")
    return Product(step, name, file.removesuffix(".json"))


def remade(store: BrainStore, damaged: dict[str, str]) -> set[str]:
    """Folders that are made anew: those of damaged records, and labels that lie in a section that is mended."""
    folders = set()
    for key in damaged:
        if key.startswith("records/"):
            folders.add(product_of(key).key)
        elif key.startswith("sections.ome.zarr/s"):
            folders.add("/".join(key.split("/")[:2]) + "/labels")
    return folders


@pytest.mark.long
def test_every_damage_is_named_and_healed_and_nothing_else_is_touched(
    runs: Runs, medium: Ingested, tmp_path: Path, measured: Measured
) -> None:
    draw = random.Random(11)  # noqa: S311 - a schedule of damage is no secret
    kinds, batches = planned(draw), 0
    done: Counter[str] = Counter()
    files: Counter[str] = Counter()
    missed: list[str] = []
    touched: list[str] = []
    began_at = time.monotonic()
    while kinds:
        batches += 1
        store = copied(medium, tmp_path / f"store-{batches}")
        home = store.brain_path("E1")
        count = min(len(kinds), draw.randint(1, MOST_AT_ONCE))
        damaged = {key: kinds.pop() for key in chosen(draw, store, count)}
        for key, kind in damaged.items():
            KINDS[kind](draw, home / key)
            done[kind] += 1
            files["records" if key.startswith("records/") else Path(key).name if "." in key else "shards"] += 1
        before = identities(home)
        missed += unnamed(store, damaged)
        after = runs.finish(medium.source, store)
        assert after["code"] == 0, (damaged, after)
        assert store.catalogue("E1").content_digest() == medium.digest, damaged
        found = verify_brain(store, "E1")
        assert (found.faults, found.strays, temporary(store)) == ((), (), []), damaged
        anew = remade(store, damaged)
        touched += [
            key
            for key, was in before.items()
            if key not in damaged
            and not key.endswith("zarr.json")  # a few bytes, written last of an image and therefore written again
            and key.startswith(("sections.ome.zarr/", "derived/"))
            and not key.startswith((*CHANGING, *(f"{folder}/" for folder in anew)))
            and identity(home / key) != was
        ]
        shutil.rmtree(store.root)
    measured("damages", dict(done))
    measured("files", dict(files.most_common()))
    measured("batches, each healed to the digest", batches)
    measured("not named", Counter(missed).most_common())
    measured("intact files rewritten", Counter(touched).most_common())
    measured("seconds", round(time.monotonic() - began_at, 1))
    assert missed == []
    assert touched == []


@pytest.mark.parametrize("key", COLLECTION)
@pytest.mark.parametrize("damage", ["zarr_format", "node_type", "blank", "beside a damaged brain"])
def test_any_damage_of_the_collection_is_named(small: Ingested, tmp_path: Path, key: str, damage: str) -> None:
    store = copied(small, tmp_path / "store")
    path = store.brain_path("E1") / key
    text = path.read_text()
    if damage == "beside a damaged brain":
        store.shared_path("E1").write_text("")
        path.write_text("")
    else:
        word = {"zarr_format": "SizeX", "node_type": "Channel"}.get(damage, damage) if key.endswith(".xml") else damage
        path.write_text(text.replace("\n", "\t", 1) if damage == "blank" else text.replace(word, f"{word[:-1]}!"))
    assert path.read_text() != text
    assert key in {fault.key for fault in verify_brain(store, "E1").faults}


@pytest.mark.parametrize("kind", ["flip", "truncate"])
def test_a_damaged_record_of_a_section_is_named(runs: Runs, small: Ingested, tmp_path: Path, kind: str) -> None:
    store = copied(small, tmp_path / "store")
    path = store.catalogue("E1").record_path(Product("sections", "scan", "s2"))
    KINDS[kind](random.Random(8), path)  # noqa: S311 - which bit it is does not matter
    named = {fault.key for fault in verify_brain(store, "E1").faults}
    assert "records/sections/scan/s2.json" in named
    assert runs.finish(small.source, store)["code"] == 0
    assert store.catalogue("E1").content_digest() == small.digest


@pytest.fixture
def annotated(small: Ingested, tmp_path: Path) -> BrainStore:
    """The brain with human work in it."""
    store = copied(small, tmp_path / "store")

    def write(staging: Staging) -> dict[str, str]:
        staging.write("scribbles.json", b'{"strokes": [[1, 2], [3, 4]]}')
        staging.write("labels/0/c/0/0", bytes(range(256)) * 40)
        return {"author": "ada"}

    with store.lock("E1"):
        ensure(store.catalogue("E1"), ANNOTATION, Work(1, {}, {}), write)
    return store


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", ["scribbles.json", "labels/0/c/0/0"])
def test_damaged_annotations_are_named_and_left_as_they_are(
    runs: Runs, small: Ingested, annotated: BrainStore, kind: str, key: str
) -> None:
    catalogue = annotated.catalogue("E1")
    folder, record = catalogue.path(ANNOTATION), catalogue.record_path(ANNOTATION)
    KINDS[kind](random.Random(5), folder / key)  # noqa: S311 - which bit it is does not matter
    before = identities(folder), identities(record.parent)
    named = [fault for fault in verify_brain(annotated, "E1").faults if fault.key.startswith("annotations/")]
    assert [fault.key for fault in named] == [f"annotations/ada/s1/{key}"]
    assert "restore it" in named[0].remedy
    assert (identities(folder), identities(record.parent)) == before, "not marked"
    assert runs.finish(small.source, annotated)["code"] == 0
    assert (identities(folder), identities(record.parent)) == before, "not changed"


@pytest.mark.parametrize("kind", ["flip", "truncate"])
def test_a_damaged_record_of_annotations_is_named_and_nothing_is_marked(
    runs: Runs, small: Ingested, annotated: BrainStore, kind: str
) -> None:
    catalogue = annotated.catalogue("E1")
    folder, record = catalogue.path(ANNOTATION), catalogue.record_path(ANNOTATION)
    KINDS[kind](random.Random(6), record)  # noqa: S311 - which bit it is does not matter
    before = identities(folder), identities(record.parent)
    named = [fault for fault in verify_brain(annotated, "E1").faults if fault.key.startswith("records/annotations/")]
    assert len(named) == 1
    assert "restore it" in named[0].remedy
    assert (identities(folder), identities(record.parent)) == before, "not marked"
    assert runs.finish(small.source, annotated)["code"] == 0
    assert (identities(folder), identities(record.parent)) == before, "not changed"


@pytest.mark.parametrize("kind", ["flip", "truncate"])
def test_a_product_whose_record_is_damaged_unseen_is_made_again_by_the_next_run(
    runs: Runs, small: Ingested, tmp_path: Path, kind: str
) -> None:
    """Nobody has verified the brain before."""
    store = copied(small, tmp_path / "store")
    path = store.catalogue("E1").record_path(Product("sections", "scan", "s2"))
    KINDS[kind](random.Random(7), path)  # noqa: S311 - which bit it is does not matter
    assert runs.finish(small.source, store)["code"] == 0
    assert store.catalogue("E1").content_digest() == small.digest
    assert read_record(path).step == "sections"
