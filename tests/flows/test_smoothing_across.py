"""A mapped brain is smoothed from section to section, along the points that trace-cortex put on its cortex."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from cytoarch.anatomy.midline import MidlineSettings
from cytoarch.brains import stated_brains
from cytoarch.errors import StoreError
from cytoarch.parcellation.across import AcrossSettings
from cytoarch.steps.opened import read_only
from cytoarch.steps.parcellations import ParcellationStep
from cytoarch.steps.reconstruction import has_stated_places
from cytoarch.steps.step import Place, Stored
from flows.map_brain import map_brain
from flows.parameters import BrainSource, MapSettings, StoredBrain
from flows.parcellate_brain import parcellate_brain
from tests.flows.conftest import MappedBrain

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("flows")]


def maps(store_path: Path, name: str) -> dict[str, np.ndarray]:
    """The label map of every section."""
    brain = read_only(store_path, "P01")
    stored = Stored(ParcellationStep, name)
    return {
        one.section_id: stored.open(Place(brain, one)).labels.levels[0].pixels().astype(int) for one in brain.sections
    }


@pytest.mark.long
def test_maps_follow_their_neighbours_and_the_report_says_what_changed(mapped: MappedBrain, tmp_path: Path) -> None:
    """The cortex is traced for it."""
    shutil.copytree(mapped.store_path, tmp_path / "store")
    stored = StoredBrain(brain_id="P01", store_path=tmp_path / "store")
    model = str(read_only(stored.store_path, "P01").catalogue.names("probabilities")[0])
    digest = next(one.name for one in (stored.store_path / "models").iterdir() if one.name.startswith(model[-8:]))
    with pytest.raises(StoreError, match="Run trace-cortex"):
        parcellate_brain(stored, digest, across=AcrossSettings(method="poisson"))
    before = maps(stored.store_path, model)
    source = BrainSource(manifest_path=mapped.manifest_path, store_path=stored.store_path)
    traced = MidlineSettings(spacing_um=1000.0, patch_um=500.0)
    set_to = MapSettings(across=AcrossSettings(method="poisson", strength=2.0, smallest_mm2=1.0), midline=traced)
    done = map_brain(source, set_to)
    after = maps(stored.store_path, model)
    assert not done.failed
    assert before.keys() == after.keys()
    changed = np.mean([(before[one] != after[one]).mean() for one in before])
    assert 0 < changed < 0.2
    assert done.notes["strength across sections"] == "2"
    few, many = (int(one.split()[0].replace(",", "")) for one in done.notes["borders between points"].split(", ")[::-1])
    assert few < many
    page = stored.store_path / "brains" / "P01" / "report" / "index.html"
    assert "Smoothed from section to section" in page.read_text()
    assert map_brain(source, set_to).made == 0


def test_smoothing_across_sections_needs_them_put_together() -> None:
    with pytest.raises(ValueError, match="set reconstruct to rigid"):
        MapSettings(across=AcrossSettings(method="poisson"), reconstruct="none")
    assert MapSettings(across=AcrossSettings(method="poisson")).is_traced(is_mapped=True)
    assert not MapSettings(across=AcrossSettings(method="poisson")).is_traced(is_mapped=False)
    assert not MapSettings().is_traced(is_mapped=True)


def test_a_manifest_without_places_is_told_before_anything_is_read(
    phantom: Path, tmp_path: Path, prefect_server: None
) -> None:
    shutil.copytree(phantom.parent, tmp_path / "P01")
    manifest = tmp_path / "P01" / phantom.name
    rows = list(csv.DictReader(manifest.read_text().splitlines()))
    kept = [{name: value for name, value in row.items() if name not in ("position_um", "thickness_um")} for row in rows]
    with manifest.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(kept[0]))
        writer.writeheader()
        writer.writerows(kept)
    source = BrainSource(manifest_path=manifest, store_path=tmp_path / "store")
    with pytest.raises(StoreError, match="nothing says where sections lie"):
        map_brain(source, MapSettings(across=AcrossSettings(method="poisson")))
    assert not (tmp_path / "store" / "brains").exists()


def test_the_places_that_a_manifest_states_or_a_spacing_gives(phantom: Path) -> None:
    (brain,) = stated_brains(phantom)
    blank = {"position_um": None, "thickness_um": None}
    without = brain.model_copy(update={"sections": tuple(one.model_copy(update=blank) for one in brain.sections)})
    assert has_stated_places(brain, None)
    assert not has_stated_places(without, None)
    assert has_stated_places(without, 50.0)
