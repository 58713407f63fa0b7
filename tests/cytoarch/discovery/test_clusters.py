"""Clusters of embeddings, against scikit-learn and against planted ones."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import StandardScaler

from cytoarch import sampling
from cytoarch.anatomy.tissue import TissueMask
from cytoarch.discovery import clusters as clusters_module
from cytoarch.discovery.clusters import Clustering, ClusterSettings, cluster_sample, write_clusters
from cytoarch.embeddings import SectionEmbeddings
from cytoarch.errors import SectionError
from cytoarch.geometry import Grid
from cytoarch.images.views import Level, StoredImage
from cytoarch.palette import distinct_colours
from cytoarch.reproducible import single_threaded
from cytoarch.sampling import tissue_source
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
    assert labels.levels[0].pixel_size_um == shown.levels[0].pixel_size_um == 16.0
    np.testing.assert_array_equal(np.unique(shown.levels[0].array), [0, 255])
    folders = {"": "tissue", "labels/clusters": "clusters"}
    stated = {one: zarr.open_group(journal.path / one, mode="r").attrs["ome"] for one in (*folders, "labels")}
    assert {one: stated[one]["multiscales"][0]["name"] for one in folders} == folders
    assert stated["labels"] == {"version": "0.5", "labels": ["clusters"]}


# -- against scikit-learn, to the number -------------------------------------------------------------------------------


def by_scikit_learn(tokens: np.ndarray, settings: ClusterSettings) -> tuple[StandardScaler, KMeans, np.ndarray]:
    """Scaler, k-means, and the order of its clusters along the first principal component of their centres."""
    scaler = StandardScaler().fit(tokens.astype(np.float64))
    scaled = scaler.transform(tokens.astype(np.float64)).astype(np.float32)
    with single_threaded():
        model = KMeans(settings.clusters, n_init=settings.restarts, random_state=settings.seed).fit(scaled)
    axis = PCA(1).fit(model.cluster_centers_).components_[0]
    axis *= np.sign(axis.sum())
    return scaler, model, np.argsort(model.cluster_centers_ @ axis)


@pytest.mark.parametrize(("seed", "restarts"), [(0, 1), (0, 3), (5, 3)])
def test_mean_spread_and_centres_are_those_of_scikit_learn(seed: int, restarts: int):
    tokens = np.random.default_rng(seed).gamma(2, 3, (700, 4)).astype(np.float32) * np.array(
        [1, 50, 0.1, 3], np.float32
    )
    settings = ClusterSettings(clusters=6, restarts=restarts, seed=seed)
    clustering = Clustering.fit([tokens[:100], tokens[100:]], settings)
    scaler, model, order = by_scikit_learn(tokens, settings)
    np.testing.assert_allclose(clustering.mean, scaler.mean_, rtol=1e-5)
    np.testing.assert_allclose(clustering.spread, scaler.scale_, rtol=1e-5)
    np.testing.assert_allclose(clustering.centres, model.cluster_centers_[order], atol=1e-4)
    place = np.argsort(order)  # of scikit-learn's clusters among ours
    agreeing = clustering.assign(tokens) == place[model.labels_]
    assert agreeing.mean() > 0.998  # k-means stops before its last labels settle
    assert {part.dtype for part in (clustering.mean, clustering.spread, clustering.centres)} == {np.dtype(np.float32)}


def test_the_gradient_runs_to_where_most_features_are_larger():
    tokens, _ = blobs()
    centres = Clustering.fit([tokens], THREE).centres
    assert (centres[0] < centres[2])[[0, 1, 3, 4]].all()
    turned = Clustering.fit([-tokens], THREE).centres
    assert (turned[0] < turned[2])[[0, 1, 3, 4]].all()


def test_tokens_are_assigned_alike_in_parts_of_any_size(monkeypatch: pytest.MonkeyPatch):
    tokens = np.random.default_rng(1).normal(0, 1, (401, 4)).astype(np.float32)
    clustering = Clustering.fit([tokens], ClusterSettings(clusters=6))
    whole = clustering.assign(tokens)
    monkeypatch.setattr(clusters_module, "ASSIGN_TOKENS", 100)
    np.testing.assert_array_equal(clustering.assign(tokens), whole)
    assert clustering.assign(tokens[:0]).shape == (0,)
    assert whole.dtype == np.int64


def test_clusters_have_their_number_their_name_and_their_colour(tmp_path: Path):
    """Where cluster i lies, the value is i + 1, which has its name and the i-th colour of the palette."""
    tokens, truth = blobs(count=40 * 50)
    embeddings = in_store(tokens.T.reshape(5, 40, 50))
    clustering = Clustering.fit([tokens], THREE)
    journal = Staging(tmp_path).open()
    write_clusters(
        journal,
        embeddings,
        TissueMask(np.ones((40, 50), dtype=bool), Grid.at_corner((40, 50), 16.0, (0.0, 0.0))),
        clustering,
    )
    drawn = np.asarray(StoredImage.open(journal.path / "labels" / "clusters").levels[0].array)
    for cluster, centre in enumerate(clustering.centres):
        inside = drawn.ravel() == cluster + 1
        scaled = (tokens[inside] - clustering.mean) / clustering.spread
        np.testing.assert_allclose(scaled.mean(axis=0), centre, atol=0.05)
        assert len(np.unique(truth[inside])) == 1
    attributes = json.loads((journal.path / "labels" / "clusters" / "zarr.json").read_text())["attributes"]
    label = attributes["ome"]["image-label"]
    names = {one["label-value"]: one["name"] for one in label["properties"]}
    assert names == {1: "cluster 1", 2: "cluster 2", 3: "cluster 3"}
    colours = {one["label-value"]: tuple(one["rgba"][:3]) for one in label["colors"]}
    assert colours == dict(zip((1, 2, 3), distinct_colours(3), strict=True))


def test_tokens_that_were_not_computed_have_no_cluster(tmp_path: Path):
    tokens, _ = blobs(count=40 * 50)
    marks = np.zeros((40, 50), dtype=np.uint8)
    marks[5:30, 10:41] = 255
    embeddings = replace(in_store(tokens.T.reshape(5, 40, 50)), marks=Level(marks, 16.0, 8.0))
    journal = Staging(tmp_path).open()
    whole = TissueMask(np.ones((1, 1), dtype=bool), Grid.at_corner((1, 1), 999.0, (0.0, 0.0)))
    facts = write_clusters(journal, embeddings, whole, Clustering.fit([tokens], THREE))
    drawn = np.asarray(StoredImage.open(journal.path / "labels" / "clusters").levels[0].array)
    np.testing.assert_array_equal(drawn > 0, marks > 0)
    assert facts == {"tokens": 25 * 31}


def test_coarser_levels_show_the_most_frequent_cluster(tmp_path: Path):
    """A mean of cluster numbers would name clusters that are not there."""
    layer = np.zeros((1, 600, 520), dtype=np.float16)
    layer[0, :, ::2] = 2
    layer[0, ::2] = 2  # three of four tokens
    embeddings = in_store(layer)
    clustering = Clustering(np.zeros(1, np.float32), np.ones(1, np.float32), np.array([[0], [1], [2]], np.float32))
    journal = Staging(tmp_path).open()
    write_clusters(
        journal,
        embeddings,
        TissueMask(np.ones((1, 1), dtype=bool), Grid.at_corner((1, 1), 1e6, (0.0, 0.0))),
        clustering,
    )
    levels = StoredImage.open(journal.path / "labels" / "clusters").levels
    assert len(levels) > 1
    assert set(np.unique(np.asarray(levels[0].array))) == {1, 3}
    assert set(np.unique(np.asarray(levels[1].array))) == {3}


# -- the sample --------------------------------------------------------------------------------------------------------


def test_the_sample_and_the_fit_stay_within_their_bytes(monkeypatch: pytest.MonkeyPatch):
    embeddings = in_store(blobs(count=40 * 50)[0].T.reshape(5, 40, 50))
    tissue = TissueMask(np.ones((1, 1), dtype=bool), Grid.at_corner((1, 1), 999.0, (0.0, 0.0)))
    sources = [tissue_source(f"s{i}", embeddings, tissue) for i in range(4)]
    settings = ClusterSettings(clusters=3, tokens_per_section=100)
    assert cluster_sample(sources, settings).facts() == {
        "tokens": 400,
        "asked_per_section": 100,
        "drawn_per_section": 100,
    }
    per_token = 2 * 5 + 80 + 3 * 4 * 5 + 8 * 3  # stored; a candidate; as float32, and twice more in k-means; distances
    monkeypatch.setattr(sampling, "SAMPLE_BYTES", 200 * per_token)
    assert cluster_sample(sources, settings).facts()["drawn_per_section"] == 50
    monkeypatch.setattr(sampling, "SAMPLE_BYTES", 200 * per_token - 1)
    assert cluster_sample(sources, settings).facts()["drawn_per_section"] == 49
    other = cluster_sample(sources, ClusterSettings(clusters=3, tokens_per_section=100, seed=1))
    assert not np.array_equal(other.tokens[:49], cluster_sample(sources, settings).tokens[:49])
    assert len(cluster_sample([], settings).tokens) == 0
