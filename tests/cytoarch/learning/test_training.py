"""Training and scoring on whole sections."""

import weakref
from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics

from cytoarch import sampling
from cytoarch.anatomy.tissue import TissueMask
from cytoarch.annotations.drawing import DrawnLabels
from cytoarch.annotations.exchange import Drawer
from cytoarch.errors import TrainingError
from cytoarch.geometry import Grid
from cytoarch.images.views import Level
from cytoarch.learning import application, evaluation, training
from cytoarch.learning.application import predict_bands
from cytoarch.learning.cards import WEIGHTS_FILE
from cytoarch.learning.datasets import LabelledSection, cut_crops
from cytoarch.learning.evaluation import Score, score_head, score_split
from cytoarch.learning.heads import head_files
from cytoarch.learning.splits import split_sections
from cytoarch.learning.targets import UNLABELLED
from cytoarch.learning.training import (
    DecoderSettings,
    ProbeSettings,
    cells_per_token,
    sample_tokens,
    train_and_score,
    train_head,
)
from cytoarch.sampling import OnDemand, UnreadableSectionError

PROBE = ProbeSettings(tokens_per_class=20)
DECODER = DecoderSettings(width=8, epochs=2, batch_size=4, least_steps=0)


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
    return replace(section, labels=Level(labels, section.labels.pixel_size_um, section.labels.origin_um))


@pytest.mark.parametrize("kind", ["probe", "decoder"])
def test_no_held_out_section_has_any_influence_on_the_head(card, sections, kind: str):
    split = split_sections([one.section_id for one in sections])
    assert split.held_out

    def trained_where(changed: tuple[str, ...]):
        """Labels of some sections are all of one class."""
        given = [relabelled(one, 20) if one.section_id in changed else one for one in sections]
        the_card = card(kind, (3, 4), 1 if kind == "probe" else 4)
        settings = (PROBE if kind == "probe" else DECODER).model_copy(update={"refit": False})
        head, _, scores, _, _ = train_and_score(the_card, settings, given, split)
        return head_files(head)[
            WEIGHTS_FILE
        ], scores  # the card says how strongly maps are smoothed, by what is held out

    head, scores = trained_where(())
    same, other_scores = trained_where(split.held_out)
    assert head == same
    assert scores["held_out"].metrics() != other_scores["held_out"].metrics()
    assert trained_where(split.train[:1])[0] != head


def test_a_head_is_scored_on_what_is_held_out_and_on_nothing_else(card, sections):
    split = split_sections([one.section_id for one in sections])
    only_scored = PROBE.model_copy(update={"refit": False})
    head, facts, scores, smoothing, _ = train_and_score(card("probe", (3, 4)), only_scored, sections, split)
    assert facts["tokens"] == 3 * 20 * len(split.train)
    again, of_all, same_scores, same_smoothing, _ = train_and_score(card("probe", (3, 4)), PROBE, sections, split)
    assert of_all["tokens"] == 3 * 20 * len(sections), "what is kept is fitted to all"
    assert head_files(again) != head_files(head)
    assert smoothing is not None
    assert smoothing == same_smoothing, "how strongly maps are smoothed is told by the head that was scored"
    assert head.card.smooth_weight == again.card.smooth_weight == smoothing.weight
    assert {name: one.metrics() for name, one in same_scores.items()} == {
        name: one.metrics() for name, one in scores.items()
    }
    assert {name: score.sections for name, score in scores.items()} == {
        "fifth": split.fifth,
        "block": split.block,
        "held_out": split.held_out,
    }
    for score in scores.values():
        assert score.confusion.sum() == 24 * 18 * len(score.sections)
    nothing_held_out = split_sections(["s0", "s1"])
    unscored = train_and_score(card("probe", (3, 4)), PROBE, sections[:2], nothing_held_out)
    assert (unscored.scores, unscored.smoothing, unscored.head.card.smooth_weight) == ({}, None, None)
    assert head.card.kind == "probe"


def test_labels_in_few_sections_teach_a_head_that_no_score_flatters(card, sections):
    """Two labelled sections, and four without: all is learned from, nothing is scored."""
    few = [*sections[:2], *(relabelled(one, 0) for one in sections[2:])]
    head, _ = trained(card, "probe", few)
    alone, _ = trained(card, "probe", sections[:2])
    assert head_files(head) == head_files(alone), "sections without labels change nothing"
    assert not split_sections(["s0", "s1"]).held_out


def test_sections_are_opened_one_by_one(card, sections):
    """No more than one is still held when the next is opened: thousands would not fit."""
    handed_out: list[weakref.ref] = []
    held: list[int] = []

    def opened(index: int) -> LabelledSection:
        held.append(sum(one() is not None for one in handed_out))
        section = replace(sections[index])
        handed_out.append(weakref.ref(section))
        return section

    split = split_sections([one.section_id for one in sections])
    for kind in ("probe", "decoder"):
        settings = PROBE if kind == "probe" else DECODER
        train_and_score(card(kind, (3, 4), 1 if kind == "probe" else 4), settings, OnDemand(6, opened), split)
    assert len(held) > 20
    assert max(held) <= 1


def unmarked(section):
    """The section with its right half not computed: stored as zeros."""
    height, width = section.embeddings.grid
    marks = np.zeros((height, width), dtype=np.uint8)
    marks[:, : width // 2] = 255
    return replace(section, embeddings=replace(section.embeddings, marks=Level(marks, 16.0, 8.0)))


def test_tokens_that_were_not_computed_are_neither_learnt_from_nor_scored(card, section, classes):
    half = unmarked(section("s", seed=0))
    for cells in (1, 4):
        targets = half.targets(classes, cells)
        assert (targets[:, 9 * cells :] == UNLABELLED).all()
        assert (targets[:, : 9 * cells] != UNLABELLED).all()
    assert len(drawn([half], classes, 100_000, 0)[1]) == 24 * 9
    crops = cut_crops([half], card("decoder", (3, 4), 4), seed=0)
    assert (crops.targets[0, :96, 36:72] == UNLABELLED).all()
    assert (crops.targets[0, :96, :36] != UNLABELLED).all()
    head, _ = trained(card, "probe", [section("t", seed=1)])
    assert score_head(head, [half]).confusion.sum() == 24 * 9


@pytest.mark.parametrize("cells", [1, 4])
def test_targets_of_a_window_are_part_of_those_of_the_section(section, classes, cells: int):
    rng = np.random.default_rng(0)
    whole = unmarked(section("s", seed=0))
    labels = rng.choice(np.array([0, 3, 1, 20], dtype=np.uint16), (100, 77))
    whole = replace(
        whole,
        labels=Level(labels, 3.7, 1.85),
        tissue=TissueMask(rng.random((11, 8)) < 0.7, Grid.at_corner((11, 8), 37.0, (0.0, 0.0))),
    )
    expected = whole.targets(classes, cells)
    assert len(np.unique(expected)) == 4
    for y, x, height, width in ((0, 0, 24, 18), (3, 5, 7, 9), (23, 0, 1, 18), (0, 17, 24, 1)):
        part = expected[y * cells : (y + height) * cells, x * cells : (x + width) * cells]
        np.testing.assert_array_equal(whole.targets(classes, cells, (y, x, height, width)), part)


def test_labels_are_not_read_where_there_is_no_tissue(section, classes):
    bare = replace(
        section("s", seed=0),
        labels=Level(None, 4.0, 0.0),
        tissue=TissueMask(np.zeros((1, 1), bool), Grid.at_corner((1, 1), 999.0, (0.0, 0.0))),
    )
    assert (bare.targets(classes, 4, (2, 3, 4, 5)) == np.full((16, 20), UNLABELLED)).all()


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
    half = replace(whole, tissue=TissueMask(mask, whole.embeddings.layers[0].grid))
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


def test_a_large_number_of_tokens_is_cut_to_what_fits(card, sections, monkeypatch: pytest.MonkeyPatch):
    per_token = 2 * 7 + 80 + 4 * 7 + 40 * 3  # as stored, as a candidate, standardised, in the solver
    monkeypatch.setattr(sampling, "SAMPLE_BYTES", 90 * per_token)
    _, facts = trained(card, "probe", sections)
    assert facts["tokens"] == 90
    assert (facts["asked_per_section"], facts["drawn_per_section"]) == (20, 5)
    monkeypatch.setattr(sampling, "SAMPLE_BYTES", 90 * per_token - 1)
    _, facts = trained(card, "probe", sections)
    assert (facts["tokens"], facts["drawn_per_section"]) == (72, 4)


@pytest.mark.parametrize("kind", ["probe", "decoder"])
def test_a_damaged_section_is_named(card, sections, kind: str):
    class Damaged:
        shape, store_path = (96, 72), "labels of s2"

        def __getitem__(self, key):
            raise ValueError("crc")

    given = [*sections[:2], replace(sections[2], labels=Level(Damaged(), 4.0, 0.0))]
    with pytest.raises(UnreadableSectionError, match="section s2: labels of s2: pixels cannot be read") as caught:
        trained(card, kind, given)
    assert caught.value.section_id == "s2"
    head, _ = trained(card, kind, sections[:2])
    with pytest.raises(UnreadableSectionError, match="section s2"):
        score_head(head, given)


@pytest.mark.parametrize("cells", [1, 4])
def test_scores_part_by_part_are_those_of_all_at_once(card, sections, monkeypatch: pytest.MonkeyPatch, cells: int):
    kind = "probe" if cells == 1 else "decoder"
    head, _ = trained(card, kind, sections[:2])
    whole = score_head(head, sections[2:4])
    assert whole.confusion.sum() == 2 * 24 * 18 * cells**2
    monkeypatch.setattr(evaluation, "SCORE_BYTES", 3 * 4 * 4 * (5 * cells) ** 2)
    windows = []

    class Noted(LabelledSection):
        def targets(self, classes, cells_per_token, window=None):
            windows.append(window)
            return super().targets(classes, cells_per_token, window)

    parts = score_head(head, [Noted(one.section_id, one.embeddings, one.labels, one.tissue) for one in sections[2:4]])
    np.testing.assert_array_equal(parts.confusion, whole.confusion)
    assert parts.top3 == whole.top3 == 1  # of three classes
    monkeypatch.setattr(application, "BAND_BYTES", 1)
    bands = score_head(head, sections[2:4])
    np.testing.assert_array_equal(bands.confusion, whole.confusion)
    assert max(height for _, _, height, _ in windows) == max(width for *_, width in windows) == 5


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
    assert figures["top3"] == 1  # of three classes
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


def test_the_facts_of_a_score_have_every_class_with_its_own_figures(classes):
    confusion = np.array([[5, 3, 0], [1, 4, 2], [0, 0, 0]])
    score = Score(("s1", "s2"), confusion, 0.75)
    truth, predicted = (np.repeat(axis.ravel(), confusion.ravel()) for axis in np.indices((3, 3)))
    figures = metrics.precision_recall_fscore_support(truth, predicted, labels=[0, 1, 2], zero_division=np.nan)
    facts = score.as_facts(classes)
    for index, row in enumerate(facts["classes"]):
        assert row["name"] == classes[index].name
        for name, values in zip(("precision", "recall", "f1", "support"), figures, strict=True):
            expected = values[index]
            assert row[name] is None if np.isnan(expected) else row[name] == pytest.approx(expected, abs=1e-6)
    assert facts["confusion"] == confusion.tolist()
    assert facts["sections"] == ["s1", "s2"]
    assert facts["top3"] == 0.75
    assert facts["top1"] == pytest.approx(9 / 15)


def test_a_part_without_labels_has_no_say_in_the_score_of_both(card, sections):
    split = split_sections([one.section_id for one in sections])
    given = [relabelled(one, 0) if one.section_id in split.fifth else one for one in sections]
    head, _ = trained(card, "probe", sections[:1])
    scores = score_split(head, given, split)
    assert np.isnan(scores["fifth"].top3)
    assert scores["held_out"].top3 == scores["block"].top3


def test_what_is_set_is_what_is_trained_with(card, sections, monkeypatch: pytest.MonkeyPatch):
    given = {}

    def noted(name: str, real):
        def call(*args, **named):
            given[name] = args
            return real(*args, **named)

        monkeypatch.setattr(training, name, call)

    noted("cut_crops", training.cut_crops)
    noted("sample_tokens", training.sample_tokens)
    monkeypatch.setattr(training, "fit_decoder", lambda _card, _crops, fit, **_: (given.update(fit._asdict()), {}))
    chosen = DecoderSettings(width=9, epochs=3, batch_size=5, learning_rate=0.25, weight_decay=0.125, seed=7)
    train_head(card("decoder", (3, 4), 4), chosen, sections[:2])
    names = ("width", "epochs", "batch_size", "learning_rate", "weight_decay", "seed")
    assert [given[name] for name in names] == [9, 3, 5, 0.25, 0.125, 7]
    assert given["cut_crops"][-1] == 7
    train_head(card("probe", (3, 4)), ProbeSettings(tokens_per_class=11, seed=8), sections[:2])
    assert given["sample_tokens"][-2:] == (11, 8)


def test_scribbles_are_passed_over_less_often_than_dense_labels(card, section, monkeypatch):
    asked = []
    monkeypatch.setattr(training, "fit_decoder", lambda _card, _crops, fit, **_: (asked.append(fit.epochs), {}))
    dense = section("s0", seed=0)
    by = Drawer("s0", "ada", "2026-01-02T03:04:05Z")
    strokes = [by.line(label, np.array([[at, 5.0], [at, 60.0]]), 3.0) for label, at in ((3, 8), (20, 80))]
    scribbled = replace(dense, labels=DrawnLabels.of(strokes, Grid((96, 72), 4.0, (2.0, 2.0)), None))
    for one, settings in (
        (dense, DecoderSettings()),
        (scribbled, DecoderSettings()),
        (scribbled, DecoderSettings(epochs=7)),
    ):
        train_head(card("decoder", (3, 4), 4), settings, [one])
    assert asked == [50, 15, 7]
