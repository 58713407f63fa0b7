"""The collection of a brain's sections: a view of what is committed, in the layout of bioformats2raw."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from ome_zarr_models.v05.bioformats2raw import BioFormats2Raw

from cytoarch.brains import Brain, Section
from cytoarch.images.sections import write_section
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.catalogue import Catalogue
from cytoarch.store.collection import COLLECTION, collection_files, write_collection
from cytoarch.store.drafts import ensure, remove
from cytoarch.store.products import Product
from cytoarch.store.verification import verify_brain
from tests.products import WORK, fresh, state, writes
from tests.verified import damaged


def brain(*section_ids: str, **changes: dict[str, Any]) -> Brain:
    """Sections in cutting order, some of them stated otherwise."""
    rows = [
        {"brain_id": "B1", "section_id": one, "section_number": number, "path": "a.tif", "pixel_size_um": 2.0}
        for number, one in enumerate(section_ids)
    ]
    sections = [Section.model_validate({**row, **changes.get(str(row["section_id"]), {})}) for row in rows]
    return Brain(brain_id="B1", sections=tuple(sections))


def scan(section_id: str) -> Product:
    return Product("sections", "scan", section_id)


def commit(catalogue: Catalogue, *section_ids: str) -> None:
    for one in section_ids:
        ensure(catalogue, scan(one), WORK, writes({"zarr.json": b"{}"}))


def series(catalogue: Catalogue) -> list[str]:
    group = json.loads((catalogue.folder / COLLECTION[1]).read_bytes())
    found: list[str] = group["attributes"]["ome"]["series"]
    return found


@pytest.fixture
def scanned(catalogue: Catalogue, tmp_path: Path) -> Catalogue:
    """Of a brain whose sections z and a are committed with their pixels."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.random.default_rng(1).integers(0, 256, (60, 80), dtype=np.uint8), metadata=None)
    for one in brain("z", "a").sections:
        ensure(catalogue, scan(one.section_id), WORK, partial(write_section, scan_path=path, section=one))
    return catalogue


def test_a_collection_lists_the_committed_sections_in_cutting_order(scanned: Catalogue) -> None:
    stated = brain("z", "a", "b", "x", x={"exclude": True, "reason": "torn"})
    write_collection(scanned, stated)
    folder = scanned.folder / "sections.ome.zarr"
    assert series(scanned) == ["z", "a"]
    BioFormats2Raw.from_zarr(zarr.open_group(folder, mode="r"))
    before = state(scanned.folder)
    write_collection(scanned, stated)
    assert state(scanned.folder) == before


def test_every_section_that_a_collection_lists_is_where_it_says(scanned: Catalogue) -> None:
    write_collection(scanned, brain("z", "a"))
    group = zarr.open_group(scanned.folder / "sections.ome.zarr", mode="r")
    assert [group[f"{one}/0"].shape for one in series(scanned)] == [(1, 60, 80)] * 2  # type: ignore[union-attr]


def test_writing_the_collection_changes_no_file_of_a_section(store: BrainStore, scanned: Catalogue) -> None:
    digest = scanned.content_digest()
    before = state(scanned.path(scan("z")))
    store.write_brain(brain("z", "a"))
    write_collection(scanned, brain("z", "a"))
    assert scanned.content_digest() == digest
    assert state(scanned.path(scan("z"))) == before
    assert damaged(store, "B1") == []
    assert verify_brain(store, "B1").faults == ()


def test_a_section_that_is_excluded_later_is_no_longer_listed_though_it_is_committed(catalogue: Catalogue) -> None:
    commit(catalogue, "s1", "s2")
    write_collection(catalogue, brain("s1", "s2"))
    assert series(catalogue) == ["s1", "s2"]
    write_collection(catalogue, brain("s1", "s2", s1={"exclude": True, "reason": "torn"}))
    assert series(catalogue) == ["s2"]


def test_what_is_committed_or_removed_through_the_catalogue_is_in_the_next_list(catalogue: Catalogue) -> None:
    stated = brain("s1", "s2", "s3")
    write_collection(catalogue, stated)
    assert series(catalogue) == []
    commit(catalogue, "s3", "s1")
    write_collection(catalogue, stated)
    assert series(catalogue) == ["s1", "s3"]
    remove(catalogue, scan("s1"))
    write_collection(catalogue, stated)
    assert series(catalogue) == ["s3"]


def test_a_section_whose_files_are_damaged_is_still_listed(catalogue: Catalogue) -> None:
    """The list says what was committed: that a file is damaged is told by verification, and healed in its place."""
    commit(catalogue, "s1", "s2")
    catalogue.note_damage(scan("s1"), ["zarr.json"])
    (catalogue.path(scan("s2")) / "zarr.json").unlink()
    for one in (catalogue, fresh(catalogue)):
        write_collection(one, brain("s1", "s2"))
        assert series(one) == ["s1", "s2"]


def test_listing_the_sections_reads_each_record_at_most_once(catalogue: Catalogue) -> None:
    names = [f"s{number}" for number in range(20)]
    commit(catalogue, *names)
    later = fresh(catalogue)
    for _ in range(2):
        assert tuple(collection_files(later, brain(*names))) == COLLECTION
    assert later.records_read == len(names)
