"""Crops: squares of tokens with their labels, cut from sections for heads that see around a token."""

from dataclasses import replace

import numpy as np
import pytest

from cytoarch.annotations.drawing import DrawnLabels
from cytoarch.annotations.exchange import Drawer
from cytoarch.geometry import Grid
from cytoarch.images.views import Level
from cytoarch.learning import datasets
from cytoarch.learning.datasets import MAX_CROPS, cut_crops
from cytoarch.learning.targets import UNLABELLED


def test_crops_are_squares_of_a_tile_that_hold_labels(card, section, classes):
    wide = section("wide", seed=3, grid=(40, 50))
    crops = cut_crops([wide], card("decoder", (3, 4), 4), seed=0)
    assert crops.embeddings.shape == (4, 7, 32, 32)
    assert crops.targets.shape == (4, 128, 128)
    assert (crops.targets != UNLABELLED).sum() == 160 * 200
    targets = wide.targets(classes, 4)
    np.testing.assert_array_equal(crops.targets[0], targets[:128, :128])
    np.testing.assert_array_equal(crops.targets[3][:32, :72], targets[128:, 128:])
    assert (crops.targets[3][32:] == UNLABELLED).all()
    np.testing.assert_array_equal(crops.embeddings[0], wide.embeddings.read(0, 0, 32, 32))


@pytest.mark.parametrize(("token_px", "edge"), [(4, 128), (16, 32), (64, 32)])
def test_a_crop_is_a_tile_or_32_tokens_where_that_is_more(card, section, token_px: int, edge: int):
    the_card = card("decoder", (3, 4), 4).model_copy(update={"token_px": token_px})
    crops = cut_crops([section("s", seed=0)], the_card, seed=0)
    assert crops.embeddings.shape == (1, 7, edge, edge)


def test_no_more_than_a_fixed_number_of_crops_is_held(card, section):
    one = section("s", seed=0, grid=(8, 8))
    crops = cut_crops([one] * (MAX_CROPS + 9), card("decoder", (3, 4), 4), seed=0)
    assert len(crops.targets) == MAX_CROPS
    assert crops.facts() == {"crops": MAX_CROPS, "crops_found": MAX_CROPS + 9}


@pytest.mark.parametrize("more", [0, 1])
def test_crops_stay_within_their_bytes(card, section, monkeypatch: pytest.MonkeyPatch, more: int):
    wide = section("wide", seed=3, grid=(100, 100))
    one = 2 * 7 * 32 * 32 + 2 * 128 * 128
    monkeypatch.setattr(datasets, "CROP_BYTES", 5 * one - more)
    crops = cut_crops([wide], card("decoder", (3, 4), 4), seed=0)
    assert len(crops.targets) == 5 - more
    assert crops.embeddings.nbytes + crops.targets.nbytes == (5 - more) * one
    assert crops.facts() == {"crops": 5 - more, "crops_found": 16}


def test_crops_are_those_of_the_seed_and_of_each_section_alone(card, section):
    wide = [section(f"s{i}", seed=i, grid=(100, 100)) for i in range(2)]
    the_card = card("decoder", (3, 4), 4)

    def squares(seed: int, *sections) -> set[bytes]:
        return {one.tobytes() for one in cut_crops(sections, the_card, seed).embeddings}

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(datasets, "MAX_CROPS", 6)
        assert squares(0, *wide) == squares(0, *wide) == squares(0, *wide[::-1])
        assert len({frozenset(squares(seed, *wide)) for seed in range(5)}) == 5
        patched.setattr(datasets, "MAX_CROPS", 100)
        assert squares(0, *wide) == squares(0, wide[0]) | squares(0, wide[1])


def test_classes_take_turns_so_that_a_rare_one_is_not_lost(card, section, classes):
    """Of 64 squares one holds land; with six to keep, it is kept whatever the seed."""
    wide = section("s", seed=0, grid=(256, 256))
    labels = np.full((1024, 1024), 3, dtype=np.uint16)
    labels[:, 512:] = 7
    labels[900, 900] = 20
    wide = replace(wide, labels=Level(labels, 4.0, 2.0))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(datasets, "MAX_CROPS", 6)
        for seed in range(6):
            held = [
                set(np.unique(one)) - {UNLABELLED}
                for one in cut_crops([wide], card("decoder", (3, 4), 4), seed).targets
            ]
            assert len(held) == 6
            assert sum(2 in one for one in held) == 1
            assert sum(0 in one for one in held) in (2, 3)
            patched.setattr(datasets, "MAX_CROPS", 1)  # fewer than classes: the rarest comes first
            assert 2 in cut_crops([wide], card("decoder", (3, 4), 4), seed).targets
            patched.setattr(datasets, "MAX_CROPS", 6)


def test_overlapping_crops_are_cut_where_there_are_few_and_agree_with_the_section(card, section, monkeypatch):
    one = section("s0", seed=0, grid=(48, 40))
    the_card = card("decoder", (3, 4), 4)
    plain = cut_crops([one], the_card, seed=0)
    overlapping = cut_crops([one], the_card, seed=0, overlapping=True)
    assert (plain.found, overlapping.found) == (4, 9)
    targets = one.targets(the_card.classes, 4)
    corners = {(y, x) for y in (0, 16, 32, 48) for x in (0, 16, 32)}
    placed = set()
    for crop, found in zip(overlapping.embeddings, overlapping.targets, strict=True):
        for y, x in sorted(corners - placed):
            height, width = min(32, 48 - y), min(32, 40 - x)
            same = height > 0 and np.array_equal(
                crop[:, :height, :width], one.embeddings.read(y, x, height, width).astype(np.float16)
            )
            if same and (crop[:, height:] == 0).all() and (crop[:, :, width:] == 0).all():
                expected = targets[4 * y : 4 * (y + height), 4 * x : 4 * (x + width)]
                np.testing.assert_array_equal(found[: 4 * height, : 4 * width], expected)
                placed.add((y, x))
                break
    assert len(placed) == 9
    monkeypatch.setattr(datasets, "FEW_CROPS", 4)
    assert cut_crops([one], the_card, seed=0, overlapping=True).found == 4


def test_scribbles_and_the_image_of_their_labels_give_the_same_crops(card, section):
    dense = section("s0", seed=0)
    by = Drawer("s0", "ada", "2026-01-02T03:04:05Z")
    strokes = [by.line(label, np.array([[at, 5.0], [at + 3, 60.0]]), 3.0) for label, at in ((3, 8), (20, 80), (7, 40))]
    drawn = DrawnLabels.of(strokes, Grid((96, 72), 4.0, (2.0, 2.0)), None)
    image = replace(dense, labels=Level(drawn.pixels(), 4.0, 2.0))
    one, other = (cut_crops([given], card("decoder", (3, 4), 4), 0) for given in (replace(dense, labels=drawn), image))
    np.testing.assert_array_equal(one.targets, other.targets)
    assert set(np.unique(one.targets)) == {UNLABELLED, 0, 1, 2}
