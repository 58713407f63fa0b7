"""How strongly a probe is held small: chosen by what it does not learn from."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, log_loss

from cytoarch.learning import penalties
from cytoarch.learning.penalties import choose_penalty, folds_of
from cytoarch.learning.probes import fit_probe
from cytoarch.learning.training import ProbeSettings, train_head

WIDTH = 12


def stained(rng: np.random.Generator, brains: int, per_brain: int, stain: float) -> tuple[np.ndarray, ...]:
    """Tokens whose first value says the class alike in every brain, and whose others do so as each brain is stained."""
    tokens, strata, sections = [], [], []
    for brain in range(brains):
        colour = stain * rng.normal(size=WIDTH - 1)
        for section in range(2):
            classes = rng.integers(0, 2, per_brain)
            sign = 2 * classes[:, None] - 1
            told = np.concatenate([sign + rng.normal(0, 1.5, (per_brain, 1)), sign * colour], axis=1)
            tokens.append(told + rng.normal(0, 0.3, told.shape))
            strata.append(classes)
            sections.append(np.full(per_brain, 2 * brain + section))
    return np.concatenate(tokens), np.concatenate(strata), np.concatenate(sections)


def test_parts_are_brains_or_every_fourth_section() -> None:
    sections = np.repeat(np.arange(8), 3)
    assert folds_of(sections)[::3].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert folds_of(sections, (2, 5, 1))[::3].tolist() == [0, 0, 1, 1, 1, 1, 1, 2]
    assert folds_of(sections, (1,) * 8)[::3].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert folds_of(np.array([4, 4, 9])).tolist() == [0, 0, 1], "sections without labels are no part"


def told_by_others(tokens: np.ndarray, strata: np.ndarray, brains: np.ndarray, penalty: float) -> np.ndarray:
    """Logits of every brain's tokens by scikit-learn's fit to the others, classes weighted alike."""
    seen = (tokens - tokens.mean(axis=0)) / tokens.std(axis=0)
    told = np.zeros((len(tokens), strata.max() + 1))
    for brain in np.unique(brains):
        own = brains == brain
        strength = penalties.TOKENS / penalty / (~own).sum()
        model = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000, tol=1e-6)
        logits = model.fit(seen[~own], strata[~own]).decision_function(seen[own])
        told[np.ix_(own, model.classes_)] = logits if logits.ndim == 2 else np.stack([-logits, logits], axis=1) / 2
    return told


def least_loss(told: np.ndarray, strata: np.ndarray) -> float:
    """The log-loss of logits times the best of many factors, classes weighted alike, as scikit-learn tells it."""
    weights = 1 / np.bincount(strata)[strata]
    factors = np.geomspace(penalties.LEAST_SHARPNESS, 1, 100)
    return min(log_loss(strata, softmax(one * told, axis=1), sample_weight=weights) for one in factors)


@pytest.mark.parametrize(("seed", "brains"), [(0, 3), (0, 4), (2, 4)], ids=["between", "most", "least"])
def test_the_penalty_of_the_least_loss_is_taken(seed: int, brains: int) -> None:
    """As scikit-learn tells losses, of brains that ask for most, for little or for something between."""
    tokens, strata, sections = stained(np.random.default_rng(seed), brains, 60, 2.0)
    found = choose_penalty((WIDTH,), tokens, strata, sections, (2,) * brains)
    assert found is not None
    chosen = found.regularisation * penalties.TOKENS / len(tokens)
    losses = {
        one: least_loss(told_by_others(tokens, strata, sections // 2, one), strata) for one in penalties.PENALTIES
    }
    nearest = min(losses, key=lambda penalty: abs(penalty - chosen))
    assert nearest == pytest.approx(chosen)
    assert losses[nearest] < 1.02 * min(losses.values())
    assert losses[nearest] < 0.95 * max(losses.values())


def test_losses_are_those_of_scikit_learn() -> None:
    """Two brains, each told by a fit to the other; classes weighted alike; logits times the best of many factors."""
    tokens, strata, sections = stained(np.random.default_rng(5), 2, 60, 0.5)
    strata[::3] = 2
    found = choose_penalty((WIDTH,), tokens, strata, sections, (2, 2))
    assert found is not None
    assert tuple(one for one, _ in found.log_loss) == penalties.PENALTIES
    for penalty, loss in found.log_loss:
        expected = least_loss(told_by_others(tokens, strata, sections // 2, penalty), strata)
        assert loss == pytest.approx(expected, rel=0.02), penalty


def test_of_brains_that_were_stained_otherwise_more_is_held_back_than_of_sections_of_one() -> None:
    """What a stain says in a brain says nothing in another: a brain left out tells so, a section left out does not."""
    tokens, strata, sections = stained(np.random.default_rng(0), 4, 120, 2.0)
    across = choose_penalty((WIDTH,), tokens, strata, sections, (2, 2, 2, 2))
    one = sections < 2
    within = choose_penalty((WIDTH,), tokens[one], strata[one], sections[one])
    assert across is not None
    assert within is not None
    assert across.regularisation / len(tokens) > 3 * within.regularisation / one.sum()


def test_many_classes_that_are_hard_to_tell_are_not_held_until_nothing_is_told() -> None:
    """Sure as it is of what it half knows, a probe held little would lose to one that says nothing."""
    rng = np.random.default_rng(6)
    centres = rng.normal(size=(20, WIDTH))
    strata, sections = np.tile(np.arange(20), 60), np.repeat(np.arange(4), 300)
    tokens = np.concatenate([centres[strata] + rng.normal(0, 2.0, (1200, WIDTH)), rng.normal(size=(1200, 150))], axis=1)
    found = choose_penalty((tokens.shape[1],), tokens, strata, sections)
    assert found is not None
    losses = dict(found.log_loss)
    assert losses[1.0] < np.log(20) - 0.3, "as fitted it is surer than it is right, and would lose to equal shares"
    assert min(losses, key=lambda penalty: losses[penalty]) < max(penalties.PENALTIES)


def test_sharpness_changes_no_class_and_makes_probabilities_true(card) -> None:
    rng = np.random.default_rng(7)
    strata = np.tile([0, 1], 300)
    tokens = rng.normal(size=(600, 7)) + 2 * strata[:, None] * (np.arange(7) == 0)
    plain, _ = fit_probe(card("probe", (3, 4)), tokens, strata, 1.0)
    sharp, _ = fit_probe(card("probe", (3, 4)), tokens, strata, 1.0, 0.5)
    image = tokens.T.reshape(1, 7, 20, 30).astype(np.float32)
    one, other = plain.probabilities(image)[0], sharp.probabilities(image)[0]
    np.testing.assert_array_equal(one.argmax(axis=0), other.argmax(axis=0))
    np.testing.assert_allclose(np.log(other[1] / other[0]), np.log(one[1] / one[0]) / 2, rtol=1e-3, atol=1e-3)


def test_what_a_process_computed_before_changes_no_bit() -> None:
    """Torch takes as many threads as it was last told, whatever OpenMP was told since."""
    rng = np.random.default_rng(0)
    strata, sections = rng.integers(0, 9, penalties.TOKENS), np.sort(rng.integers(0, 8, penalties.TOKENS))
    tokens = rng.normal(size=(len(strata), 120)) + 0.4 * rng.normal(size=(9, 120))[strata]
    before, chosen = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            chosen.append(choose_penalty([120], tokens.astype(np.float32), strata, sections))
    finally:
        torch.set_num_threads(before)
    assert chosen[0] is not None
    assert chosen[0] == chosen[1]


def test_parts_are_scored_by_fits_that_have_not_seen_them() -> None:
    """Classes by chance cannot be told of what was left out, however well they can be learned by heart."""
    rng = np.random.default_rng(1)
    tokens, strata = rng.normal(size=(80, 60)), rng.integers(0, 2, 80)
    found = choose_penalty((60,), tokens, strata, np.repeat(np.arange(4), 20))
    assert found is not None
    assert all(loss > 0.95 * np.log(2) for _, loss in found.log_loss)
    assert found.sharpness < 1, "a probe that knows nothing is not sure of it"


def test_one_section_leaves_nothing_out() -> None:
    tokens, strata, sections = stained(np.random.default_rng(2), 1, 30, 1.0)
    assert choose_penalty((WIDTH,), tokens, strata, 0 * sections) is None


def test_areas_of_one_section_each_tell_nothing_of_the_penalty() -> None:
    rng = np.random.default_rng(3)
    sections = np.repeat(np.arange(3), 400)
    assert choose_penalty((WIDTH,), rng.normal(size=(1200, WIDTH)), sections, sections) is None


def test_what_is_told_without_fail_is_held_least() -> None:
    tokens = np.repeat(np.eye(2, 3), 40, axis=0)
    strata, sections = np.repeat([0, 1], 40), np.arange(80) % 2
    found = choose_penalty((3,), tokens, strata, sections)
    assert found is not None
    assert found.regularisation == pytest.approx(min(penalties.PENALTIES) * 80 / penalties.TOKENS)
    assert found.sharpness == 1


def test_what_one_section_alone_has_does_not_decide() -> None:
    """A class that no other part can tell is wrong at every penalty; others are chosen by as without it."""
    tokens, strata, sections = stained(np.random.default_rng(0), 3, 60, 2.0)
    alone = sections == 0
    tokens, sections = (np.concatenate([one, one[alone]]) for one in (tokens, sections))
    tokens[-alone.sum() :, 0] = 40
    strata = np.concatenate([strata, np.full(alone.sum(), 2)])
    found = choose_penalty((WIDTH,), tokens, strata, sections, (2, 2, 2))
    assert found is not None
    plain = choose_penalty((WIDTH,), tokens[strata < 2], strata[strata < 2], sections[strata < 2], (2, 2, 2))
    assert plain is not None
    assert min(loss for _, loss in found.log_loss) < min(loss for _, loss in plain.log_loss) + 0.1
    chosen = found.regularisation * penalties.TOKENS / len(tokens)
    told = told_by_others(tokens, strata, sections // 2, chosen)[strata < 2]
    assert f1_score(strata[strata < 2], told.argmax(axis=1), labels=[0, 1], average="macro") > 0.7


def test_nothing_is_fitted_for_a_part_with_nothing_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, strata, sections = stained(np.random.default_rng(0), 2, 60, 2.0)
    tokens = np.concatenate([tokens, tokens[:20] + 5])
    strata, sections = np.concatenate([strata, np.full(20, 2)]), np.concatenate([sections, np.full(20, 4)])
    fitted: list[int] = []
    path = penalties._path

    def counted(learned: np.ndarray, *others: Any) -> Iterator[tuple[float, np.ndarray]]:
        fitted.append(len(learned))
        return path(learned, *others)

    monkeypatch.setattr(penalties, "_path", counted)
    assert choose_penalty((WIDTH,), tokens, strata, sections, (2, 2, 1)) is not None
    assert fitted == [140, 140]


def test_a_part_that_thinning_takes_away_leaves_nothing_to_choose_by() -> None:
    count = 20_000
    tokens, strata = np.random.default_rng(4).normal(size=(count, 3)), np.arange(count) % 2
    sections = np.zeros(count, dtype=np.int64)
    sections[1] = 1
    assert choose_penalty((3,), tokens, strata, sections) is None


def test_a_probe_says_which_penalty_it_was_held_with(card, section) -> None:
    sections = [section(f"s{i}", i) for i in range(4)]
    settings = ProbeSettings(tokens_per_class=20)
    _, facts = train_head(card("probe", (3, 4)), settings, sections[:4])
    penalty = facts["regularisation"]
    assert [one for one, _ in facts["log_loss"]] == list(penalties.PENALTIES)
    stated, others = train_head(
        card("probe", (3, 4)), settings.model_copy(update={"regularisation": penalty}), sections[:4]
    )
    assert others["regularisation"] == penalty
    assert "log_loss" not in others
    chosen, _ = train_head(card("probe", (3, 4)), settings, sections[:4])
    assert facts["sharpness"] == others["sharpness"] == 1, "these stripes are told without fail"
    for name, one in chosen.tensors().items():
        np.testing.assert_array_equal(one, stated.tensors()[name])
    _, alone = train_head(card("probe", (3, 4)), settings, sections[:1])
    assert alone["regularisation"] == penalties.DEFAULT_PENALTY
