"""Embeddings as colours: principal components, the same over a brain."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from cytoarch import sampling
from cytoarch.anatomy.tissue import TissueMask
from cytoarch.discovery import colours as colours_module
from cytoarch.discovery.colours import ColourMap, colour_sample, write_colours
from cytoarch.embeddings import SectionEmbeddings
from cytoarch.errors import SectionError
from cytoarch.geometry import Grid
from cytoarch.images.views import Level, StoredImage
from cytoarch.sampling import tissue_source
from cytoarch.store.staging import Staging


def tokens_of(count: int = 500, length: int = 6, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(0, 1, (length, length)) * np.linspace(3, 0.3, length)[:, None]
    return (rng.normal(0, 1, (count, length)) @ mixing + 4).astype(np.float32)


def as_image(tokens: np.ndarray) -> np.ndarray:
    """(n, c) -> (c, 1, n)."""
    return tokens.T[:, None]


def test_the_projection_is_the_principal_components_of_standardised_tokens():
    tokens = tokens_of()
    colours = ColourMap.fit([tokens])
    ours = (tokens - colours.mean) @ colours.projection
    theirs = PCA(3).fit_transform(StandardScaler().fit_transform(tokens.astype(np.float64)))
    for axis in range(3):
        sign = np.sign((ours[:, axis] * theirs[:, axis]).sum())
        np.testing.assert_allclose(ours[:, axis], sign * theirs[:, axis], atol=1e-3)


@pytest.mark.parametrize(("width", "part", "sections"), [(6, 40, 1), (64, 64, 7), (64, 37, 30), (200, 100, 3)])
def test_components_found_part_by_part_are_those_of_all_at_once(monkeypatch, width: int, part: int, sections: int):
    """Embeddings have a few strong directions: those are found to a thousandth, whatever the parts."""
    monkeypatch.setattr(sampling, "PART_TOKENS", part)
    rng = np.random.default_rng(width)
    strength = 10.0 * 0.6 ** np.arange(width) + 0.05
    basis = np.linalg.qr(rng.normal(size=(width, width)))[0]
    tokens = ((rng.normal(size=(900, width)) * strength) @ basis + rng.normal(size=width)).astype(np.float32)
    found = ColourMap.fit(np.array_split(tokens, sections))
    scaler = StandardScaler().fit(tokens.astype(np.float64))
    pca = PCA(3).fit(scaler.transform(tokens))
    ours = found.projection.T.astype(np.float64) * scaler.scale_
    for mine, its in zip(ours, pca.components_, strict=True):
        assert abs(mine @ its) == pytest.approx(1, abs=1e-3)
        assert np.abs(mine - np.sign(mine @ its) * its).max() < 1e-3 * max(1, np.abs(its).max())
    shown = scaler.transform(tokens) @ pca.components_.T
    for axis in range(3):
        sign = np.sign(ours[axis] @ pca.components_[axis])
        low, high = np.percentile(sign * shown[:, axis], (1, 99))
        assert (found.low[axis], found.high[axis]) == pytest.approx((low, high), abs=0.02)


def test_sections_without_tokens_change_nothing():
    tokens, none = tokens_of(), np.zeros((0, 6), dtype=np.float32)
    assert ColourMap.fit([none, tokens, none]).to_bytes() == ColourMap.fit([tokens]).to_bytes()


def test_all_but_the_extreme_tokens_lie_between_black_and_white():
    tokens = tokens_of(5000)
    shown = ColourMap.fit([tokens]).colours(as_image(tokens))
    assert shown.shape == (3, 1, 5000)
    assert shown.dtype == np.uint8
    assert shown.min() == 1
    assert shown.max() == 255
    for channel in shown[:, 0]:
        assert (channel == 1).mean() == pytest.approx(0.01, abs=0.006)
        assert (channel == 255).mean() == pytest.approx(0.01, abs=0.006)


def test_a_token_has_its_colour_wherever_it_lies():
    tokens = tokens_of()
    colours = ColourMap.fit([tokens])
    shown = colours.colours(as_image(tokens))
    order = np.random.default_rng(0).permutation(len(tokens))
    np.testing.assert_array_equal(colours.colours(as_image(tokens[order])), shown[:, :, order])


def test_the_sections_are_pooled_and_their_order_does_not_turn_the_colours():
    tokens = tokens_of()
    one, other = ColourMap.fit([tokens[:100], tokens[100:]]), ColourMap.fit([tokens[100:], tokens[:100]])
    difference = one.colours(as_image(tokens)).astype(int) - other.colours(as_image(tokens))
    assert np.abs(difference).max() <= 1


def test_a_kept_map_gives_the_same_colours():
    tokens = tokens_of()
    colours = ColourMap.fit([tokens])
    back = ColourMap.from_bytes(colours.to_bytes())
    np.testing.assert_array_equal(back.colours(as_image(tokens)), colours.colours(as_image(tokens)))
    assert back.to_bytes() == colours.to_bytes() == ColourMap.fit([tokens]).to_bytes()


@pytest.mark.parametrize("length", [1, 2])
def test_fewer_features_than_colours_leave_the_others_even(length: int):
    tokens = tokens_of(length=length)
    shown = ColourMap.fit([tokens]).colours(as_image(tokens))
    assert all(len(np.unique(channel)) == 1 for channel in shown[length:])
    assert all(len(np.unique(channel)) > 50 for channel in shown[:length])


def test_tokens_that_are_all_alike_have_a_colour():
    shown = ColourMap.fit([np.full((10, 4), 3, dtype=np.float32)]).colours(np.full((4, 2, 2), 3, dtype=np.float32))
    assert len(np.unique(shown)) == 1


@pytest.mark.parametrize("count", [0, 3])
def test_too_few_tokens_are_refused(count: int):
    with pytest.raises(SectionError, match=f"only {count} embeddings lie in tissue"):
        ColourMap.fit([tokens_of(count)])


def test_a_written_map_is_black_outside_tissue_and_only_there(tmp_path: Path):
    layer = tokens_of(20 * 30).T.reshape(6, 20, 30)
    array = zarr.create_array(store=zarr.storage.MemoryStore(), shape=layer.shape, dtype=np.float16, chunks=(6, 16, 16))
    array[:] = layer.astype(np.float16)
    embeddings = SectionEmbeddings((StoredImage((Level(array, 16.0, 6.0),), {}),))
    colours = ColourMap.fit([tokens_of()])
    mask = np.zeros((20, 30), dtype=bool)
    mask[3:15, 4:26] = True
    journal = Staging(tmp_path).open()
    write_colours(journal, embeddings, TissueMask(mask, embeddings.layers[0].grid), colours)
    image = StoredImage.open(journal.path)
    drawn = np.asarray(image.levels[0].array)
    np.testing.assert_array_equal((drawn > 0).all(axis=0), mask)
    np.testing.assert_array_equal((drawn > 0).any(axis=0), mask)
    np.testing.assert_array_equal(drawn[:, mask], colours.colours(embeddings.read(0, 0, 20, 30))[:, mask])
    assert image.pixel_size_um == 16.0
    assert image.levels[0].origin_um == 6.0
    ome = zarr.open_group(journal.path, mode="r").attrs["ome"]
    assert ome["multiscales"][0]["name"] == "pca"
    assert [one["color"] for one in ome["omero"]["channels"]] == ["FF0000", "00FF00", "0000FF"]
    assert [(one["window"]["start"], one["window"]["end"]) for one in ome["omero"]["channels"]] == [(0, 255)] * 3


# -- against scikit-learn, to the number -------------------------------------------------------------------------------


def test_a_map_is_that_of_scikit_learn_to_the_number():
    tokens = tokens_of(900)
    found = ColourMap.fit([tokens[:400], tokens[400:]])
    scaler = StandardScaler().fit(tokens.astype(np.float64))
    pca = PCA(3, svd_solver="full").fit(scaler.transform(tokens.astype(np.float64)))
    axes = pca.components_ * np.sign(pca.components_.sum(axis=1))[:, None]
    shown = scaler.transform(tokens.astype(np.float64)) @ axes.T
    low, high = np.percentile(shown, (1, 99), axis=0)
    np.testing.assert_allclose(found.mean, scaler.mean_, rtol=1e-5)
    np.testing.assert_allclose(found.projection, axes.T / scaler.scale_[:, None], atol=1e-4)
    np.testing.assert_allclose(found.low, low, atol=1e-3)
    np.testing.assert_allclose(found.high, high, atol=1e-3)
    unit = np.clip((shown - low) / (high - low), -1, 2)
    expected = np.clip(1 + np.round(254 * unit), 1, 255)
    drawn = found.colours(as_image(tokens))[:, 0].T
    assert np.abs(drawn - expected).max() <= 1
    clear = np.abs(254 * unit % 1 - 0.5) > 0.1  # what lies near a half may be rounded to either side
    np.testing.assert_array_equal(drawn[clear], expected[clear])
    assert {part.dtype for part in (found.mean, found.projection, found.low, found.high)} == {np.dtype(np.float32)}


def test_the_first_component_is_red():
    """One strong direction: red changes along it, and more than green and blue explain."""
    rng = np.random.default_rng(0)
    along = rng.normal(size=2000)
    tokens = (along[:, None] * np.array([1, 1, 1, 1, 1.0]) + 0.2 * rng.normal(size=(2000, 5))).astype(np.float32)
    red, green, blue = ColourMap.fit([tokens]).colours(as_image(tokens))[:, 0].astype(float)
    assert np.corrcoef(red, along)[0, 1] > 0.95
    assert abs(np.corrcoef(green, along)[0, 1]) < 0.2
    assert abs(np.corrcoef(blue, along)[0, 1]) < 0.2


def test_tokens_in_an_image_keep_their_place():
    tokens = tokens_of(12)
    colours = ColourMap.fit([tokens_of()])
    shown = colours.colours(tokens.T.reshape(6, 3, 4))
    np.testing.assert_array_equal(shown.reshape(3, 12), colours.colours(as_image(tokens))[:, 0])


def test_tokens_that_were_not_computed_are_black(tmp_path: Path):
    layer = tokens_of(20 * 30).T.reshape(6, 20, 30)
    array = zarr.create_array(store=zarr.storage.MemoryStore(), shape=layer.shape, dtype=np.float16, chunks=(6, 16, 16))
    array[:] = layer.astype(np.float16)
    marks = np.zeros((20, 30), dtype=np.uint8)
    marks[2:9, 5:25] = 255
    embeddings = SectionEmbeddings((StoredImage((Level(array, 16.0, 8.0),), {}),), Level(marks, 16.0, 8.0))
    journal = Staging(tmp_path).open()
    write_colours(
        journal,
        embeddings,
        TissueMask(np.ones((1, 1), dtype=bool), Grid.at_corner((1, 1), 999.0, (0.0, 0.0))),
        ColourMap.fit([tokens_of()]),
    )
    drawn = np.asarray(StoredImage.open(journal.path).levels[0].array)
    np.testing.assert_array_equal((drawn > 0).all(axis=0), marks > 0)
    np.testing.assert_array_equal((drawn > 0).any(axis=0), marks > 0)


def test_the_sample_and_the_fit_stay_within_their_bytes(monkeypatch: pytest.MonkeyPatch):
    layer = tokens_of(50 * 60).T.reshape(6, 50, 60)
    array = zarr.create_array(store=zarr.storage.MemoryStore(), shape=layer.shape, dtype=np.float16, chunks=(6, 8, 8))
    array[:] = layer.astype(np.float16)
    embeddings = SectionEmbeddings((StoredImage((Level(array, 16.0, 8.0),), {}),))
    tissue = TissueMask(np.ones((1, 1), dtype=bool), Grid.at_corner((1, 1), 999.0, (0.0, 0.0)))
    sources = [tissue_source(f"s{i}", embeddings, tissue) for i in range(3)]
    assert colour_sample(sources).facts() == {
        "tokens": 3 * colours_module.TOKENS_PER_SECTION,
        "asked_per_section": 2000,
        "drawn_per_section": 2000,
    }
    per_token = 2 * 6 + 80 + 8 * 3 * 3
    monkeypatch.setattr(colours_module, "SAMPLE_BYTES", 300 * per_token)
    assert colour_sample(sources).facts()["drawn_per_section"] == 100
    monkeypatch.setattr(colours_module, "SAMPLE_BYTES", 300 * per_token - 1)
    assert colour_sample(sources).facts()["drawn_per_section"] == 99
