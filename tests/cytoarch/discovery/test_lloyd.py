"""Passes of k-means over blocks: scikit-learn's from the same centres, however the tokens are cut."""

from collections.abc import Iterator

import numpy as np
import pytest
from sklearn.cluster import KMeans

from cytoarch.discovery import clusters as clusters_module
from cytoarch.discovery.clusters import Clustering, ClusterSettings
from cytoarch.discovery.lloyd import lloyd, read_ahead

MEAN, SPREAD = np.array([5, 0, -3, 2], np.float32), np.array([2, 1, 4, 0.5], np.float32)


def tokens_of(count: int = 900, dtype: type = np.float32) -> np.ndarray:
    rng = np.random.default_rng(0)
    middles = rng.normal(0, 3, (5, 4))
    return ((middles[rng.integers(0, 5, count)] + rng.normal(0, 1, (count, 4))) * SPREAD + MEAN).astype(dtype)


def scaled(tokens: np.ndarray) -> np.ndarray:
    return (tokens.astype(np.float32) - MEAN) / SPREAD


@pytest.mark.parametrize("passes", [1, 2, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_centres_and_inertia_are_those_of_scikit_learn(passes: int, dtype: type) -> None:
    tokens = tokens_of(dtype=dtype)
    start = scaled(tokens)[:5]
    found = lloyd(lambda: np.array_split(tokens, 7), MEAN, SPREAD, start, passes)
    oracle = KMeans(5, init=start, n_init=1, max_iter=passes, tol=0, algorithm="lloyd")
    oracle.fit(scaled(tokens))
    assert (found.passes, found.tokens) == (passes, 900)
    np.testing.assert_allclose(found.centres, oracle.cluster_centers_, atol=1e-4)
    before = KMeans(5, init=start, n_init=1, max_iter=passes - 1, tol=0).fit(scaled(tokens)) if passes > 1 else None
    centres = start if before is None else before.cluster_centers_
    away = ((scaled(tokens)[:, None] - centres[None]) ** 2).sum(axis=2).min(axis=1)
    assert found.inertia == pytest.approx(away.mean(), rel=1e-5)


def test_cuts_of_the_tokens_change_nothing_but_rounding() -> None:
    tokens = tokens_of()
    start = scaled(tokens)[:5]
    whole = lloyd(lambda: [tokens], MEAN, SPREAD, start, 10)
    cut = lloyd(lambda: np.array_split(tokens, 23), MEAN, SPREAD, start, 10)
    assert whole.passes == cut.passes
    np.testing.assert_allclose(cut.centres, whole.centres, atol=1e-5)
    again = lloyd(lambda: [tokens], MEAN, SPREAD, start, 10)
    np.testing.assert_array_equal(again.centres, whole.centres)


def test_passes_end_once_nothing_falls_and_a_centre_without_tokens_stays() -> None:
    tokens = tokens_of()
    start = np.concatenate([scaled(tokens)[:4], np.full((1, 4), 1e3, np.float32)])
    found = lloyd(lambda: [tokens], MEAN, SPREAD, start, 100)
    assert found.passes < 40
    np.testing.assert_array_equal(found.centres[4], start[4])


def test_a_large_sample_is_fitted_from_a_part_and_moved_on_over_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters_module, "START_TOKENS", 200)
    tokens = tokens_of(4000)
    settings = ClusterSettings(clusters=5, restarts=3)
    found = Clustering.fit([tokens], settings)
    whole = KMeans(5, n_init=3, random_state=0).fit((tokens - found.mean) / found.spread)
    inertia = lloyd(lambda: [tokens], found.mean, found.spread, found.centres, 1).inertia
    assert inertia <= 1.01 * whole.inertia_ / len(tokens)


def test_passes_over_all_tokens_move_a_fit_to_a_few_on() -> None:
    tokens = tokens_of(4000)
    few = Clustering.fit([tokens[:60]], ClusterSettings(clusters=5))
    moved, passed = few.refined(lambda: np.array_split(tokens, 3), 20)
    assert passed.tokens == 4000
    np.testing.assert_array_equal(moved.mean, few.mean)

    def inertia(one: Clustering) -> float:
        return lloyd(lambda: [tokens], one.mean, one.spread, one.centres, 1).inertia

    assert inertia(moved) < inertia(few)


def test_reading_ahead_keeps_order_and_tells_what_went_wrong() -> None:
    assert list(read_ahead(range(5))) == [0, 1, 2, 3, 4]
    assert list(read_ahead([])) == []

    def broken() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(read_ahead(broken()))
