"""A middle of the cortex that cannot be made a surface costs the surface, not the map."""

from pathlib import Path
from typing import Any

import pytest
from prefect.logging import disable_run_logger

from cytoarch.anatomy.midline import MidlineKind, MidlineSettings
from cytoarch.errors import StoreError
from flows import map_brain
from flows.parameters import MapSettings, RunSettings, StoredBrain
from flows.stages import Traced

LOST = "B: no place along the cutting axis is known"


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Trace a brain by a kind of line, where no surface can be made; the kinds that were tried, and the outcome."""
    tried: list[str] = []

    def trace(brain: StoredBrain, depth: Any, midline: MidlineSettings, *_: Any, run: RunSettings) -> Traced:
        tried.append(midline.line)
        if midline.line != "depth":
            raise StoreError(LOST)
        return Traced(brain.brain_id, 3, {}, {"points": "7 on 2 sections"}, "depth-laplace-1000um")

    monkeypatch.setattr(map_brain, "trace_cortex", trace)

    def by(line: MidlineKind) -> tuple[list[str], Traced]:
        settings = MapSettings(cortex="trace", midline=MidlineSettings(line=line, spacing_um=500))
        with disable_run_logger():
            found = map_brain._traced(StoredBrain(brain_id="B", store_path=tmp_path), settings, RunSettings())
        return tried, found

    return by


def test_a_surface_that_cannot_be_made_is_noted_and_the_map_goes_on(traced: Any) -> None:
    tried, found = traced("surface")
    assert tried == ["surface", "depth"]
    assert found.midline == "depth-laplace-1000um"
    assert found.notes["points"] == "7 on 2 sections"
    assert LOST in found.notes["surface"]


def test_a_middle_that_can_be_made_is_made_once_and_any_other_failure_is_one(traced: Any) -> None:
    tried, found = traced("depth")
    assert tried == ["depth"]
    assert "surface" not in found.notes
    with pytest.raises(StoreError, match="cutting axis"):
        traced("skeleton")
