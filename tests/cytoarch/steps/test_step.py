"""A step reads what it declares and nothing else."""

import pytest

from cytoarch.steps.sections import LABELS, SECTION
from cytoarch.steps.sources import Each, Statements
from cytoarch.steps.step import Inputs, Place
from cytoarch.steps.tissue import TissueStep
from tests.cytoarch.steps.small_brain import SmallBrain

pytestmark = pytest.mark.xdist_group("steps")


def test_a_source_that_is_not_declared_is_refused_and_a_declared_one_is_opened(mapped: SmallBrain) -> None:
    with mapped.opened() as opened:
        inputs = Inputs(TissueStep(), Place(opened, opened.rows["s1"]), lambda _done, _total: None)
        assert inputs[SECTION].attributes["pixel_size_um"] == 16.0
        for undeclared in (LABELS, Statements(), Each(SECTION)):
            with pytest.raises(LookupError, match="no input of this step"):
                inputs[undeclared]
