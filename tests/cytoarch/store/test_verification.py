"""Verification names every damage and what was found, marks what it may, and changes nothing else."""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from cytoarch.brains import Brain, Section
from cytoarch.errors import StoreError
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.catalogue import Catalogue
from cytoarch.store.collection import COLLECTION, write_collection
from cytoarch.store.drafts import Draft, begin, ensure
from cytoarch.store.products import WHOLE_BRAIN, Product, Work
from cytoarch.store.records import Committed
from cytoarch.store.verification import HEALS, REPLACES, RESTORE, RESTORE_RECORD, Fault, Verification, verify_brain
from tests.products import TISSUE, WORK, fresh, state, writes

SCANS = {one: Product("sections", "scan", one) for one in ("s1", "s2")}
NOTES = Product("annotations", "ada", "s1")
TRAINING = Product("training", "areas", WHOLE_BRAIN)
IMAGE = {"zarr.json": b'{"zarr_format": 3}', "0/c/0/0/0": bytes(range(200)), "0/c/0/0/1": b"second", "1/c/0": b""}
MASK = {"mask.png": b"\x89PNG", "shape.json": b"[]"}
DRAWN = {"scribbles.json": b'{"strokes": []}', "more/lines.json": b"[1]"}
MODEL = {"head.json": b"{}", "head.safetensors": bytes(64)}
BRAIN = Brain(
    brain_id="B1",
    sections=tuple(
        Section(brain_id="B1", section_id=one, section_number=number, path=f"{one}.tif")
        for number, one in enumerate(SCANS)
    ),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A brain of two sections with tissue, annotations and a model that was trained on it."""
    store = BrainStore(tmp_path_factory.mktemp("made") / "store")
    store.write_brain(BRAIN)
    catalogue = store.catalogue("B1")
    for product in SCANS.values():
        ensure(catalogue, product, WORK, writes(IMAGE))
    ensure(catalogue, TISSUE, WORK, writes(MASK))
    ensure(catalogue, NOTES, WORK, writes(DRAWN))
    ensure(catalogue, TRAINING, WORK, writes({"curve.csv": b"1,2"}, model=store.models.add(MODEL)))
    write_collection(catalogue, BRAIN)
    return store.root


@pytest.fixture
def store(made: Path, tmp_path: Path) -> BrainStore:
    """A copy of that brain, to be damaged."""
    return BrainStore(shutil.copytree(made, tmp_path / "store"))


@pytest.fixture
def catalogue(store: BrainStore) -> Catalogue:
    """Of that copy. It remembers what it read: verification notes damage through one of its own."""
    return store.catalogue("B1")


def home(store: BrainStore) -> Path:
    return store.brain_path("B1")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"+")


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped": flip,
    "shortened": shorten,
    "lengthened": lengthen,
    "deleted": Path.unlink,
    "a folder": replace_by_folder,
}
FOUND = {
    "flipped": "its content has changed",
    "shortened": "199 bytes where 200 were written",
    "lengthened": "201 bytes where 200 were written",
    "deleted": "missing",
    "a folder": "cannot be read (Is a directory)",
}


# -- a clean brain -----------------------------------------------------------------------------------------------------


def test_a_clean_brain_has_no_faults_and_nothing_is_written(store: BrainStore) -> None:
    before = state(store.root)
    sizes = [len(data) for content in (IMAGE, IMAGE, MASK, DRAWN, {"curve.csv": b"1,2"}) for data in content.values()]
    assert verify_brain(store, "B1") == Verification(len(sizes), sum(sizes), (), ())
    assert state(store.root) == before


def test_progress_counts_the_bytes_of_every_file_up_to_all_of_them(store: BrainStore) -> None:
    told: list[tuple[int, int]] = []
    found = verify_brain(store, "B1", lambda done, total: told.append((done, total)))
    assert len(told) == found.files
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (found.nbytes, found.nbytes)
    assert {total for _, total in told} == {found.nbytes}
    (home(store) / SCANS["s1"].key / "0/c/0/0/0").unlink()
    told.clear()
    assert verify_brain(store, "B1", lambda done, total: told.append((done, total))).faults
    assert told[-1] == (found.nbytes, found.nbytes), "what is missing counts too"


def test_a_brain_of_which_nothing_is_ingested_yet_has_no_faults(tmp_path: Path) -> None:
    store = BrainStore(tmp_path / "store")
    store.write_brain(BRAIN)
    write_collection(store.catalogue("B1"), BRAIN)
    assert verify_brain(store, "B1") == Verification(0, 0, (), ())


# -- damaged products --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_of_a_file_is_named_with_what_was_found(store: BrainStore, damage: str) -> None:
    key = f"{SCANS['s1'].key}/0/c/0/0/0"
    DAMAGES[damage](home(store) / key)
    assert without_collection(verify_brain(store, "B1").faults) == [Fault(key, FOUND[damage], HEALS)]


def without_collection(faults: Iterable[Fault]) -> list[Fault]:
    """The faults but for that of the collection, which no longer lists the sections that can be used."""
    return [fault for fault in faults if fault.key not in COLLECTION]


@pytest.mark.parametrize("damage", ["shortened", "deleted"])
def test_an_intact_collection_is_not_named_beside_a_damaged_section(
    store: BrainStore, catalogue: Catalogue, damage: str
) -> None:
    DAMAGES[damage](catalogue.path(SCANS["s1"]) / "0/c/0/0/0")
    assert not {fault.key for fault in verify_brain(store, "B1").faults} & set(COLLECTION)


@pytest.mark.parametrize("damage", ["flipped", "shortened", "deleted"])
def test_a_damaged_product_is_not_used_and_is_made_whole_with_its_intact_files(
    store: BrainStore, catalogue: Catalogue, damage: str
) -> None:
    digest = catalogue.content_digest()
    product, key = SCANS["s1"], "0/c/0/0/0"
    folder = catalogue.path(product)
    DAMAGES[damage](folder / key)
    verify_brain(store, "B1")
    assert catalogue.record(product) is None
    assert catalogue.current(product, WORK) is None
    assert all(catalogue.record(one) is not None for one in (SCANS["s2"], TISSUE, NOTES, TRAINING))
    inodes = {one: (folder / one).stat().st_ino for one in IMAGE if one != key}
    begun = begin(catalogue, product, WORK)
    assert isinstance(begun, Draft)
    assert begun.sealed is None
    assert {one for one in IMAGE if begun.staging.has(one)} == set(inodes)
    writes(IMAGE)(begun.staging)
    record = begun.commit({})
    assert begin(catalogue, product, WORK) == record == catalogue.record(product)
    assert {one: (folder / one).stat().st_ino for one in inodes} == inodes
    assert catalogue.content_digest() == digest
    assert verify_brain(store, "B1").faults == ()


def test_a_damage_that_is_healed_by_other_work_is_no_longer_marked(store: BrainStore, catalogue: Catalogue) -> None:
    flip(catalogue.path(TISSUE) / "mask.png")
    verify_brain(store, "B1")
    other = Work(2, {}, {})
    record, made = ensure(catalogue, TISSUE, other, writes(MASK))
    assert made
    assert catalogue.record(TISSUE) == record
    assert verify_brain(store, "B1").faults == ()


def test_every_fault_of_a_brain_is_named_at_once(store: BrainStore, catalogue: Catalogue) -> None:
    keys = [f"{SCANS['s1'].key}/0/c/0/0/0", f"{SCANS['s1'].key}/0/c/0/0/1", f"{SCANS['s2'].key}/zarr.json"]
    keys.append(f"{TISSUE.key}/mask.png")
    for key in keys:
        flip(home(store) / key)
    assert {fault.key for fault in verify_brain(store, "B1").faults} == set(keys)
    unusable = [one for one in (*SCANS.values(), TISSUE, TRAINING) if catalogue.record(one) is None]
    assert unusable == [*SCANS.values(), TISSUE]


def test_a_damage_that_was_named_is_named_again_until_it_is_healed(store: BrainStore, catalogue: Catalogue) -> None:
    flip(catalogue.path(TISSUE) / "mask.png")
    first = verify_brain(store, "B1").faults
    assert len(first) == 1
    assert verify_brain(store, "B1").faults == first


# -- annotations -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", DRAWN)
def test_damaged_annotations_are_named_but_stay_usable_and_unmarked(
    store: BrainStore, catalogue: Catalogue, key: str
) -> None:
    flip(catalogue.path(NOTES) / key)
    record, before = catalogue.record(NOTES), state(store.root)
    (fault,) = verify_brain(store, "B1").faults
    assert (fault.key, fault.remedy) == (f"{NOTES.key}/{key}", RESTORE)
    assert fresh(catalogue).record(NOTES) == record
    assert record is not None
    assert state(store.root) == before


# -- what belongs to nothing -------------------------------------------------------------------------------------------


def test_files_of_no_record_beside_those_of_a_product_are_listed_and_left(
    store: BrainStore, catalogue: Catalogue
) -> None:
    strays = ["annotations/ada/s1/notes.txt", "derived/tissue/slide/s1/.tmp", "sections.ome.zarr/s1/0/c/9", "derived/x"]
    strays.append("sections.ome.zarr/OME/notes.txt")
    put(store, strays)
    before = state(store.root)
    found = verify_brain(store, "B1")
    assert (sorted(found.strays), found.faults) == (sorted(strays), ())
    assert state(store.root) == before
    assert catalogue.record(TISSUE) is not None


def put(store: BrainStore, keys: Iterable[str]) -> None:
    for key in keys:
        path = home(store) / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"?")


def test_files_of_a_product_without_a_record_are_a_fault(store: BrainStore) -> None:
    folders = {
        "annotations/ada/s2": RESTORE_RECORD,
        "derived/tissue/slide/s2": REPLACES,
        "report": REPLACES,
        "sections.ome.zarr/s1/labels": REPLACES,
        "sections.ome.zarr/s9": REPLACES,
    }
    strays = [f"{folder}/{file}" for folder in folders for file in ("zarr.json", "0/c/0/0")]
    put(store, strays)
    before = state(store.root)
    found = verify_brain(store, "B1")
    assert sorted(found.strays) == sorted(strays)
    assert found.faults == tuple(Fault(folder, "has no record", remedy) for folder, remedy in folders.items())
    assert state(store.root) == before


@pytest.mark.parametrize("product", [TISSUE, TRAINING, SCANS["s1"]], ids=lambda one: one.step)
def test_a_deleted_record_is_found_and_the_next_run_makes_the_product_again(
    store: BrainStore, catalogue: Catalogue, product: Product
) -> None:
    digest, content = catalogue.content_digest(), {TISSUE: MASK, TRAINING: {"curve.csv": b"1,2"}}.get(product, IMAGE)
    catalogue.record_path(product).unlink()
    faults = without_collection(verify_brain(store, "B1").faults)
    assert faults == [Fault(product.key, "has no record", REPLACES)]
    assert catalogue.record(product) is None
    facts = {"model": model_name(store)} if product == TRAINING else {}
    assert ensure(catalogue, product, WORK, writes(content, **facts))[1]
    assert catalogue.content_digest() == digest
    assert verify_brain(store, "B1").faults == ()


def model_name(store: BrainStore) -> str:
    (folder,) = (store.root / "models").iterdir()
    return folder.name


# -- records, the brain, the collection --------------------------------------------------------------------------------


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def no_text(path: Path) -> None:
    path.write_bytes(b"\xff" + path.read_bytes()[1:])


@pytest.mark.parametrize("damage", [flip, shorten, emptied, no_text])
def test_a_damaged_record_is_named_its_files_belong_to_none_and_the_product_is_made_again(
    store: BrainStore, catalogue: Catalogue, damage: Callable[[Path], None]
) -> None:
    digest = catalogue.content_digest()
    path = catalogue.record_path(TISSUE)
    damage(path)
    found = verify_brain(store, "B1")
    assert found.faults == (Fault("records/tissue/slide/s1.json", "the record itself has changed", HEALS),)
    assert sorted(found.strays) == sorted(f"{TISSUE.key}/{key}" for key in MASK)
    assert catalogue.record(TISSUE) is None
    begun = begin(catalogue, TISSUE, WORK)
    assert isinstance(begun, Draft)
    assert not any(begun.staging.has(key) for key in MASK), "nothing vouches for them"
    writes(MASK)(begun.staging)
    begun.commit({})
    assert catalogue.content_digest() == digest
    assert verify_brain(store, "B1").faults == ()


@pytest.mark.parametrize("damage", [flip, shorten, emptied, no_text, Path.unlink])
def test_a_damaged_brain_file_is_named_and_ingesting_again_heals_it(
    store: BrainStore, damage: Callable[[Path], None]
) -> None:
    damage(store.shared_path("B1"))
    (fault,) = without_collection(verify_brain(store, "B1").faults)
    assert fault.key == "brain.json"
    assert "ingest-brain" in fault.remedy
    with pytest.raises(StoreError):
        store.read_brain("B1")
    store.write_brain(BRAIN)
    assert verify_brain(store, "B1").faults == ()


def changed(path: Path) -> None:
    """Still of its format, and no longer what was written."""
    if path.suffix == ".xml":
        path.write_text(path.read_text(encoding="utf-8").replace("Image:s1", "Image:s7"), encoding="utf-8")
        return
    metadata = json.loads(path.read_bytes())
    metadata["attributes"]["ome"]["version"] = "0.4"
    path.write_text(json.dumps(metadata))


@pytest.mark.parametrize("key", COLLECTION)
@pytest.mark.parametrize("damage", [changed, shorten, emptied, no_text, Path.unlink])
def test_a_damaged_collection_is_named_and_written_again(
    store: BrainStore, catalogue: Catalogue, key: str, damage: Callable[[Path], None]
) -> None:
    damage(home(store) / key)
    (fault,) = verify_brain(store, "B1").faults
    assert (fault.key, fault.remedy) == (key, HEALS)
    write_collection(catalogue, BRAIN)
    assert verify_brain(store, "B1").faults == ()


# -- models ------------------------------------------------------------------------------------------------------------


def model_of(store: BrainStore) -> Path:
    record = store.catalogue("B1").record(TRAINING)
    assert isinstance(record, Committed)
    return store.models.path(str(record.facts["model"]))


@pytest.mark.parametrize("file", MODEL)
@pytest.mark.parametrize("damage", [flip, shorten, Path.unlink])
def test_a_damaged_model_is_named_and_taken_away_so_that_it_is_trained_again(
    store: BrainStore, file: str, damage: Callable[[Path], None]
) -> None:
    folder = model_of(store)
    damage(folder / file)
    (fault,) = verify_brain(store, "B1").faults
    assert fault.key == f"models/{folder.name}"
    assert not folder.exists()
    (again,) = verify_brain(store, "B1").faults
    assert again == fault
    assert store.models.add(MODEL) == folder.name
    assert verify_brain(store, "B1").faults == ()


def test_a_file_too_many_in_a_model_is_a_damage(store: BrainStore) -> None:
    (model_of(store) / "more.py").write_text("import os")
    assert [fault.key for fault in verify_brain(store, "B1").faults] == [f"models/{model_of(store).name}"]


def test_a_model_that_no_training_of_this_brain_made_is_not_looked_at(store: BrainStore) -> None:
    other = store.models.add({"head.json": b"[]"})
    flip(store.models.path(other) / "head.json")
    assert verify_brain(store, "B1").faults == ()
    assert store.models.path(other).exists()
