"""A study of brains in one store: a model of all, scored by brain and kind, registered with its scores."""

import csv
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from pydantic import ValidationError

from cytoarch.embeddings import AcrossBrainsSettings, embedding_name
from cytoarch.encoders import load_encoder
from cytoarch.errors import StoreError
from cytoarch.phantoms.writing import PhantomRequest, write_phantom
from cytoarch.store.brain_store import BrainStore
from flows.ingest_brain import ingest_brain
from flows.parameters import BrainSource
from flows.study import StudyChoice, study
from tasks.tracking import tracking_uri
from tests.artifacts import every_artifact
from tests.flows.conftest import MappedBrain

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("flows")]


@pytest.mark.long
def test_two_brains_teach_a_model_that_a_third_is_scored_with(mapped: MappedBrain, tmp_path: Path) -> None:
    shutil.copytree(mapped.store_path, tmp_path / "store")
    for name, seed in (("P02", 7), ("P03", 8)):
        manifest = write_phantom(tmp_path / name, name, PhantomRequest(size="tiny", seed=seed))
        ingest_brain(BrainSource(manifest_path=manifest, store_path=tmp_path / "store"))
    choice = StudyChoice(
        name="trio", brains=("P01,P02",), unseen=("P03",), seeds=2, store_path=tmp_path / "store", target="areas"
    )
    done = study(choice, AcrossBrainsSettings(encoder="texture"))
    store = BrainStore(tmp_path / "store")
    with Path(done.notes["scores"]).open(newline="") as file:
        rows = {(row["model"], row["brain"], row["part"]): row for row in csv.DictReader(file)}
    assert rows["all brains", "P03", "unseen"]["kind"] == "unseen"
    assert float(rows["the other brains", "P01", "left out"]["macro_f1"]) > 0
    assert {row["seeds"] for row in rows.values()} == {"2"}
    client = MlflowClient(tracking_uri(store), tracking_uri(store))
    version = client.get_model_version_by_alias("areas-probe-trio", "champion")
    assert float(version.tags["headline_macro_f1"]) == pytest.approx(float(done.notes["headline/macro_f1"]), abs=1e-3)
    assert "headline_macro_f1_sd" in version.tags
    experiment = client.get_experiment_by_name("cytoarch: areas across brains").experiment_id
    (row,) = client.search_runs([experiment], "tags.kind = 'study'")
    children = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{row.info.run_id}'")
    folds = [one for one in children if one.data.tags["kind"] == "fold"]
    assert len(folds) == len(rows)
    seeds = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{folds[0].info.run_id}'")
    assert sorted(one.data.tags["seed"] for one in seeds) == ["0", "1"]
    both = [one.data.metrics["macro_f1"] for one in seeds]
    assert sum(both) / 2 == pytest.approx(folds[0].data.metrics["macro_f1"], abs=1e-4)
    assert study(choice, AcrossBrainsSettings(encoder="texture")).made == 0
    told = [str(one.data) for one in every_artifact() if one.key == "summary-trio"]
    assert len(told) == 2
    for text in told:
        assert (
            f"| all brains | P03 | unseen | {float(rows['all brains', 'P03', 'unseen']['macro_f1']):.3f}".replace(
                ".", r"\."
            )
            in text
        )
        assert "areas\\-probe\\-trio version 1" in text
    assert len(client.search_runs([experiment], "tags.kind = 'study'")) == 1


def test_what_else_is_set_leaves_the_default_encoder_what_it_is() -> None:
    settings = AcrossBrainsSettings.model_validate({"pixel_size_um": 25})
    assert (settings.encoder, settings.pixel_size_um) == ("texture+lite0:3,4", 25)
    encoder = load_encoder(settings)
    assert encoder.dims(3) == (78, 152, 152, 152)
    assert encoder.tiles.token_px == 4
    assert embedding_name(settings, encoder, 25.0).startswith("texture-lite0-25um-")


def test_a_brain_has_one_place_and_must_be_there(mapped: MappedBrain) -> None:
    with pytest.raises(ValidationError, match="P01: a brain has one place in a study"):
        StudyChoice(name="x", brains=("P01",), unseen=("P01",))
    with pytest.raises(StoreError, match=r"'P09'.*P01"):
        study(StudyChoice(name="x", brains=("P01", "P09"), store_path=mapped.store_path))
