"""An encoder pretrained on two phantoms, a third held out; it is used as any other, and MLflow has its row."""

from pathlib import Path

import pytest
from mlflow import MlflowClient
from pydantic import ValidationError

from cytoarch.anatomy.midline import MidlineSettings
from cytoarch.encoders.registry import EncoderSettings, load_encoder
from cytoarch.phantoms.writing import PhantomRequest, write_phantom
from cytoarch.pretraining.loop import LoopSettings
from cytoarch.pretraining.settings import PretrainingSettings
from cytoarch.store.brain_store import BrainStore
from flows.ingest_brain import ingest_brain
from flows.parameters import BrainSource, LearnedBrains
from flows.pretrain_encoder import pretrain_encoder
from tasks.tracking import tracking_uri

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("flows")]

TRAIN = PretrainingSettings(
    pixel_size_um=80.0, patch_px=32, batch_size=8, sigma_mm=1.8, widths=(4, 4, 6, 8, 8), depths=(0, 0, 0, 1, 0),
    loop=LoopSettings(steps=6, optimiser="adamw", learning_rate=1e-3, watch_every=2, keep_every=3),
)  # fmt: skip
MIDLINE = MidlineSettings(patch_um=800.0)


@pytest.mark.long
def test_an_encoder_is_trained_used_and_remembered(tmp_path: Path) -> None:
    for name, seed in (("P01", 1), ("P02", 7)):
        request = PhantomRequest(size="tiny", seed=seed, sections=2)
        ingest_brain(
            BrainSource(manifest_path=write_phantom(tmp_path / name, name, request), store_path=tmp_path / "s")
        )
    choice = LearnedBrains(name="E1", brains=("P01",), held_out=("P02",), store_path=tmp_path / "s")
    done = pretrain_encoder(choice, TRAIN, midline=MIDLINE)
    assert any("P02, held out" in one for one in done.notes)
    encoder = load_encoder(EncoderSettings(encoder=done.notes["encoder"]))
    assert encoder.layers == ("stages",)
    assert encoder.dims(1) == (6 + 8 + 8,)
    store = BrainStore(tmp_path / "s")
    client = MlflowClient(tracking_uri(store), tracking_uri(store))
    (row,) = client.search_runs(
        [client.get_experiment_by_name("cytoarch: pretraining").experiment_id], "tags.kind = 'pretraining'"
    )
    assert row.data.params["train.learning"] == "spatial"
    assert "place_error_mm/P02/told" in row.data.metrics
    assert len(client.get_metric_history(row.info.run_id, "loss")) == 6
    assert len(client.get_metric_history(row.info.run_id, "health/rank")) == 3
    assert row.data.metrics["cost/patches"] == 48
    assert row.data.metrics["cost/seconds"] > 0
    (version,) = client.search_model_versions("name = 'encoder-E1'")
    assert {name: version.tags[name] for name in ("learned", "held_out", "kind")} == {
        "learned": "P01",
        "held_out": "P02",
        "kind": "compact",
    }
    assert done.notes["MLflow model"] == "models:/encoder-E1/1"
    assert pretrain_encoder(choice, TRAIN, midline=MIDLINE).made == 0


def test_a_brain_is_learned_from_or_held_out() -> None:
    with pytest.raises(ValidationError, match="learned from or held out"):
        LearnedBrains(name="E1", brains=("P01,P02",), held_out=("P02",))
