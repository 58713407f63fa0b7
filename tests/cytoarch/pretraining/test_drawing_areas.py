"""Patches with the areas of their cells, the atlas that other brains make, and a U-Net trained on both."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load

from cytoarch.errors import TrainingError
from cytoarch.pretraining.area_training import (
    RECORD_FILE,
    WEIGHTS_FILE,
    WITH,
    WITHOUT,
    AreaSettings,
    LabelledPatches,
    train_areas,
)
from cytoarch.pretraining.areas import AreaPatches, BrainsAtlas, atlas_of
from cytoarch.pretraining.augmentation import Draws
from cytoarch.pretraining.cells import CellMaps, laid_out
from cytoarch.pretraining.loop import LoopSettings
from cytoarch.pretraining.patches import PatchPoints, SectionPixels

EDGE, PER_SECTION = 16, 60
CLASSES = ("dark", "bright")
SHORT = LoopSettings(steps=20, optimiser="adamw", learning_rate=1e-2, watch_every=10)
SETTINGS = AreaSettings(
    widths=(4, 4, 8, 8, 8), depths=(0, 0, 0, 0, 0), patch_px=32, batch_size=8, shift_mm=0.0, neighbours=5,
    without_atlas=SHORT, with_atlas=SHORT,
)  # fmt: skip


def labelled(brains: int) -> LabelledPatches:
    """A section a brain, its left half dark and its right half bright, but not in pixels of the last brain."""
    rng = np.random.default_rng(0)
    area = np.tile((np.arange(EDGE) >= EDGE // 2).astype(np.int64), (EDGE, 1))
    shown = 40 + 150 * area.repeat(8, 0).repeat(8, 1).astype(np.uint8)
    places = np.stack(np.indices(area.shape), axis=-1).astype(np.float64)
    parts = []
    for brain in range(brains):
        at = tuple(rng.permutation(np.argwhere(area >= 0))[:PER_SECTION].T)
        mm = np.concatenate([places[at], np.full((PER_SECTION, 1), 0.1 * brain)], axis=1)
        own = np.full(PER_SECTION, brain)
        parts.append((own, 8 * places[at] + 4, mm, area[at], own))
    points = PatchPoints(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    everywhere = np.concatenate([np.pad(places, ((0, 0), (0, 0), (0, 1))).reshape(-1, 3)] * brains).astype(np.float32)
    maps = CellMaps(*laid_out([area.shape] * brains), 8, everywhere, np.tile(area.ravel(), brains))
    learned, tested = np.flatnonzero(points.brain < brains - 1), np.flatnonzero(points.brain == brains - 1)
    atlas = BrainsAtlas(points[learned], len(CLASSES), 5)
    sections = [shown] * (brains - 1) + [np.full_like(shown, 90)]
    patches = AreaPatches(
        SectionPixels.of(sections, "cpu"), points, maps, 32, atlas_of(atlas, maps) if brains > 2 else None
    )
    return LabelledPatches(patches, CLASSES, learned, {"held out": tested})


def test_an_atlas_is_the_share_of_the_nearest_points_of_other_brains() -> None:
    rng = np.random.default_rng(3)
    points = PatchPoints(
        np.zeros(90, int), np.zeros((90, 2)), rng.normal(size=(90, 3)), rng.integers(4, size=90), np.arange(90) % 3
    )
    asked, brain = rng.normal(size=(7, 3)), np.array([0, 1, 2, 0, 1, 2, 9])
    told = BrainsAtlas(points, 4, 6).at(brain, asked)
    for place, one, found in zip(asked, brain, told, strict=True):
        others = points[np.flatnonzero(points.brain != one)]
        nearest = np.argsort(np.linalg.norm(others.position_mm - place, axis=1))[:6]
        assert found.tolist() == pytest.approx(np.bincount(others.label[nearest], minlength=4) / 6)


def test_areas_and_the_atlas_lie_over_the_pixels_however_a_patch_is_drawn() -> None:
    made = labelled(3)
    draws = Draws.draw(np.random.default_rng(1), 20, 8.0, shift_mm=0.0)
    batch = made.patches.batch(made.learned[:20], draws)
    assert batch.pixels.shape == (20, 1, 32, 32)
    bright = batch.pixels[:, 0].unfold(1, 8, 8).unfold(2, 8, 8).mean(dim=(3, 4))
    clear = (bright < 0.25) | (bright > 0.6)  # squares that hold no border
    assert clear.float().mean() > 0.5
    assert bool(((bright > 0.45).long() == batch.areas)[clear].all())
    assert batch.priors is not None
    assert float((batch.priors.argmax(dim=1) == batch.areas).float().mean()) > 0.9


def test_what_pixels_do_not_show_is_told_with_the_atlas_and_not_without() -> None:
    files = train_areas(labelled(3), SETTINGS, lambda *_: None)
    record = json.loads(files[RECORD_FILE])
    without, with_atlas = (record["scores"][one]["held out"] for one in (WITHOUT, WITH))
    assert with_atlas["dice"] > max(0.9, without["dice"] + 0.2)
    assert with_atlas["err_seg_um"] < without["err_seg_um"]
    assert record["points"] == {"learned": 2 * PER_SECTION, "held out": PER_SECTION}
    assert [len(record["loss"][one]) for one in (WITHOUT, WITH)] == [20, 20]
    assert load(files[WEIGHTS_FILE])["tell.weight"].shape[0] == len(CLASSES)


def test_one_brain_makes_no_atlas() -> None:
    told: list[tuple[int, int]] = []
    record = json.loads(train_areas(labelled(2), SETTINGS, lambda *one: told.append(one))[RECORD_FILE])
    assert list(record["scores"]) == list(record["loss"]) == [WITHOUT]
    assert told[-1] == (20, 20), "a phase that is left out is not waited for"


def test_too_few_points_and_other_networks_are_refused(tmp_path: Path) -> None:
    few = LabelledPatches(labelled(2).patches, CLASSES, np.arange(3), {})
    with pytest.raises(TrainingError, match="3 labelled points are fewer than a batch of 8"):
        train_areas(few, SETTINGS, lambda *_: None)
    large = SETTINGS.model_copy(update={"network": "cytonet-r50", "patch_px": 64})
    with pytest.raises(TrainingError, match="begins with compact"):
        train_areas(labelled(2), large, lambda *_: None)
