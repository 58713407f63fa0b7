"""Training and scoring on whole sections."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.errors import TrainingError
from cytoarch.images.views import Level
from cytoarch.learning.application import predict_bands
from cytoarch.learning.datasets import MAX_CROPS, cut_crops
from cytoarch.learning.evaluation import score_head, score_split
from cytoarch.learning.heads import head_files
from cytoarch.learning.splits import split_sections
from cytoarch.learning.targets import UNLABELLED
from cytoarch.learning.training import (
    DecoderSettings,
    ProbeSettings,
    cells_per_token,
    sample_tokens,
    train_head,
)

PROBE = ProbeSettings(tokens_per_class=20)
DECODER = DecoderSettings(width=8, epochs=2, batch_size=4)


@pytest.fixture
def sections(section):
    return [section(f"s{i}", seed=i) for i in range(6)]


def trained(card, kind: str, sections, settings=None):
    chosen = settings or (PROBE if kind == "probe" else DECODER)
    return train_head(card(kind, (3, 4), 1 if kind == "probe" else 4), chosen, sections)


def drawn(sections, classes, per_class: int, seed: int):
    """Tokens and their classes."""
    sample = sample_tokens(sections, classes, per_class, seed)
    return sample.tokens, sample.strata


def relabelled(section, value: int):
    labels = np.full_like(section.labels.array, value)
    return replace(section, labels=Level(labels, section.labels.pixel_size_um, 0.0))


@pytest.mark.parametrize("kind", ["probe", "decoder"])
def test_no_held_out_section_has_any_influence_on_the_head(card, sections, kind: str):
    split = split_sections([one.section_id for one in sections])
    assert split.held_out

    def head_when(held_out_label: int | None):
        changed = [
            one if held_out_label is None or one.section_id in split.train else relabelled(one, held_out_label)
            for one in sections
        ]
        head, _ = trained(card, kind, [one for one in changed if one.section_id in split.train])
        return head, changed

    (head, before), (same, after) = head_when(None), head_when(20)
    assert head_files(head) == head_files(same)
    scores = [score_split(head, these, split)["held_out"].metrics() for these in (before, after)]
    assert scores[0] != scores[1]


@pytest.mark.parametrize("kind", ["probe", "decoder"])
def test_the_same_sections_and_seed_give_the_same_head(card, sections, kind: str):
    assert head_files(trained(card, kind, sections)[0]) == head_files(trained(card, kind, sections)[0])


def test_a_probe_on_telling_embeddings_scores_well_on_sections_it_has_not_seen(card, sections):
    head, facts = trained(card, "probe", sections[:3])
    assert facts["converged"]
    score = score_head(head, sections[3:])
    assert score.metrics()["macro_f1"] > 0.9
    assert score.top3 == 1
    assert score.sections == ("s3", "s4", "s5")


def test_tokens_are_capped_per_class_and_section(sections, classes):
    tokens, targets = drawn(sections, classes, 10, seed=0)
    assert np.bincount(targets).tolist() == [60, 60, 60]
    assert tokens.shape == (180, 7)
    everything, all_targets = drawn(sections, classes, 100_000, seed=0)
    assert len(everything) == len(all_targets) == 6 * 24 * 18


def test_every_sampled_token_keeps_its_own_class(sections, classes):
    tokens, targets = drawn(sections, classes, 10, seed=1)
    # the first three features name the stripe, up to noise
    assert (tokens[:, :3].argmax(axis=1) == targets).mean() > 0.85
    whole, all_targets = drawn(sections[:1], classes, 100_000, seed=1)
    stored = sections[0].embeddings.read(0, 0, 24, 18)
    truth = sections[0].targets(classes, 1)
    pairs = {(tuple(token), int(target)) for token, target in zip(whole, all_targets, strict=True)}
    assert pairs == {(tuple(stored[:, y, x]), int(truth[y, x])) for y in range(24) for x in range(18)}


def test_sampling_is_reproducible_and_depends_on_the_seed(sections, classes):
    one, again, other = (drawn(sections, classes, 10, seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_cells_outside_tissue_are_neither_learnt_from_nor_scored(card, section, classes):
    whole = section("s", seed=0)
    mask = np.ones((24, 18), dtype=bool)
    mask[:, 9:] = False
    half = replace(whole, tissue=TissueMask(mask, 16.0))
    assert (half.targets(classes, 4)[:, 36:] == UNLABELLED).all()
    assert (half.targets(classes, 4)[:, :36] == whole.targets(classes, 4)[:, :36]).all()
    assert len(drawn([half], classes, 100_000, 0)[1]) == 24 * 9
    head, _ = trained(card, "probe", [whole])
    assert score_head(head, [half]).confusion.sum() == 24 * 9


@pytest.mark.parametrize("kind", ["probe", "decoder"])
@pytest.mark.parametrize(("label", "found"), [(3, r"1 class\(es\)[\s\S]*sky"), (0, r"0 class\(es\)[\s\S]*none")])
def test_fewer_than_two_classes_cannot_be_learnt(card, sections, kind: str, label: int, found: str):
    with pytest.raises(TrainingError, match=found):
        trained(card, kind, [relabelled(one, label) for one in sections])


@pytest.mark.parametrize("kind", ["probe", "decoder"])
def test_without_sections_nothing_can_be_learnt(card, kind: str):
    with pytest.raises(TrainingError, match="0 sections"):
        trained(card, kind, [])


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


def test_no_more_than_a_fixed_number_of_crops_is_held(card, section):
    one = section("s", seed=0, grid=(8, 8))
    crops = cut_crops([one] * (MAX_CROPS + 9), card("decoder", (3, 4), 4), seed=0)
    assert len(crops.targets) == MAX_CROPS


def test_a_score_is_that_of_scikit_learn_on_the_same_cells(card, sections, classes):
    head, _ = trained(card, "probe", sections[:1], ProbeSettings(tokens_per_class=10, regularisation=1e5))
    score = score_head(head, sections[1:3])
    truth, p = [], []
    for one in sections[1:3]:
        band = np.concatenate([band for _, band in predict_bands(head, one.embeddings)], axis=1)
        truth.append(one.targets(classes, 1).ravel())
        p.append(band.reshape(3, -1).T)
    truth, p = np.concatenate(truth), np.concatenate(p)
    np.testing.assert_array_equal(score.confusion, metrics.confusion_matrix(truth, p.argmax(axis=1)))
    figures = score.metrics()
    assert figures["macro_f1"] == pytest.approx(metrics.f1_score(truth, p.argmax(axis=1), average="macro"))
    assert figures["top1"] == pytest.approx(metrics.accuracy_score(truth, p.argmax(axis=1)))
    facts = score.as_facts(classes)
    assert [row["name"] for row in facts["classes"]] == ["sky", "sea", "land"]
    assert sum(row["support"] for row in facts["classes"]) == len(truth)


def test_the_held_out_score_pools_the_cells_of_both_kinds(card, sections):
    split = split_sections([one.section_id for one in sections])
    head, _ = trained(card, "probe", [one for one in sections if one.section_id in split.train])
    scores = score_split(head, sections, split)
    assert set(scores) == {"fifth", "block", "held_out"}
    np.testing.assert_array_equal(scores["held_out"].confusion, scores["fifth"].confusion + scores["block"].confusion)
    assert set(scores["held_out"].sections) == set(split.held_out)
    direct = score_head(head, [one for one in sections if one.section_id in split.held_out])
    assert scores["held_out"].top3 == pytest.approx(direct.top3)


def test_sections_without_labels_have_no_score_and_spoil_no_other(card, sections, classes):
    head, _ = trained(card, "probe", sections[:2])
    empty = score_head(head, [relabelled(sections[2], 0)])
    assert np.isnan(empty.top3)
    facts = empty.as_facts(classes)
    assert facts["macro_f1"] is None
    assert facts["top1"] is None
    both = score_head(head, [relabelled(sections[2], 0), sections[3]])
    assert both.metrics() == score_head(head, [sections[3]]).metrics()


@pytest.mark.parametrize(
    ("kind", "token_px", "cells"), [("probe", 16, 1), ("decoder", 16, 4), ("decoder", 4, 1), ("decoder", 2, 1)]
)
def test_a_probe_draws_tokens_and_a_decoder_cells_of_four_pixels(kind: str, token_px: int, cells: int):
    assert cells_per_token(kind, token_px) == cells
