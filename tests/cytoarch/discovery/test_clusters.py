"""Clusters of embeddings, against scikit-learn and against planted ones."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.discovery.clusters import Clustering, ClusterSettings, write_clusters
from cytoarch.embeddings import SectionEmbeddings
from cytoarch.errors import SectionError
from cytoarch.images.views import Level, StoredImage
from cytoarch.store.staging import Staging

THREE = ClusterSettings(clusters=3)


def blobs(count: int = 600, seed: int = 0, length: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Three clouds along a line, in features of very different size."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, count)
    values = rng.normal(0, 0.4, (count, length)) + 3 * truth[:, None] * np.array([1, 1, 0, 1, 0.5])[:length]
    return (values * np.array([1, 100, 1, 0.01, 5])[:length] + 7).astype(np.float32), truth


def in_store(layer: np.ndarray, token_um: float = 16.0) -> SectionEmbeddings:
    array = zarr.create_array(
        store=zarr.storage.MemoryStore(), shape=layer.shape, dtype=np.float16, chunks=(len(layer), 16, 16)
    )
    array[:] = layer.astype(np.float16)
    return SectionEmbeddings((StoredImage((Level(array, token_um, token_um / 2),), {}),))


def test_planted_clusters_are_found_whatever_the_size_of_the_features():
    tokens, truth = blobs()
    clustering = Clustering.fit([tokens[:200], tokens[200:]], THREE)
    assert adjusted_rand_score(truth, clustering.assign(tokens)) == 1


def test_numbers_follow_the_main_gradient():
    tokens, truth = blobs()
    assigned = Clustering.fit([tokens], THREE).assign(tokens)
    means = [truth[assigned == i].mean() for i in range(3)]
    assert means in ([0, 1, 2], [2, 1, 0])


def test_tokens_go_where_scikit_learn_puts_them():
    tokens = np.random.default_rng(1).normal(0, 1, (400, 4)).astype(np.float32)
    clustering = Clustering.fit([tokens], ClusterSettings(clusters=6))
    oracle = KMeans(6, n_init=1, init=clustering.centres, max_iter=1).fit(clustering.centres)
    oracle.cluster_centers_ = clustering.centres
    scaled = ((tokens - clustering.mean) / clustering.spread).astype(np.float32)
    np.testing.assert_array_equal(clustering.assign(tokens), oracle.predict(scaled))


def test_the_fit_is_as_tight_as_that_of_scikit_learn():
    tokens = np.random.default_rng(2).normal(0, 1, (500, 4)).astype(np.float32)
    settings = ClusterSettings(clusters=5, restarts=2, seed=4)
    clustering = Clustering.fit([tokens], settings)
    scaled = (tokens - tokens.mean(axis=0)) / tokens.std(axis=0)
    oracle = KMeans(5, n_init=2, random_state=4).fit(scaled)
    own = ((scaled - clustering.centres[clustering.assign(tokens)]) ** 2).sum()
    assert own == pytest.approx(oracle.inertia_, rel=1e-3)


def test_the_seed_decides_the_clusters_and_the_order_of_the_sections_is_kept():
    tokens = np.random.default_rng(3).normal(0, 1, (300, 4)).astype(np.float32)
    one, again = (Clustering.fit([tokens[:100], tokens[100:]], ClusterSettings(clusters=7)) for _ in range(2))
    np.testing.assert_array_equal(one.centres, again.centres)
    whole = Clustering.fit([tokens], ClusterSettings(clusters=7))
    np.testing.assert_array_equal(one.centres, whole.centres)


def test_a_kept_clustering_comes_back_with_the_same_bits():
    clustering = Clustering.fit([blobs()[0]], THREE)
    back = Clustering.from_bytes(clustering.to_bytes())
    for name in ("mean", "spread", "centres"):
        np.testing.assert_array_equal(getattr(back, name), getattr(clustering, name))


def test_a_feature_that_never_changes_does_no_harm():
    tokens, truth = blobs()
    tokens[:, 2] = 3
    clustering = Clustering.fit([tokens], THREE)
    assert np.isfinite(clustering.centres).all()
    assert adjusted_rand_score(truth, clustering.assign(tokens)) == 1


def test_fewer_tokens_than_clusters_are_refused():
    with pytest.raises(SectionError, match="only 2 embeddings lie in tissue; 3 clusters"):
        Clustering.fit([np.zeros((2, 4), dtype=np.float32)], THREE)


def test_the_map_numbers_clusters_from_one_and_is_zero_outside_tissue(tmp_path: Path):
    tokens, _ = blobs(count=40 * 50)
    embeddings = in_store(tokens.T.reshape(5, 40, 50))
    stored = embeddings.read(0, 0, 40, 50)
    clustering = Clustering.fit([stored.reshape(5, -1).T], THREE)
    mask = np.zeros((40, 50), dtype=bool)
    mask[4:33, 7:] = True
    journal = Staging(tmp_path).open()
    facts = write_clusters(journal, embeddings, TissueMask(mask, embeddings.layers[0].grid), clustering)
    labels = StoredImage.open(journal.path / "labels" / "clusters")
    drawn = np.asarray(labels.levels[0].array)
    assert facts == {"tokens": int(mask.sum())}
    assert (drawn[~mask] == 0).all()
    np.testing.assert_array_equal(drawn[mask], clustering.assign(stored[:, mask].T) + 1)
    assert drawn.dtype == np.uint8
    assert labels.levels[0].origin_um == embeddings.layers[0].levels[0].origin_um
    shown = StoredImage.open(journal.path)
    np.testing.assert_array_equal(np.asarray(shown.levels[0].array) > 0, mask)
    assert len(shown.levels) == len(labels.levels)
