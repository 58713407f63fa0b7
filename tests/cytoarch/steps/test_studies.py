"""Steps of studies: made from products of several brains, kept in a place of their own."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from cytoarch.brains import Brain, Section
from cytoarch.errors import BrainBusyError, StoreError
from cytoarch.steps.opened import open_brain, open_study
from cytoarch.steps.running import make, make_sections
from cytoarch.steps.sources import Each, OfBrain, Sections
from cytoarch.steps.step import Facts, Inputs, Step
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.staging import Staging
from tests.cytoarch.steps.test_a_new_product import ThicknessStep

THICKNESS: Each[float] = Each(ThicknessStep().stored)


@dataclass(frozen=True)
class MeanThicknessStep(Step[float]):
    """The mean thickness of the sections of two brains."""

    step: ClassVar[str] = "mean-thickness"
    scope: ClassVar = "study"
    verb: ClassVar[str] = "average"
    first: OfBrain[Sections[float]] = OfBrain("B1", THICKNESS)
    second: OfBrain[Sections[float]] = OfBrain("B2", THICKNESS)

    @property
    def name(self) -> str:
        return "all"

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        values = [*inputs[self.first].values(), *inputs[self.second].values()]
        staging.write("mean.txt", f"{sum(values) / len(values)}".encode())
        return {"sections": len(values)}

    @classmethod
    def opened(cls, folder: Path) -> float:
        return float((folder / "mean.txt").read_text())


def measure(root: Path, brain_id: str, thickness_um: float) -> None:
    rows = tuple(
        Section(brain_id=brain_id, section_id=one, section_number=i, path="x.tif", thickness_um=thickness_um)
        for i, one in enumerate(("s1", "s2"))
    )
    with open_brain(root, Brain(brain_id=brain_id, sections=rows)) as brain:
        make_sections([ThicknessStep()], brain)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    measure(tmp_path, "B1", 20.0)
    measure(tmp_path, "B2", 40.0)
    return tmp_path


def test_it_is_made_from_both_and_again_when_one_changes(root: Path) -> None:
    with open_study(root, "pair") as study:
        record, made = make(MeanThicknessStep(), study)
        assert made
        assert record.facts == {"sections": 4}
        assert MeanThicknessStep.opened(study.catalogue.path(record.product)) == pytest.approx(0.03)
        assert not make(MeanThicknessStep(), study)[1]
    measure(root, "B2", 60.0)
    with open_study(root, "pair") as study:
        assert make(MeanThicknessStep(), study)[1]
        assert MeanThicknessStep.opened(study.catalogue.path(MeanThicknessStep().product())) == pytest.approx(0.04)


def test_it_lies_in_the_studies_of_the_store(root: Path) -> None:
    with open_study(root, "pair") as study:
        make(MeanThicknessStep(), study)
    assert (root / "studies" / "pair" / "derived" / "mean-thickness" / "all" / "_brain" / "mean.txt").is_file()
    assert BrainStore(root).brain_ids() == ("B1", "B2")


def test_a_study_is_written_by_one_run_at_a_time(root: Path) -> None:
    import contextvars

    with open_study(root, "pair"), pytest.raises(BrainBusyError, match="study pair is being written"):
        contextvars.Context().run(lambda: open_study(root, "pair").__enter__())


def test_a_brain_that_is_not_there_is_named_with_those_that_are(root: Path) -> None:
    step = MeanThicknessStep(second=OfBrain("B9", THICKNESS))
    with open_study(root, "pair") as study, pytest.raises(StoreError, match=r"'B9'.*B1, B2"):
        make(step, study)


def test_a_brain_reads_no_other_brain(root: Path) -> None:
    stated = BrainStore(root).read_brain("B1")
    with open_brain(root, stated) as brain, pytest.raises(TypeError, match="studies"):
        make(MeanThicknessStep(), brain)
