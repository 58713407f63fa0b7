"""Heads applied to whole sections: overlap and blending matter exactly where tiles see different things."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.brains import LabelClass
from cytoarch.embeddings import EmbedSettings, SectionEmbeddings, SectionReader
from cytoarch.embeddings.dense import write_embeddings
from cytoarch.encoders.dino import DinoEncoder, load_dino
from cytoarch.encoders.protocol import TileShape
from cytoarch.encoders.texture import TextureEncoder
from cytoarch.geometry import Grid
from cytoarch.images.layout import Pyramid, level_count
from cytoarch.images.pyramids import write_pyramid
from cytoarch.images.views import StoredImage
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.decoder import Decoder, FusionNetwork
from cytoarch.learning.probes import Probe
from cytoarch.parcellation import inference, sparse
from cytoarch.parcellation.inference import (
    ParcellateSettings,
    ParcellationPlan,
    probability_bands,
    write_probabilities,
)
from cytoarch.parcellation.sparse import SparseProbabilities
from cytoarch.store.staging import Staging

CLASSES = tuple(LabelClass(name=f"c{i}", ids=(i + 1,)) for i in range(3))
HEIGHT, WIDTH, SIZE_UM = 150, 202, 4.0


@dataclass(frozen=True)
class PixelEncoder:
    """Tokens of 4 px that hold the four means of their own 2 x 2 px: nothing reaches beyond a token."""

    encoder_id: str = "pixel"
    digest: str = "00" * 32
    pixel_size_um: float | None = SIZE_UM
    channels: int | None = None
    halo_px: int | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        return ("quarters",)

    @property
    def tiles(self) -> TileShape:
        return TileShape(64, 4, self.halo_px)

    def dims(self, channels: int) -> tuple[int, ...]:
        return (4 * channels,)

    def encode(self, tiles: np.ndarray) -> list[np.ndarray]:
        b, c, height, width = tiles.shape
        half = tiles.reshape(b, c, height // 2, 2, width // 2, 2).mean(axis=(3, 5))
        quarters = [half[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]
        return [np.concatenate(quarters, axis=1)]


@dataclass(frozen=True)
class Counted:
    """An encoder that counts the tiles it sees."""

    encoder: DinoEncoder
    seen: list[int]

    def __getattr__(self, name: str):
        return getattr(self.encoder, name)

    def encode(self, tiles: np.ndarray):
        self.seen.append(len(tiles))
        return self.encoder.encode(tiles)


def card_for(encoder, kind: str, dims: tuple[int, ...], cells: int) -> HeadCard:
    return HeadCard(
        kind=kind,
        target="areas",
        classes=CLASSES,
        dims=dims,
        cells_per_token=cells,
        embedding=EmbedSettings(),
        encoder_digest=encoder.digest,
        token_px=encoder.tiles.token_px,
        pixel_size_um=SIZE_UM,
    )


def random_probe(encoder, channels: int = 1, features: slice = slice(None), seed: int = 0) -> Probe:
    (d,) = encoder.dims(channels)
    rng = np.random.default_rng(seed)
    weight = np.zeros((3, d), dtype=np.float32)
    weight[:, features] = rng.normal(0, 4, (3, d))[:, features]
    return Probe(card_for(encoder, "probe", (d,), 1), weight, -weight.sum(axis=1) / 2)


@pytest.fixture(scope="module")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> DinoEncoder:
    """A small vision transformer with random weights: every token sees the whole tile."""
    config = DINOv3ViTConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_register_tokens=4
    )
    folder = tmp_path_factory.mktemp("tiny")
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        model = DINOv3ViTModel(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    return load_dino(f"dinov3:{folder}", blocks=(1, 2), tile_px=64)


@pytest.fixture(scope="module")
def decoder(transformer: DinoEncoder) -> Decoder:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(1)
        network = FusionNetwork((32, 32), 3, 8, 4)
        with torch.no_grad():
            network.classify.weight.mul_(20)
    network.eval().requires_grad_(requires_grad=False)
    return Decoder(card_for(transformer, "decoder", (32, 32), 4), network)


def stored(folder: Path, pixels: np.ndarray, size_um: float = SIZE_UM) -> StoredImage:
    journal = Staging(folder).open()
    pyramid = Pyramid(pixels.shape, pixels.dtype, size_um, "mean", levels=level_count(*pixels.shape[-2:]))
    write_pyramid(journal, pyramid, lambda y, x, h, w: pixels[..., y : y + h, x : x + w], name="section")
    return StoredImage.open(journal.path)


def tissue_on(mask: np.ndarray, size_um: float) -> TissueMask:
    """A mask at the corner of the section."""
    return TissueMask(mask, Grid.at_corner(mask.shape, size_um, (-SIZE_UM / 2, -SIZE_UM / 2)))


@pytest.fixture
def image(tmp_path: Path) -> StoredImage:
    """Blobs of several sizes."""
    rng = np.random.default_rng(0)
    pixels = sum(np.kron(rng.random((200 // n + 2, 240 // n + 2)), np.ones((n, n)))[:HEIGHT, :WIDTH] for n in (3, 17))
    return stored(tmp_path / "section", (pixels[None] * 120).astype(np.uint8))


@pytest.fixture
def everywhere() -> TissueMask:
    return tissue_on(np.ones((1, 1), dtype=bool), 10_000.0)


def map_of(head, encoder, image: StoredImage, tissue: TissueMask, batch_size: int = 4, **settings) -> np.ndarray:
    reader = SectionReader.open(image, encoder, head.card.embedding, head.card.pixel_size_um)
    bands = probability_bands(head, encoder, reader, tissue, ParcellateSettings(**settings), batch_size)
    return np.concatenate([band for _, band in bands], axis=1)


def test_the_window_changes_the_map_of_an_encoder_that_sees_the_whole_tile(decoder, transformer, image, everywhere):
    radial, gauss, hann = (
        map_of(decoder, transformer, image, everywhere, window=window) for window in ("radial", "gauss", "hann")
    )
    assert radial.shape == (3, 38, 51)
    for other in (gauss, hann):
        assert np.abs(radial - other).max() > 1e-3


def test_the_overlap_changes_the_map_of_an_encoder_that_sees_the_whole_tile(decoder, transformer, image, everywhere):
    half, more = (map_of(decoder, transformer, image, everywhere, overlap=overlap) for overlap in (0.5, 0.75))
    assert half.shape == more.shape
    assert np.abs(half - more).max() > 1e-2


@pytest.mark.parametrize("halo", [None, 0])
def test_neither_changes_the_map_of_an_encoder_that_sees_its_token_only(image, everywhere, halo: int | None):
    encoder = PixelEncoder(halo_px=halo)
    head = random_probe(encoder)
    first = map_of(head, encoder, image, everywhere)
    assert first.std() > 0.05
    for window, overlap in (("radial", 0.9), ("gauss", 0.5), ("hann", 0.75)):
        other = map_of(head, encoder, image, everywhere, window=window, overlap=overlap)
        np.testing.assert_allclose(other, first, atol=1e-5)


@pytest.mark.parametrize(
    ("halo", "trained_px", "overlap", "tile", "step", "margin"),
    [
        (8, 96, 0.5, 512, 256, 128),  # what lies further than the reach is not seen: tiles may be of any size
        (None, None, 0.5, 64, 32, 16),
        (None, 96, 0.75, 96, 24, 24),
        (None, None, 0.9, 64, 4, 16),
        (None, 72, 0.5, 72, 36, 16),  # steps and margins are whole tokens
    ],
)
def test_tiles_have_the_size_the_head_was_trained_on_where_the_encoder_sees_all_of_them(
    halo: int | None, trained_px: int | None, overlap: float, tile: int, step: int, margin: int
):
    encoder = PixelEncoder(halo_px=halo)
    probe = random_probe(encoder)
    card = probe.card.model_copy(update={"embedding": EmbedSettings(tile_px=trained_px), "cells_per_token": 2})
    found = ParcellationPlan.of(Probe(card, probe.weight, probe.bias), encoder, HEIGHT, WIDTH, overlap, "hann")
    plan = found.plan
    assert (plan.height, plan.width) == (HEIGHT, WIDTH)
    assert (plan.tile_px, plan.step_px, plan.margin_px, plan.cell_px) == (tile, step, margin, 2)
    assert found.window.shape == (tile // 2, tile // 2)


def test_the_map_of_a_local_encoder_is_the_head_on_the_whole_image(image, everywhere):
    encoder = PixelEncoder()
    head = random_probe(encoder)
    reader = SectionReader.open(image, encoder, head.card.embedding, SIZE_UM)
    whole = reader.read(0, 0, -(-HEIGHT // 4) * 4, -(-WIDTH // 4) * 4)
    expected = head.probabilities(encoder.encode(whole[None])[0])[0]
    np.testing.assert_allclose(map_of(head, encoder, image, everywhere), expected, atol=1e-5)


def test_the_map_is_the_blend_the_definition_gives(decoder, transformer, image, everywhere):
    """The tiles by hand: the mirrored image cut every half tile, softmax blended with the radial window."""
    reader = SectionReader.open(image, transformer, decoder.card.embedding, SIZE_UM)
    at = np.arange(16) + 0.5 - 8
    radius = np.hypot(at[:, None], at[None]) / 8
    window = np.maximum(0.5 * (1 + np.cos(np.pi * np.minimum(radius, 1))), 1e-6)
    total, weights = np.zeros((3, 64, 80)), np.zeros((64, 80))
    for y in range(-16, 152 + 16 - 64 + 32, 32):
        for x in range(-16, 204 + 16 - 64 + 32, 32):
            tile = reader.read(y, x, 64, 64)[None]
            p = decoder.probabilities(np.concatenate(transformer.encode(tile), axis=1))[0]
            row, column = (y + 16) // 4, (x + 16) // 4
            total[:, row : row + 16, column : column + 16] += window * p
            weights[row : row + 16, column : column + 16] += window
    expected = (total / np.maximum(weights, 1e-9))[:, 4 : 4 + 38, 4 : 4 + 51]
    np.testing.assert_allclose(map_of(decoder, transformer, image, everywhere), expected, atol=1e-4)


def test_how_much_is_computed_at_once_changes_nothing_to_speak_of(decoder, transformer, image, everywhere):
    one, several = (map_of(decoder, transformer, image, everywhere, batch_size=size) for size in (1, 5))
    np.testing.assert_allclose(one, several, atol=1e-5)


def test_probabilities_sum_to_one_and_never_leave_their_range(decoder, transformer, image, everywhere):
    p = map_of(decoder, transformer, image, everywhere)
    assert p.min() >= 0
    np.testing.assert_allclose(p.sum(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize("overlap", [0.5, 0.6, 0.75, 0.9])
@pytest.mark.parametrize("size", [(64, 64), (150, 202), (1000, 17)])
def test_tiles_start_on_the_grid_of_tokens_and_cover_the_section(decoder, transformer, overlap: float, size):
    layout = ParcellationPlan.of(decoder, transformer, *size, overlap, "radial")
    plan = layout.plan
    assert plan.tile_px == 64
    assert plan.step_px == max(16, int(64 * (1 - overlap)) // 16 * 16)
    assert plan.step_px % 16 == plan.margin_px % 16 == 0
    assert plan.margin_px == 16
    assert plan.cell_px == 4
    assert plan.rows[-1] + plan.tile_px >= size[0] + plan.margin_px
    assert layout.window.shape == (16, 16)


def written(folder: Path, image: StoredImage, tissue: TissueMask, head, encoder, embeddings=None, **settings):
    journal = Staging(folder).open()
    facts = write_probabilities(
        journal, image, tissue, head, encoder, embeddings, ParcellateSettings(**settings), batch_size=4
    )
    return SparseProbabilities.open(journal.path), facts


def dense(probabilities: SparseProbabilities) -> np.ndarray:
    """All of it (k + 1, y, x)."""
    return probabilities.dense(0, 0, *probabilities.grid.shape)


def test_outside_tissue_channel_zero_is_one_and_inside_it_is_zero(tmp_path, decoder, transformer, image):
    mask = np.zeros((38, 51), dtype=bool)
    mask[5:30, 8:40] = True
    result, facts = written(tmp_path / "p", image, tissue_on(mask, 16.0), decoder, transformer)
    p = dense(result)
    assert p.shape == (4, 38, 51)
    assert facts == {"grid": [38, 51], "cell_um": 16.0, "kept_classes": 3}
    np.testing.assert_array_equal(p[0], ~mask)
    assert (p[1:, ~mask] == 0).all()
    np.testing.assert_allclose(p.sum(axis=0), 1, atol=1e-5)
    assert result.names == ("outside tissue", "c0", "c1", "c2")
    assert p[1:, mask].std() > 0.01


def test_cells_share_the_corner_of_the_section(tmp_path, image, everywhere):
    encoder = PixelEncoder()
    result, _ = written(tmp_path / "p", image, everywhere, random_probe(encoder), encoder)
    assert result.grid.cell_um == 16.0
    assert result.grid.corner_um == (-image.pixel_size_um / 2, -image.pixel_size_um / 2)


def test_stored_embeddings_and_the_encoder_agree_for_features_of_a_token(tmp_path, image, everywhere):
    encoder = PixelEncoder()
    head = random_probe(encoder)
    journal = Staging(tmp_path / "embeddings").open()
    write_embeddings(journal, image, everywhere, encoder, EmbedSettings(), SIZE_UM)
    kept = SectionEmbeddings.open(journal.path)
    seen, _ = written(tmp_path / "seen", image, everywhere, head, encoder)
    cached, _ = written(tmp_path / "cached", image, everywhere, head, encoder, kept)
    one, other = (dense(result) for result in (seen, cached))
    np.testing.assert_allclose(one, other, atol=1e-2)


def test_stored_texture_and_texture_seen_anew_agree(tmp_path, image, everywhere):
    encoder = TextureEncoder()
    journal = Staging(tmp_path / "embeddings").open()
    write_embeddings(journal, image, everywhere, encoder, EmbedSettings(), SIZE_UM)
    kept = SectionEmbeddings.open(journal.path)
    fine = random_probe(encoder, features=slice(0, 6))  # within 4 px of the token
    maps = [
        dense(written(tmp_path / name, image, everywhere, fine, encoder, source)[0])
        for name, source in (("seen", None), ("cached", kept))
    ]
    assert maps[0].std() > 0.05
    np.testing.assert_allclose(maps[0], maps[1], atol=1e-2)
    every = random_probe(encoder)
    classes = [
        dense(written(tmp_path / f"all-{name}", image, everywhere, every, encoder, source)[0]).argmax(axis=0)
        for name, source in (("seen", None), ("cached", kept))
    ]
    assert (classes[0] == classes[1])[4:-4, 4:-4].mean() > 0.95


def test_skipped_tiles_leave_equal_chances(decoder, transformer, image):
    nowhere = tissue_on(np.zeros((1, 1), dtype=bool), 10_000.0)
    np.testing.assert_allclose(map_of(decoder, transformer, image, nowhere), 1 / 3, rtol=1e-6)


@pytest.mark.parametrize("size_um", [8.0, 16.0, 23.0])
def test_an_island_of_tissue_however_small_is_computed_as_if_all_were_tissue(image, everywhere, size_um: float):
    """A pixel of the mask is 0.1 % to 0.8 % of a tile; no cell of it is blended with tiles that were not computed."""
    encoder = PixelEncoder()
    head = random_probe(encoder)
    whole = map_of(head, encoder, image, everywhere)
    shape = -int(-HEIGHT * SIZE_UM // size_um), -int(-WIDTH * SIZE_UM // size_um)
    for place in [(0, 0), (shape[0] - 1, shape[1] - 1), (0, 7), (5, 5), (7, 8), (9, shape[1] - 1), (13, 21)]:
        mask = np.zeros(shape, dtype=bool)
        mask[place] = True
        tissue = tissue_on(mask, size_um)
        found = map_of(head, encoder, image, tissue)
        inside = tissue.on_grid(image.grid.grouped(4))
        assert inside.any() or size_um < 16
        np.testing.assert_array_equal(found[:, inside], whole[:, inside])
        assert (found == np.float32(1 / 3)).all(axis=0).any()


def test_cached_cells_that_were_not_computed_are_outside_tissue(tmp_path, image, everywhere):
    encoder = PixelEncoder(halo_px=0)
    head = random_probe(encoder)
    half = np.zeros((2, 2), dtype=bool)
    half[0, 0] = True
    journal = Staging(tmp_path / "embeddings").open()
    write_embeddings(journal, image, tissue_on(half, 404.0), encoder, EmbedSettings(tile_px=64), SIZE_UM)
    kept = SectionEmbeddings.open(journal.path)
    result, _ = written(tmp_path / "p", image, everywhere, head, encoder, kept)
    p = dense(result)
    computed = kept.computed()
    assert 0 < computed.sum() < computed.size
    np.testing.assert_array_equal(p[0] == 0, computed)
    np.testing.assert_allclose(p.sum(axis=0), 1, atol=1e-5)


def test_cached_tokens_of_several_cells_keep_their_marks(tmp_path, decoder, transformer, image, everywhere):
    half = np.zeros((2, 2), dtype=bool)
    half[0, 0] = True
    journal = Staging(tmp_path / "embeddings").open()
    write_embeddings(journal, image, tissue_on(half, 404.0), transformer, EmbedSettings(), SIZE_UM)
    kept = SectionEmbeddings.open(journal.path)
    result, facts = written(tmp_path / "p", image, everywhere, decoder, transformer, kept)
    p = dense(result)
    assert facts == {"grid": list(p.shape[1:]), "cell_um": 16.0, "kept_classes": 3}
    np.testing.assert_array_equal(p[0] == 0, np.kron(kept.computed(), np.ones((4, 4), dtype=bool)))
    assert result.grid.corner_um == image.grid.corner_um


def test_progress_is_told_tile_by_tile(image, everywhere, tmp_path):
    encoder, told = PixelEncoder(), []
    journal = Staging(tmp_path).open()
    head = random_probe(encoder)
    write_probabilities(
        journal, image, everywhere, head, encoder, None, ParcellateSettings(), 4, lambda *done: told.append(done)
    )
    total = told[-1][1]
    assert told == [(number + 1, total) for number in range(total)]
    assert total > 20


@pytest.mark.parametrize("cached", [False, True])
def test_strips_and_shards_change_nothing_and_what_is_finished_is_kept(
    tmp_path, decoder, transformer, image, everywhere, monkeypatch: pytest.MonkeyPatch, cached: bool
):
    kept = None
    if cached:
        journal = Staging(tmp_path / "embeddings").open()
        write_embeddings(journal, image, everywhere, transformer, EmbedSettings(), SIZE_UM)
        kept = SectionEmbeddings.open(journal.path)
    whole, _ = written(tmp_path / "whole", image, everywhere, decoder, transformer, kept)
    monkeypatch.setattr(inference, "STRIP_BYTES", 1)
    monkeypatch.setattr(sparse, "CHUNK_CELLS", 4)
    cut, _ = written(tmp_path / "cut", image, everywhere, decoder, transformer, kept)
    assert cut.channels.array.shards[-1] == 16 < whole.grid.shape[1]
    np.testing.assert_allclose(dense(cut), dense(whole), atol=1e-4)
    shard = tmp_path / "cut" / "content" / "shares" / "0" / "c" / "0" / "1" / "2"
    shard.unlink()
    seen = []
    again, _ = written(tmp_path / "cut", image, everywhere, decoder, Counted(transformer, seen), kept)
    np.testing.assert_array_equal(dense(again), dense(cut))
    assert shard.exists()
    if not cached:
        assert 0 < sum(seen) < ParcellationPlan.of(decoder, transformer, HEIGHT, WIDTH, 0.5, "radial").plan.tile_count


def test_only_the_likeliest_classes_are_kept(tmp_path, image, everywhere):
    encoder = PixelEncoder()
    head = random_probe(encoder)
    whole, _ = written(tmp_path / "whole", image, everywhere, head, encoder)
    few, facts = written(tmp_path / "few", image, everywhere, head, encoder, kept_classes=2)
    assert facts["kept_classes"] == few.kept == 2
    p = map_of(head, encoder, image, everywhere)
    np.testing.assert_allclose(dense(whole)[1:], p, atol=1e-4)
    np.testing.assert_array_equal(few.first(few.grid), p.argmax(axis=0) + 1)
    np.testing.assert_allclose(dense(few)[1:], p, atol=1e-4)  # the third is what the others lack of 1
