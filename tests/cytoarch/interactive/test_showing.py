"""What a window shows over a section is told to be old where it is."""

import pytest

from cytoarch.interactive import showing
from cytoarch.steps.opened import read_only
from cytoarch.steps.parcellations import ParcellationStep
from cytoarch.store.catalogue import Catalogue
from cytoarch.store.records import Committed
from tests.cytoarch.steps.small_brain import SmallBrain

pytestmark = pytest.mark.xdist_group("steps")


def test_a_parcellation_older_than_its_section_is_called_outdated(
    mapped: SmallBrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    brain = read_only(mapped.folder / "store", "B1")
    names = [one.name for one in showing._known(brain, brain.rows["s1"])]
    assert any(one.startswith("parcellation") for one in names)
    assert not any("outdated" in one for one in names)

    def outdated(_: Catalogue, record: Committed) -> str:
        return "sections/section/s1" if record.product.step == ParcellationStep.step else ""

    monkeypatch.setattr(Catalogue, "outdated", outdated)
    again = [one.name for one in showing._known(brain, brain.rows["s1"])]
    assert again == [f"{one} (outdated)" if one.startswith("parcellation") else one for one in names]
