"""Layers follow each other: bands and depth against planted layers, and when held-out sections ask for them."""

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from cytoarch.errors import ModelError
from cytoarch.learning import ordering
from cytoarch.learning.bands import Bands
from cytoarch.learning.columns import along_depth
from cytoarch.learning.ordering import LEAST_GAIN, Trial, ordered

Float32 = NDArray[np.float32]
LAYERS = 5


def piece(bend: float = 0.0, edge: int = 40) -> tuple[NDArray[np.int64], Float32]:
    """Five layers of different thickness that run obliquely through a piece, and their depth."""
    y, x = np.mgrid[:edge, :edge] / edge
    depth = np.clip((y + 0.4 * x + bend * (x - 0.5) ** 2) / 1.5, 0, 1)
    return np.digitize(depth, [0.2, 0.3, 0.55, 0.8]), depth.astype(np.float32)


def said(truth: NDArray[np.int64], hits: float, seed: int = 0) -> Float32:
    """Probabilities of a head that is right in a share of the cells, and no surer where it is right."""
    rng = np.random.default_rng(seed)
    told = np.where(rng.random(truth.shape) < hits, truth, rng.integers(0, LAYERS, truth.shape))
    return np.where(np.arange(LAYERS)[:, None, None] == told, 0.6, 0.1).astype(np.float32)


@pytest.mark.parametrize("bend", [0.0, 0.8])
def test_bands_find_layers_in_the_noise_of_a_head(bend: float) -> None:
    truth, _ = piece(bend)
    heard = said(truth, hits=0.4)
    everywhere = np.ones(truth.shape, dtype=bool)
    bands = Bands.fit(heard, everywhere)
    shares = bands.shares(truth.shape)
    np.testing.assert_allclose(shares.sum(axis=0), 1, atol=1e-5)
    assert (np.diff(bands.cuts) > 0).all()
    before, after = ((one.argmax(axis=0) == truth).mean() for one in (heard, shares))
    assert before < 0.6
    assert after > 0.8
    np.testing.assert_array_equal(shares, Bands.fit(heard, everywhere).shares(truth.shape))


def test_bands_are_told_by_what_lies_inside_only() -> None:
    truth, _ = piece()
    heard = said(truth, hits=0.5)
    inside = np.zeros(truth.shape, dtype=bool)
    inside[:, :25] = True
    other = np.where(inside, heard, heard[::-1])
    np.testing.assert_array_equal(
        Bands.fit(heard, inside).shares(truth.shape), Bands.fit(other, inside).shares(truth.shape)
    )


def test_along_depth_layers_follow_each_other_and_noise_is_outvoted() -> None:
    truth, depth = piece()
    heard = said(truth, hits=0.4)
    cortex = np.ones(truth.shape, dtype=bool)
    cortex[:3] = False
    shares = along_depth(heard, depth, cortex)
    np.testing.assert_allclose(shares.sum(axis=0)[cortex], 1, atol=1e-4)
    assert not shares[:, ~cortex].any()
    drawn = shares.argmax(axis=0)
    assert (heard.argmax(axis=0) == truth)[cortex].mean() < 0.6
    assert (drawn == truth)[cortex].mean() > 0.8
    assert np.corrcoef(depth[cortex], drawn[cortex])[0, 1] > 0.9
    assert not along_depth(heard, depth, np.zeros_like(cortex)).any()


def test_what_is_sure_and_known_stays() -> None:
    truth, depth = piece()
    sure = np.where(np.arange(LAYERS)[:, None, None] == truth, 0.99, 0.0025).astype(np.float32)
    everywhere = np.ones(truth.shape, dtype=bool)
    for order in ("none", "bands", "depth"):
        drawn = (sure * ordered(sure, everywhere, order, depth, everywhere)).argmax(axis=0)
        assert (drawn == truth).mean() > 0.99, order


def test_without_cortex_or_tissue_nothing_is_changed_and_areas_are_not_followed() -> None:
    truth, depth = piece()
    heard, nothing = said(truth, 0.5), np.zeros(truth.shape, dtype=bool)
    assert (ordered(heard, nothing, "bands") == 1).all()
    assert (ordered(heard, ~nothing, "depth", depth, nothing) == 1).all()
    with pytest.raises(ModelError, match="113 classes"):
        ordered(np.full((113, 20, 20), 1 / 113, dtype=np.float32), np.ones((20, 20), dtype=bool), "bands")


class Told:
    """A head that says what its sections were given."""

    card = SimpleNamespace(target="layers", classes=tuple(range(LAYERS)), cells_per_token=1)


def shown(monkeypatch: pytest.MonkeyPatch, truth: NDArray[np.int64], heard: Float32, target: str = "layers") -> Trial:
    monkeypatch.setattr(ordering, "predict_bands", lambda *_: iter([(0, heard[:, :17]), (17, heard[:, 17:])]))
    embeddings = SimpleNamespace(grid=truth.shape, inside=lambda _: np.ones(truth.shape, dtype=bool))
    section = SimpleNamespace(section_id="s", embeddings=embeddings, tissue=None, targets=lambda *_: truth)
    head = Told()
    head.card = SimpleNamespace(**{**vars(Told.card), "target": target})
    return Trial.of(head, [section, section])


def test_bands_are_chosen_where_held_out_sections_ask_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, _ = piece()
    asked = shown(monkeypatch, truth, said(truth, hits=0.4))
    assert asked.plain.sum() == asked.bands.sum() == 2 * truth.size
    chosen = asked.chosen()
    assert chosen is not None
    assert chosen.order == "bands"
    assert chosen.bands - chosen.plain >= LEAST_GAIN
    sure = shown(monkeypatch, truth, said(truth, hits=1.0)).chosen()
    assert sure is not None
    assert (sure.order, sure.plain) == ("none", 1.0)
    mixed = np.random.default_rng(0).integers(0, LAYERS, truth.shape)  # no bands at all
    checkered = shown(monkeypatch, mixed, said(mixed, hits=0.5)).chosen()
    assert checkered is not None
    assert checkered.order == "none"


def test_areas_and_sections_without_labels_choose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, _ = piece()
    assert shown(monkeypatch, truth, said(truth, 0.4), "areas").chosen() is None
    assert shown(monkeypatch, np.full_like(truth, -1), said(truth, 0.4)).chosen() is None


def test_large_sections_are_tried_on_every_so_many_th_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordering, "COARSE_CELLS", 14)
    truth, _ = piece()
    heard = said(truth, hits=0.4)
    assert shown(monkeypatch, truth, heard).plain.sum() == 2 * truth[::3, ::3].size
    expected = 2 * (heard.argmax(axis=0) == truth)[::3, ::3].sum()
    assert np.trace(shown(monkeypatch, truth, heard).plain) == expected
