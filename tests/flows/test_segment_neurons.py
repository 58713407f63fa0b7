"""Neurons from a table of volumes to traces, in one flow; what cannot be read costs itself."""

import csv
from pathlib import Path

import pytest
import tifffile
from mlflow import MlflowClient

from cytoarch.errors import CytoarchError, ManifestError
from cytoarch.neurons.phantoms import NeuronPhantom, make_phantom
from cytoarch.neurons.settings import NeuronSegmentation, NeuronTraining
from cytoarch.neurons.swc import read_swc, write_swc
from cytoarch.store.brain_store import BrainStore
from flows.segment_neurons import NeuronChoice, segment_neurons
from tasks.tracking import tracking_uri

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("flows")]

TRAIN = NeuronTraining(
    size="own", features=(4, 8, 8, 8), depths=(1, 1, 1, 1), steps=3, patch=(16, 16, 32), batch_size=1
)
SEGMENT = NeuronSegmentation(tile_depth=16, tile_edge=32)


def table(folder: Path, *uses: str) -> Path:
    """Phantoms and their table."""
    with (folder / "volumes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["volume_id", "path", "use", "swc", "swc_unit", "voxel_z_um", "voxel_y_um", "voxel_x_um"])
        for number, use in enumerate(uses):
            made = make_phantom(NeuronPhantom(shape=(20, 32, 32), seed=number, neurons=1))
            tifffile.imwrite(folder / f"v{number}.tif", made.pixels)
            (folder / f"v{number}.swc").write_text(write_swc(made.tree))
            writer.writerow([f"v{number}", f"v{number}.tif", use, f"v{number}.swc", "voxel", 1, 1, 1])
    return folder / "volumes.csv"


def test_a_network_is_taught_volumes_are_traced_and_mlflow_has_a_row(tmp_path: Path) -> None:
    choice = NeuronChoice(
        name="N1", table_path=table(tmp_path, "learn", "score", "apply"), store_path=tmp_path / "store"
    )
    (tmp_path / "v2.tif").write_bytes(b"no volume")
    done = segment_neurons(choice, TRAIN, SEGMENT)
    assert set(done.failed) == {"v2"}
    assert Path(done.notes["report"]).is_file()
    read_swc(Path(done.notes["trace of v1"]))
    store = BrainStore(tmp_path / "store")
    client = MlflowClient(tracking_uri(store), tracking_uri(store))
    (row,) = client.search_runs(
        [client.get_experiment_by_name("cytoarch: neurons").experiment_id], "tags.kind = 'neurons'"
    )
    assert row.data.params["train.steps"] == "3"
    assert "score/pds" in row.data.metrics
    assert segment_neurons(choice, TRAIN, SEGMENT).made == 0
    applied = NeuronChoice(
        name="N2", table_path=table(tmp_path, "apply"), store_path=tmp_path / "store", model=done.notes["model digest"]
    )
    assert segment_neurons(applied, segment=SEGMENT).failed == {}


def test_what_cannot_be_done_is_said_before_anything_is_started(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no volume has use learn"):
        segment_neurons(NeuronChoice(name="N1", table_path=table(tmp_path, "apply"), store_path=tmp_path / "store"))
    choice = NeuronChoice(name="N1", table_path=table(tmp_path, "learn"), store_path=tmp_path / "store")
    (tmp_path / "v0.tif").write_bytes(b"no volume")
    with pytest.raises(CytoarchError, match=r"volume v0: .*damaged"):
        segment_neurons(choice)
