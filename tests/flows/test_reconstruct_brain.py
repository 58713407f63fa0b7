"""A mapped brain is reconstructed on the way; the flow alone does the same, and again only what has changed."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cytoarch.anatomy.midline import MidlineSettings
from cytoarch.anatomy.reconstruction import ReconstructionSettings
from cytoarch.errors import StoreError
from cytoarch.phantoms.writing import WrittenPhantom
from cytoarch.steps.opened import read_only
from cytoarch.steps.reconstruction import RECONSTRUCTION, AlignmentStep
from cytoarch.steps.step import Place
from cytoarch.store.brain_store import BrainStore
from flows.map_brain import map_brain
from flows.parameters import BrainSource, MapSettings, StoredBrain
from flows.reconstruct_brain import reconstruct_brain
from tests.flows.conftest import MappedBrain

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("flows")]


def test_neighbours_of_a_mapped_phantom_lie_where_they_belong(mapped: MappedBrain) -> None:
    """Places of five neighbouring sections, brought back to the base, against the true transforms of the phantom."""
    brain = RECONSTRUCTION.open(Place(read_only(mapped.store_path, "P01")))
    phantom = WrittenPhantom(mapped.manifest_path.parent)
    base, true_base = brain[brain.base], phantom.section(brain.base)
    to_slide = np.linalg.inv(np.vstack([true_base.to_plane, [0, 0, 1]]))
    assert {one.section_id for one in brain} == set(phantom.section_ids)
    for one in brain:
        assert one.linked
        assert not [text for text in one.flags if "mirrored" in text]  # the manifest states every flip
        places = one.grid.um(np.argwhere(np.ones(one.grid.shape))[::501])
        slide_mm = places / 1000 + phantom.pixel_size_um / 2000
        plane = slide_mm @ phantom.section(one.section_id).to_plane[:, :2].T
        plane += phantom.section(one.section_id).to_plane[:, 2]
        true = (np.column_stack([plane, np.ones(len(plane))]) @ to_slide.T)[:, :2] * 1000 - phantom.pixel_size_um / 2
        found = base.plane.inverse()(one.plane(places))
        middle = np.abs(places - np.array(one.grid.centre_um)).max(axis=1) < 6000
        assert np.median(np.linalg.norm(found - true, axis=1)[middle]) < 300


def test_the_page_shows_only_files_that_exist(mapped: MappedBrain) -> None:
    brain = read_only(mapped.store_path, "P01")
    folder = brain.catalogue.path(AlignmentStep().product())
    shown = re.findall(r'src="([^"]+)"', (folder / "index.html").read_text())
    assert len(shown) == len(brain.sections) + 1
    assert all((folder / one).is_file() for one in shown)


@pytest.mark.long
def test_what_is_current_is_not_made_again_and_settings_are_heard(mapped: MappedBrain, tmp_path: Path) -> None:
    shutil.copytree(mapped.store_path, tmp_path / "store")
    stored = StoredBrain(brain_id="P01", store_path=tmp_path / "store")
    assert reconstruct_brain(stored, cortex="none").made == 0
    first = next(iter(BrainStore(stored.store_path).read_brain("P01").sections)).section_id
    summary = reconstruct_brain(stored, ReconstructionSettings(base_section=first, reach=1), cortex="none")
    assert summary.made == 3 + len(RECONSTRUCTION.open(Place(read_only(stored.store_path, "P01"))))  # and all links
    assert RECONSTRUCTION.open(Place(read_only(stored.store_path, "P01"))).base == first
    assert Path(summary.notes["reconstruction"]).is_file()
    assert (Path(summary.notes["volume"]) / "zarr.json").is_file()
    skipped = reconstruct_brain(stored, skip=(first,))
    brain = RECONSTRUCTION.open(Place(read_only(stored.store_path, "P01")))
    assert first not in brain.sections
    linked = traced = len(brain)
    assert skipped.made == 3 + linked + traced + 1, "every cortex is traced, and the points of all are gathered"
    table = pd.read_csv(skipped.notes["table"])
    assert set(table["section_id"]) == set(brain.sections)
    assert table[["x_mm", "y_mm", "z_mm", "depth"]].notna().all().all()
    assert len(list(Path(skipped.notes["pictures"]).rglob("cortex.png"))) == len(brain)


def test_a_mapped_brain_has_its_cortex_traced_where_that_is_asked_for(mapped: MappedBrain, tmp_path: Path) -> None:
    shutil.copytree(mapped.store_path, tmp_path / "store")
    source = BrainSource(manifest_path=mapped.manifest_path, store_path=tmp_path / "store")
    summary = map_brain(source=source, settings=MapSettings(cortex="trace", midline=MidlineSettings(spacing_um=500.0)))
    table = pd.read_csv(summary.notes["table"])
    assert set(table["section_id"]) == {one.section_id for one in mapped.brain.sections}
    steps = np.diff(table.loc[table["line"] == 0, "along_mm"].to_numpy())
    assert np.allclose(steps[steps > 0], 0.5)


def test_a_brain_without_tissue_says_what_to_run(mapped: MappedBrain, tmp_path: Path) -> None:
    store = BrainStore(tmp_path / "store")
    with store.lock("P01"):
        store.write_brain(mapped.brain)
    with pytest.raises(StoreError, match="no section has tissue; run ingest-brain first"):
        reconstruct_brain(StoredBrain(brain_id="P01", store_path=store.root))
