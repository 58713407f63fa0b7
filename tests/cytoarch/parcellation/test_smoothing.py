"""Smoothed probabilities and the label maps made from them."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn import metrics

from cytoarch.anatomy.depth_maps import DepthMap
from cytoarch.brains import LabelClass
from cytoarch.errors import SectionError
from cytoarch.geometry import Grid
from cytoarch.images import layout
from cytoarch.images.layout import Pyramid, level_count
from cytoarch.images.pyramids import write_pyramid
from cytoarch.images.views import Level, StoredImage, View
from cytoarch.learning import targets
from cytoarch.learning.smoothing import drawn_channels, smooth_probabilities
from cytoarch.learning.targets import targets_on_grid
from cytoarch.parcellation import smoothing
from cytoarch.parcellation.drawing import CONFIDENCE
from cytoarch.parcellation.smoothing import SmoothSettings, label_level, score_label_map, write_parcellation
from cytoarch.parcellation.sparse import Likeliest, SparseProbabilities, SparseWriter
from cytoarch.store.staging import Staging
from cytoarch.tiling import partition
from cytoarch.variation import denoised

CLASSES = (LabelClass(name="a", ids=(4, 2)), LabelClass(name="b", ids=(300,)), LabelClass(name="c", ids=(7,)))


def probabilities_of(channels: int, height: int, width: int, seed: int = 0, size: float = 3.0) -> np.ndarray:
    """Smooth random regions under noise, on the simplex."""
    rng = np.random.default_rng(seed)
    logits = ndimage.gaussian_filter(rng.normal(0, 1, (channels, height, width)), (0, size, size)) * size * 8
    powers = np.exp(logits + rng.normal(0, 0.7, logits.shape))
    return (powers / powers.sum(axis=0)).astype(np.float32)


def total_variation(field: np.ndarray) -> float:
    """Isotropic, summed over channels, as Rudin, Osher and Fatemi define it."""
    down = np.diff(field, axis=1, append=field[:, -1:])
    right = np.diff(field, axis=2, append=field[:, :, -1:])
    return float(np.sqrt(down**2 + right**2).sum())


@pytest.mark.parametrize("weight", [0.05, 0.15, 1.0])
def test_a_constant_stays_as_it_is(weight: float):
    p = np.broadcast_to(np.array([0.2, 0.5, 0.3], dtype=np.float32)[:, None, None], (3, 20, 30))
    np.testing.assert_allclose(smooth_probabilities(p, weight), p, atol=1e-6)


def test_without_weight_nothing_changes():
    p = probabilities_of(3, 20, 30)
    np.testing.assert_array_equal(smooth_probabilities(p, 0), p)
    np.testing.assert_allclose(smooth_probabilities(p, 1e-6), p, atol=1e-4)


@given(
    channels=st.integers(2, 6), weight=st.floats(0.01, 2), seed=st.integers(0, 1000), size=st.sampled_from([0.7, 3.0])
)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_the_result_is_on_the_simplex_and_varies_no_more_than_before(
    channels: int, weight: float, seed: int, size: float
):
    p = probabilities_of(channels, 24, 31, seed, size)
    smooth = smooth_probabilities(p, weight)
    assert smooth.shape == p.shape
    assert smooth.dtype == np.float32
    assert smooth.min() >= 0
    np.testing.assert_allclose(smooth.sum(axis=0), 1, atol=1e-5)
    assert total_variation(smooth) <= total_variation(p)


def test_more_weight_varies_less():
    p = probabilities_of(4, 40, 40)
    variations = [total_variation(smooth_probabilities(p, weight)) for weight in (0, 0.05, 0.15, 0.5)]
    assert variations == sorted(variations, reverse=True)


def test_two_classes_are_treated_alike():
    p = probabilities_of(2, 30, 30)
    np.testing.assert_allclose(smooth_probabilities(p[::-1], 0.15), smooth_probabilities(p, 0.15)[::-1], atol=1e-6)


def test_single_cells_of_noise_are_cleaned_and_the_border_stays():
    truth = np.zeros((40, 40), dtype=int)
    truth[:, 20:] = 1
    noisy = truth.copy()
    noisy[np.random.default_rng(0).random(truth.shape) < 0.08] ^= 1
    p = np.where(np.arange(2)[:, None, None] == noisy, 0.75, 0.25).astype(np.float32)
    assert (smooth_probabilities(p, 0.3).argmax(axis=0) == truth).mean() > 0.98 > (noisy == truth).mean()


# -- in the store ----------------------------------------------------------------------------------------------------


def stored(folder: Path, pixels: np.ndarray, size_um: float, origin_um: float = 0.0, levels: int | None = None, **own):
    journal = Staging(folder).open()
    count = levels or level_count(*pixels.shape[-2:])
    pyramid = Pyramid(pixels.shape, pixels.dtype, size_um, "mean", levels=count, origin_um=origin_um)
    write_pyramid(
        journal, pyramid, lambda y, x, h, w: pixels[..., y : y + h, x : x + w], name="image", own_attributes=own or None
    )
    return StoredImage.open(journal.path)


def section_of(folder: Path, height: int, width: int, size_um: float, levels: int = 1) -> StoredImage:
    return stored(folder, np.zeros((1, height, width), dtype=np.uint8), size_um, levels=levels)


def parcellated(
    folder: Path, image, probabilities, classes=CLASSES, weight: float = 0.15, level=None, threads: int = 1
):
    journal = Staging(folder).open()
    facts = write_parcellation(journal, image, probabilities, classes, weight, level, "areas", threads=threads)
    return StoredImage.open(journal.path), StoredImage.open(journal.path / "labels" / "areas"), facts


def with_outside(p: np.ndarray, share: float = 0.2) -> np.ndarray:
    """Probabilities (k + 1, y, x) of classes (k, y, x) in tissue, which leaves out the first rows."""
    outside = np.zeros(p.shape[1:], dtype=np.float32)
    outside[: int(share * p.shape[1])] = 1
    return np.concatenate([outside[None], p * (1 - outside)]).astype(np.float32)


def stored_probabilities(
    folder: Path, p: np.ndarray, cell_um: float = 16.0, section_um: float = 4.0, kept: int = 3
) -> SparseProbabilities:
    """Kept sparse, all of three classes; `p` (k + 1, y, x)."""
    journal = Staging(folder).open()
    grid = Grid.at_corner(p.shape[1:], cell_um, (-section_um / 2, -section_um / 2))
    writer = SparseWriter.create(journal, grid, tuple(f"channel {one}" for one in range(len(p))), kept, 1)
    cells = Likeliest.of(p[1:], kept).masked(p[0] == 0)
    for y, x, height, width in partition(*grid.shape, writer.edge):
        part = Likeliest(*(one[:, y : y + height, x : x + width] for one in cells))
        writer.write(y // writer.edge, x // writer.edge, part)
    writer.close()
    return SparseProbabilities.open(journal.path)


@pytest.mark.parametrize("order", ["bands", "depth"])
def test_layers_follow_each_other_and_what_is_outside_stays(tmp_path: Path, order, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(layout, "CHUNK_PX", 64)
    monkeypatch.setattr(layout, "SHARD_CHUNKS", 1)
    truth = np.repeat(np.arange(3), [20, 40, 60])[:, None].repeat(90, axis=1)
    rng = np.random.default_rng(0)
    told = np.where(rng.random(truth.shape) < 0.5, truth, rng.integers(0, 3, truth.shape))
    p = np.where(np.arange(3)[:, None, None] == told, 0.5, 0.25).astype(np.float32)
    outside = np.zeros((1, *truth.shape), dtype=np.float32)
    outside[:, :, :7] = 1
    probabilities = stored_probabilities(tmp_path / "p", np.concatenate([outside, p * (1 - outside)]), section_um=16.0)
    image = section_of(tmp_path / "section", 120, 90, 16.0)
    depth = np.linspace(0, 1, 120, dtype=np.float32)[:, None].repeat(90, axis=1)
    known = DepthMap(depth, np.ones(depth.shape, dtype=np.uint8), probabilities.grid)
    journal = Staging(tmp_path / "out").open()
    facts = write_parcellation(journal, image, probabilities, CLASSES, 0.0, None, "layers", order, known)
    assert facts["order"] == order
    found = np.asarray(StoredImage.open(journal.path / "labels" / "layers").levels[0].array)
    np.testing.assert_array_equal(found == 0, outside[0] == 1)
    right = (found == np.array([4, 300, 7])[truth])[:, 7:].mean()
    assert right > (told == truth)[:, 7:].mean() + 0.15
    assert right > 0.9


def test_the_model_says_how_classes_follow_each_other_unless_it_is_asked_for():
    card = SimpleNamespace(order="bands", smooth_weight=0.1)
    assert SmoothSettings().order_for(card) == "bands"
    assert SmoothSettings(order="none").order_for(card) == "none"


def of_the_class_shown(smooth: np.ndarray) -> np.ndarray:
    """The probability of the most likely class in tissue, from smoothed probabilities (k + 1, y, x)."""
    return smooth[1:].max(axis=0) / smooth[1:].sum(axis=0)


def test_maps_drawn_in_windows_are_those_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    p = with_outside(probabilities_of(3, 200, 330, size=6.0))
    probabilities = stored_probabilities(tmp_path / "p", p)
    image = section_of(tmp_path / "section", 800, 1320, 4.0, levels=3)
    monkeypatch.setattr(smoothing, "WINDOW_CELLS", 50)
    monkeypatch.setattr(smoothing, "SHARD_PX", 128)
    monkeypatch.setattr(layout, "CHUNK_PX", 64)
    confidence, labels, _ = parcellated(tmp_path / "out", image, probabilities, threads=3)
    assert confidence.levels[0].array.shards[-1] == labels.levels[0].array.shards[-1] == 128
    smooth = smooth_probabilities(p, 0.15)
    drawn = np.asarray(labels.levels[0].array)
    ahead = np.diff(np.sort(smooth, axis=0)[-2:], axis=0)[0] > 1e-3
    np.testing.assert_array_equal(drawn[ahead], np.array([0, 4, 300, 7])[drawn_channels(smooth)][ahead])
    assert ahead.mean() > 0.99
    shown = np.asarray(confidence.levels[0].array)
    inside = drawn > 0
    np.testing.assert_array_equal(shown[0] == 255, inside)
    np.testing.assert_allclose(shown[1][inside] / 255, of_the_class_shown(smooth)[inside], atol=4e-3)
    assert (shown[:, ~inside] == 0).all()


def test_the_label_map_is_the_most_probable_class_under_its_first_id(tmp_path: Path):
    p = with_outside(probabilities_of(3, 40, 60))
    image = section_of(tmp_path / "section", 160, 240, 4.0, levels=3)
    confidence, labels, facts = parcellated(tmp_path / "out", image, stored_probabilities(tmp_path / "p", p))
    values = np.array([0, 4, 300, 7])
    drawn = np.asarray(labels.levels[0].array)
    assert drawn.shape == (40, 60)
    assert drawn.dtype == np.uint16
    assert facts == {"pixel_size_um": 16.0, "grid": [40, 60], "smooth_weight": 0.15, "order": "none"}
    np.testing.assert_array_equal(drawn, values[drawn_channels(smooth_probabilities(p, 0.15))])
    assert len(confidence.levels) == len(labels.levels)


def test_how_sure_a_map_is_by_hand(tmp_path: Path):
    p = np.zeros((4, 3, 1), dtype=np.float32)
    p[0, 0] = 1
    p[1:, 1, 0] = 0.7, 0.1, 0.2
    p[1:, 2, 0] = 1 / 3, 1 / 3, 1 / 3
    image = section_of(tmp_path / "section", 3, 1, 16.0)
    probabilities = stored_probabilities(tmp_path / "p", p, section_um=16.0)
    confidence, labels, _ = parcellated(tmp_path / "out", image, probabilities, weight=0)
    assert np.asarray(labels.levels[0].array).ravel().tolist() == [0, 4, 4]
    entropy = -sum(one * np.log(one) for one in (0.7, 0.1, 0.2)) / np.log(3)
    expected = np.array([[0, 0, 0, 0], [1, 0.7, 0.5, entropy], [1, 1 / 3, 0, 1]])
    np.testing.assert_allclose(np.asarray(confidence.levels[0].array)[:, :, 0].T, expected * 255, atol=0.51)
    assert confidence.attributes["channels"][0] == "in tissue"


def test_classes_that_cells_do_not_name_join_none_and_lower_the_probability_of_what_is_shown(tmp_path: Path):
    p = with_outside(probabilities_of(9, 60, 80, size=4.0))
    classes = tuple(LabelClass(name=f"c{one}", ids=(one,)) for one in range(1, 10))
    image = section_of(tmp_path / "section", 60, 80, 16.0)
    drawn = []
    for kept in (9, 2):
        source = stored_probabilities(tmp_path / f"p{kept}", p, section_um=16.0, kept=kept)
        confidence, labels, _ = parcellated(tmp_path / f"{kept}", image, source, classes, weight=0.0)
        np.testing.assert_array_equal(labels.levels[0].array, p.argmax(axis=0))
        drawn.append(np.asarray(confidence.levels[0].array)[1:3].astype(int))
    assert np.abs(drawn[0] - drawn[1]).max() <= 1
    smooth = [
        np.asarray(
            parcellated(
                tmp_path / f"s{kept}",
                image,
                stored_probabilities(tmp_path / f"q{kept}", p, section_um=16.0, kept=kept),
                classes,
                weight=0.1,
            )[1]
            .levels[0]
            .array
        )
        for kept in (9, 3)
    ]
    assert (smooth[0] == smooth[1]).mean() > 0.98


def test_few_ids_take_one_byte(tmp_path: Path):
    classes = tuple(LabelClass(name=f"c{i}", ids=(i,)) for i in (1, 2, 255))
    image = section_of(tmp_path / "section", 80, 80, 4.0)
    p = stored_probabilities(tmp_path / "p", with_outside(probabilities_of(3, 20, 20)))
    _, labels, _ = parcellated(tmp_path / "out", image, p, classes, level=0)
    assert labels.levels[0].array.dtype == np.uint8
    assert set(np.unique(labels.levels[0].array)) <= {0, 1, 2, 255}


def test_renumbering_the_classes_renumbers_the_map_and_nothing_else(tmp_path: Path):
    p = with_outside(probabilities_of(3, 30, 40))
    image = section_of(tmp_path / "section", 120, 160, 4.0)
    kept = stored_probabilities(tmp_path / "p", p)
    swapped = stored_probabilities(tmp_path / "q", p[[0, 3, 1, 2]])
    order = tuple(CLASSES[i] for i in (2, 0, 1))
    one, other = (
        np.asarray(parcellated(tmp_path / name, image, source, classes, level=0)[1].levels[0].array)
        for name, source, classes in (("one", kept, CLASSES), ("other", swapped, order))
    )
    np.testing.assert_array_equal(one, other)
    moved = tuple(LabelClass(name=c.name, ids=(1000 + c.ids[0],)) for c in CLASSES)
    renumbered = np.asarray(parcellated(tmp_path / "moved", image, kept, moved, level=0)[1].levels[0].array)
    np.testing.assert_array_equal(renumbered, np.where(one > 0, one.astype(int) + 1000, 0))


def test_outside_tissue_is_zero_where_channel_zero_prevails(tmp_path: Path):
    p = np.zeros((4, 20, 20), dtype=np.float32)
    p[0, :10], p[2, 10:] = 1, 1
    image = section_of(tmp_path / "section", 80, 80, 4.0)
    _, labels, _ = parcellated(tmp_path / "out", image, stored_probabilities(tmp_path / "p", p), level=0)
    drawn = np.asarray(labels.levels[0].array)
    assert (drawn[:36] == 0).all()
    assert (drawn[44:] == 300).all()


@pytest.mark.parametrize("weight", [0.0, 0.05])
def test_tissue_ends_where_it_ends_however_unsure_its_classes_are(tmp_path: Path, weight: float):
    p = np.full((4, 20, 20), 1 / 3, dtype=np.float32)
    p[0], p[0, :10], p[1:, :10] = 0, 1, 0
    image = section_of(tmp_path / "section", 80, 80, 4.0)
    source = stored_probabilities(tmp_path / "p", p)
    _, labels, _ = parcellated(tmp_path / "out", image, source, weight=weight, level=0)
    drawn = np.asarray(labels.levels[0].array)
    np.testing.assert_array_equal(drawn > 0, np.arange(80)[:, None] >= np.full(80, 40))


@pytest.mark.parametrize(("level", "chosen"), [(None, 2), (0, 0), (1, 1), (3, 3), (9, 3)])
def test_maps_are_drawn_on_the_level_asked_for_or_that_closest_to_the_cells(
    tmp_path: Path, level: int | None, chosen: int
):
    image = section_of(tmp_path / "section", 160, 240, 4.0, levels=4)
    assert label_level([one.pixel_size_um for one in image.levels], 16.0, level) == chosen
    p = with_outside(probabilities_of(3, 40, 60))
    _, labels, facts = parcellated(tmp_path / "out", image, stored_probabilities(tmp_path / "p", p), level=level)
    target = image.levels[chosen]
    drawn = labels.levels[0]
    assert drawn.size == target.size
    assert drawn.pixel_size_um == target.pixel_size_um == facts["pixel_size_um"]
    assert drawn.origin_um == target.origin_um


@pytest.mark.parametrize(("cell_um", "chosen"), [(1.0, 0), (4.0, 0), (7.0, 1), (10.0, 1), (12.0, 2), (100.0, 3)])
def test_closest_means_closest_in_ratio(cell_um: float, chosen: int):
    assert label_level([4.0, 8.0, 16.0, 32.0], cell_um, None) == chosen


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_a_region_keeps_its_physical_place_on_every_level(tmp_path: Path, level: int):
    p = np.zeros((4, 40, 60), dtype=np.float32)
    p[0] = 1
    p[:, 10:25, 20:44] = np.array([0, 1, 0, 0])[:, None, None]
    image = section_of(tmp_path / "section", 160, 240, 4.0, levels=4)
    _, labels, _ = parcellated(tmp_path / "out", image, stored_probabilities(tmp_path / "p", p), weight=0, level=level)
    drawn = labels.levels[0]
    where = np.argwhere(np.asarray(drawn.array) == 4) * drawn.pixel_size_um + drawn.origin_um
    truth = np.array([[10, 20], [25, 44]]).mean(axis=0) * 16.0 - 2.0
    # half-way cells may fall to either side, so the place is good to half a cell
    assert np.abs(where.mean(axis=0) - truth).max() <= max(8.0, drawn.pixel_size_um / 2)


def test_a_label_map_is_scored_as_scikit_learn_scores_it():
    rng = np.random.default_rng(0)
    truth = rng.choice([0, 2, 4, 300, 7, 99], (30, 40)).astype(np.uint16)
    drawn = rng.choice([0, 4, 300, 7], (30, 40)).astype(np.uint16)
    label_map = StoredImage((Level(drawn, 8.0, 0.0),), {})
    confusion, pair = score_label_map(label_map, Level(truth, 8.0, 0.0), CLASSES)
    index = {0: -1, 2: 0, 4: 0, 300: 1, 7: 2, 99: -1}
    known, given_ = (np.vectorize(index.get)(values).ravel() for values in (truth, drawn))
    labelled = known >= 0
    expected = metrics.confusion_matrix(known[labelled], given_[labelled], labels=[-1, 0, 1, 2])
    np.testing.assert_array_equal(confusion, expected)
    assert confusion[0].sum() == 0
    np.testing.assert_array_equal(pair.truth.ravel(), known)
    np.testing.assert_array_equal(pair.drawn.ravel(), np.where(labelled, given_, -1))
    assert sorted(pair.boundaries(8.0)) == [0, 1, 2]


def test_a_map_scored_against_itself_is_perfect():
    drawn = np.random.default_rng(1).choice([0, 4, 300, 7], (30, 40)).astype(np.uint16)
    confusion, _ = score_label_map(StoredImage((Level(drawn, 8.0, 0.0),), {}), Level(drawn, 8.0, 0.0), CLASSES)
    np.testing.assert_array_equal(confusion, np.diag(np.diag(confusion)))
    assert confusion.sum() == (drawn > 0).sum()


def test_what_is_written_is_smoothed_as_strongly_as_asked(tmp_path: Path):
    p = with_outside(probabilities_of(3, 40, 60))
    image, source = section_of(tmp_path / "section", 160, 240, 4.0), stored_probabilities(tmp_path / "p", p)
    values = np.array([0, 4, 300, 7])
    drawn = []
    for weight in (0.0, 0.15, 2.0):
        _, labels, _ = parcellated(tmp_path / f"{weight}", image, source, weight=weight, level=None)
        smooth = np.stack([np.maximum(denoised(channel, weight), 0) for channel in p]) if weight else p
        fine = View(Level(smooth, 16.0, 6.0), image.grid).read(0, 0, *image.grid.shape)
        fine /= fine.sum(axis=0)
        ahead = (np.diff(np.sort(fine[1:], axis=0)[-2:], axis=0)[0] > 1e-3) | (fine[0] > 0.5)
        ahead &= np.abs(fine[0] - 0.5) > 1e-3
        drawn.append(np.asarray(labels.levels[0].array))
        np.testing.assert_array_equal(drawn[-1][ahead], values[drawn_channels(fine)][ahead])
        assert ahead.mean() > 0.98
    assert (drawn[0] != drawn[1]).any()
    assert (drawn[1] != drawn[2]).any()


def test_coarser_maps_average_cells_by_two_before_they_interpolate(tmp_path: Path):
    p = with_outside(probabilities_of(3, 48, 64, size=4.0), 0)
    image = section_of(tmp_path / "section", 192, 256, 4.0, levels=6)
    _, labels, _ = parcellated(tmp_path / "out", image, stored_probabilities(tmp_path / "p", p), weight=0, level=4)
    means = p.reshape(4, 12, 4, 16, 4).mean(axis=(2, 4))
    np.testing.assert_array_equal(labels.levels[0].array, np.array([0, 4, 300, 7])[drawn_channels(means)])


def test_coarser_levels_of_a_label_map_hold_the_most_frequent_of_four(tmp_path: Path):
    p = with_outside(probabilities_of(3, 30, 301, size=0.7))
    image = section_of(tmp_path / "section", 120, 1204, 4.0, levels=3)
    confidence, labels, _ = parcellated(tmp_path / "out", image, stored_probabilities(tmp_path / "p", p), weight=0)
    assert len(labels.levels) == len(confidence.levels) == 2
    fine, coarse = (np.asarray(level.array) for level in labels.levels)
    unanimous = 0
    for (y, x), value in np.ndenumerate(coarse):
        counts = Counter(fine[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].ravel().tolist()).most_common()
        assert counts[0][1] == dict(counts)[int(value)]
        unanimous += len(counts) == 1
    assert unanimous < coarse.size / 2
    fine, coarse = (np.asarray(level.array).astype(float) for level in confidence.levels)
    means = fine[..., :300].reshape(4, 15, 2, 150, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(coarse[..., :150], means, atol=0.51)


def test_the_map_says_what_its_values_and_channels_mean(tmp_path: Path):
    p = stored_probabilities(tmp_path / "p", with_outside(probabilities_of(3, 20, 20)))
    coloured = (CLASSES[0].model_copy(update={"colour": "#102030"}), *CLASSES[1:])
    confidence, _, _ = parcellated(tmp_path / "out", section_of(tmp_path / "s", 80, 80, 4.0), p, coloured)
    assert confidence.attributes["channels"] == list(CONFIDENCE)
    group = zarr.open_group(tmp_path / "out" / "content", mode="r")
    assert group["labels"].attrs["ome"]["labels"] == ["areas"]
    assert group.attrs["ome"]["multiscales"][0]["name"] == "confidence"
    stated = group["labels/areas"].attrs["ome"]
    assert stated["multiscales"][0]["name"] == "areas"
    colours = {one["label-value"]: one["rgba"] for one in stated["image-label"]["colors"]}
    assert set(colours) >= {4, 300, 7}
    assert colours[4][:3] == [16, 32, 48]
    assert len({tuple(one) for one in colours.values()}) == len(colours)
    names = {one["label-value"]: one for one in stated["image-label"]["properties"]}
    assert ["a" in str(names[4]), "b" in str(names[300]), "c" in str(names[7])] == [True] * 3


def test_what_an_earlier_run_drew_is_not_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A run that ends amid the finest level goes on with the shards that are missing, to the same bytes."""
    monkeypatch.setattr(smoothing, "SHARD_PX", 64)
    monkeypatch.setattr(layout, "CHUNK_PX", 64)
    p = stored_probabilities(tmp_path / "p", with_outside(probabilities_of(3, 100, 130)))
    image = section_of(tmp_path / "section", 400, 520, 4.0, levels=3)
    parcellated(tmp_path / "whole", image, p)
    asked: list[tuple[int, ...]] = []
    drawn = smoothing.draw_window

    def counted(source: SparseProbabilities, target: Grid, window: tuple[int, int, int, int], weight: float):
        asked.append(window)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return drawn(source, target, window, weight)

    monkeypatch.setattr(smoothing, "draw_window", counted)
    with pytest.raises(KeyboardInterrupt):
        parcellated(tmp_path / "cut", image, p)
    parcellated(tmp_path / "cut", image, p)
    assert len(asked) == len(set(asked)) + 1 == 2 * 3 + 1
    one, other = (
        {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
        for folder in (tmp_path / "whole" / "content", tmp_path / "cut" / "content")
    )
    assert one == other


def damage(level: Level) -> None:
    """Spoil every file of a level."""
    for path in Path(level.array.store.root, "c").rglob("*"):
        if path.is_file():
            path.write_bytes(b"\xff" * path.stat().st_size)


@pytest.mark.parametrize("image", ["channels", "shares"])
def test_damaged_probabilities_cost_the_section(tmp_path: Path, image: str):
    p = stored_probabilities(tmp_path / "p", with_outside(probabilities_of(3, 20, 20)))
    damage(getattr(p, image))
    with pytest.raises(SectionError, match="damaged"):
        parcellated(tmp_path / "out", section_of(tmp_path / "s", 80, 80, 4.0), p)


def test_damaged_maps_and_labels_cost_the_section(tmp_path: Path):
    values = np.ones((30, 40), dtype=np.uint8)
    whole, spoilt = (stored(tmp_path / name, values, 8.0) for name in ("whole", "spoilt"))
    damage(spoilt.levels[0])
    for label_map, labels in ((whole, spoilt), (spoilt, whole)):
        with pytest.raises(SectionError, match="damaged"):
            score_label_map(label_map, labels.levels[0], (LabelClass(name="a", ids=(1,)),))


@pytest.mark.parametrize("cell_um", [8.0, 3.3, 21.0])
def test_a_map_is_scored_where_it_lies_whatever_its_cells_and_however_little_is_held(monkeypatch, cell_um: float):
    rng = np.random.default_rng(4)
    truth = Level(np.kron(rng.choice([0, 4, 300, 7], (30, 40)), np.ones((4, 4), int)).astype(np.uint16), 2.0, 0.0)
    grid = truth.grid.covered_by(cell_um)
    drawn = Level(rng.choice([0, 4, 300, 7], grid.shape).astype(np.uint16), cell_um, grid.origin_um[0])
    confusion, _ = score_label_map(StoredImage((drawn,), {}), truth, CLASSES)
    monkeypatch.setattr(smoothing, "SCORED_CELLS", 50)
    monkeypatch.setattr(targets.target_bands, "__defaults__", (4096,))
    np.testing.assert_array_equal(score_label_map(StoredImage((drawn,), {}), truth, CLASSES)[0], confusion)
    known = targets_on_grid(truth, CLASSES, grid)
    index = {0: 0, 4: 1, 300: 2, 7: 3}
    given_ = np.vectorize(index.get)(drawn.array)
    labelled = known >= 0
    np.testing.assert_array_equal(
        confusion, metrics.confusion_matrix(known[labelled] + 1, given_[labelled], labels=[0, 1, 2, 3])
    )
