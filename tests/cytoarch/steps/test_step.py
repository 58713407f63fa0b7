"""A step reads what it declares and nothing else."""

import pytest

from cytoarch.steps.sections import LABELS, SECTION
from cytoarch.steps.sources import Each, Statements
from cytoarch.steps.step import Inputs, Place
from cytoarch.steps.tissue import TissueStep
from tests.cytoarch.steps.small_brain import SmallBrain, Steps

pytestmark = pytest.mark.xdist_group("steps")


def test_a_source_that_is_not_declared_is_refused_and_a_declared_one_is_opened(mapped: SmallBrain) -> None:
    with mapped.opened() as opened:
        inputs = Inputs(TissueStep(), Place(opened, opened.rows["s1"]), lambda _done, _total: None)
        assert inputs[SECTION].attributes["pixel_size_um"] == 16.0
        for undeclared in (LABELS, Statements(), Each(SECTION)):
            with pytest.raises(LookupError, match="no input of this step"):
                inputs[undeclared]


def test_a_section_that_appears_while_inputs_are_told_is_no_source_without_an_input(
    mapped: SmallBrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Place] = []

    def places(each: Each[object], place: Place) -> dict[str, Place]:
        seen.append(place)
        found = listed(each, place)
        return dict(list(found.items())[: -1 if len(seen) == 1 else None])

    listed = Each.places
    monkeypatch.setattr(Each, "places", places)
    with mapped.opened() as opened:
        work = Steps(mapped, opened).training.work(Place(opened))
    assert seen
    assert set(work.sources) <= set(work.inputs)
