"""The DINO adapter against transformers' own classes, on small models with random weights."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import BLOCKS, MODELS, REGISTERS, WIDTH, changed_copy, random_tiles, save_model
from transformers import (
    Dinov2Backbone,
    Dinov2WithRegistersBackbone,
    DINOv3ConvNextBackbone,
    DINOv3ConvNextConfig,
    DINOv3ConvNextModel,
    DINOv3ViTBackbone,
    DINOv3ViTConfig,
    DINOv3ViTModel,
)
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from cytoarch.embeddings.attention import attentive
from cytoarch.encoders.dino import LVD, SAT, SHORT_NAMES, STATISTICS, DinoEncoder, load_dino
from cytoarch.encoders.inference import device_name
from cytoarch.encoders.registry import EncoderSettings, load_encoder
from cytoarch.encoders.weights import KINDS
from cytoarch.errors import ModelError

PATCH = 16
BACKBONES = {
    "dinov3_vit": DINOv3ViTBackbone,
    "dinov3_convnext": DINOv3ConvNextBackbone,
    "dinov2": Dinov2Backbone,
    "dinov2_with_registers": Dinov2WithRegistersBackbone,
}
TRANSFORMERS = ("dinov3_vit", "dinov2", "dinov2_with_registers")
FINAL_NORM = {"dinov3_vit": "norm", "dinov2": "layernorm", "dinov2_with_registers": "layernorm"}
PREFIX = {"dinov3_vit": 1 + REGISTERS, "dinov2": 1, "dinov2_with_registers": 1 + REGISTERS}
TILE_PX = {"dinov3_vit": 64, "dinov3_convnext": 64, "dinov2": 70, "dinov2_with_registers": 70}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: save_model(name, tmp_path_factory.mktemp("models") / name) for name in MODELS}


@pytest.fixture(scope="module")
def model_folder(folders: dict[str, Path]) -> Path:
    return folders["dinov3_vit"]


@pytest.fixture
def changed(model_folder: Path, tmp_path: Path):
    return lambda change: changed_copy(model_folder, tmp_path / "changed", change)


def loaded(folder: Path, **more) -> DinoEncoder:
    model_type = json.loads((folder / "config.json").read_text())["model_type"]
    return load_dino(f"{KINDS[model_type]}:{folder}", tile_px=more.pop("tile_px", TILE_PX[model_type]), **more)


def normalised(tiles: np.ndarray, normalisation=LVD) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in normalisation)
    return (torch.from_numpy(tiles) - mean) / std


def without_attention(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Tokens cannot see each other: what one token holds can only come from its own pixels."""
    return torch.zeros_like(tensor) if ".o_proj." in name else tensor


def test_every_supported_kind_is_tested(folders: dict[str, Path]):
    from cytoarch.encoders import dino

    assert set(folders) == set(dino.MODELS)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_a_layer_is_the_block_of_its_number_without_prefix_tokens(folders, kind: str, norm: bool):
    encoder = loaded(folders[kind], blocks=(1, 3), norm=norm)
    tiles = random_tiles(2, TILE_PX[kind])
    whole = MODELS[kind][0].from_pretrained(str(folders[kind])).eval()
    final = getattr(whole, FINAL_NORM[kind]) if norm else torch.nn.Identity()
    with torch.inference_mode():
        states = whole(normalised(tiles), output_hidden_states=True).hidden_states
        assert len(states) == BLOCKS + 1
        expected = [final(states[block])[:, PREFIX[kind] :] for block in (1, 3)]
        class_token = final(states[3])[:, 0]
    assert encoder.layers == ("block-01", "block-03")
    edge = TILE_PX[kind] // encoder.tiles.token_px
    for layer, tokens in zip(encoder.encode(tiles), expected, strict=True):
        assert layer.shape == (2, WIDTH, edge, edge)
        assert layer.dtype == np.float32
        assert layer.flags.c_contiguous
        as_tokens = layer.reshape(2, WIDTH, edge**2).transpose(0, 2, 1)
        assert np.abs(as_tokens - tokens.numpy()).max() == 0
    np.testing.assert_array_equal(encoder.embed(tiles), class_token.numpy())


@pytest.mark.parametrize("kind", list(MODELS))
def test_the_adapter_gives_what_the_backbone_class_gives(folders, kind: str):
    tiles = random_tiles(2, TILE_PX[kind])
    backbone = BACKBONES[kind].from_pretrained(str(folders[kind]), out_indices=[1, 2, 3, 4]).eval()
    with torch.inference_mode():
        expected = [one.numpy() for one in backbone(normalised(tiles)).feature_maps]
    # a ConvNeXt's backbone applies no norm
    encoder = loaded(folders[kind], blocks=(1, 2, 3, 4), norm=kind != "dinov3_convnext")
    for layer, one in zip(encoder.encode(tiles), expected, strict=True):
        times = layer.shape[2] // one.shape[2]
        np.testing.assert_array_equal(layer[:, :, ::times, ::times], one)


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_the_patch_embedding_is_the_class_token_of_the_last_hidden_state(folders, kind: str):
    tiles = random_tiles(2, TILE_PX[kind])
    whole = MODELS[kind][0].from_pretrained(str(folders[kind])).eval()
    with torch.inference_mode():
        output = whole(normalised(tiles))
    given = loaded(folders[kind]).embed(tiles)
    assert given.shape == (2, loaded(folders[kind]).patch_dims(3)) == (2, WIDTH)
    np.testing.assert_array_equal(given, output.last_hidden_state[:, 0].numpy())
    np.testing.assert_array_equal(given, output.pooler_output.numpy())


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_blocks_above_the_deepest_are_not_loaded_and_change_nothing(folders, tmp_path: Path, kind: str):
    tiles = random_tiles(1, TILE_PX[kind])
    shallow, whole = loaded(folders[kind], blocks=(1, 2)), loaded(folders[kind], blocks=(1, 2, 4))
    for one, other in zip(shallow.encode(tiles), whole.encode(tiles), strict=False):
        np.testing.assert_array_equal(one, other)
    counts = [sum(one.numel() for one in encoder.model.parameters()) for encoder in (shallow, whole)]
    per_block = (counts[1] - counts[0]) / 2
    assert per_block > 12 * WIDTH**2 / 2


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_attention_is_the_class_tokens_row_of_the_deepest_block_as_transformers_computes_it(folders, kind: str):
    encoder, tiles = loaded(folders[kind], tile_px=TILE_PX[kind], blocks=(1, 2)), random_tiles(2, TILE_PX[kind])
    before = encoder.encode(tiles)
    maps = encoder.attention_maps(tiles)
    plain = MODELS[kind][0].from_pretrained(folders[kind], attn_implementation="eager").eval()
    with torch.inference_mode():
        weights = plain(normalised(tiles), output_attentions=True).attentions[1]
    wanted = weights[:, :, 0, PREFIX[kind] :].numpy()
    assert maps.shape[2] == maps.shape[3] == TILE_PX[kind] // encoder.tiles.token_px
    np.testing.assert_allclose(maps.reshape(wanted.shape), wanted, atol=1e-6)
    assert (maps.sum(axis=(2, 3)) < 1).all()
    assert encoder.attended == 2
    for one, same in zip(encoder.encode(tiles), before, strict=True):
        np.testing.assert_array_equal(one, same)


def test_a_model_is_not_another_one_while_its_attention_is_told(folders, monkeypatch: pytest.MonkeyPatch):
    """Others may be computing with it."""
    encoder, kept = loaded(folders["dinov2"], tile_px=TILE_PX["dinov2"]), []
    usual, read = encoder.model.config._attn_implementation, type(encoder)._pixels
    assert usual != "eager"

    def looked(self, tiles):
        kept.append(self.model.config._attn_implementation)
        return read(self, tiles)

    monkeypatch.setattr(type(encoder), "_pixels", looked)
    encoder.attention_maps(random_tiles(1, TILE_PX["dinov2"]))
    assert kept == [usual]


def test_a_convnext_has_no_attention(folders):
    with pytest.raises(ModelError, match="ConvNeXt without attention"):
        loaded(folders["dinov3_convnext"]).attention_maps(random_tiles(1, 64))
    with pytest.raises(ModelError, match="has no attention that could be drawn"):
        attentive(loaded(folders["dinov3_convnext"]))


def test_a_convnext_repeats_coarse_stages_onto_the_grid_of_the_finest(folders):
    tiles = random_tiles(2)
    model = DINOv3ConvNextModel.from_pretrained(str(folders["dinov3_convnext"])).eval()
    with torch.inference_mode():
        output = model(normalised(tiles), output_hidden_states=True)
    encoder = loaded(folders["dinov3_convnext"])
    assert encoder.layers == ("stage-3", "stage-4")
    assert (encoder.tiles.token_px, encoder.tiles.align_px) == (16, 32)
    assert encoder.dims(3) == (24, 32)
    third, fourth = encoder.encode(tiles)
    np.testing.assert_array_equal(third, output.hidden_states[3].numpy())
    last = output.last_hidden_state[:, 1:].transpose(1, 2).reshape(2, 32, 2, 2).numpy()
    np.testing.assert_array_equal(fourth, last.repeat(2, axis=2).repeat(2, axis=3))
    assert fourth.flags.c_contiguous
    np.testing.assert_array_equal(encoder.embed(tiles), output.pooler_output.numpy())
    assert loaded(folders["dinov3_convnext"], blocks=(1, 4)).tiles.token_px == 4
    second = loaded(folders["dinov3_convnext"], blocks=(2,))
    np.testing.assert_allclose(second.embed(tiles), output.hidden_states[2].mean(dim=(2, 3)).numpy(), atol=1e-6)
    raw = loaded(folders["dinov3_convnext"], blocks=(4,), norm=False)
    np.testing.assert_array_equal(raw.encode(tiles)[0], output.hidden_states[4].numpy())


def test_layers_come_from_shallow_to_deep_whatever_the_order_they_are_asked_in(model_folder: Path):
    tiles = random_tiles(1)
    every = loaded(model_folder, blocks=(1, 2, 3, 4)).encode(tiles)
    encoder = loaded(model_folder, blocks=(4, 2))
    assert encoder.blocks == (2, 4)
    for layer, block in zip(encoder.encode(tiles), (2, 4), strict=True):
        np.testing.assert_array_equal(layer, every[block - 1])
    assert not np.allclose(every[1], every[3])


def test_prefix_tokens_never_leak_into_the_grid(changed, tmp_path: Path):
    tiles = random_tiles(1)
    plain = loaded(changed(without_attention)).encode(tiles)
    shutil.rmtree(tmp_path / "changed")

    def planted(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if name in ("embeddings.register_tokens", "embeddings.cls_token"):
            return torch.full_like(tensor, 1e3)
        return without_attention(name, tensor)

    for before, after in zip(plain, loaded(changed(planted)).encode(tiles), strict=True):
        np.testing.assert_array_equal(before, after)


def test_prefix_tokens_do_take_part_in_attention(changed, model_folder: Path):
    def planted(name: str, tensor: torch.Tensor) -> torch.Tensor:
        # a ramp: the norm before attention takes a constant away again
        return tensor + torch.arange(tensor.shape[-1]) if name == "embeddings.register_tokens" else tensor

    tiles = random_tiles(1)
    assert not np.allclose(loaded(model_folder).encode(tiles)[-1], loaded(changed(planted)).encode(tiles)[-1])


@pytest.mark.parametrize(("row", "column"), [(0, 0), (1, 2), (3, 0), (2, 3)])
def test_a_bright_patch_lands_on_its_own_token(changed, row: int, column: int):
    tiles = np.zeros((1, 3, 64, 64), dtype=np.float32)
    tiles[:, :, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] = 1
    for layer in loaded(changed(without_attention)).encode(tiles):
        elsewhere = layer[0, :, (row + 1) % 4, (column + 1) % 4]
        differs = np.abs(layer[0] - elsewhere[:, None, None]).max(axis=0) > 1e-4
        assert np.argwhere(differs).tolist() == [[row, column]]


@pytest.mark.parametrize("kind", list(MODELS))
def test_one_channel_is_three_equal_channels(folders, kind: str):
    tiles = random_tiles(2, TILE_PX[kind], channels=1)
    encoder = loaded(folders[kind])
    assert encoder.channels == 3
    for one, three in zip(encoder.encode(tiles), encoder.encode(tiles.repeat(3, axis=1)), strict=True):
        np.testing.assert_array_equal(one, three)
    np.testing.assert_array_equal(encoder.embed(tiles), encoder.embed(tiles.repeat(3, axis=1)))


GATED = {"use_gated_mlp": True, "hidden_act": "silu"}


@pytest.mark.parametrize(
    ("name", "width", "blocks", "heads", "inner", "more", "count"),
    [
        ("vits16", 384, 12, 6, 1536, {}, 21_596_544),
        ("vits16plus", 384, 12, 6, 1536, GATED, 28_692_864),
        ("vitb16", 768, 12, 12, 3072, {}, 85_660_416),
        ("vitl16", 1024, 24, 16, 4096, {}, 303_129_600),
        ("vith16plus", 1280, 32, 20, 5120, GATED, 840_592_640),
        ("vit7b16", 4096, 40, 32, 8192, GATED | {"query_bias": False, "value_bias": False}, 6_716_035_072),
    ],
)
def test_the_released_transformers_have_their_published_number_of_parameters(
    name: str, width: int, blocks: int, heads: int, inner: int, more: dict, count: int
):
    config = DINOv3ViTConfig(
        hidden_size=width,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        intermediate_size=inner,
        num_register_tokens=4,
        **more,
    )
    with torch.device("meta"):
        model = DINOv3ViTModel(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    assert name in SHORT_NAMES["dinov3"]


@pytest.mark.parametrize(
    ("name", "depths", "widths", "count"),
    [
        ("convnext-tiny", [3, 3, 9, 3], [96, 192, 384, 768], 27_820_128),
        ("convnext-small", [3, 3, 27, 3], [96, 192, 384, 768], 49_454_688),
        ("convnext-base", [3, 3, 27, 3], [128, 256, 512, 1024], 87_566_464),
        ("convnext-large", [3, 3, 27, 3], [192, 384, 768, 1536], 196_230_336),
    ],
)
def test_the_released_convnexts_have_their_published_number_of_parameters(
    name: str, depths: list[int], widths: list[int], count: int
):
    with torch.device("meta"):
        model = DINOv3ConvNextModel(DINOv3ConvNextConfig(depths=depths, hidden_sizes=widths))
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    assert name in SHORT_NAMES["dinov3"]


def test_short_names_stand_for_the_released_models():
    names = SHORT_NAMES["dinov3"] | SHORT_NAMES["dinov2"]
    assert names["vitb16"] == "facebook/dinov3-vitb16-pretrain-lvd1689m"
    assert names["vit7b16-sat"] == "facebook/dinov3-vit7b16-pretrain-sat493m"
    assert names["convnext-large"] == "facebook/dinov3-convnext-large-pretrain-lvd1689m"
    assert names["giant"] == "facebook/dinov2-giant"
    assert names["small-registers"] == "facebook/dinov2-with-registers-small"
    assert len(names) == 12 + 8


def test_two_calls_give_the_same_bits(model_folder: Path):
    encoder, tiles = loaded(model_folder), random_tiles()
    for first, second in zip(encoder.encode(tiles), encoder.encode(tiles), strict=True):
        np.testing.assert_array_equal(first, second)
    again = loaded(model_folder)
    assert again.digest == encoder.digest
    np.testing.assert_array_equal(again.encode(tiles)[0], encoder.encode(tiles)[0])


@pytest.mark.parametrize("kind", list(MODELS))
def test_a_tile_does_not_depend_on_the_others_in_its_batch(folders, kind: str):
    encoder, tiles = loaded(folders[kind]), random_tiles(3, TILE_PX[kind])
    together, embedded = encoder.encode(tiles), encoder.embed(tiles)
    for index in range(3):
        one = tiles[index : index + 1]
        for layer, alone in zip(together, encoder.encode(one), strict=True):
            np.testing.assert_allclose(layer[index], alone[0], atol=1e-5)
        np.testing.assert_allclose(embedded[index], encoder.embed(one)[0], atol=1e-5)


def test_tiles_are_left_as_they_were_even_where_they_cannot_be_written_to(model_folder: Path):
    tiles = random_tiles()
    before = tiles.copy()
    tiles.flags.writeable = False
    loaded(model_folder).encode(tiles)
    np.testing.assert_array_equal(tiles, before)


def test_the_digest_tells_apart_all_that_changes_the_output(changed, model_folder: Path, tmp_path: Path):
    other = changed(lambda name, tensor: tensor + 1e-3 if name == "norm.bias" else tensor)
    moved, stated = tmp_path / "moved", tmp_path / "stated"
    shutil.copytree(model_folder, moved)
    shutil.copytree(model_folder, stated)
    (stated / "preprocessor_config.json").write_text(json.dumps({"image_mean": SAT[0], "image_std": SAT[1]}))
    digests = {
        loaded(model_folder).digest,
        loaded(other).digest,
        loaded(stated).digest,
        loaded(model_folder, blocks=(4,)).digest,
        loaded(model_folder, tile_px=128).digest,
        loaded(model_folder, precision="bf16").digest,
        loaded(model_folder, precision="fp16").digest,
        loaded(model_folder, norm=False).digest,
    }
    assert len(digests) == 8
    assert loaded(moved).digest == loaded(model_folder).digest


@pytest.mark.parametrize("kind", list(MODELS))
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_stays_close_and_gives_float32(folders, kind: str, precision):
    tiles = random_tiles(1, TILE_PX[kind])
    half, full = (loaded(folders[kind], precision=one) for one in (precision, "fp32"))
    for one, other in ((half.encode(tiles)[-1], full.encode(tiles)[-1]), (half.embed(tiles), full.embed(tiles))):
        assert one.dtype == np.float32
        assert np.abs(one - other).mean() < 0.1 * np.abs(other).mean()
        assert not np.array_equal(one, other)


def test_weights_stored_in_half_precision_are_computed_with_in_float32(changed, tmp_path: Path):
    folder = changed(lambda name, tensor: tensor.half())
    config = json.loads((folder / "config.json").read_text()) | {"dtype": "float16"}
    (folder / "config.json").write_text(json.dumps(config))
    rounded = changed_copy(folder, tmp_path / "rounded", lambda name, tensor: tensor.float())
    tiles = random_tiles(1)
    for one, other in zip(loaded(folder).encode(tiles), loaded(rounded).encode(tiles), strict=True):
        np.testing.assert_array_equal(one, other)


def test_means_and_deviations_are_those_the_models_were_trained_with():
    assert (tuple(IMAGENET_DEFAULT_MEAN), tuple(IMAGENET_DEFAULT_STD)) == LVD
    # DINOv3's README, section "Image transforms", for models pretrained on SAT-493M
    assert SAT == ((0.430, 0.411, 0.296), (0.213, 0.156, 0.143))
    assert STATISTICS == {"lvd1689m": LVD, "sat493m": SAT}


def test_the_name_of_the_folder_tells_the_statistics_and_not_the_folders_above(model_folder: Path, tmp_path: Path):
    above = tmp_path / "sat493m" / "mine"
    shutil.copytree(model_folder, above)
    assert loaded(above).normalisation == LVD


def test_means_and_deviations_stated_in_the_folder_keep_their_places(model_folder: Path, tmp_path: Path):
    shutil.copytree(model_folder, tmp_path / "stated")
    stated = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (tmp_path / "stated" / "preprocessor_config.json").write_text(json.dumps(stated))
    assert loaded(tmp_path / "stated").normalisation == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


@pytest.mark.parametrize("change", [{"blocks": (2,)}, {"tile_px": 128}, {"norm": False}, {"precision": "bf16"}])
def test_every_setting_reaches_the_model(model_folder: Path, change: dict):
    encoder = f"dinov3:{model_folder}"
    chosen = load_encoder(EncoderSettings(encoder=encoder, **change))
    assert isinstance(chosen, DinoEncoder)
    assert chosen.digest == load_dino(encoder, **change).digest != load_dino(encoder).digest
    assert {name: getattr(chosen.tiles if name == "tile_px" else chosen, name) for name in change} == change


def test_the_normalisation_is_that_of_the_folder_or_of_the_name(model_folder: Path, tmp_path: Path):
    assert loaded(model_folder).normalisation == LVD
    satellite = tmp_path / "dinov3-vitl16-pretrain-sat493m"
    shutil.copytree(model_folder, satellite)
    encoder = loaded(satellite)
    assert encoder.normalisation == SAT
    model = DINOv3ViTModel.from_pretrained(str(satellite)).eval()
    tiles = random_tiles(1)
    with torch.inference_mode():
        expected = model(normalised(tiles, SAT)).last_hidden_state[:, 0]
    np.testing.assert_array_equal(encoder.embed(tiles), expected.numpy())
    (satellite / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [1, 1, 1]}')
    assert loaded(satellite).normalisation == ((0.5, 0.5, 0.5), (1.0, 1.0, 1.0))
    for text in (
        '{"image_mean": [0.5], "image_std": [1]}',
        "{}",
        "[]",
        '{"image_mean": [0,0,0], "image_std": [0,0,0]}',
    ):
        (satellite / "preprocessor_config.json").write_text(text)
        with pytest.raises(ModelError, match="image_std"):
            loaded(satellite)


def test_what_the_encoder_states_of_itself_is_what_it_gives(model_folder: Path):
    encoder = load_encoder(EncoderSettings(encoder=f"dinov3:{model_folder}", tile_px=128, blocks=(2, 4)))
    assert encoder.tiles.tile_px == 128
    assert encoder.tiles.token_px == PATCH
    assert encoder.tiles.halo_px is None
    assert encoder.pixel_size_um == 4.0
    maps = encoder.encode(random_tiles(1, 128))
    assert tuple(one.shape[1] for one in maps) == encoder.dims(3) == (WIDTH, WIDTH)
    assert len(encoder.layers) == 2
    assert maps[0].shape[-2:] == (8, 8)


@pytest.mark.parametrize(("kind", "tile_px"), [("dinov3_vit", 512), ("dinov3_convnext", 512), ("dinov2", 518)])
def test_the_default_tile_is_a_whole_number_of_patches(folders, kind: str, tile_px: int):
    encoder = load_dino(f"{KINDS[kind]}:{folders[kind]}")
    assert encoder.tiles.tile_px == tile_px
    assert tile_px % encoder.tiles.token_px == 0


def test_the_device_has_a_name():
    assert device_name("cpu") not in ("", "cpu")


# -- what cannot be loaded -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [(0,), (5,), (1, 99), (-1,), (2, 2)])
@pytest.mark.parametrize("kind", list(MODELS))
def test_blocks_the_model_does_not_have_are_refused_and_those_it_has_are_named(folders, kind: str, blocks):
    with pytest.raises(ModelError, match=r"the model has (blocks|stages) 1 to 4, and each may be named once"):
        loaded(folders[kind], blocks=blocks)


@pytest.mark.parametrize(("kind", "tile_px"), [("dinov3_vit", 72), ("dinov3_convnext", 80), ("dinov2", 512)])
def test_tile_sizes_that_do_not_fit_the_patch_are_refused(folders, kind: str, tile_px: int):
    with pytest.raises(ModelError, match=rf"tile_px {tile_px} is no multiple of \d+ px"):
        loaded(folders[kind], tile_px=tile_px)


@pytest.mark.parametrize("shape", [(2, 2, 64, 64), (1, 3, 64, 32), (1, 3, 70, 70), (3, 64, 64), (0, 3, 64, 64)])
def test_tiles_of_another_shape_are_refused(model_folder: Path, shape: tuple[int, ...]):
    encoder = loaded(model_folder)
    for compute in (encoder.encode, encoder.embed):
        with pytest.raises(ModelError, match=r"needed: \(b, 1 or 3, T, T\) with T a multiple of 16"):
            compute(np.zeros(shape, dtype=np.float32))


@pytest.mark.parametrize(("kind", "wrong"), [("dinov2", "dinov3"), ("dinov3_convnext", "dinov2")])
def test_an_id_of_another_kind_than_the_folder_is_refused_and_the_right_one_named(folders, kind: str, wrong: str):
    with pytest.raises(ModelError, match=rf"holds a '{kind}' model[\s\S]*its id is {KINDS[kind]}:{folders[kind]}"):
        load_encoder(EncoderSettings(encoder=f"{wrong}:{folders[kind]}"))


def test_a_model_of_other_channels_is_refused(model_folder: Path, tmp_path: Path):
    folder = tmp_path / "grey"
    shutil.copytree(model_folder, folder)
    config = json.loads((folder / "config.json").read_text()) | {"num_channels": 1}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="3 channels"):
        loaded(folder)


def test_a_configuration_with_a_field_of_another_type_is_refused(model_folder: Path, tmp_path: Path):
    folder = tmp_path / "strange"
    shutil.copytree(model_folder, folder)
    config = json.loads((folder / "config.json").read_text()) | {"hidden_size": "wide"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"config\.json cannot be read as a dinov3_vit model's"):
        loaded(folder)


def test_weights_that_are_missing_are_never_filled_with_random_ones(changed):
    folder = changed(lambda name, tensor: None if name == "layer.2.mlp.up_proj.weight" else tensor)
    with pytest.raises(ModelError, match=r"up_proj"):
        loaded(folder)


def test_weights_of_another_shape_are_refused(changed):
    folder = changed(lambda name, tensor: tensor[:-1] if name == "layer.0.mlp.up_proj.weight" else tensor)
    with pytest.raises(ModelError, match="do not load"):
        loaded(folder)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine with CUDA")
def test_a_device_that_is_not_there_is_refused_before_any_weight_is_read():
    with pytest.raises(ModelError, match="device cuda"):
        load_encoder(EncoderSettings(encoder="dinov3:/nowhere", device="cuda"))
