"""A section is made again exactly when something it is made from has changed; a bad file costs its section only."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from cytoarch.anatomy.tissue import TissueSettings
from cytoarch.brains import Brain, Label, LabelTable, Section
from cytoarch.containment import Contained
from cytoarch.images.sections import IngestSettings
from cytoarch.steps import sections
from cytoarch.steps.opened import OpenBrain, open_brain
from cytoarch.steps.running import Outcome, due, make_section
from cytoarch.steps.sections import LABELS, SECTION, LabelsStep, ManifestFile, SectionStep, scan_sizes
from cytoarch.steps.step import Step, Stored
from cytoarch.steps.tissue import QUALITY, TISSUE, QualityStep, TissueStep
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.products import Product
from cytoarch.store.records import Committed, read_record
from cytoarch.store.verification import verify_brain
from tests.verified import damaged

pytestmark = pytest.mark.xdist_group("ingest")

H, W = 300, 420
TABLE = LabelTable(labels=(Label(id=1, name="cortex"), Label(id=2, name="white matter")))
LABELLED, PLAIN = "s1", "s2"
SECTIONS = (
    Section(
        brain_id="B1", section_id=LABELLED, section_number=1, path="a.tif", labels="a-labels.png", pixel_size_um=8.0
    ),
    Section(brain_id="B1", section_id=PLAIN, section_number=2, path="b.tif", pixel_size_um=8.0),
)
BRAIN = Brain(brain_id="B1", sections=SECTIONS, label_table=TABLE)
ONE_THREAD, OTSU = IngestSettings(threads=1), TissueSettings()


def tissue(seed: int) -> NDArray[Any]:
    """A dark round of tissue with a little noise on a bright slide."""
    y, x = np.ogrid[-1 : 1 : H * 1j, -1 : 1 : W * 1j]
    noise = np.random.default_rng(seed).integers(0, 12, (H, W))
    return (220 - 110 * (y * y + x * x < 0.6) + noise).astype(np.uint8)


def areas(top: int = 2) -> NDArray[Any]:
    return (np.arange(H * W).reshape(H, W) // (H * W // 3) * top // 2).clip(0, top).astype(np.uint8)


def write_scan(path: Path, seed: int) -> None:
    tifffile.imwrite(path, tissue(seed), tile=(128, 128), metadata=None)


@dataclass(frozen=True)
class Workplace:
    """A folder of scans, a store into which they were ingested, and how."""

    folder: Path
    brain: Brain = BRAIN
    settings: IngestSettings = ONE_THREAD
    tissue_settings: TissueSettings = OTSU
    threads: int = 1

    @property
    def store(self) -> BrainStore:
        return BrainStore(self.folder / "store")

    @property
    def scans_path(self) -> Path:
        return self.folder / "scans"

    @property
    def steps(self) -> tuple[Step[Any], ...]:
        scan, labels = (ManifestFile(self.scans_path, column, self.settings.rehash) for column in ("path", "labels"))
        return (
            SectionStep(scan, ingest=self.settings),
            LabelsStep(labels, ingest=self.settings),
            TissueStep(self.tissue_settings),
            QualityStep(),
        )

    def section(self, section_id: str) -> Section:
        return next(one for one in self.brain.sections if one.section_id == section_id)

    def file(self, name: str) -> Path:
        return self.scans_path / name

    def stated(self, section_id: str, **changes: Any) -> "Workplace":
        """With another row of the manifest."""
        row = Section.model_validate({**self.section(section_id).model_dump(), **changes})
        rows = tuple(row if one.section_id == section_id else one for one in self.brain.sections)
        return replace(self, brain=self.brain.model_copy(update={"sections": rows}))

    def current(self) -> list[str]:
        """The sections for which there is nothing to do."""
        opened = OpenBrain(self.store, self.store.catalogue("B1"), "brain B1", self.brain)
        wanted = due(self.steps, opened, opened.sections)
        return [one.section_id for one in opened.sections if one not in wanted]

    def ingest(self, section_id: str) -> Outcome:
        """What becomes of a section."""
        with open_brain(self.store.root, self.brain) as opened:
            return make_section(self.steps, opened, opened.rows[section_id], threads=self.threads)

    def record(self, stored: Stored[Any], section_id: str) -> Committed | None:
        """What the store says of a section's product now."""
        return self.store.catalogue("B1").record(stored.product(section_id))

    def inodes(self, product: Product) -> dict[str, tuple[int, int]]:
        """What tells a file from one written later, which may get the same inode."""
        record = read_record(self.store.catalogue("B1").record_path(product))
        stats = {key: (self.store.brain_path("B1") / key).stat() for key in record.files}
        return {key: (stat.st_ino, stat.st_mtime_ns) for key, stat in stats.items()}


@pytest.fixture(scope="module")
def contained() -> Iterator[Contained]:
    """Child processes of these tests. Only they wait for the disk."""
    children = Contained()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sections, "containment", lambda: children)
        patch.setattr(os, "fsync", lambda _: None)
        yield children
    children.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, contained: Contained) -> Workplace:
    """Both sections ingested once. Not to be changed."""
    work = Workplace(tmp_path_factory.mktemp("made"))
    work.scans_path.mkdir()
    write_scan(work.file("a.tif"), 1)
    write_scan(work.file("b.tif"), 2)
    Image.fromarray(areas()).save(work.file("a-labels.png"))
    assert work.current() == []
    assert [work.ingest(one).status for one in (LABELLED, PLAIN)] == ["made", "made"]
    return work


@pytest.fixture
def work(made: Workplace, tmp_path: Path) -> Workplace:
    """A copy of it, ingested again: the scans are other files, so that they are read once more, and nothing is made."""
    for name in ("scans", "store"):
        shutil.copytree(made.folder / name, tmp_path / name)
    copy = Workplace(tmp_path)
    assert copy.current() == []
    assert [copy.ingest(one).status for one in (LABELLED, PLAIN)] == ["current", "current"]
    assert copy.current() == [LABELLED, PLAIN]
    return copy


def touched(path: Path) -> None:
    at = path.stat().st_mtime_ns + 5_000_000_000
    os.utime(path, ns=(at, at))


def test_children_that_were_started_in_another_folder_write_into_the_store_all_the_same(
    made: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Children live on while this process goes elsewhere, from where the store and the scans are named."""
    started_in = Path.cwd()
    shutil.copytree(made.scans_path, tmp_path / "elsewhere" / "scans")
    monkeypatch.chdir(tmp_path / "elsewhere")
    work = Workplace(Path())
    assert not work.store.root.is_absolute()
    assert work.ingest(PLAIN) == Outcome(PLAIN, "made")
    assert work.current() == [PLAIN]
    assert damaged(work.store, "B1") == []
    assert not (started_in / work.store.root).exists()


# -- nothing changed ---------------------------------------------------------------------------------------------------


def test_asking_again_writes_nothing_and_neither_does_ingesting_again(work: Workplace) -> None:
    def state() -> dict[str, tuple[int, int]]:
        kept = (path for path in sorted(work.store.root.rglob("*")) if path.name != "lock")
        return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in kept if path.is_file()}

    before = state()
    assert work.current() == [LABELLED, PLAIN]
    assert [work.ingest(one).status for one in (LABELLED, PLAIN)] == ["current", "current"]
    assert state() == before


@pytest.mark.parametrize(
    "changes",
    [
        {"stain": "nissl"},
        {"flip": "horizontal"},
        {"rotation": 90.0},
        {"section_number": 7},
        {"thickness_um": 20.0},
        {"reason": "a remark"},
        {"position_um": 4.0},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_the_pixels_are_not_made_from_may_change(made: Workplace, changes: dict[str, Any]) -> None:
    assert made.stated(LABELLED, **changes).current() == [LABELLED, PLAIN]


def test_how_the_work_is_spread_changes_nothing(made: Workplace) -> None:
    settings = IngestSettings(threads=7, memory_gb=1.0, stall_s=5.0)
    assert replace(made, settings=settings, threads=4).current() == [LABELLED, PLAIN]


# -- what makes a section again ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"pixel_size_um": 4.0},
        {"pixel_size_source": "manifest"},
        {"region_px": (0, 200, 0, 200)},
        {"plane_index": 0},
        {"path": "b.tif"},
        {"path": "none.tif"},
        {"labels": None},
        {"labels": "none.png"},
        {"labels_origin": "expert"},
    ],
    ids=lambda changes: "-".join(map(str, *changes.items())),
)
def test_another_statement_of_the_manifest_makes_that_section_not_current(
    made: Workplace, changes: dict[str, Any]
) -> None:
    assert made.stated(LABELLED, **changes).current() == [PLAIN]


def test_labels_that_are_named_for_the_first_time_make_the_section_not_current(made: Workplace) -> None:
    assert made.stated(PLAIN, labels="a-labels.png").current() == [LABELLED]


def test_another_table_makes_the_sections_with_labels_not_current(made: Workplace) -> None:
    table = LabelTable(labels=(*TABLE.labels, Label(id=3, name="another")))
    brain = made.brain.model_copy(update={"label_table": table})
    assert replace(made, brain=brain).current() == [PLAIN]


def test_another_way_to_find_tissue_makes_all_not_current(made: Workplace) -> None:
    assert replace(made, tissue_settings=TissueSettings(smallest_mm2=0.1)).current() == []


def test_scans_that_are_to_be_read_again_are_not_current(made: Workplace) -> None:
    assert replace(made, settings=IngestSettings(threads=1, rehash=True)).current() == []


def test_a_checksum_that_is_stated_later_and_is_not_that_of_the_scan_is_noticed(made: Workplace) -> None:
    assert made.stated(PLAIN, sha256="0" * 64).current() == [LABELLED]


@pytest.mark.parametrize("name", ["a.tif", "a-labels.png"])
def test_a_file_that_was_only_touched_is_read_again_and_nothing_is_made(work: Workplace, name: str) -> None:
    touched(work.file(name))
    assert work.current() == [PLAIN]
    assert work.ingest(LABELLED).status == "current"
    assert work.current() == [LABELLED, PLAIN]


def test_a_scan_that_changed_makes_its_section_again_and_no_other(work: Workplace) -> None:
    before = work.record(SECTION, PLAIN)
    write_scan(work.file("b.tif"), 3)
    assert work.current() == [LABELLED]
    assert work.ingest(PLAIN).status == "made"
    after = work.record(SECTION, PLAIN)
    assert before is not None
    assert after is not None
    assert after.digest != before.digest
    assert work.current() == [LABELLED, PLAIN]


@pytest.mark.parametrize("stored", [SECTION, LABELS, TISSUE, QUALITY], ids=lambda one: one.kind.step)
def test_a_file_that_is_gone_makes_the_section_not_current_and_is_made_again(
    work: Workplace, stored: Stored[Any]
) -> None:
    product, digest = stored.product(LABELLED), work.store.catalogue("B1").content_digest()
    lost = max(work.inodes(product))
    (work.store.brain_path("B1") / lost).unlink()
    assert work.current() == [PLAIN]
    assert work.ingest(LABELLED).status == "made"
    assert work.current() == [LABELLED, PLAIN]
    assert work.store.catalogue("B1").content_digest() == digest
    assert verify_brain(work.store, "B1").strays == ()


def test_a_shard_that_was_found_damaged_makes_the_section_not_current_and_only_it_is_made_again(
    work: Workplace,
) -> None:
    product, digest = SECTION.product(PLAIN), work.store.catalogue("B1").content_digest()
    before = work.inodes(product)
    shard = next(key for key in before if key.endswith("/0/c/0/0/0"))
    path = work.store.brain_path("B1") / shard
    path.write_bytes(bytes(path.stat().st_size))
    assert work.current() == [LABELLED, PLAIN], "nobody has looked yet"
    assert shard in {fault.key for fault in verify_brain(work.store, "B1").faults}
    assert work.current() == [LABELLED]
    assert work.ingest(PLAIN).status == "made"
    after = work.inodes(product)
    group = f"{product.key}/zarr.json"  # written last of an image, and therefore written again
    assert {key for key in before if after[key] != before[key]} - {group} == {shard}
    assert work.store.catalogue("B1").content_digest() == digest


# -- labels ------------------------------------------------------------------------------------------------------------


def test_a_label_image_that_changed_is_made_again_and_its_section_is_not(work: Workplace) -> None:
    pixels = SECTION.product(LABELLED)
    before, was = work.inodes(pixels), work.record(LABELS, LABELLED)
    Image.fromarray(areas()[::-1]).save(work.file("a-labels.png"))
    assert work.current() == [PLAIN]
    assert work.ingest(LABELLED).status == "made"
    now = work.record(LABELS, LABELLED)
    assert was is not None
    assert now is not None
    assert now.digest != was.digest
    assert work.inodes(pixels) == before
    assert work.current() == [LABELLED, PLAIN]


def test_labels_that_are_no_longer_named_are_removed_and_nothing_else(work: Workplace) -> None:
    pixels = SECTION.product(LABELLED)
    before = work.inodes(pixels)
    without = work.stated(LABELLED, labels=None)
    assert without.ingest(LABELLED).status == "made"
    assert work.record(LABELS, LABELLED) is None
    assert not work.store.catalogue("B1").path(LABELS.product(LABELLED)).exists()
    assert work.inodes(pixels) == before
    assert without.current() == [LABELLED, PLAIN]
    assert without.ingest(LABELLED).status == "current"
    assert verify_brain(work.store, "B1").strays == ()


def lose_a_byte(work: Workplace) -> None:
    path = work.store.catalogue("B1").record_path(LABELS.product(LABELLED))
    path.write_bytes(path.read_bytes()[:-1])


def find_damaged(work: Workplace) -> None:
    work.store.catalogue("B1").note_damage(LABELS.product(LABELLED), ["labels/0/c/0/0"])


@pytest.mark.parametrize("damage", [lose_a_byte, find_damaged])
def test_damaged_labels_that_are_no_longer_named_are_removed_too(
    work: Workplace, damage: Callable[[Workplace], None]
) -> None:
    damage(work)
    without = work.stated(LABELLED, labels=None)
    assert without.current() == [PLAIN]
    assert without.ingest(LABELLED).status == "made"
    assert without.current() == [LABELLED, PLAIN]
    assert damaged(work.store, "B1") == []


BAD_LABELS: dict[str, Callable[[Path], object]] = {
    "of another size": lambda path: Image.fromarray(areas()[:-1]).save(path),
    "with ids of no table": lambda path: Image.fromarray(areas(top=99)).save(path),
    "in colours": lambda path: Image.fromarray(np.stack([areas()] * 3, axis=-1)).save(path),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:60]),
    "empty": lambda path: path.write_bytes(b""),
    "gone": Path.unlink,
}


@pytest.mark.parametrize("bad", BAD_LABELS)
def test_a_bad_label_image_costs_its_section_and_is_what_is_named(work: Workplace, bad: str) -> None:
    BAD_LABELS[bad](work.file("a-labels.png"))
    _, status, text = work.ingest(LABELLED)
    assert status == "failed"
    assert "a-labels.png" in text
    assert "a.tif" not in text
    assert work.current() == [PLAIN]
    assert work.record(SECTION, LABELLED) is not None
    Image.fromarray(areas()).save(work.file("a-labels.png"))
    assert work.ingest(LABELLED).status in ("current", "made")
    assert work.current() == [LABELLED, PLAIN]


def test_a_bad_scan_costs_its_section_and_what_was_made_of_it_before_stays(work: Workplace) -> None:
    product = SECTION.product(PLAIN)
    before = work.inodes(product)
    work.file("b.tif").write_bytes(work.file("b.tif").read_bytes()[:5000])
    _, status, text = work.ingest(PLAIN)
    assert status == "failed"
    assert "b.tif" in text
    assert work.current() == [LABELLED]
    assert work.inodes(product) == before


# -- how much there is to do -------------------------------------------------------------------------------------------


def test_the_size_of_a_scan_is_that_of_its_files_and_0_where_it_cannot_be_found(tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    (scans / "c.zarr" / "0").mkdir(parents=True)
    (scans / "a.tif").write_bytes(bytes(1234))
    (scans / "c.zarr" / "zarr.json").write_bytes(bytes(10))
    (scans / "c.zarr" / "0" / "shard").write_bytes(bytes(90))
    (tmp_path / "outside.tif").write_bytes(bytes(7))
    (scans / "link.tif").symlink_to(tmp_path / "outside.tif")
    paths = ["a.tif", "none.tif", "c.zarr", "../outside.tif", "link.tif", "none/../a.tif"]
    rows = [
        Section(brain_id="B1", section_id=f"s{number}", section_number=number, path=path)
        for number, path in enumerate(paths)
    ]
    left_out = Section(brain_id="B1", section_id="x", section_number=99, path="a.tif", exclude=True, reason="torn")
    sizes = scan_sizes(Brain(brain_id="B1", sections=(*rows, left_out)).kept, scans)
    assert sizes == {"s0": 1234, "s1": 0, "s2": 100, "s3": 0, "s4": 0, "s5": 1234}
