"""Volumes of a study on their way to trees: made once, made again where something changed, seen on a page."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel

from cytoarch.errors import ManifestError, StoreError
from cytoarch.neurons.inference import waiting_bytes
from cytoarch.neurons.kept import NeuronCard, network_files
from cytoarch.neurons.phantoms import NeuronPhantom, make_phantom
from cytoarch.neurons.settings import NeuronSegmentation, NeuronTraining, TraceSettings
from cytoarch.neurons.swc import write_swc
from cytoarch.neurons.table import read_volumes
from cytoarch.neurons.training import new_network
from cytoarch.steps import neuron_traces, neuron_training
from cytoarch.steps.neuron_report import NeuronReportStep, neuron_metrics
from cytoarch.steps.neuron_traces import NeuronMapStep, NeuronScoreStep, NeuronTraceStep
from cytoarch.steps.neuron_training import CHECKPOINT, NeuronTrainingStep
from cytoarch.steps.neurons import KnownTreeStep, NeuronVolumeStep, SwcFile
from cytoarch.steps.opened import OpenStudy, open_study
from cytoarch.steps.running import make
from cytoarch.steps.step import Place, Step, Stored, is_current
from tests.cytoarch.steps.segment_and_die import OVERLAPPING

TRAIN = NeuronTraining(
    size="own",
    features=(4, 8, 8, 8),
    depths=(1, 1, 1, 1),
    steps=4,
    patch=(16, 16, 32),
    batch_size=1,
    checkpoint_every=2,
)
SEGMENT = NeuronSegmentation(tile_depth=16, tile_edge=16)
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A table of two phantoms, one to learn from, one to score on, and their files."""
    rows = []
    for number, use in enumerate(("learn", "score")):
        made = make_phantom(NeuronPhantom(shape=(20, 32, 32), seed=number, neurons=1))
        tifffile.imwrite(tmp_path / f"{use}.tif", made.pixels)
        (tmp_path / f"{use}.swc").write_text(write_swc(made.tree))
        rows.append({"volume_id": use, "path": f"{use}.tif", "use": use, "swc": f"{use}.swc"})
    with (tmp_path / "volumes.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "voxel_z_um", "voxel_y_um", "voxel_x_um"])
        writer.writeheader()
        writer.writerows(row | dict.fromkeys(("voxel_z_um", "voxel_y_um", "voxel_x_um"), "1.0") for row in rows)
    return tmp_path


def ingested(study: OpenStudy, folder: Path) -> None:
    for row in read_volumes(folder / "volumes.csv"):
        make(NeuronVolumeStep.of(row, folder), study)
        swc = folder / str(row.swc)
        make(KnownTreeStep(row.volume_id, SwcFile(swc, SwcFile.of(swc).sha256)), study)


def made_of(study: OpenStudy) -> list[Step[object]]:
    """All steps from the training on, made; the likeliest voxels are traced, however little the network learned."""
    train = NeuronTrainingStep.of(TRAIN, ["learn"])
    make(train, study)
    digest = study.store.models.add(train.stored.open(Place(study)).files)
    steps: list[Step[object]] = [train]
    for one in ("learn", "score"):
        segment = NeuronMapStep.of(one, SEGMENT, digest)
        make(segment, study)
        likely = float(np.quantile(segment.stored.open(Place(study)).pixels[...], 0.8)) / 255
        trace = TraceSettings(threshold=min(max(likely, 0.01), 0.9), gap_um=0, spur_um=0, piece_um=2)
        steps += [segment, NeuronTraceStep.of(one, trace), NeuronScoreStep.of(one, trace)]
    steps.append(NeuronReportStep.of("pair", {"learn": "learn", "score": "score"}, train.stored))
    for step in steps[1:]:
        make(step, study)
    return steps


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_volumes_become_trees_scores_and_a_page(folder: Path) -> None:
    with open_study(folder / "store", "pair") as study:
        ingested(study, folder)
        steps = made_of(study)
        assert all(is_current(step, Place(study)) for step in steps)
        probabilities = steps[1].stored.open(Place(study))
        assert probabilities.pixels.shape == (20, 32, 32)
        training = study.catalogue.path(steps[0].product())
        assert sorted(one.name for one in training.iterdir()) == ["losses.json", "neurons.json", "neurons.safetensors"]
        scores = Stored(NeuronScoreStep, "score").open(Place(study))
        assert 0 <= scores["pds"] <= 1
        assert scores["known_um"] > 20
        assert scores["traced_um"] > 2
        assert 0 < scores["voxel_f1"] < 1
        assert scores["voxel_hd95_um"] > 0
        page = steps[-1].stored.open(Place(study))
        text = page.read_text()
        assert "not learned from" in text
        assert {one.name for one in (page.parent / "score").iterdir()} == {
            "errors-y.png", "errors-z.png", "probability.png", "volume.png",
        }  # fmt: skip
        traces = study.catalogue.path(NeuronTraceStep.of("score", TraceSettings()).product())
        assert {"tree.swc", "tree-napari.csv", "neuroglancer"} == {one.name for one in traces.iterdir()}
    with open_study(folder / "store", "pair") as study:
        assert all(is_current(step, Place(study)) for step in steps)
        stricter = NeuronTraceStep.of("score", TraceSettings(threshold=0.999))
        assert not is_current(stricter, Place(study))
        make(stricter, study)
        assert not is_current(steps[-1], Place(study))


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_an_interrupted_training_goes_on_to_the_same_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_study(folder / "store", "pair") as study:
        ingested(study, folder)
        step = NeuronTrainingStep.of(TRAIN, ["learn"])
        whole, _ = make(step, study)
    with open_study(folder / "other", "pair") as study:
        ingested(study, folder)
        saved = neuron_training._Kept.save

        def stop(kept: object, content: bytes) -> None:
            saved(kept, content)  # type: ignore[arg-type]
            raise KeyboardInterrupt

        monkeypatch.setattr(neuron_training._Kept, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            make(step, study)
        monkeypatch.setattr(neuron_training._Kept, "save", saved)
        assert list(folder.glob(f"other/studies/pair/staging/*/content/{CHECKPOINT}"))
        again, made = make(step, study)
        assert made
        assert again.facts["model"] == whole.facts["model"]


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_a_volume_whose_segmenting_is_killed_goes_on_with_the_next_tile(folder: Path) -> None:
    sizes = TRAIN.architecture
    card = NeuronCard(**sizes.as_json(), voxel_um=(1, 1, 1), learned_from=("learn",))
    with open_study(folder / "store", "pair") as study:
        volume = NeuronVolumeStep.of(read_volumes(folder / "volumes.csv")[1], folder)
        make(volume, study)
        digest = study.store.models.add(network_files(new_network(sizes, 0).eval(), card))
        shape = volume.stored.open(Place(study)).grid.shape
    shutil.copytree(folder / "store", folder / "other")
    segment = NeuronMapStep.of("score", OVERLAPPING, digest)
    with open_study(folder / "other", "pair") as study:
        undisturbed, _ = make(segment, study)
    tiles = int(np.prod([len(OVERLAPPING.tiles.starts(size, 32)) for size in shape]))
    segmented, moments = folder / "segmented.txt", (3, 7, tiles - 11)
    command = [sys.executable, "-m", "tests.cytoarch.steps.segment_and_die", str(folder / "store"), "pair", "score"]
    done = subprocess.run(
        [*command, digest, str(segmented), *map(str, moments)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=240, capture_output=True,
    )  # fmt: skip
    assert done.stdout.decode().split() == ["-9", "-9", "-9", "0"], done.stderr.decode()
    assert len(segmented.read_text().splitlines()) == tiles, "every tile once"
    with open_study(folder / "store", "pair") as study:
        assert is_current(segment, Place(study))
        record = segment.stored.record(Place(study))
        assert (record.digest, record.facts) == (undisturbed.digest, undisturbed.facts)
        assert not list(study.catalogue.path(segment.product()).glob("tile-*"))


@pytest.mark.usefixtures("in_process")
def test_tiles_that_the_disk_does_not_hold_are_told_before_the_first_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = TRAIN.architecture
    card = NeuronCard(**sizes.as_json(), voxel_um=(1, 1, 1), learned_from=("learn",))
    with open_study(folder / "store", "pair") as study:
        make(NeuronVolumeStep.of(read_volumes(folder / "volumes.csv")[1], folder), study)
        digest = study.store.models.add(network_files(new_network(sizes, 0).eval(), card))
        needed = waiting_bytes((20, 32, 32), SEGMENT.tiles)
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=needed - 1))
        segmented: list[int] = []
        monkeypatch.setattr(neuron_traces, "segmented_by", lambda *_: lambda tiles: (segmented.append(1), tiles)[1])
        with pytest.raises(StoreError, match=r"tiles of volume score .*choose a larger segment\.step"):
            make(NeuronMapStep.of("score", SEGMENT, digest), study)
        assert segmented == []
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=needed))
        make(NeuronMapStep.of("score", SEGMENT, digest), study)
        assert segmented


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_a_convnext_of_a_folder_is_inflated(folder: Path) -> None:
    torch.manual_seed(0)
    config = DINOv3ConvNextConfig(hidden_sizes=[4, 8, 8, 8], depths=[1, 1, 1, 1])
    DINOv3ConvNextModel(config).save_pretrained(folder / "convnext")
    train = TRAIN.model_copy(update={"encoder": str(folder / "convnext"), "size": "T", "topology": "tasl"})
    with open_study(folder / "store", "pair") as study:
        ingested(study, folder)
        record, _ = make(NeuronTrainingStep.of(train, ["learn"]), study)
        assert study.catalogue.names("neuron-training") == ["centre-tasl"]
        assert record.inputs["encoder"]
        assert record.facts["parameters"] < 100_000


def test_every_fault_of_a_table_is_told_with_its_row(tmp_path: Path) -> None:
    path = tmp_path / "volumes.csv"
    path.write_text("volume_id,path,use,voxel_z_um\na,a.tif,learn,\na,b.tif,apply,2\n../c,c.tif,guess,\n")
    with pytest.raises(ManifestError) as caught:
        read_volumes(path)
    faults = "\n".join(caught.value.faults)
    for told in (
        "row 2: use is learn, which needs the known tree",
        "row 3: voxel_z_um",
        "row 4: volume_id",
        "row 4: use",
    ):
        assert told in faults


def test_means_are_of_what_is_defined() -> None:
    one = {"esa": 2.0, "pds": 0.5, "missing": 0.0}
    assert neuron_metrics({"a": one, "b": {"pds": 1.0, "missing": 1.0}}) == {"esa": 2.0, "pds": 0.75, "missing": 1.0}
    assert neuron_metrics({}) == {}
    assert np.isfinite(list(neuron_metrics({"a": one}).values())).all()
