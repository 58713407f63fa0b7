"""Training an encoder: cut off and resumed it has the same bytes, it is read as an encoder, places are told."""

import json
from pathlib import Path

import numpy as np
import pytest

from cytoarch.encoders.compact import STAGE_HALO_PX, load_compact
from cytoarch.errors import TrainingError
from cytoarch.pretraining.loop import LoopSettings, Trace
from cytoarch.pretraining.patches import PatchPoints
from cytoarch.pretraining.settings import PretrainingSettings
from cytoarch.pretraining.training import RECORD_FILE, PlacedPatches, train_encoder

LOOP = LoopSettings(steps=6, optimiser="adamw", learning_rate=2e-3, watch_every=2, keep_every=3)
SETTINGS = PretrainingSettings(
    pixel_size_um=10.0, patch_px=32, batch_size=16, sigma_mm=0.3, shift_mm=0.01, widths=(4, 6, 8, 8, 8),
    depths=(0, 0, 0, 1, 0), loop=LOOP,
)  # fmt: skip


def patches(held_out: frozenset[str] = frozenset({"B"})) -> PlacedPatches:
    """Two brains whose grey level tells how far to the right a place is."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(20, 230, 128)[None, :] + rng.normal(0, 6, (2, 128, 128))
    sections = list(ramp.clip(0, 255).astype(np.uint8))
    count = 120
    centre = rng.uniform(20, 108, (2 * count, 2))
    place = np.column_stack([centre[:, 1] / 100, np.zeros(2 * count), np.zeros(2 * count)])
    brain = np.repeat([0, 1], count)
    return PlacedPatches(
        sections, PatchPoints(brain, centre, place, np.full(2 * count, -1), brain), ("A", "B"), held_out
    )


def nothing(_step: int, _trace: Trace) -> None:
    """Nobody asks how far it is."""


def test_a_run_that_was_cut_off_gives_the_same_bytes(tmp_path: Path) -> None:
    def cut_off(step: int, _trace: Trace) -> None:
        if step == 4:
            raise KeyboardInterrupt

    whole = train_encoder(patches(), SETTINGS, tmp_path / "whole.pt", nothing)
    with pytest.raises(KeyboardInterrupt):
        train_encoder(patches(), SETTINGS, tmp_path / "cut.pt", cut_off)
    assert train_encoder(patches(), SETTINGS, tmp_path / "cut.pt", nothing) == whole


def test_the_files_are_an_encoder_of_the_stages(tmp_path: Path) -> None:
    for name, content in train_encoder(patches(), SETTINGS, tmp_path / "c.pt", nothing).items():
        (tmp_path / name).write_bytes(content)
    encoder = load_compact("compact:x", precision="fp32", device="cpu", folder=tmp_path)
    tile = np.random.default_rng(1).random((1, 1, 640, 640), dtype=np.float32)
    (tokens,) = encoder.encode(tile)
    assert tokens.shape == (1, *encoder.dims(1), 80, 80)
    core, moved = slice(256 // 8, 352 // 8), slice(224 // 8, 320 // 8)
    shifted = encoder.encode(tile[..., 32:608, 32:608])[0]
    assert encoder.tiles.halo_px == STAGE_HALO_PX
    np.testing.assert_allclose(tokens[..., core, core], shifted[..., moved, moved], atol=1e-5)


def test_places_in_a_brain_that_was_held_out_are_told_better_than_by_their_mean(tmp_path: Path) -> None:
    longer = SETTINGS.model_copy(update={"loop": LOOP.model_copy(update={"steps": 40})})
    record = json.loads(train_encoder(patches(), longer, tmp_path / "c.pt", nothing)[RECORD_FILE])
    assert record["brains"] == {"A": "learned", "B": "held out"}
    error = record["place_error_mm"]["B"]
    assert error["told"] < 0.6 * error["by_mean"]


def test_fewer_points_than_a_batch_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="120 points in 1 brains are fewer than a batch of 300"):
        train_encoder(patches(), SETTINGS.model_copy(update={"batch_size": 300}), tmp_path / "c.pt", nothing)
