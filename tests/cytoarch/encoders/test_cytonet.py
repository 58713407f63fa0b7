"""CytoNet: sizes of the paper, tokens, patch embeddings and attention."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import changed_copy, random_tiles, randomised

from cytoarch.embeddings.attention import attentive
from cytoarch.encoders.cytonet import (
    CytoNetConfig,
    CytoNetEncoder,
    build_cytonet,
    load_cytonet,
    save_cytonet,
)
from cytoarch.encoders.cytonet_model import CytoNetR50, CytoNetR50ViT, empty_cytonet
from cytoarch.encoders.registry import EncoderSettings, load_encoder
from cytoarch.errors import ModelError

R50, HYBRID = "cytonet_r50", "cytonet_r50_vit"
SMALL = {
    "tile_px": 256,
    "stem_width": 8,
    "hidden_sizes": (8, 16, 24, 32),
    "depths": (1, 2, 1, 1),
    "width": 24,
    "blocks": 3,
    "heads": 3,
    "mlp_width": 48,
}
GRID = 4


def small_config(model_type: str, **more) -> CytoNetConfig:
    return CytoNetConfig(model_type=model_type, **(SMALL | more))


def small_model(config: CytoNetConfig) -> CytoNetR50:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return randomised(build_cytonet(config))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("cytonet")
    for model_type in (R50, HYBRID):
        config = small_config(model_type, mean=(0.4,), std=(0.2,))
        save_cytonet(small_model(config), config, root / model_type)
    return {model_type: root / model_type for model_type in (R50, HYBRID)}


def loaded(folder: Path, **more) -> CytoNetEncoder:
    return load_cytonet(f"cytonet:{folder}", **more)


def tiles_of(count: int = 2, size: int = 256) -> np.ndarray:
    return random_tiles(count, size, channels=1)


@pytest.mark.parametrize(
    ("model_type", "channels", "count"),
    [(R50, 1, 23_537_216), (R50, 3, 23_540_416), (HYBRID, 1, 110_954_816), (HYBRID, 3, 110_958_016)],
)
def test_the_published_sizes_have_their_number_of_parameters(model_type: str, channels, count: int):
    model = empty_cytonet(CytoNetConfig(model_type=model_type, channels=channels))
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.long
@pytest.mark.slow
def test_a_tile_of_the_published_size_has_32_by_32_tokens_and_12_maps():
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        model = build_cytonet(CytoNetConfig(model_type=HYBRID)).eval()
    assert isinstance(model, CytoNetR50ViT)
    pixels = torch.rand((1, 1, 2048, 2048), generator=torch.Generator().manual_seed(1))
    seen = []
    model.projection.register_forward_hook(lambda module, given, result: seen.append(given[0].shape))
    with torch.inference_mode():
        assert model(pixels).shape == (1, 1025, 768)
        assert model.first_attention(pixels).shape == (1, 12, 1025)
    assert seen == [(1, 2048, 32, 32)] * 2


@pytest.mark.parametrize(("model_type", "dims", "layer"), [(R50, 32, "stage-4"), (HYBRID, 24, "block-03")])
def test_what_the_encoder_states_of_itself_is_what_it_gives(folders, model_type: str, dims: int, layer: str):
    encoder = load_encoder(EncoderSettings(encoder=f"cytonet:{folders[model_type]}"))
    assert encoder.layers == (layer,)
    assert (encoder.tiles.tile_px, encoder.tiles.token_px, encoder.tiles.halo_px) == (256, 64, None)
    assert (encoder.channels, encoder.pixel_size_um) == (1, 2.0)
    (grid,) = encoder.encode(tiles_of())
    assert grid.shape == (2, dims, GRID, GRID)
    assert grid.dtype == np.float32
    assert grid.flags.c_contiguous
    assert encoder.dims(1) == (dims,)
    patches = encoder.embed(tiles_of())
    assert patches.shape == (2, encoder.patch_dims(1)) == (2, dims)
    assert patches.dtype == np.float32


def test_what_was_saved_gives_what_the_model_gave(folders):
    pixels = (torch.from_numpy(tiles_of()) - 0.4) / 0.2
    for model_type, folder in folders.items():
        model = small_model(small_config(model_type))
        with torch.inference_mode():
            output = model(pixels)
        encoder = loaded(folder)
        (grid,) = encoder.encode(tiles_of())
        if model_type == R50:
            np.testing.assert_allclose(grid, output.numpy(), atol=1e-5)
            np.testing.assert_allclose(encoder.embed(tiles_of()), output.mean(dim=(2, 3)).numpy(), atol=1e-5)
        else:
            np.testing.assert_allclose(grid.reshape(2, 24, 16).transpose(0, 2, 1), output[:, 1:].numpy(), atol=1e-5)
            np.testing.assert_allclose(encoder.embed(tiles_of()), output[:, 0].numpy(), atol=1e-5)


def test_blocks_are_what_they_are_called_and_deeper_ones_change_nothing(folders):
    every = loaded(folders[HYBRID], blocks=(1, 2, 3), norm=False)
    assert every.layers == ("block-01", "block-02", "block-03")
    grids = every.encode(tiles_of())
    model = every.model
    assert isinstance(model, CytoNetR50ViT)
    with torch.inference_mode():
        state = model.embedded((torch.from_numpy(tiles_of()) - 0.4) / 0.2)
        for block, grid in zip(model.blocks, grids, strict=True):
            state = block(state)
            np.testing.assert_array_equal(grid.reshape(2, 24, 16).transpose(0, 2, 1), state[:, 1:].numpy())
        normed = model.norm(state)[:, 1:].numpy()
    second = loaded(folders[HYBRID], blocks=(2,), norm=False)
    np.testing.assert_array_equal(second.encode(tiles_of())[0], grids[1])
    last = loaded(folders[HYBRID]).encode(tiles_of())[0]
    np.testing.assert_array_equal(last.reshape(2, 24, 16).transpose(0, 2, 1), normed)


def test_attention_maps_are_the_class_tokens_softmax_over_the_patches(folders):
    encoder = loaded(folders[HYBRID])
    maps = encoder.attention_maps(tiles_of())
    assert maps.shape == (2, 3, GRID, GRID)
    assert maps.dtype == np.float32
    model = encoder.model
    assert isinstance(model, CytoNetR50ViT)
    attention, heads, width = model.blocks[0].self_attn, 3, 24
    with torch.inference_mode():
        tokens = model.blocks[0].norm1(model.embedded((torch.from_numpy(tiles_of()) - 0.4) / 0.2))
        queries, keys, _ = (tokens @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, dim=-1)
    queries, keys = (
        part.double().numpy().reshape(2, -1, heads, width // heads).transpose(0, 2, 1, 3) for part in (queries, keys)
    )
    scores = np.einsum("bhd,bhkd->bhk", queries[:, :, 0], keys) / np.sqrt(width // heads)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(maps.reshape(2, heads, -1), weights[:, :, 1:], atol=1e-6)
    np.testing.assert_allclose(maps.sum(axis=(2, 3)) + weights[:, :, 0], 1, atol=1e-5)


def test_a_resnet_has_no_attention_maps(folders):
    with pytest.raises(ModelError, match="cytonet_r50_vit"):
        loaded(folders[R50]).attention_maps(tiles_of())
    with pytest.raises(ModelError, match="has no attention that could be drawn"):
        attentive(loaded(folders[R50]))
    assert attentive(loaded(folders[HYBRID])).attended == 1


@pytest.mark.parametrize("model_type", [R50, HYBRID])
def test_a_tile_does_not_depend_on_the_others_in_its_batch(folders, model_type: str):
    encoder, tiles = loaded(folders[model_type]), tiles_of(3)
    assert not encoder.model.training
    (together,) = encoder.encode(tiles)
    embedded = encoder.embed(tiles)
    for index in range(3):
        np.testing.assert_allclose(together[index], encoder.encode(tiles[index : index + 1])[0][0], atol=1e-5)
        np.testing.assert_allclose(embedded[index], encoder.embed(tiles[index : index + 1])[0], atol=1e-5)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (2, 5), (7, 3)])
def test_a_bright_square_lands_on_its_token(folders, tmp_path: Path, row: int, column: int):
    def centred(name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Only the middle of a 3x3 convolution: what a token holds can only come from its own pixels."""
        if tensor.shape[-2:] != (3, 3):
            return tensor
        middle = torch.zeros_like(tensor)
        middle[:, :, 1, 1] = tensor[:, :, 1, 1]
        return middle

    encoder = loaded(changed_copy(folders[R50], tmp_path / "centred", centred), tile_px=512)
    dark = np.zeros((1, 1, 512, 512), dtype=np.float32)
    bright = dark.copy()
    bright[:, :, row * 64 : row * 64 + 48, column * 64 : column * 64 + 48] = 1
    change = np.abs(encoder.encode(bright)[0] - encoder.encode(dark)[0]).sum(axis=(0, 1))
    assert np.argwhere(change > 1e-6).tolist() == [[row, column]]


def test_one_channel_is_three_equal_channels_where_three_are_taken(tmp_path: Path):
    config = small_config(HYBRID, channels=3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    save_cytonet(small_model(config), config, tmp_path / "colour")
    encoder = loaded(tmp_path / "colour")
    assert encoder.channels == 3
    tiles = tiles_of()
    np.testing.assert_array_equal(encoder.encode(tiles)[0], encoder.encode(tiles.repeat(3, axis=1))[0])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("model_type", [R50, HYBRID])
def test_half_precision_stays_close_and_gives_float32(folders, model_type: str, precision):
    half, full = (loaded(folders[model_type], precision=one).encode(tiles_of())[0] for one in (precision, "fp32"))
    assert half.dtype == np.float32
    assert np.abs(half - full).mean() < 0.1 * np.abs(full).mean()


def test_the_digest_tells_apart_all_that_changes_the_output(folders, tmp_path: Path):
    folder = folders[HYBRID]
    other = changed_copy(folder, tmp_path / "other", lambda name, tensor: tensor + 1 if name == "norm.bias" else tensor)
    stated = changed_copy(folder, tmp_path / "stated", lambda name, tensor: tensor)
    config = json.loads((stated / "config.json").read_text()) | {"mean": [0.3]}
    (stated / "config.json").write_text(json.dumps(config))
    digests = {
        loaded(folder).digest,
        loaded(other).digest,
        loaded(stated).digest,
        loaded(folder, blocks=(1,)).digest,
        loaded(folder, norm=False).digest,
        loaded(folder, precision="bf16").digest,
        loaded(folders[R50]).digest,
        loaded(folders[R50], tile_px=512).digest,
    }
    assert len(digests) == 8
    assert loaded(folder).digest == loaded(folder).digest


# -- what cannot be loaded -------------------------------------------------------------------------------------------


def test_tile_sizes_that_do_not_fit_are_refused(folders):
    assert loaded(folders[R50], tile_px=512).encode(tiles_of(1, 512))[0].shape == (1, 32, 8, 8)
    with pytest.raises(ModelError, match="multiple of 64"):
        loaded(folders[R50], tile_px=300)
    with pytest.raises(ModelError, match="learned positions"):
        loaded(folders[HYBRID], tile_px=512)
    with pytest.raises(ModelError, match="learned positions"):
        loaded(folders[HYBRID]).encode(tiles_of(1, 512))
    with pytest.raises(ModelError, match=r"needed: \(b, 1, T, T\)"):
        loaded(folders[R50]).encode(random_tiles(1, 256))


def test_blocks_the_model_does_not_have_are_refused(folders):
    for blocks in ((0,), (4,), (2, 2)):
        with pytest.raises(ModelError, match="blocks 1 to 3"):
            loaded(folders[HYBRID], blocks=blocks)
    assert loaded(folders[R50], blocks=(4,)).layers == ("stage-4",)
    with pytest.raises(ModelError, match="stage 4 only"):
        loaded(folders[R50], blocks=(3,))


def test_missing_and_unexpected_weights_are_refused_by_name(folders, tmp_path: Path):
    dropped = changed_copy(
        folders[HYBRID], tmp_path / "dropped", lambda name, tensor: None if name == "norm.bias" else tensor
    )
    with pytest.raises(ModelError, match=r"1 tensors are missing \(norm\.bias\)"):
        loaded(dropped)
    config = json.loads((dropped / "config.json").read_text()) | {"model_type": R50}
    (dropped / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"tensors have no place in the model \(blocks\.0\."):
        loaded(dropped)
    cut = changed_copy(
        folders[R50], tmp_path / "cut", lambda name, tensor: tensor[:4] if name.endswith("conv1.weight") else tensor
    )
    with pytest.raises(ModelError, match=r"trunk\.embedder\.conv1\.weight: \(4, 1, 5, 5\) instead of \(8, 1, 5, 5\)"):
        loaded(cut)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"channels": 2}, "channels"),
        ({"width": 25}, "no multiple of heads"),
        ({"hidden_sizes": [8, 16, 24, 33]}, "multiples of 4"),
        ({"mean": [0.1, 0.2]}, "one a channel"),
        ({"std": [0.0]}, "above 0"),
        ({"tile_px": 100}, "tile_px"),
        ({"flavour": "sweet"}, "flavour"),
    ],
)
def test_a_configuration_that_makes_no_model_is_refused_by_field(folders, tmp_path: Path, change: dict, fault: str):
    folder = changed_copy(folders[HYBRID], tmp_path / "bad", lambda name, tensor: tensor)
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=fault):
        loaded(folder)


def test_nothing_is_overwritten_and_nothing_half_written(folders, tmp_path: Path):
    config = small_config(R50)
    with pytest.raises(ModelError, match="already there"):
        save_cytonet(small_model(config), config, folders[HYBRID])
    with pytest.raises(ModelError, match="do not fit"):
        save_cytonet(small_model(config), small_config(HYBRID), tmp_path / "unlike")
    assert list(tmp_path.iterdir()) == []
