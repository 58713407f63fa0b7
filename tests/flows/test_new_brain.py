"""A brain that nobody labelled is mapped by a model of another, and scored when labels arrive."""

import csv
import re
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from cytoarch.errors import ModelError, StoreError
from cytoarch.learning.training import ProbeSettings
from cytoarch.parcellation.inference import ParcellateSettings
from cytoarch.phantoms.writing import PhantomRequest, write_phantom
from cytoarch.steps.opened import read_only
from cytoarch.store.brain_store import BrainStore
from flows.map_brain import map_brain
from flows.parameters import BrainSource, MapSettings, StoredBrain
from flows.score_brain import score_brain
from flows.stages import Summary
from tasks.tracking import tracking_uri
from tests.flows.conftest import MappedBrain

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("flows")]

AUTO = MapSettings(model="auto", parcellate=ParcellateSettings(source="cache"))


def without_labels(manifest: Path) -> Path:
    """A copy of a manifest, beside it, that names no label image."""
    with manifest.open(newline="") as file:
        rows = list(csv.DictReader(file))
    stripped = manifest.with_name("unlabelled.csv")
    with stripped.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows([{**row, "labels": ""} for row in rows])
    return stripped


class NewBrain:
    """A second individual that arrives without labels in the store where the first was mapped."""

    def __init__(self, manifest: Path, store_path: Path) -> None:
        self.manifest, self.store_path = manifest, store_path
        source = BrainSource(manifest_path=without_labels(manifest), store_path=store_path)
        summary = map_brain(source=source, settings=AUTO)
        assert isinstance(summary, Summary)
        self.summary = summary

    @property
    def html(self) -> str:
        return (BrainStore(self.store_path).brain_path("P02") / "report" / "index.html").read_text()

    def rows(self) -> list[dict[str, dict[str, object]]]:
        """Tags and metrics of the brain's rows in MLflow."""
        store = BrainStore(self.store_path)
        client = MlflowClient(tracking_uri(store), tracking_uri(store))
        experiment = client.get_experiment_by_name("cytoarch: areas of brains").experiment_id
        found = client.search_runs([experiment], "tags.kind = 'brain' and tags.brain = 'P02'")
        return [{"tags": dict(one.data.tags), "metrics": dict(one.data.metrics)} for one in found]


@pytest.fixture(scope="module")
def arrived(mapped: MappedBrain, tmp_path_factory: pytest.TempPathFactory) -> NewBrain:
    folder = tmp_path_factory.mktemp("new")
    shutil.copytree(mapped.store_path, folder / "store")
    manifest = write_phantom(folder / "P02", "P02", PhantomRequest(size="tiny", seed=7))
    return NewBrain(manifest, folder / "store")


def test_a_brain_without_labels_gets_maps_by_the_champion_and_is_told_whose(arrived: NewBrain) -> None:
    notes = arrived.summary.notes
    assert notes["mapped by"] == (
        "Mapped by areas-probe-P01 version 1, champion, trained on brain P01 (5 sections), never seen this brain."
    )
    brain = read_only(arrived.store_path, "P02")
    for step in ("parcellations", "familiarity"):
        (name,) = brain.catalogue.names(step)
        assert len(brain.catalogue.section_ids(step, name)) == 5
    assert "never seen this brain" in arrived.html
    assert "what the model learned from" in arrived.html
    assert re.search(r"confidence: probability of the class shown", arrived.html)


def test_its_row_names_the_model_and_how_far_the_brain_is_from_it(arrived: NewBrain) -> None:
    (row,) = arrived.rows()
    assert row["tags"]["model_name"] == "areas-probe-P01"
    assert row["tags"]["model_brains"] == "P01"
    assert 0 <= float(str(row["metrics"]["familiarity/outside95"])) <= 1
    assert "held_out/macro_f1" not in row["metrics"], "the score of another brain is none of this one"


def test_a_second_look_finds_all_current(arrived: NewBrain) -> None:
    source = BrainSource(manifest_path=arrived.manifest.with_name("unlabelled.csv"), store_path=arrived.store_path)
    again = map_brain(source=source, settings=AUTO)
    assert again.made == 0
    assert len(arrived.rows()) == 1


def test_labels_that_arrive_later_score_the_map_that_was_made_before(arrived: NewBrain, tmp_path: Path) -> None:
    shutil.copytree(arrived.store_path, tmp_path / "store")
    later = NewBrain.__new__(NewBrain)
    later.manifest, later.store_path = arrived.manifest, tmp_path / "store"
    brain = read_only(later.store_path, "P02")
    (name,) = brain.catalogue.names("parcellations")
    before = [record.digest for record in brain.catalogue.records() if record.step == "parcellations"]
    stored = StoredBrain(brain_id="P02", store_path=later.store_path)
    with pytest.raises(StoreError, match="has no labels in the store; name the manifest"):
        score_brain(stored)
    summary = score_brain(stored, manifest_path=later.manifest)
    after = read_only(later.store_path, "P02").catalogue
    assert [record.digest for record in after.records() if record.step == "parcellations"] == before
    (row,) = later.rows()
    assert summary.notes[f"{name} map/macro_f1"] == f"{float(str(row['metrics']['map/macro_f1'])):.3f}"
    assert row["tags"]["scored_later"]
    assert "the map, sections not learned from" in later.html
    assert "labels (phantom)" in later.html
    assert score_brain(stored, manifest_path=later.manifest).made == 0


def test_where_no_champion_fits_the_choices_are_listed(arrived: NewBrain) -> None:
    source = BrainSource(manifest_path=arrived.manifest.with_name("unlabelled.csv"), store_path=arrived.store_path)
    with pytest.raises(ModelError, match=r"no champion for layers fits .*\n  areas-probe-P01: it maps areas"):
        map_brain(source=source, settings=MapSettings(model="auto:layers"))
    layers = MapSettings(model="auto", probe=ProbeSettings(target="layers"))
    with pytest.raises(ModelError, match="no champion for layers fits"):
        map_brain(source=source, settings=layers)
    with pytest.raises(ModelError, match=r"'best' names no model; .* Registered models: areas-probe-P01"):
        map_brain(source=source, settings=MapSettings(model="best"))
