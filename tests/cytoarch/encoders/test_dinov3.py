"""The DINOv3 adapter against transformers' own classes, on small models with random weights."""

import json
import pickle
import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from transformers import DINOv3ViTBackbone, DINOv3ViTConfig, DINOv3ViTModel

from cytoarch.encoders.dinov3 import MEAN, STD, Dinov3Encoder, load_dinov3
from cytoarch.encoders.registry import EncoderSettings, load_encoder
from cytoarch.errors import ModelError

PATCH, WIDTH, BLOCKS, REGISTERS = 16, 32, 4, 4
WEIGHTS = "model.safetensors"


def tiny_config() -> DINOv3ViTConfig:
    return DINOv3ViTConfig(
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=BLOCKS,
        num_attention_heads=2,
        num_register_tokens=REGISTERS,
        image_size=64,
    )


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with random weights, larger than those of the usual initialisation, so that blocks differ."""
    folder = tmp_path_factory.mktemp("model")
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        model = DINOv3ViTModel(tiny_config())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def changed(model_folder: Path, tmp_path: Path):
    """Makes a copy of the model with some tensors changed, or dropped where the change gives None."""

    def change(change_tensor) -> Path:
        folder = tmp_path / "changed"
        shutil.copytree(model_folder, folder)
        tensors = {name: change_tensor(name, tensor) for name, tensor in load_file(folder / WEIGHTS).items()}
        kept = {name: tensor.contiguous() for name, tensor in tensors.items() if tensor is not None}
        save_file(kept, folder / WEIGHTS, metadata={"format": "pt"})
        return folder

    return change


def loaded(folder: Path, **more) -> Dinov3Encoder:
    return load_dinov3(f"dinov3:{folder}", str(folder), tile_px=more.pop("tile_px", 64), **more)


def random_tiles(count: int = 2, size: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 3, size, size), dtype=np.float32)


def normalised(tiles: np.ndarray) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (torch.from_numpy(tiles) - mean) / std


def without_attention(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Tokens cannot see each other: what one token holds can only come from its own pixels."""
    return torch.zeros_like(tensor) if ".o_proj." in name else tensor


def test_a_layer_is_the_block_of_its_number_normed_without_prefix_tokens(model_folder: Path):
    encoder = loaded(model_folder, blocks=(1, 3, 4))
    tiles = random_tiles()
    model = DINOv3ViTModel.from_pretrained(str(model_folder)).eval()
    with torch.inference_mode():
        states = model(normalised(tiles), output_hidden_states=True).hidden_states
        assert len(states) == BLOCKS + 1
        expected = [model.norm(states[block])[:, 1 + REGISTERS :] for block in (1, 3, 4)]
    assert encoder.layers == ("block-01", "block-03", "block-04")
    for layer, tokens in zip(encoder.encode(tiles), expected, strict=True):
        assert layer.shape == (2, WIDTH, 4, 4)
        assert layer.dtype == np.float32
        as_tokens = layer.reshape(2, WIDTH, 16).transpose(0, 2, 1)
        assert np.abs(as_tokens - tokens.numpy()).max() == 0


def test_the_adapter_gives_what_the_backbone_class_gives(model_folder: Path):
    tiles = random_tiles()
    backbone = DINOv3ViTBackbone.from_pretrained(str(model_folder), out_indices=[1, 2, 3, 4]).eval()
    with torch.inference_mode():
        expected = backbone(normalised(tiles)).feature_maps
    for layer, one in zip(loaded(model_folder).encode(tiles), expected, strict=True):
        np.testing.assert_array_equal(layer, one.numpy())


def test_layers_come_from_shallow_to_deep_whatever_the_order_they_are_asked_in(model_folder: Path):
    tiles = random_tiles(1)
    every = loaded(model_folder, blocks=(1, 2, 3, 4)).encode(tiles)
    encoder = loaded(model_folder, blocks=(4, 2, 2))
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


@pytest.mark.parametrize(
    ("facts", "count"),
    [
        ({"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}, 21_596_544),
        (
            {
                "hidden_size": 384,
                "num_attention_heads": 6,
                "intermediate_size": 1536,
                "use_gated_mlp": True,
                "hidden_act": "silu",
            },
            28_692_864,
        ),
        ({"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}, 85_660_416),
        (
            {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096, "num_hidden_layers": 24},
            303_129_600,
        ),
    ],
    ids=["small", "small-plus", "base", "large"],
)
def test_the_released_sizes_have_their_published_number_of_parameters(facts: dict, count: int):
    with torch.device("meta"):
        model = DINOv3ViTModel(DINOv3ViTConfig(num_register_tokens=4, **facts))
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_two_calls_give_the_same_bits(model_folder: Path):
    encoder, tiles = loaded(model_folder), random_tiles()
    for first, second in zip(encoder.encode(tiles), encoder.encode(tiles), strict=True):
        np.testing.assert_array_equal(first, second)
    again = loaded(model_folder)
    assert again.digest == encoder.digest
    np.testing.assert_array_equal(again.encode(tiles)[0], encoder.encode(tiles)[0])


def test_a_tile_does_not_depend_on_the_others_in_its_batch(model_folder: Path):
    encoder, tiles = loaded(model_folder), random_tiles(3)
    together = encoder.encode(tiles)
    for index in range(3):
        alone = encoder.encode(tiles[index : index + 1])
        for layer, one in zip(together, alone, strict=True):
            np.testing.assert_allclose(layer[index], one[0], atol=1e-5)


def test_tiles_are_left_as_they_were(model_folder: Path):
    tiles = random_tiles()
    before = tiles.copy()
    loaded(model_folder).encode(tiles)
    np.testing.assert_array_equal(tiles, before)


def test_the_digest_tells_apart_all_that_changes_the_output(changed, model_folder: Path):
    other = changed(lambda name, tensor: tensor + 1e-3 if name == "norm.bias" else tensor)
    digests = {
        loaded(model_folder).digest,
        loaded(other).digest,
        loaded(model_folder, blocks=(4,)).digest,
        loaded(model_folder, tile_px=128).digest,
        loaded(model_folder, precision="bf16").digest,
    }
    assert len(digests) == 5
    moved = model_folder.with_name("moved")
    shutil.copytree(model_folder, moved)
    assert loaded(moved).digest == loaded(model_folder).digest


def test_half_precision_stays_close_and_gives_float32(model_folder: Path):
    tiles = random_tiles(1)
    half, full = (loaded(model_folder, precision=precision).encode(tiles)[-1] for precision in ("bf16", "fp32"))
    assert half.dtype == np.float32
    assert np.abs(half - full).mean() < 0.1 * np.abs(full).mean()


def test_what_the_encoder_states_of_itself_is_what_it_gives(model_folder: Path):
    encoder = load_encoder(EncoderSettings(encoder=f"dinov3:{model_folder}", tile_px=128, blocks=(2, 4)))
    assert encoder.tiles.tile_px == 128
    assert encoder.tiles.token_px == PATCH
    assert encoder.tiles.halo_px is None
    assert encoder.colour
    maps = encoder.encode(random_tiles(1, 128))
    assert tuple(one.shape[1] for one in maps) == encoder.dims(3) == (WIDTH, WIDTH)
    assert len(encoder.layers) == 2
    assert maps[0].shape[-2:] == (8, 8)


# -- what cannot be loaded -------------------------------------------------------------------------------------------


def test_a_missing_folder_is_refused_and_the_choices_are_named(tmp_path: Path):
    with pytest.raises(ModelError, match=r"no such folder[\s\S]*config\.json[\s\S]*facebook/dinov3[\s\S]*texture"):
        load_dinov3("x", str(tmp_path / "absent"))


@pytest.mark.parametrize("source", ["my weights/dino v3", "weights/..", "-a/b-", "models/dinov3.tar.gz copy"])
def test_a_mistyped_relative_folder_is_refused_as_an_error_of_the_user(source: str):
    with pytest.raises(ModelError, match="texture"):
        load_dinov3("x", source)


@pytest.mark.parametrize(
    "error",
    [LocalEntryNotFoundError("offline and not cached"), OSError("no route to host"), ConnectionError()],
    ids=["not-cached", "no-route", "no-message"],
)
def test_a_hub_that_cannot_be_reached_is_refused_and_the_choices_are_named(
    monkeypatch: pytest.MonkeyPatch, error: Exception
):
    def offline(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(ModelError, match=r"hub[\s\S]*hf auth login[\s\S]*folder[\s\S]*texture"):
        load_dinov3("x", "facebook/dinov3-vitb16-pretrain-lvd1689m")


def test_only_configuration_and_safetensors_are_asked_of_the_hub_at_the_revision(
    monkeypatch: pytest.MonkeyPatch, model_folder: Path
):
    asked = {}

    def snapshot(repository: str, **more) -> str:
        asked.update(more, repository=repository)
        return str(model_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    encoder = load_dinov3("x", "someone/model", revision="abc123", tile_px=64)
    assert asked["repository"] == "someone/model"
    assert asked["revision"] == "abc123"
    assert set(asked["allow_patterns"]) == {"config.json", "*.safetensors*"}
    assert encoder.width == WIDTH


class _Marker:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_folder_with_only_a_pickle_is_refused_and_nothing_is_unpickled(model_folder: Path, tmp_path: Path):
    folder, marker = tmp_path / "pickled", tmp_path / "executed"
    folder.mkdir()
    shutil.copy(model_folder / "config.json", folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Marker(marker)))
    with pytest.raises(ModelError, match=r"pytorch_model\.bin would have to be unpickled"):
        loaded(folder)
    assert not marker.exists()


def test_a_pickle_under_the_name_of_safetensors_is_refused_and_not_unpickled(model_folder: Path, tmp_path: Path):
    folder, marker = tmp_path / "disguised", tmp_path / "executed"
    shutil.copytree(model_folder, folder)
    (folder / WEIGHTS).write_bytes(pickle.dumps(_Marker(marker)))
    with pytest.raises(ModelError, match="not a readable safetensors"):
        loaded(folder)
    assert not marker.exists()


def test_an_empty_folder_is_refused(tmp_path: Path):
    with pytest.raises(ModelError, match=r"config\.json and \*\.safetensors are needed, found nothing"):
        loaded(tmp_path)


@pytest.mark.parametrize("text", ['{"model_type": "vit"}', '{"model_type": "no-such"}', "{}", "{", "[]", ""])
def test_another_kind_of_model_is_refused(model_folder: Path, tmp_path: Path, text: str):
    folder = tmp_path / "other"
    shutil.copytree(model_folder, folder)
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"other"):
        loaded(folder)


def test_the_supported_kinds_are_named(model_folder: Path, tmp_path: Path):
    folder = tmp_path / "other"
    shutil.copytree(model_folder, folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(ModelError, match=r"'vit' model; supported: dinov3_vit"):
        loaded(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(changed, value: float):
    def broken(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if name == "layer.2.norm1.weight":
            tensor[3] = value
        return tensor

    with pytest.raises(ModelError, match=r"layer\.2\.norm1\.weight holds NaN or infinite"):
        loaded(changed(broken))


def test_weights_that_are_missing_are_never_filled_with_random_ones(changed):
    folder = changed(lambda name, tensor: None if name == "layer.2.mlp.up_proj.weight" else tensor)
    with pytest.raises(ModelError, match=r"up_proj"):
        loaded(folder)


def test_weights_of_another_shape_are_refused(changed):
    folder = changed(lambda name, tensor: tensor[:-1] if name == "layer.0.mlp.up_proj.weight" else tensor)
    with pytest.raises(ModelError, match="do not load"):
        loaded(folder)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_file_cut_short_is_refused(model_folder: Path, tmp_path: Path, share: float):
    folder = tmp_path / "short"
    shutil.copytree(model_folder, folder)
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError, match="not a readable safetensors"):
        loaded(folder)


@pytest.mark.parametrize("blocks", [(0,), (5,), (1, 99), (-1,)])
def test_blocks_the_model_does_not_have_are_refused_and_those_it_has_are_named(
    model_folder: Path, blocks: tuple[int, ...]
):
    with pytest.raises(ModelError, match=r"the model has blocks 1 to 4"):
        loaded(model_folder, blocks=blocks)


@pytest.mark.parametrize("tile_px", [65, 80, 100, 224 + 8])
def test_tile_sizes_that_do_not_fit_the_patch_are_refused(model_folder: Path, tile_px: int):
    with pytest.raises(ModelError, match=r"no multiple of four patches of 16 px"):
        loaded(model_folder, tile_px=tile_px)


@pytest.mark.parametrize("name", ["resnet", "dinov3", "texture:fine", ""])
def test_an_unknown_encoder_is_refused_and_those_there_are_are_listed(name: str):
    with pytest.raises(ModelError, match=r"the encoders are texture, dinov3:<hub id or folder>"):
        load_encoder(EncoderSettings(encoder=name))
