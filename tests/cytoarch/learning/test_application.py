"""Heads on whole sections: the same whatever the tiles, in bands of stated size."""

import numpy as np
import pytest

from cytoarch.errors import ModelError
from cytoarch.learning import application
from cytoarch.learning.application import HALO_TOKENS, Layout, layout, predict_bands


class Counting:
    """A head that gives what it is asked, and remembers the tiles it was given."""

    def __init__(self, card, bytes_per_token: int) -> None:
        self.card, self.bytes_per_token, self.tiles = card, bytes_per_token, []

    def probabilities(self, embeddings):
        self.tiles.append(embeddings.shape)
        u = self.card.cells_per_token
        return np.repeat(np.repeat(embeddings[:, : len(self.card.classes)], u, 2), u, 3)

    def tensors(self):
        return {}


@pytest.mark.parametrize("cells", [1, 4])
@pytest.mark.parametrize(("band_bytes", "tile_bytes"), [(1 << 30, 1 << 30), (9000, 1 << 30), (1, 1), (1 << 30, 40_000)])
def test_bands_cover_the_section_once_whatever_their_bytes(
    card, in_store, monkeypatch: pytest.MonkeyPatch, cells: int, band_bytes: int, tile_bytes: int
):
    monkeypatch.setattr(application, "BAND_BYTES", band_bytes)
    monkeypatch.setattr(application, "TILE_BYTES", tile_bytes)
    grid = (7, 11) if tile_bytes == 1 else (61, 70)
    values = np.random.default_rng(0).random((4, *grid)).astype(np.float16)
    head, seen = Counting(card("probe", (4,), cells), 100), []
    bands = list(predict_bands(head, in_store([values]), lambda *at: seen.append(at)))
    whole = np.concatenate([band for _, band in bands], axis=1)
    np.testing.assert_array_equal(whole, np.repeat(np.repeat(values[:3].astype(np.float32), cells, 1), cells, 2))
    assert [row for row, _ in bands] == np.cumsum([0, *(band.shape[1] for _, band in bands)])[:-1].tolist()
    shape = layout(head, grid[1])
    steps = -(-grid[0] // shape.rows) * -(-grid[1] // shape.columns)
    assert seen[-1] == (steps, steps)
    assert seen == sorted(set(seen))
    assert sum(tiles[0] for tiles in head.tiles) == steps
    if band_bytes > 1:
        assert all(2 * band.nbytes <= band_bytes for _, band in bands) or shape.rows == 1
    for b, _, y, x in head.tiles:
        assert b * y * x * 100 <= tile_bytes or (b, y, x) == (1, 9, 9)


def test_the_usual_tile_is_one_of_64_tokens_and_four_are_computed_at_once(card):
    assert layout(Counting(card("probe", (4,)), 1), 1000) == Layout(56, 56, 4)


def test_a_layout_follows_its_bytes(card, monkeypatch: pytest.MonkeyPatch):
    head = Counting(card("probe", (4,), 4), 1000)
    row = 4 * 3 * 4 * 4 * 100  # bytes of a row of 100 tokens: float32, 3 classes, 4 x 4 cells
    for band, rows in ((2 * row * 10, 10), (2 * row * 10 - 1, 9), (2 * row - 1, 1)):
        monkeypatch.setattr(application, "BAND_BYTES", band)
        assert layout(head, 100).rows == rows
    monkeypatch.setattr(application, "BAND_BYTES", 1 << 40)
    for edge, batch in ((64, 4), (64, 3), (64, 1), (30, 1), (10, 1)):
        monkeypatch.setattr(application, "TILE_BYTES", 1000 * edge**2 * batch)
        kept = edge - 2 * HALO_TOKENS
        assert layout(head, 100) == Layout(kept, kept, batch) or edge < 64
        shape = layout(head, 100)
        assert shape.batch * (shape.rows + 8) * (shape.columns + 8) <= edge**2 * batch


def test_a_low_band_lets_more_tiles_be_computed_at_once(card, monkeypatch: pytest.MonkeyPatch):
    head = Counting(card("probe", (4,)), 1000)
    monkeypatch.setattr(application, "BAND_BYTES", 1)
    monkeypatch.setattr(application, "TILE_BYTES", 1000 * 64 * 64)
    assert layout(head, 100) == Layout(1, 56, 4)


def test_embeddings_of_other_layers_are_refused(card, in_store):
    head = Counting(card("probe", (3, 4)), 100)
    with pytest.raises(ModelError, match=r"needs embeddings \(3, 4\); these are \(7,\)"):
        next(predict_bands(head, in_store([np.zeros((7, 5, 5))])))
