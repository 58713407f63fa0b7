"""Areas of a phantom drawn by a small U-Net: fine-tuned, scored on sections held out, told to MLflow, once."""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from cytoarch.errors import TrainingError
from cytoarch.pretraining.area_training import AreaSettings
from cytoarch.pretraining.loop import LoopSettings
from cytoarch.store.brain_store import BrainStore
from flows.evaluate_areas import evaluate_areas
from flows.parameters import LearnedBrains
from tasks.tracking import tracking_uri
from tests.flows.conftest import MappedBrain

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("flows")]

SHORT = LoopSettings(steps=3, optimiser="adamw", learning_rate=1e-3, watch_every=2)
AREAS = AreaSettings(
    pixel_size_um=80.0, patch_px=32, patches=20, batch_size=8, widths=(4, 4, 8, 8, 8), depths=(0, 0, 0, 0, 0),
    without_atlas=SHORT, with_atlas=SHORT,
)  # fmt: skip


def test_areas_are_drawn_scored_and_remembered(mapped: MappedBrain, tmp_path: Path) -> None:
    shutil.copytree(mapped.store_path, tmp_path / "store")
    choice = LearnedBrains(name="A1", brains=("P01",), store_path=tmp_path / "store")
    done = evaluate_areas(choice, AREAS)
    assert "Dice" in done.notes["without atlas, sections held out"]
    assert done.notes["atlas"].startswith("none")
    assert Path(done.notes["network"]).stat().st_size > 1000
    store = BrainStore(tmp_path / "store")
    client = MlflowClient(tracking_uri(store), tracking_uri(store))
    (row,) = client.search_runs([client.get_experiment_by_name("cytoarch: areas").experiment_id], "tags.kind = 'areas'")
    assert 0 <= row.data.metrics["without atlas/sections held out/dice"] <= 1
    assert row.data.metrics["without atlas/sections held out/err_seg_um"] > 0
    assert row.data.params["areas.network"] == "compact"
    assert evaluate_areas(choice, AREAS).made == 0
    nothing = choice.model_copy(update={"name": "A2", "held_out": ("P01",), "brains": ()})
    with pytest.raises(TrainingError, match="no section to learn from has labels"):
        evaluate_areas(nothing, AREAS)
