"""Borders along the cortex: worked examples, and planted borders found by both methods."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist
from scipy.spatial.distance import mahalanobis as oracle

from cytoarch.discovery.borders import (
    UNKNOWN_AREA,
    Against,
    ProfileBorders,
    against_known,
    border_signal,
    embedding_borders,
    feature_borders,
    free_of,
    independent_size,
    mahalanobis,
    profile_borders,
    profile_features,
)
from cytoarch.discovery.similarity import agreement, similarity

TRUE = (60, 130, 170)


def stretches(count: int = 240) -> np.ndarray:
    """The area that every point of a line lies in."""
    return np.searchsorted(TRUE, np.arange(count), side="right")


def hits(places: np.ndarray, reach: int) -> tuple[float, float]:
    """Share of the borders that were found, and share of what was found that is none."""
    near = np.abs(np.array(TRUE)[:, None] - places[None]) <= reach
    return near.any(axis=1).mean(), 1 - near.any(axis=0).mean() if len(places) else 0.0


def test_a_step_gives_the_square_of_its_height_and_falls_off_with_the_overlap():
    signal = border_signal(np.repeat([[0.0], [2.0]], 30, axis=0))
    assert signal[30] == pytest.approx(4.0)
    assert signal[35] == signal[25] == pytest.approx(4 * (1 - 5 / 9) ** 2)
    np.testing.assert_allclose(signal[39:52], 0, atol=1e-12)
    assert np.isnan(signal[:9]).all()
    assert np.isnan(border_signal(np.zeros((5, 2)))).all()


@pytest.mark.parametrize("seed", range(5))
def test_planted_borders_are_found_in_embeddings(seed: int):
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 1, (4, 16))
    found = embedding_borders(centres[stretches()] + rng.normal(0, 0.8, (240, 16)), seed=seed)
    hit, false = hits(found.places, 3)
    assert hit == 1
    assert false == 0


def test_blocks_of_no_size_are_refused():
    with pytest.raises(ValueError, match="smallest_block is 24 and largest_block 20"):
        ProfileBorders(smallest_block=24)
    assert ProfileBorders(smallest_block=20).largest_block == 20


def test_confounds_that_do_not_vary_explain_nothing():
    features = np.random.default_rng(0).normal(0, 1, (40, 3))
    confounds = np.stack([np.linspace(0, 1e-8, 40), np.linspace(0, 1, 40)], axis=1)
    left = features - features.mean(axis=0)
    np.testing.assert_allclose(free_of(features, confounds[:, :1]), left, atol=1e-12)
    np.testing.assert_allclose(free_of(features, confounds), free_of(features, confounds[:, 1:]), atol=1e-9)


def test_one_area_has_hardly_any_borders():
    found = [
        len(embedding_borders(np.random.default_rng(seed).normal(0, 1, (200, 16)), seed=seed).places)
        for seed in range(20)
    ]
    assert sum(one > 0 for one in found) <= 4


def profiles(seed: int, count: int = 240) -> np.ndarray:
    """Grey-level profiles of four areas whose layers differ in place, width and height, under noise."""
    rng = np.random.default_rng(seed)
    depth = np.linspace(0, 1, 60)
    kinds = [
        0.3 + 0.5 * np.exp(-(((depth - place) / width) ** 2)) + 0.2 * np.exp(-(((depth - 0.8) / 0.1) ** 2))
        for place, width in ((0.3, 0.1), (0.42, 0.1), (0.42, 0.16), (0.3, 0.08))
    ]
    return np.array(kinds)[stretches(count)] + rng.normal(0, 0.03, (count, 60))


@pytest.mark.parametrize("seed", range(3))
def test_planted_borders_are_found_in_profiles(seed: int):
    hit, false = hits(profile_borders(profiles(seed)).places, 3)
    assert hit == 1
    assert false <= 0.25


def test_profiles_of_one_area_have_hardly_any_borders():
    flat = [profile_borders(profiles(seed)[:55].repeat(2, axis=0)[::2]).places for seed in range(5)]
    assert sum(len(one) for one in flat) <= 1


def alike(seed: int, spacing_um: float, step: float = 0.0) -> np.ndarray:
    """Ten features along 40 mm: noise that reaches over 150 um, and a border in the middle where there is a step."""
    rng = np.random.default_rng(seed)
    count, reach = round(40_000 / spacing_um), 150 / spacing_um
    noise = ndimage.gaussian_filter1d(rng.normal(0, 1, (count + 100, 10)), reach, axis=0)[50:-50]
    side = np.where(np.arange(count) < count // 2, 0.0, step)[:, None]
    return np.asarray(noise / noise.std(axis=0) + side * rng.choice([-1, 1], 10))


@pytest.mark.parametrize("spacing_um", [62.5, 160.0, 200.0])
def test_profiles_that_share_their_noise_with_their_neighbours_make_no_borders(spacing_um: float):
    found = [len(feature_borders(alike(seed, spacing_um)).places) for seed in range(8)]
    assert sum(found) <= 1
    places = [feature_borders(alike(seed, spacing_um, step=3.0)).places * spacing_um / 1000 for seed in range(4)]
    assert sum((np.abs(one - 20) < 1).any() for one in places) >= 3
    assert sum((np.abs(one - 20) >= 1).sum() for one in places) <= 1


def test_profiles_of_their_own_are_compared_one_by_one():
    features = np.random.default_rng(0).normal(0, 1, (200, 10))
    assert independent_size(features, 16) == 1
    assert independent_size(features.repeat(3, axis=0), 16) >= 3
    assert independent_size(np.zeros((200, 10)), 16) == 1


def test_distances_are_those_of_scipy():
    features = np.random.default_rng(0).normal(0, 1, (40, 4))
    distance, chance = mahalanobis(features, 10)
    before, after = features[5:15], features[15:25]
    pooled = (np.cov(before.T) + np.cov(after.T)) / 2
    expected = oracle(before.mean(axis=0), after.mean(axis=0), np.linalg.inv(pooled)) ** 2
    assert distance[15] == pytest.approx(expected, rel=1e-6)
    assert np.nanmin(chance) > 0
    with pytest.raises(ValueError, match="too few"):
        mahalanobis(features, 2)


def test_chance_is_even_where_there_is_no_border():
    """Hotelling's p of independent blocks is uniform."""
    found = [mahalanobis(np.random.default_rng(seed).normal(0, 1, (24, 5)), 12)[1][12] for seed in range(400)]
    assert np.mean(np.array(found) < 0.05) == pytest.approx(0.05, abs=0.03)


def test_the_features_of_a_profile_are_its_moments_over_depth():
    flat = profile_features(np.ones((1, 1000)))
    mean, centre, spread, skew, tails = flat[0, :5]
    assert (mean, centre) == (pytest.approx(1), pytest.approx(0.5))
    assert spread == pytest.approx(np.sqrt(1 / 12), abs=1e-4)
    assert skew == pytest.approx(0, abs=1e-6)
    assert tails == pytest.approx(-1.2, abs=1e-3)


def test_a_line_too_short_for_two_blocks_has_no_borders():
    found = profile_borders(profiles(0)[:12])
    assert np.isnan(found.signal).all()
    assert (len(found.signal), len(found.places)) == (12, 0)


def test_more_block_sizes_that_agree_leave_fewer_borders():
    strict, lax = (profile_borders(profiles(1), ProfileBorders(agree=one)) for one in (7, 1))
    assert len(strict.places) <= len(lax.places)
    assert (strict.threshold, lax.threshold) == (7, 1)


def test_borders_are_held_against_known_ones_near_enough_and_judged():
    areas = np.repeat([0, 1, 2, UNKNOWN_AREA, 2], 20)
    judged = np.ones(100, dtype=bool)
    judged[:5] = False
    found = against_known(np.array([2, 21, 33, 70]), areas, judged, 2)
    # known: at 20 and 40, nothing at the unknown stretch; 2 is not judged, 70 lies where nothing is known
    assert found[:4] == (2, 1, 2, 1)
    assert against_known(np.array([5]), np.full(10, UNKNOWN_AREA), np.ones(10, bool), 1) == Against(
        0, 0, 0, 0, 0.0, 0.0
    )
    sums = found + found
    assert sums.hit_by_chance == pytest.approx(2 * found.hit_by_chance)
    assert sums.known == 4


def test_what_chance_gives_is_what_places_at_random_give():
    areas, judged = stretches(), np.ones(240, dtype=bool)
    rng = np.random.default_rng(0)
    drawn = [against_known(rng.integers(0, 240, 6), areas, judged, 4) for _ in range(4000)]
    assert np.mean([one.hit for one in drawn]) == pytest.approx(drawn[0].hit_by_chance, rel=0.03)
    assert np.mean([one.false for one in drawn]) == pytest.approx(drawn[0].false_by_chance, rel=0.03)


# -- real brains -------------------------------------------------------------------------------------------------------


@pytest.mark.real
def test_profiles_tell_areas_of_one_marmoset_from_those_of_the_others(real_data: Path) -> None:
    """Depth profiles of 115 areas in three monkeys: an area is most like itself far more often than by chance."""
    files = sorted((real_data / "marmoset_cortex" / "profiles").glob("*.npz"))
    monkeys = [np.load(path) for path in files]
    areas = sorted(monkeys[0].files)
    medians = [np.stack([monkey[area][2] for area in areas]) for monkey in monkeys]
    shapes = [one / one.mean(axis=1, keepdims=True) for one in medians]
    known = np.arange(len(areas))
    for features in (shapes, [profile_features(one) for one in medians]):
        scaled = [(one - one.mean(axis=0)) / one.std(axis=0) for one in features]
        right = []
        for number, own in enumerate(scaled):
            others = np.mean([one for place, one in enumerate(scaled) if place != number], axis=0)
            right.append((cdist(own, others).argmin(axis=1) == known).mean())
        assert np.mean(right) > 8 / len(areas)
        alike = [similarity(one, known, len(areas)) for one in scaled]
        assert all(agreement(one, other)[0] > 0.4 for one, other in itertools.combinations(alike, 2))
