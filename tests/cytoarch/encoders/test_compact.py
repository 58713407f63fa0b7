"""The encoder that comes with cytoarch: the weights that were trained, and tokens that keep their place."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from cytoarch.embeddings.dense import tile_plan
from cytoarch.embeddings.settings import EmbedSettings
from cytoarch.encoders.compact import FOLDER, HALO_PX, CompactEncoder, load_compact
from cytoarch.encoders.compact_model import TOKEN_PX
from cytoarch.encoders.registry import EncoderSettings, load_encoder
from cytoarch.errors import ModelError
from cytoarch.phantoms.rendering import render
from cytoarch.phantoms.sections import PhantomSettings, Window, cut, make_phantom, section_count

RECORD = json.loads((FOLDER / "training.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def encoder() -> CompactEncoder:
    return load_compact("compact", precision="fp32", device="cpu")


@pytest.fixture(scope="module")
def cortex() -> np.ndarray:
    """A window of a phantom's section (1, 1, 256, 256) float32 in [0, 1], tissue dark on bright."""
    phantom = make_phantom(PhantomSettings(seed=3, resolution=40))
    section = cut(phantom, section_count(phantom) // 2)
    height, width = section.size_px(20.0)
    pixels = render(section, Window(height // 2 - 128, width // 4 - 128, 256, 256), 20.0)
    return (pixels.astype(np.float32) / 255)[None, None]


def noise(seed: int, channels: int = 3, edge: int = 128, count: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).random((count, channels, edge, edge), dtype=np.float32)


def test_it_is_chosen_by_its_id_and_tells_what_it_gives(encoder: CompactEncoder) -> None:
    chosen = load_encoder(EncoderSettings(encoder="compact"))
    assert (chosen.encoder_id, chosen.digest) == ("compact", encoder.digest)
    (tokens,) = chosen.encode(noise(0))
    assert tokens.shape == (2, *chosen.dims(3), 32, 32)
    assert chosen.embed(noise(0)).shape == (2, chosen.patch_dims(3)) == (2, 256)
    with pytest.raises(ModelError, match="compact has no blocks to set"):
        load_encoder(EncoderSettings(encoder="compact", blocks=(1,)))


def test_the_same_tile_gives_the_same_bits_and_other_tiles_do_not_change_it(encoder: CompactEncoder) -> None:
    first, again = encoder.encode(noise(1))[0], encoder.encode(noise(1))[0]
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(encoder.encode(noise(1)[1:])[0][0], first[1], atol=1e-4)


def test_one_channel_is_three_that_are_alike(encoder: CompactEncoder) -> None:
    grey = noise(2, channels=1)
    np.testing.assert_allclose(encoder.encode(grey)[0], encoder.encode(np.repeat(grey, 3, axis=1))[0], atol=1e-5)
    with pytest.raises(ModelError, match="needed"):
        encoder.encode(noise(2, channels=2))
    with pytest.raises(ModelError, match="multiple of 32"):
        encoder.encode(noise(2, edge=100))


def test_a_token_sees_no_farther_than_the_halo_and_nearly_so_far(encoder: CompactEncoder) -> None:
    pixels = torch.from_numpy(noise(3, edge=544, count=1)).requires_grad_()
    row = 256 // TOKEN_PX  # the first token of a cell of 32 px: its cell reaches farthest to one side
    encoder.model(pixels).tokens[0, :, row, row].sum().backward()
    seen = np.flatnonzero((pixels.grad[0].abs().sum(dim=0) > 0).any(dim=1).numpy())
    before, after = 256 - seen[0], seen[-1] - (256 + TOKEN_PX - 1)
    assert max(before, after) <= HALO_PX
    assert max(before, after) > HALO_PX - 32


def test_tokens_do_not_depend_on_where_a_tile_begins(encoder: CompactEncoder) -> None:
    image = noise(4, channels=1, edge=576, count=1)
    first, shifted = encoder.encode(image[..., :544, :544])[0], encoder.encode(image[..., 32:, 32:])[0]
    core, moved = slice(256 // 4, 320 // 4), slice(224 // 4, 288 // 4)
    np.testing.assert_allclose(first[..., core, core], shifted[..., moved, moved], atol=1e-4)
    plan = tile_plan(encoder, 3000, 2000, EmbedSettings(encoder="compact"))
    assert plan.margin_px == HALO_PX
    assert plan.step_px % 32 == 0


def test_dark_on_bright_and_bright_on_dark_are_told_alike(encoder: CompactEncoder, cortex: np.ndarray) -> None:
    """The token of a place is liker to that of the same place turned over than to those of other places."""
    plain, inverted = (encoder.encode(one)[0][0].reshape(96, -1) for one in (cortex, 1 - cortex))
    centred = [one - one.mean(axis=1, keepdims=True) for one in (plain, inverted)]
    unit = [one / np.linalg.norm(one, axis=0) for one in centred]
    same = (unit[0] * unit[1]).sum(axis=0).mean()
    other = (unit[0] * np.roll(unit[1], 1031, axis=1)).sum(axis=0).mean()
    assert same > 0.5
    assert same > other + 0.4


def test_the_weights_are_those_of_the_training_record(encoder: CompactEncoder) -> None:
    assert (FOLDER / "model.safetensors").stat().st_size == RECORD["recipe"]["bytes"] < 8_000_000
    assert encoder.model.widths == tuple(RECORD["recipe"]["network"]["widths"])
    assert len(RECORD["training"]["loss"]) == RECORD["recipe"]["settings"]["steps"]


def test_weights_that_are_damaged_or_absent_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "compact"
    shutil.copytree(FOLDER, folder)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ModelError, match=r"sha256 is [0-9a-f]{12}\.\.\., bed550abbf22"):
        load_compact("compact", precision="fp32", device="cpu", folder=folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="install cytoarch"):
        load_compact("compact", precision="fp32", device="cpu", folder=folder)
