"""A brain is put together from its overviews, and again exactly when what that is made from has changed."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cytoarch.anatomy.reconstruction import ReconstructionSettings, reconstruct
from cytoarch.anatomy.reconstruction.volume import VolumeSettings
from cytoarch.images.conformance import conformance_faults
from cytoarch.steps import RECONSTRUCTION, sections
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.reconstruction import (
    LINKS,
    AlignmentStep,
    LinksStep,
    ReconstructionStep,
    VolumeStep,
    has_volume,
)
from cytoarch.steps.running import due, make, make_sections
from cytoarch.steps.sections import SECTION
from cytoarch.steps.step import MissingInputError, Place, is_current
from cytoarch.steps.tissue import TISSUE
from cytoarch.store.drafts import remove
from tests.cytoarch.steps.small_brain import IDS, InProcess, SmallBrain, Steps, write_files

SETTINGS = ReconstructionSettings(reach=1)
STEP, OF_SECTIONS = ReconstructionStep(SETTINGS), LinksStep.of(SETTINGS)


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> SmallBrain:
    """A brain whose sections are linked. Not to be changed."""
    small = SmallBrain(tmp_path_factory.mktemp("linked"))
    write_files(small.scans)
    with pytest.MonkeyPatch.context() as patch, small.opened() as brain:
        patch.setattr(sections, "containment", InProcess)
        Steps(small, brain).ingest()
        assert {one.status for one in make_sections([OF_SECTIONS], brain)} == {"made"}
    return small


@pytest.fixture
def small(linked: SmallBrain, tmp_path: Path) -> SmallBrain:
    shutil.copytree(linked.folder, tmp_path / "small")
    return SmallBrain(tmp_path / "small")


@pytest.fixture
def opened(small: SmallBrain) -> Iterator[OpenBrain]:
    with small.opened() as brain:
        yield brain


def test_what_is_committed_is_what_readers_get(opened: OpenBrain) -> None:
    record, made = make(STEP, opened)
    brain = RECONSTRUCTION.open(Place(opened))
    assert made
    assert tuple(brain.sections) == IDS
    assert record.facts["sections"] == len(IDS)
    assert record.facts["linked"] == sum(one.linked for one in brain)
    assert not make(STEP, opened)[1]


def test_pictures_and_a_volume_are_made_of_it(opened: OpenBrain) -> None:
    placed = [one.model_copy(update={"position_um": 100.0 * one.section_number}) for one in opened.brain.sections]
    opened.brain = opened.brain.model_copy(update={"sections": tuple(placed)})
    make(STEP, opened)
    assert has_volume(opened)
    for step in (AlignmentStep(), VolumeStep(VolumeSettings(voxel_um=100.0))):
        assert make(step, opened)[1]
        assert not make(step, opened)[1]
    folder = opened.catalogue.path(AlignmentStep().product())
    assert {path.stem for path in (folder / "sections").glob("*.png")} == set(IDS)
    assert (folder / "sheet.png").is_file()
    assert conformance_faults(opened.catalogue.path(VolumeStep(VolumeSettings(voxel_um=100.0)).product())) == []


def test_sections_without_a_place_along_the_axis_lie_in_a_plane(opened: OpenBrain) -> None:
    make(STEP, opened)
    assert RECONSTRUCTION.open(Place(opened))["s2"].to_brain(np.zeros(2)).shape == (2,)


def test_it_is_made_again_when_the_manifest_places_a_section_otherwise_and_only_then(
    small: SmallBrain, opened: OpenBrain
) -> None:
    make(STEP, opened)
    own = (1.0, 0.0, 12.0, 0.0, 1.0, -7.0)
    rows = list(small.sections)
    rows[2] = rows[2].model_copy(update={"transform": own})
    rows[4] = rows[4].model_copy(update={"exclude": True, "reason": "torn"})
    told = [one.model_copy(update={"species": "mouse", "position_um": None}) for one in small.sections]
    opened.brain = opened.brain.model_copy(update={"sections": tuple(told)})
    assert is_current(STEP, Place(opened))
    opened.brain = opened.brain.model_copy(update={"sections": tuple(rows)})
    assert not is_current(STEP, Place(opened))
    make(STEP, opened)
    brain = RECONSTRUCTION.open(Place(opened))
    assert brain["s2"].plane.matrix == ((1.0, 0.0, 12.0), (0.0, 1.0, -7.0))
    assert brain.unplaced == {"s4": "excluded: torn"}


@pytest.mark.parametrize(
    ("columns", "expected_um"),
    [({"position_um": 700.0}, 700.0), ({"thickness_um": 20.0}, 40.0), ({}, None)],
    ids=["position", "thickness", "nothing"],
)
def test_places_along_the_axis_are_as_stated(
    opened: OpenBrain, columns: dict[str, float], expected_um: float | None
) -> None:
    rows = [one.model_copy(update=columns) for one in opened.brain.sections]
    opened.brain = opened.brain.model_copy(update={"sections": tuple(rows)})
    placing = STEP.stated.open(Place(opened))
    assert placing.stated(None)[2].z_um == expected_um
    assert replace(placing.stated(50.0)[2]).z_um == 100.0


def test_the_brain_is_the_one_that_is_made_in_one_go(opened: OpenBrain) -> None:
    """Linking section by section, spread over workers and kept, changes nothing of what comes out."""
    make(STEP, opened)
    placing, overviews = STEP.stated.open(Place(opened)), STEP.overviews.open(Place(opened))
    at_once = reconstruct(placing.brain_id, placing.stated(None), overviews, SETTINGS, placing.left_out)
    assert RECONSTRUCTION.open(Place(opened)).to_json() == at_once.to_json()


def test_a_section_is_linked_again_only_when_it_or_one_within_reach_has_changed(
    small: SmallBrain, opened: OpenBrain
) -> None:
    assert due([OF_SECTIONS], opened, opened.sections) == []
    assert due([LinksStep.of(SETTINGS.model_copy(update={"turned_deg": 5.0}))], opened, opened.sections) == []
    rows = [one.model_copy(update={"species": "mouse"}) for one in small.sections]
    opened.brain = opened.brain.model_copy(update={"sections": tuple(rows)})
    assert due([OF_SECTIONS], opened, opened.sections) == []
    rows[2] = rows[2].model_copy(update={"exclude": True, "reason": "torn"})
    opened.brain = opened.brain.model_copy(update={"sections": tuple(rows)})
    assert [one.section_id for one in due([OF_SECTIONS], opened, opened.sections)] == ["s3"]
    assert make_sections([OF_SECTIONS], opened, [rows[3]])[0].status == "made"
    assert {one.fixed for one in LINKS.open(Place(opened, rows[3]))} == {"s1"}
    wider = LinksStep.of(SETTINGS.model_copy(update={"reach": 2}))
    assert [one.section_id for one in due([wider], opened, opened.sections)] == ["s0", "s1", "s3", "s4", "s5"]


@pytest.mark.parametrize("name", ["0/0", "zarr.json"])
def test_a_damaged_section_costs_those_after_it_no_link_to_others(
    small: SmallBrain, opened: OpenBrain, name: str
) -> None:
    """And once it is made whole they are linked to it again."""
    wider = LinksStep.of(SETTINGS.model_copy(update={"reach": 2}))
    file = next(path for path in opened.catalogue.path(TISSUE.product("s1")).rglob(name) if path.is_file())
    file.write_bytes(bytes(file.stat().st_size))
    outcomes = {one.section_id: one for one in make_sections([wider], opened, small.sections[:4])}
    assert {one for one, of in outcomes.items() if of.status == "failed"} == {"s1"}
    assert [one.fixed for one in LINKS.open(Place(opened, small.sections[2]))] == ["s0"]
    opened.failed.clear()
    tissue = small.ingestion()[2]
    assert [one.section_id for one in due([tissue], opened, opened.sections)] == ["s1"]
    make_sections([tissue], opened)
    assert [one.status for one in make_sections([wider], opened, small.sections[1:4])] == ["made"] * 3
    assert {one.fixed for one in LINKS.open(Place(opened, small.sections[2]))} == {"s0", "s1"}


def test_a_section_whose_tissue_is_older_than_its_scan_costs_no_other(small: SmallBrain, opened: OpenBrain) -> None:
    remove(opened.catalogue, SECTION.product("s0"))
    wider = LinksStep.of(SETTINGS.model_copy(update={"reach": 2}))
    assert [one.status for one in make_sections([wider], opened, small.sections[:4])] == ["failed", *["made"] * 3]
    assert [one.fixed for one in LINKS.open(Place(opened, small.sections[2]))] == ["s1"]


def test_a_brain_whose_sections_are_not_linked_is_not_put_together(opened: OpenBrain) -> None:
    remove(opened.catalogue, OF_SECTIONS.product("s4"))
    with pytest.raises(MissingInputError, match=r"s4 have no links; link them first"):
        make(STEP, opened)
