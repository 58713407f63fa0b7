"""What desktops leave in folders that people look into, or beside files that they copy, changes no store."""

import shutil
from pathlib import Path

import pytest

from cytoarch.images.conformance import conformance_faults
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.verification import verify_brain
from tests.cytoarch.steps.small_brain import IDS, SmallBrain, Steps

pytestmark = pytest.mark.xdist_group("steps")


def litter(folder: Path) -> None:
    """Looked into with a Mac's Finder and a Windows Explorer, after a Mac has copied it to a disk of FAT."""
    for path in [folder, *folder.rglob("*")]:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7" + bytes(60))
        if path.is_dir():
            for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
                (path / name).write_bytes(b"\0\0\0\1Bud1")


def test_a_store_that_somebody_looked_into_is_the_same_store(small: SmallBrain) -> None:
    store = BrainStore(small.folder / "store")
    catalogue = store.catalogue("B1")
    (catalogue.folder / "staging").mkdir(exist_ok=True)
    content, paths, names = catalogue.content_digest(), catalogue.record_paths(), catalogue.names("sections")
    with store.lock_existing("B1"):
        before = verify_brain(store, "B1")
    litter(small.folder / "store")
    catalogue = store.catalogue("B1")
    assert (catalogue.content_digest(), catalogue.record_paths()) == (content, paths)
    assert catalogue.names("sections") == names
    assert catalogue.section_ids("sections", "scan") == list(IDS)
    with store.lock_existing("B1"):
        assert verify_brain(store, "B1") == before
    assert conformance_faults(catalogue.folder) == []
    with small.opened() as opened:
        steps = Steps(small, opened)
        assert set(steps.each(*small.ingestion(), steps.embeddings)) == {"current"}
        assert store.models.is_whole(steps.model)
        steps.make_all()
    assert store.catalogue("B1").content_digest() == content


def test_a_product_that_is_made_where_somebody_looks_holds_what_was_written(small: SmallBrain) -> None:
    step = small.ingestion()[2]
    with small.opened() as opened:
        (record, *_) = [one for one in opened.catalogue.records() if one.step == step.step]
        files = set(record.files)
        shutil.rmtree(opened.catalogue.folder / "records" / step.step)
    litter(small.folder / "store")
    with small.opened() as opened:
        assert set(Steps(small, opened).each(*small.ingestion())) == {"made"}
        (record, *_) = [one for one in opened.catalogue.records() if one.step == step.step]
        assert set(record.files) == files
