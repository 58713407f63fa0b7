"""Encoders side by side: each gives what it gives alone, on one grid, and a point is found where it was planted."""

from pathlib import Path

import numpy as np
import pytest
import torch
from known_sections import MeanEncoder, PlaceEncoder, embedded, noise, stored_section

from cytoarch.encoders import lite
from cytoarch.encoders.compact import load_compact
from cytoarch.encoders.joined import JoinedEncoder, join
from cytoarch.encoders.lite import LiteEncoder
from cytoarch.encoders.lite_model import LiteNetwork
from cytoarch.encoders.protocol import LUMINANCE, TileShape
from cytoarch.encoders.registry import EncoderSettings, kinds_of, load_encoder, parts_of
from cytoarch.encoders.texture import TextureEncoder
from cytoarch.errors import ModelError
from cytoarch.parcellation.inference import ParcellationPlan
from cytoarch.steps.points import patch_size_px

TILE_PX = 128


@pytest.fixture(scope="module")
def chance() -> LiteEncoder:
    """lite0 with weights by chance."""
    torch.manual_seed(0)
    shape = TileShape(TILE_PX, lite.TOKEN_PX, halo_px=None)
    return LiteEncoder("lite0", "d0", (1, 2), shape, "fp32", "cpu", LiteNetwork().eval().requires_grad_(False))


@pytest.fixture(scope="module")
def both(chance: LiteEncoder) -> JoinedEncoder:
    """The bank beside it."""
    return join("texture+lite0", [TextureEncoder(), chance])


def tiles(edge: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((1, channels, edge, edge), dtype=np.float32)


def test_an_id_is_cut_where_an_encoder_follows_and_nowhere_else() -> None:
    assert parts_of("texture+lite0+dinov3:vitb16") == ("texture", "lite0", "dinov3:vitb16")
    assert parts_of("compact:/models/c++/a+b") == ("compact:/models/c++/a+b",)
    assert kinds_of("compact:/a+b+texture") == ("compact", "texture")
    assert parts_of("texture+lite0:3,4") == ("texture", "lite0:3,4")
    assert kinds_of("texture+lite0:3,4") == ("texture", "lite0")


def test_a_folder_that_is_there_is_taken_as_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "a+texture").mkdir()
    assert parts_of(f"dinov3:{tmp_path}/a+texture") == (f"dinov3:{tmp_path}/a+texture",)
    assert parts_of(f"texture+dinov3:{tmp_path}/a+texture+lite0") == (
        "texture",
        f"dinov3:{tmp_path}/a+texture",
        "lite0",
    )
    assert parts_of(f"dinov3:{tmp_path}/b+texture") == (f"dinov3:{tmp_path}/b", "texture")
    assert parts_of(f"dinov3:{'x' * 300}+texture") == (f"dinov3:{'x' * 300}", "texture")


def test_tiles_leave_a_border_as_wide_as_the_bank_reaches_around_what_the_network_sees(both: JoinedEncoder) -> None:
    assert both.tiles == TileShape(TILE_PX + 640, 4, None, 16, 320)
    assert both.tiles.core_px == patch_size_px(EncoderSettings(), both) == TILE_PX
    assert both.channels == 3
    assert both.layers == ("1-texture-bank", "2-lite0-scale-1", "2-lite0-scale-2", "2-lite0-scale-4")
    assert both.dims(3) == (78, 40, 40, 40)
    assert both.patch_dims(1) == 26 + 120


def test_each_gives_what_it_gives_alone(both: JoinedEncoder, chance: LiteEncoder) -> None:
    seen = tiles(TILE_PX + 640)
    layers = both.encode(seen)
    assert [one.shape for one in layers] == [(1, d, 192, 192) for d in both.dims(3)]
    np.testing.assert_array_equal(layers[0], TextureEncoder().encode(seen)[0])
    alone = chance.encode(np.ascontiguousarray(seen[:, :, 320:-320, 320:-320]))
    for joined, one in zip(layers[1:], alone, strict=True):
        middle = joined[:, :, 80:-80, 80:-80]
        # four small tokens around the corner that four large ones share lie at 1/4 and 3/4 of the way between them
        np.testing.assert_allclose(
            middle[:, :, 1:3, 1:3].mean(axis=(2, 3)), one[:, :, :2, :2].mean(axis=(2, 3)), rtol=1e-5, atol=1e-6
        )
        np.testing.assert_allclose(middle[:, :, 0, 0], one[:, :, 0, 0], rtol=1e-5, atol=1e-6)


def test_patches_have_the_embeddings_of_all(both: JoinedEncoder, chance: LiteEncoder) -> None:
    patch = tiles(TILE_PX)
    expected = np.concatenate([TextureEncoder().embed(patch), chance.embed(patch)], axis=1)
    np.testing.assert_array_equal(both.embed(patch), expected)


def test_one_of_a_single_channel_sees_colours_as_grey() -> None:
    both = join("texture+mean", [TextureEncoder(), MeanEncoder(channels=1)])
    assert both.channels == 3
    seen = tiles(64)
    grey = np.ascontiguousarray(np.tensordot(LUMINANCE, seen, axes=(0, 1))[:, None])
    bank, means, _ = both.encode(seen)
    np.testing.assert_array_equal(bank, TextureEncoder().encode(seen)[0])
    np.testing.assert_array_equal(means, MeanEncoder().encode(grey)[0])
    assert both.embed(seen).shape == (1, 78 + 64 * 64)


def test_where_all_reach_so_far_only_so_does_the_whole() -> None:
    compact = load_compact("compact", precision="fp32", device="cpu")
    both = join("texture+compact", [TextureEncoder(), compact])
    assert both.tiles == TileShape(2048, 4, 320, 32)
    seen = tiles(64)
    np.testing.assert_array_equal(both.encode(seen)[1], compact.encode(seen)[0])


def test_a_section_in_many_tiles_is_that_of_each_encoder_alone(tmp_path: Path) -> None:
    image = stored_section(tmp_path / "section", noise(150, 210), 4.0)
    whole = MeanEncoder(token_px=8, halo_px=None, tile_px=64)
    joined, facts = embedded(tmp_path / "both", image, join("texture+mean", [TextureEncoder(), whole]), 4.0)
    bank, _ = embedded(tmp_path / "bank", image, TextureEncoder(), 4.0)
    means, _ = embedded(tmp_path / "mean", image, whole, 4.0)
    assert (facts["tile_px"], facts["margin_px"], facts["tiles"]) == (704, 320, 12)
    assert joined.grid == bank.grid == (38, 53)
    found = joined.read(0, 0, *joined.grid)
    np.testing.assert_allclose(found[:26], bank.read(0, 0, *bank.grid), atol=2e-3)
    # away from the borders of tiles of 64 px, where each is continued by itself
    coarse = means.read(0, 0, 8, 8)[:1]
    np.testing.assert_allclose(
        found[26, 1:15, 1:15].reshape(7, 2, 7, 2).mean(axis=(1, 3)),
        (coarse[0, :-1, :-1] + coarse[0, 1:, :-1] + coarse[0, :-1, 1:] + coarse[0, 1:, 1:]) / 4,
        atol=2e-3,
    )


def test_a_bright_square_lands_at_its_place_in_every_part(tmp_path: Path) -> None:
    pixels = np.zeros((1, 160, 240), dtype=np.uint8)
    pixels[:, 96:104, 136:144] = 255
    image = stored_section(tmp_path / "section", pixels, 4.0)
    whole = MeanEncoder(token_px=8, halo_px=None, tile_px=64)
    found, _ = embedded(tmp_path / "both", image, join("texture+mean", [TextureEncoder(), whole]), 4.0)
    for layer in (0, 26, 27):
        peak = np.argwhere(found.read(0, 0, *found.grid)[layer] > 0)
        np.testing.assert_array_equal(peak.mean(axis=0), (24.5, 34.5))


def test_a_margin_that_is_asked_for_comes_on_top(tmp_path: Path) -> None:
    image = stored_section(tmp_path / "section", noise(150, 210), 4.0)
    whole = PlaceEncoder(token_px=8, halo_px=None, tile_px=96)
    found, facts = embedded(
        tmp_path / "both", image, join("texture+place", [TextureEncoder(), whole]), 4.0, margin_px=16
    )
    assert (facts["tile_px"], facts["margin_px"]) == (96 + 640, 336)
    rows = found.read(0, 0, *found.grid)[26]
    assert (rows.min(), rows.max()) == (1.75, 9.25)


def test_maps_give_no_weight_to_a_border_that_says_nothing(both: JoinedEncoder) -> None:
    class Card:
        embedding, cells_per_token = EncoderSettings(), 1

    class Told:
        card = Card()

    layout = ParcellationPlan.of(Told(), both, 300, 500, 0.5, "hann")  # type: ignore[arg-type]
    assert (layout.plan.tile_px, layout.plan.step_px, layout.plan.margin_px) == (TILE_PX + 640, 64, 352)
    weight = np.zeros((300 // 4, 500 // 4))
    for y in layout.plan.rows:
        for x in layout.plan.columns:
            top, left = y // 4, x // 4
            for row, column in np.add(np.argwhere(layout.window > 0), (top, left)):
                if 0 <= row < weight.shape[0] and 0 <= column < weight.shape[1]:
                    weight[row, column] += 1
    assert weight.min() >= 1
    assert not layout.window[:80].any()
    assert not layout.window[:, -80:].any()


def test_what_is_joined_decides_the_digest_and_so_does_the_order(both: JoinedEncoder, chance: LiteEncoder) -> None:
    other = join("lite0+texture", [chance, TextureEncoder()])
    assert len({both.digest, other.digest, TextureEncoder().digest, chance.digest}) == 4
    assert join("again", [TextureEncoder(), chance]).digest == both.digest


def test_it_is_chosen_by_its_id() -> None:
    chosen = load_encoder(EncoderSettings(encoder="texture+compact", precision="bf16"))
    assert (chosen.encoder_id, chosen.dims(1), chosen.tiles.token_px) == ("texture+compact", (26, 96), 4)
    assert chosen.digest != load_encoder(EncoderSettings(encoder="texture+compact")).digest
    assert chosen.digest != load_encoder(EncoderSettings(encoder="compact+texture", precision="bf16")).digest


def test_settings_go_to_the_one_that_has_them(monkeypatch: pytest.MonkeyPatch, chance: LiteEncoder) -> None:
    asked: list[dict[str, object]] = []
    monkeypatch.setattr(lite, "load_lite", lambda name, **settings: asked.append({"name": name, **settings}) or chance)
    load_encoder(EncoderSettings(encoder="texture+lite0", blocks=(3, 4), precision="bf16", tile_px=256))
    assert asked == [{"name": "lite0", "blocks": (3, 4), "tile_px": 256, "precision": "bf16", "device": "cpu"}]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"encoder": "texture+resnet"}, "there is no encoder 'texture\\+resnet'"),
        ({"encoder": "texture+compact", "blocks": (1,)}, "texture\\+compact joins 0 have it \\(none\\); leave it out"),
        (
            {"encoder": "lite0+dinov3:vitb16", "blocks": (3,)},
            "blocks is set, which is of one model; of those that lite0\\+dinov3:vitb16 joins 2 have it",
        ),
        ({"encoder": "+".join(["texture"] * 5)}, "joins 5 encoders; 2 to 4"),
    ],
)
def test_what_cannot_be_joined_is_refused(asked: dict[str, object], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        load_encoder(EncoderSettings.model_validate(asked))


def test_encoders_that_do_not_see_the_same_are_refused() -> None:
    with pytest.raises(ModelError, match="different pixel sizes \\(2, 4 um\\)"):
        join("a+b", [MeanEncoder(pixel_size_um=2.0), MeanEncoder(pixel_size_um=4.0)])
    with pytest.raises(ModelError, match="do not fit into each other: mean 6 px beside 4 px"):
        join("a+b", [MeanEncoder(), MeanEncoder(token_px=6)])
    with pytest.raises(ModelError, match="see whole tiles of \\[64, 128\\] px"):
        join("a+b", [MeanEncoder(halo_px=None), MeanEncoder(halo_px=None, tile_px=128)])
    with pytest.raises(ModelError, match="more than 640 px are needed"):
        join("a+b", [TextureEncoder(), MeanEncoder(halo_px=None)]).encode(tiles(640))
