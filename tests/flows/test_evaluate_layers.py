"""How few labels of a phantom are enough: a table and figures, made once."""

import csv
import shutil
from pathlib import Path

import pytest

from cytoarch.learning.label_shares import ShareSettings
from flows.evaluate_layers import evaluate_layers
from flows.parameters import StoredBrain
from tests.flows.conftest import MappedBrain

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("flows")]


@pytest.mark.long
def test_shares_of_the_labels_are_scored_on_sections_held_out(mapped: MappedBrain, tmp_path: Path) -> None:
    shutil.copytree(mapped.store_path, tmp_path / "store")
    brain = StoredBrain(brain_id="P01", store_path=tmp_path / "store")
    shares = ShareSettings(percent=(100.0, 20.0), folds=2, patch_tokens=8)
    done = evaluate_layers(brain, shares=shares)
    with Path(done.notes["table"]).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["percent"] for row in rows] == ["20", "100"]
    assert int(rows[0]["patches"]) < int(rows[1]["patches"])
    assert 0 < float(rows[0]["macro_f1"]) < float(rows[1]["macro_f1"])
    ratio = float(rows[0]["macro_f1"]) / float(rows[1]["macro_f1"])
    assert float(done.notes["of_most/20"]) == pytest.approx(ratio, abs=1e-3)
    assert evaluate_layers(brain, shares=shares).made == 0
