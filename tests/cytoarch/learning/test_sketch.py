"""The sketch: the same map in tiles, the same bits, classes told by their names, long embeddings by components."""

import numpy as np
import pytest

from cytoarch.brains import LabelClass
from cytoarch.embeddings import EmbedSettings
from cytoarch.errors import ModelError
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.sketch import JOINED_WEIGHT, MARGIN, MOST_OWN, Sketch, SketchFit

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
    found[0, :, size[1] // 2 :] += 8
    return found


def lesson(head: Sketch, embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A stroke in either half."""
    told = head.told(embeddings)
    left, right = told[:, 100, 20:60].T, told[:, 100, 150:190].T
    return np.concatenate([left, right]), np.repeat([0, 1], 40)


@pytest.fixture(scope="module")
def begun() -> Sketch:
    return Sketch.begun(card(), [section()], 0, FIT)


@pytest.fixture(scope="module")
def taught(begun: Sketch) -> Sketch:
    return begun.taught(*lesson(begun, section()), FIT, 100, 0)[0]


def test_two_strokes_tell_two_halves_apart_where_nothing_was_drawn(taught: Sketch) -> None:
    found = taught.probabilities(section(5)[None])[0]
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)
    assert found.shape == (2, 200, 216)
    assert (found[0, :, :80] > 0.5).mean() > 0.95
    assert (found[1, :, 136:] > 0.5).mean() > 0.95


def test_inputs_are_measured_in_their_spread_and_what_joins_them_is_told_louder() -> None:
    head = Sketch.begun(card(), [section(), section(1)], 2, FIT)
    told = np.concatenate([head.told(one).reshape(DIM, -1) for one in (section(), section(1))], axis=1)
    np.testing.assert_allclose(told.mean(axis=1), 0, atol=1e-4)
    np.testing.assert_allclose(told.std(axis=1), [1] * (DIM - 2) + [JOINED_WEIGHT] * 2, rtol=1e-4)


def test_long_embeddings_are_told_by_their_whitened_components() -> None:
    rng = np.random.default_rng(4)
    long = (rng.normal(size=(100, 5)) @ rng.normal(size=(5, 64 * 64))).reshape(100, 64, 64).astype(np.float32)
    long += rng.normal(0, 0.1, long.shape).astype(np.float32)
    head = Sketch.begun(card(dim=101), [np.concatenate([long, long[:1]])], 1, FIT)
    told = head.told(np.concatenate([long, long[:1]])).reshape(MOST_OWN + 1, -1)
    np.testing.assert_allclose(np.cov(told[:MOST_OWN]), np.eye(MOST_OWN), atol=0.01)
    variance = np.linalg.svd(long.reshape(100, -1) / long.reshape(100, -1).std(axis=1)[:, None], compute_uv=False) ** 2
    scale = 1 / np.linalg.norm(head.tensors()["basis"][:MOST_OWN, :100] * long.reshape(100, -1).std(axis=1), axis=1)
    np.testing.assert_allclose(scale[:5] ** 2, variance[:5] / 64**2, rtol=0.02)


@pytest.mark.parametrize("cells", [1, 4])
def test_a_window_with_a_margin_sees_what_the_whole_sees(cells: int) -> None:
    embeddings = section(3, (64, 64))
    head = Sketch.begun(card(cells=cells), [section()], 0, FIT)
    whole = head.probabilities(embeddings[None])[0]
    assert whole.shape[1:] == (64 * cells, 64 * cells)
    wanted = np.random.default_rng(0).random((20 * cells, 30 * cells)) < 0.5
    window = np.ascontiguousarray(embeddings[:, 10 - MARGIN : 30 + MARGIN, 20 - MARGIN : 50 + MARGIN])
    inside = whole[:, 10 * cells : 30 * cells, 20 * cells : 50 * cells]
    np.testing.assert_allclose(head.seen(window, wanted, MARGIN), inside[:, wanted].T, atol=1e-5)


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
