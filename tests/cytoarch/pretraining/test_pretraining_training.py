"""Training an encoder: cut off and resumed it has the same bytes, it is read as an encoder, places are told."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load

from cytoarch.encoders.compact import STAGE_HALO_PX, load_compact
from cytoarch.errors import CytoarchError, TrainingError
from cytoarch.pretraining import torchrun, training
from cytoarch.pretraining.loop import LoopSettings
from cytoarch.pretraining.patches import PatchPoints
from cytoarch.pretraining.settings import PretrainingSettings
from cytoarch.pretraining.torchrun import train_together
from cytoarch.pretraining.training import RECORD_FILE, PlacedPatches, train_encoder
from tests.cytoarch.pretraining.stored_sections import stored_sections

LOOP = LoopSettings(steps=6, optimiser="adamw", learning_rate=2e-3, watch_every=2, keep_every=3)
SETTINGS = PretrainingSettings(
    pixel_size_um=10.0, patch_px=32, batch_size=16, sigma_mm=0.3, shift_mm=0.01, widths=(4, 6, 8, 8, 8),
    depths=(0, 0, 0, 1, 0), loop=LOOP,
)  # fmt: skip


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> PlacedPatches:
    """Two brains whose grey level tells how far to the right a place is; B is held out."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(20, 230, 128)[None, :] + rng.normal(0, 6, (2, 128, 128))
    sections = list(ramp.clip(0, 255).astype(np.uint8))
    count = 120
    centre = rng.uniform(20, 108, (2 * count, 2))
    place = np.column_stack([centre[:, 1] / 100, np.zeros(2 * count), np.zeros(2 * count)])
    brain = np.repeat([0, 1], count)
    return PlacedPatches(
        stored_sections(tmp_path_factory.mktemp("sections"), sections, 10.0),
        PatchPoints(brain, centre, place, np.full(2 * count, -1), brain),
        ("A", "B"),
        frozenset({"B"}),
    )


def nothing(_step: int) -> None:
    """Nobody asks how far it is."""


def test_a_run_that_was_cut_off_gives_the_same_bytes(patches: PlacedPatches, tmp_path: Path) -> None:
    def cut_off(step: int) -> None:
        if step == 4:
            raise KeyboardInterrupt

    whole = train_encoder(patches, SETTINGS, tmp_path / "whole.pt", nothing)
    with pytest.raises(KeyboardInterrupt):
        train_encoder(patches, SETTINGS, tmp_path / "cut.pt", cut_off)
    assert train_encoder(patches, SETTINGS, tmp_path / "cut.pt", nothing) == whole


def test_the_files_are_an_encoder_of_the_stages(patches: PlacedPatches, tmp_path: Path) -> None:
    for name, content in train_encoder(patches, SETTINGS, tmp_path / "c.pt", nothing).items():
        (tmp_path / name).write_bytes(content)
    encoder = load_compact("compact:x", precision="fp32", device="cpu", folder=tmp_path)
    tile = np.random.default_rng(1).random((1, 1, 640, 640), dtype=np.float32)
    (tokens,) = encoder.encode(tile)
    assert tokens.shape == (1, *encoder.dims(1), 80, 80)
    core, moved = slice(256 // 8, 352 // 8), slice(224 // 8, 320 // 8)
    shifted = encoder.encode(tile[..., 32:608, 32:608])[0]
    assert encoder.tiles.halo_px == STAGE_HALO_PX
    np.testing.assert_allclose(tokens[..., core, core], shifted[..., moved, moved], atol=1e-5)


def test_places_in_a_brain_that_was_held_out_are_told_better_than_by_their_mean(
    patches: PlacedPatches, tmp_path: Path
) -> None:
    longer = SETTINGS.model_copy(update={"loop": LOOP.model_copy(update={"steps": 40})})
    record = json.loads(train_encoder(patches, longer, tmp_path / "c.pt", nothing)[RECORD_FILE])
    assert record["brains"] == {"A": "learned", "B": "held out"}
    error = record["place_error_mm"]["B"]
    assert error["told"] < 0.6 * error["by_mean"]


def test_fewer_points_than_a_batch_are_refused(patches: PlacedPatches, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="120 points in 1 brains are fewer than a batch of 300"):
        train_encoder(patches, SETTINGS.model_copy(update={"batch_size": 300}), tmp_path / "c.pt", nothing)


def loss_of(files: dict[str, bytes]) -> list[float]:
    return list(json.loads(files[RECORD_FILE])["loss"])


def test_sections_that_are_streamed_and_parts_that_are_computed_twice_give_the_same_weights(
    patches: PlacedPatches, tmp_path: Path
) -> None:
    held = train_encoder(patches, SETTINGS, tmp_path / "held.pt", nothing)
    otherwise = SETTINGS.model_copy(update={"pixels": "streamed", "recompute": True})
    found = train_encoder(patches, otherwise, tmp_path / "streamed.pt", nothing)
    assert found["model.safetensors"] == held["model.safetensors"]
    assert loss_of(found) == loss_of(held)


def test_what_places_are_told_is_looked_at_on_the_way_and_changes_nothing(
    patches: PlacedPatches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train_encoder(patches, SETTINGS, tmp_path / "plain.pt", nothing)
    told, errors = 0, training.place_errors

    def counted(*given: Any) -> dict[str, dict[str, float]]:
        nonlocal told
        told += 1
        return errors(*given)

    monkeypatch.setattr(training, "place_errors", counted)
    looked = SETTINGS.model_copy(update={"loop": LOOP.model_copy(update={"probe_every": 3})})
    found = train_encoder(patches, looked, tmp_path / "looked.pt", nothing)
    record = json.loads(found[RECORD_FILE])
    assert found["model.safetensors"] == plain["model.safetensors"]
    assert told == 2, "once on the way, once at the end"
    assert sorted(record["probe"]) == ["3", "6"]
    assert record["probe"]["6"]["B/told"] == record["place_error_mm"]["B"]["told"]


@pytest.mark.long
@pytest.mark.slow
def test_two_processes_of_torchrun_train_as_one(patches: PlacedPatches, tmp_path: Path) -> None:
    loop = LOOP.model_copy(update={"optimiser": "lars", "learning_rate": 0.01, "steps": 3})
    one = SETTINGS.model_copy(update={"loop": loop})
    steps: list[int] = []
    alone = train_together(patches, one, tmp_path / "one.pt", nothing)
    shared = train_together(patches, one.model_copy(update={"processes": 2}), tmp_path / "two.pt", steps.append)
    assert steps == [1, 2, 3]
    np.testing.assert_allclose(loss_of(shared), loss_of(alone), rtol=2e-6)
    weights = [load(files["model.safetensors"]) for files in (alone, shared)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=2e-6, atol=2e-6)
    health = [json.loads(files[RECORD_FILE])["health"]["3"] for files in (alone, shared)]
    assert health[1] == pytest.approx(health[0], rel=1e-4)


FAULTS = {
    "from pathlib import Path; Path('JOB/fault.txt').write_text('no such weights'); exit(1)": "^no such weights$",
    "import sys; print('out of memory', file=sys.stderr); exit(3)": "ended with 3; its processes said at last:\nout of",
}


@pytest.mark.parametrize("code", FAULTS)
def test_what_a_process_raises_is_raised_here(tmp_path: Path, code: str) -> None:
    steps: list[int] = []
    told = "print('step 1', flush=True); print('other words'); print('step 2', flush=True); " + code
    with pytest.raises(CytoarchError, match=FAULTS[code]):
        torchrun.watched([sys.executable, "-c", told.replace("JOB", str(tmp_path))], tmp_path, steps.append)
    assert steps == [1, 2]


def test_a_batch_is_shared_evenly_or_not_at_all(patches: PlacedPatches, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="a batch of 16 cannot be shared by 3 processes"):
        train_together(patches, SETTINGS.model_copy(update={"processes": 3}), tmp_path / "c.pt", nothing)


def test_pairs_are_not_balanced() -> None:
    with pytest.raises(ValueError, match="balanced_mm 5: siamese shows all pairs equally often"):
        PretrainingSettings(learning="siamese", balanced_mm=5.0)
    assert PretrainingSettings(learning="siamese").balanced_mm == 0
