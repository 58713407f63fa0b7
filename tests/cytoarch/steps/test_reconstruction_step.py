"""A brain is put together from its overviews, and again exactly when what that is made from has changed."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cytoarch.anatomy.reconstruction import ReconstructionSettings
from cytoarch.anatomy.reconstruction.volume import VolumeSettings
from cytoarch.images.conformance import conformance_faults
from cytoarch.steps import RECONSTRUCTION, sections
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.reconstruction import AlignmentStep, ReconstructionStep, VolumeStep, has_volume
from cytoarch.steps.running import make
from cytoarch.steps.step import Place, is_current
from tests.cytoarch.steps.small_brain import IDS, InProcess, SmallBrain, Steps, write_files

STEP = ReconstructionStep(ReconstructionSettings(reach=1))


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallBrain:
    monkeypatch.setattr(sections, "containment", InProcess)
    small = SmallBrain(tmp_path)
    write_files(small.scans)
    with small.opened() as brain:
        Steps(small, brain).ingest()
    return small


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
