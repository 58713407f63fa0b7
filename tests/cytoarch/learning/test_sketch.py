"""The sketch: surroundings as scipy has them, the same map in tiles, the same bits, classes told by their names."""

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve1d

from cytoarch.brains import LabelClass
from cytoarch.embeddings import EmbedSettings
from cytoarch.errors import ModelError
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.sketch import POOL, REACH_TOKENS, Sketch, SketchFit, _tent

FIT = SketchFit(members=3, hidden=8)
DIM = 6


def card(names: tuple[str, ...] = ("a", "b"), dim: int = DIM, cells: int = 1) -> HeadCard:
    return HeadCard(
        kind="sketch",
        target="areas",
        classes=tuple(LabelClass(name=name, ids=(place + 1,)) for place, name in enumerate(names)),
        dims=(dim,),
        cells_per_token=cells,
        embedding=EmbedSettings(),
        encoder_digest="e0",
        token_px=4 * cells,
        pixel_size_um=4.0,
    )


def section(seed: int = 0, size: tuple[int, int] = (200, 216)) -> np.ndarray:
    """Embeddings (c, y, x) whose second half along x is brighter."""
    found = np.random.default_rng(seed).normal(size=(DIM, *size)).astype(np.float32)
    found[0, :, size[1] // 2 :] += 3
    return found


def lesson(head: Sketch, embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A stroke in either half."""
    told = head.told(embeddings, 0)
    left, right = told[:, 100, 20:60].T, told[:, 100, 150:190].T
    return np.concatenate([left, right]), np.repeat([0, 1], 40)


@pytest.fixture(scope="module")
def begun() -> Sketch:
    return Sketch.begun(card(), [section()], FIT)


@pytest.fixture(scope="module")
def taught(begun: Sketch) -> Sketch:
    return begun.taught(*lesson(begun, section()), FIT, 100, 0)[0]


@pytest.mark.parametrize(("reach", "axis"), [(1, 2), (3, 3), (7, 2)])
def test_surroundings_are_means_with_weights_that_fall_to_zero(reach: int, axis: int) -> None:
    maps = np.random.default_rng(1).random((2, 3, 20, 25)).astype(np.float32)
    weights = np.convolve(np.ones(reach + 1), np.ones(reach + 1)) / (reach + 1) ** 2
    expected = convolve1d(maps, weights, axis=axis, mode="nearest")
    np.testing.assert_allclose(_tent(torch.from_numpy(maps), reach, axis).numpy(), expected, rtol=1e-5)


def test_two_strokes_tell_two_halves_apart_where_nothing_was_drawn(taught: Sketch) -> None:
    found = taught.probabilities(section(5)[None])[0]
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)
    assert found.shape == (2, 200, 216)
    assert (found[0, :, :80] > 0.5).mean() > 0.95
    assert (found[1, :, 136:] > 0.5).mean() > 0.95


def test_inputs_are_measured_in_their_spread_and_components_need_no_labels(begun: Sketch) -> None:
    told = begun.told(section(), 0)
    np.testing.assert_allclose(told.reshape(len(told), -1).std(axis=1), 1, atol=0.02)
    same = Sketch.begun(card(("x", "y", "z")), [section()], FIT)
    np.testing.assert_array_equal(same.tensors()["around"], begun.tensors()["around"])


def test_a_window_with_a_margin_as_wide_as_its_reach_sees_what_the_whole_sees(taught: Sketch) -> None:
    embeddings = section(2, (240, 256))
    whole = taught.probabilities(embeddings[None])[0]
    top, left = 10 * POOL, 11 * POOL
    part = embeddings[:, top - REACH_TOKENS : top + 32 + REACH_TOKENS, left - REACH_TOKENS : left + 40 + REACH_TOKENS]
    found = taught.seen(np.ascontiguousarray(part), REACH_TOKENS)
    np.testing.assert_allclose(found, whole[:, top : top + 32, left : left + 40], atol=1e-5)


def test_cells_finer_than_tokens_are_interpolated_and_do_not_depend_on_the_margin() -> None:
    fine = Sketch.begun(card(cells=4), [section()], FIT)
    embeddings = section(3, (64, 64))
    whole, part = fine.told(embeddings, 0), fine.told(embeddings, 8)
    assert whole.shape[1:] == (256, 256)
    np.testing.assert_allclose(part, whole[:, 32:-32, 32:-32], atol=1e-5)


def test_the_same_strokes_give_the_same_bits_and_later_trainings_go_on(begun: Sketch, taught: Sketch) -> None:
    told, targets = lesson(begun, section())
    again, loss = begun.taught(told, targets, FIT, 100, 0)
    for name, tensor in again.tensors().items():
        np.testing.assert_array_equal(tensor, taught.tensors()[name])
    _, first = begun.taught(told, targets, FIT, 1, 0)
    _, later = taught.taught(told, targets, FIT, 1, 1)
    assert later < 0.3 * first
    assert loss < first


def test_classes_are_told_by_their_names_and_new_ones_are_never_found(taught: Sketch) -> None:
    more = taught.with_classes(card(("c", "b", "a")))
    before, after = (one.probabilities(section()[None])[0] for one in (taught, more))
    np.testing.assert_allclose(after[[2, 1]], before, atol=1e-5)
    assert after[0].max() < 1e-6
    with pytest.raises(ModelError, match="begin anew"):
        taught.with_classes(card(dim=DIM + 1))


def test_weights_come_back_and_others_are_refused(taught: Sketch) -> None:
    again = Sketch.from_tensors(taught.card, taught.tensors())
    np.testing.assert_array_equal(again.probabilities(section()[None]), taught.probabilities(section()[None]))
    with pytest.raises(ModelError, match="networks of 1 to"):
        Sketch.from_tensors(taught.card, {"enter": np.zeros((3, 3), np.float32)})
    with pytest.raises(ModelError, match="do not fit the sketch"):
        Sketch.from_tensors(card(("a", "b", "c")), taught.tensors())
