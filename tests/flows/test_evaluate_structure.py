"""What embeddings of a phantom know of its cortex: measured, scored, drawn on a page and told to MLflow, once."""

import csv
import importlib
import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient
from pydantic import ValidationError

from cytoarch.anatomy.midline import MidlineSettings
from cytoarch.embeddings import EmbedSettings
from cytoarch.embeddings.attention import AttentionSettings
from cytoarch.errors import ModelError, TrainingError
from cytoarch.learning.structure import StructureSettings
from cytoarch.steps.columns import ColumnSettings
from cytoarch.steps.structure import SCORES_FILE
from cytoarch.store.brain_store import BrainStore
from flows.embed_points import embed_points
from flows.evaluate_structure import JudgedChoice, evaluate_structure
from flows.parameters import RunSettings, StoredBrain
from flows.trace_cortex import trace_cortex
from tasks.tracking import tracking_uri
from tests.flows.conftest import MappedBrain
from tests.tiny_transformer import tiny_transformer

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("flows")]

structure_flow = importlib.import_module("flows.evaluate_structure")
EVALUATE = StructureSettings(components=(1, 4), folds=3, attributed=4)
COLUMNS = ColumnSettings(samples=30, pixel_size_um=80.0, cells_um=300.0)


@pytest.mark.long
def test_measures_are_told_scored_and_shown(mapped: MappedBrain, tmp_path: Path) -> None:
    shutil.copytree(mapped.store_path, tmp_path / "store")
    brain = StoredBrain(brain_id="P01", store_path=tmp_path / "store")
    traced = trace_cortex(brain, midline=MidlineSettings(spacing_um=1000.0, patch_um=800.0))
    points = Path(traced.notes["table"])
    encoder = tiny_transformer(tmp_path / "vit")
    embed_points(brain, points, EmbedSettings(encoder=encoder, pixel_size_um=80.0, tile_px=64))
    choice = JudgedChoice(name="J1", brains=("P01",), store_path=tmp_path / "store", cells_path=points)
    attention = AttentionSettings(encoder=encoder, patches=3)
    done = evaluate_structure(choice, EVALUATE, COLUMNS, attention)
    assert not done.failed
    page = Path(done.notes["page"])
    for name in ("index.html", "P01-curves.png", "P01-shares.png", "P01-attention.png"):
        assert (page.parent / name).stat().st_size > 1000
    (scores,) = (tmp_path / "store").rglob(SCORES_FILE)
    with scores.open(newline="") as file:
        rows = list(csv.DictReader(file))
    measures = {one["measure"] for one in rows}
    assert {"thickness_mm", "curvature_per_mm", "x_mm", "beside_mm"} <= measures
    assert not any(" of " in one for one in measures)  # its labels are areas, crossed one at a time
    assert {one["folds_of"] for one in rows} == {"points", "sections"}
    assert {one["features"] for one in rows} == {"embedding", "profile"}
    store = BrainStore(tmp_path / "store")
    client = MlflowClient(tracking_uri(store), tracking_uri(store))
    (row,) = client.search_runs(
        [client.get_experiment_by_name("cytoarch: structure").experiment_id], "tags.kind = 'structure'"
    )
    assert "P01/thickness_mm/embedding/sections" in row.data.metrics
    assert "places/P01/P01/z_mm" in row.data.metrics
    assert row.data.params["attention.patches"] == "3"
    assert "block 2, 2 heads" in page.read_text()
    assert "other blocks, norm, precision or weights" not in page.read_text()
    assert evaluate_structure(choice, EVALUATE, COLUMNS, attention).made == 0
    with pytest.raises(ModelError, match="texture: has no attention"):
        evaluate_structure(choice, EVALUATE, COLUMNS, AttentionSettings(encoder="texture"))


def test_a_brain_with_too_few_points_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def judged(opened: Any, *_: object) -> int:
        if opened.brain_id != "P02":
            raise TrainingError(f"{opened.brain_id}: 3 points")
        opened.failed["s1"] = "damaged"
        return 2

    def held(_: Path, brain_id: str) -> nullcontext[Any]:
        return nullcontext(SimpleNamespace(brain_id=brain_id, failed={}))

    monkeypatch.setattr(structure_flow, "_judge", judged)
    monkeypatch.setattr(structure_flow, "held_brain", held)
    steps: dict[str, Any] = {one: one for one in ("P01", "P02", "P03")}
    found = structure_flow._judge_all(Path(), steps, steps, RunSettings())
    assert found == (2, {"P02/s1": "damaged"}, {"P01": "P01: 3 points", "P03": "P03: 3 points"})
    with pytest.raises(TrainingError, match="brain P01: P01: 3 points"):
        structure_flow._judge_all(Path(), {"P01": steps["P01"]}, {"P01": steps["P01"]}, RunSettings())


def test_a_sheet_that_cannot_be_drawn_costs_no_brain_its_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(_title: str, opened: str, _step: object) -> int:
        if opened == "P02":
            raise ModelError("P02: nothing to look at")
        return 1

    monkeypatch.setattr(structure_flow, "run_whole", drawn)
    monkeypatch.setattr(structure_flow, "held_brain", lambda _, brain_id: nullcontext(brain_id))
    steps: dict[str, Any] = {"P01": None, "P02": None}
    assert structure_flow._attend_all(Path(), steps) == ({"P01": 1}, {"P02": "P02: nothing to look at"})


def test_other_names_in_other_brains_are_refused_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structure_flow, "read_only", lambda _, brain_id: brain_id)
    monkeypatch.setattr(structure_flow, "require_stored", lambda _step, place, *_: f"points-of-{place.home}")
    with pytest.raises(TrainingError, match="P01: points-of-P01, P02: points-of-P02"):
        structure_flow._measured(JudgedChoice(name="J1", brains=("P01", "P02")), COLUMNS)


def test_cells_are_those_of_one_brain() -> None:
    with pytest.raises(ValidationError, match="a table of cells is of one brain, 2 are named"):
        JudgedChoice(name="J1", brains=("P01,P02",), cells_path=Path("cells.csv"))
