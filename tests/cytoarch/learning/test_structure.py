"""Measures told from embeddings: against closed forms, with blanks, on held-out sections, in other brains."""

import math

import numpy as np
import pytest

from cytoarch.errors import TrainingError
from cytoarch.learning.structure import Measured, StructureSettings, attribution, place_errors, structure_scores

SETTINGS = StructureSettings(components=(1, 3, 6), attributed=6)


def nothing(_done: int, _all: int) -> None:
    """Progress that nobody looks at."""


def test_what_is_told_is_the_share_of_the_variance_that_is_linear_in_the_features() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, [5, 4, 3, 2, 1, 0.5], (4000, 6))
    linear = x @ np.array([0.2, 0.1, -0.3, 0.0, 0.5, 0.0])
    noise = rng.normal(0, 1, 4000)
    scores = structure_scores(Measured({"embedding": x}, {"y": linear + noise}, np.arange(4000) % 7), SETTINGS, nothing)
    told = {(one.folds_of, one.components): one.r2 for one in scores}
    wanted = linear.var() / (linear + noise).var()
    for way in ("points", "sections"):
        assert told[way, 0] == pytest.approx(wanted, abs=0.02)
        assert told[way, 6] == pytest.approx(told[way, 0], abs=1e-9)
        assert told[way, 1] == pytest.approx((0.2 * x[:, 0]).var() / (linear + noise).var(), abs=0.05)


def test_a_share_is_the_correlation_with_the_component_and_squares_add_up_to_r2() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 8)) @ rng.normal(size=(8, 8))
    y = x @ rng.normal(size=8) + rng.normal(0, 2, 300)
    found = attribution(x, {"y": y, "same everywhere": np.ones(300)}, 8)
    assert set(found) == {"y"}
    centred = x - x.mean(axis=0)
    scores = centred @ np.linalg.svd(centred, full_matrices=False)[2].T
    np.testing.assert_allclose(found["y"], [abs(np.corrcoef(one, y)[0, 1]) for one in scores.T], atol=1e-12)
    left = y - y.mean() - centred @ np.linalg.lstsq(centred, y - y.mean(), rcond=None)[0]
    assert (found["y"] ** 2).sum() == pytest.approx(1 - left.var() / y.var(), abs=1e-12)


def test_folds_of_points_flatter_where_sections_look_like_themselves() -> None:
    rng = np.random.default_rng(2)
    section = np.repeat(np.arange(10), 30)
    looks, value = rng.normal(size=(10, 6)), rng.normal(size=10)
    points = Measured(
        {"embedding": looks[section] + rng.normal(0, 0.01, (300, 6))},
        {"y": value[section] + rng.normal(0, 0.01, 300)},
        section,
    )
    best = {one.folds_of: one.r2 for one in structure_scores(points, SETTINGS, nothing) if one.components == 6}
    assert best["points"] > best["sections"] + 0.3


def test_blanks_are_left_out_and_what_is_too_few_is_not_told() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(200, 4))
    y = x.sum(axis=1)
    some, few = y.copy(), np.full(200, math.nan)
    some[::2], few[:8] = math.nan, y[:8]
    scores = structure_scores(Measured({"e": x}, {"some": some, "few": few}, np.arange(200) % 5), SETTINGS, nothing)
    told = {one.measure: one for one in scores if (one.components, one.folds_of) == (0, "sections")}
    assert told["some"].r2 == pytest.approx(1.0)
    assert (told["some"].points, told["few"].points) == (100, 8)
    assert math.isnan(told["few"].r2)
    with pytest.raises(TrainingError, match="19 points have embeddings and columns; 20 are needed"):
        structure_scores(Measured({"e": x[:19]}, {"y": y[:19]}, np.arange(19) % 5), SETTINGS, nothing)


@pytest.mark.parametrize("components_of", ["fold", "all"])
def test_more_components_than_points_are_left_out(components_of: str) -> None:
    rng = np.random.default_rng(4)
    settings = StructureSettings.model_validate({"components": (2, 40), "components_of": components_of})
    points = Measured({"wide": rng.normal(size=(40, 60))}, {"y": rng.normal(size=40)}, np.arange(40) % 5)
    assert {one.components for one in structure_scores(points, settings, nothing)} == {2}


def brain(seed: int, mirrored: bool = False) -> Measured:
    """Points that look as their places; in one brain embeddings do not know the side."""
    rng = np.random.default_rng(seed)
    mm = rng.uniform(-30, 30, (200, 3))
    seen = np.abs(mm) * [1, 0, 0] + mm * [0, 1, 1] if mirrored else mm
    axes = {name: mm[:, at] for at, name in enumerate(("x_mm", "y_mm", "z_mm"))}
    return Measured({"embedding": seen @ np.array([[1.0, 2, 0], [0, 1, 1], [3, 0, 1]])}, axes, np.arange(200) % 6)


def test_places_are_told_in_another_brain_that_looks_the_same() -> None:
    found = place_errors({"A": brain(0), "B": brain(1)}, "embedding", SETTINGS)
    assert [(one.learned_from, one.told) for one in found] == [("A", "A"), ("A", "B"), ("B", "A"), ("B", "B")]
    assert max(max(one[2:6]) for one in found) < 1e-9


def test_sides_that_mirror_each_other_cost_x_and_brains_without_places_are_left_out() -> None:
    bare = Measured({"embedding": np.ones((50, 3))}, {}, np.zeros(50, dtype=np.int64))
    (found,) = place_errors({"A": brain(0, mirrored=True), "bare": bare}, "embedding", SETTINGS)
    assert found.x_mm > 10
    assert found.y_mm < 1e-9
