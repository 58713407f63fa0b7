"""EfficientNet-Lite0: the published size, tokens where they belong, and weights that are the known ones or none."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from cytoarch.encoders import lite
from cytoarch.encoders.lite import LiteEncoder, converted, load_lite, read_network
from cytoarch.encoders.lite_model import STAGE_DIMS, STAGE_STRIDES, LiteNetwork
from cytoarch.encoders.protocol import TileShape
from cytoarch.encoders.registry import EncoderSettings, load_encoder
from cytoarch.errors import ModelError


@pytest.fixture(scope="module")
def encoder() -> LiteEncoder:
    """The encoder with weights by chance."""
    torch.manual_seed(0)
    shape = TileShape(256, lite.TOKEN_PX, halo_px=None)
    return LiteEncoder("lite0", "d0", (1, 2, 3, 4, 5), shape, "fp32", "cpu", LiteNetwork().eval().requires_grad_(False))


def tiles(seed: int, count: int = 2, edge: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 3, edge, edge), dtype=np.float32)


def test_the_trunk_has_the_published_number_of_parameters() -> None:
    """4,652,008 in all, less those of the 1 x 1 convolution to 1,280 channels, its norm and the 1,000 classes."""
    head = 320 * 1280 + 2 * 1280 + 1280 * 1000 + 1000
    assert sum(one.numel() for one in LiteNetwork().parameters()) == 4_652_008 - head


def test_stages_have_their_strides_and_channels() -> None:
    with torch.inference_mode():
        found = LiteNetwork().eval()(torch.zeros(1, 3, 96, 64))
    sizes = zip(STAGE_DIMS, STAGE_STRIDES, strict=True)
    assert [tuple(one.shape) for one in found] == [(1, d, 96 // s, 64 // s) for d, s in sizes]


def test_a_layer_per_scale_on_the_token_grid(encoder: LiteEncoder) -> None:
    layers = encoder.encode(tiles(0))
    assert [one.shape for one in layers] == [(2, 512, 32, 32)] * 3
    assert encoder.dims(3) == (512, 512, 512)
    assert encoder.embed(tiles(0)).shape == (2, encoder.patch_dims(3))


def test_a_token_does_not_depend_on_the_other_tiles(encoder: LiteEncoder) -> None:
    together, alone = encoder.encode(tiles(1)), encoder.encode(tiles(1)[1:])
    for both, one in zip(together, alone, strict=True):
        np.testing.assert_allclose(both[1], one[0], atol=1e-4)


def test_a_change_in_one_place_is_seen_most_in_its_own_token(encoder: LiteEncoder) -> None:
    before = tiles(2, 1)
    after = before.copy()
    after[:, :, 96:104, 168:176] = 1 - after[:, :, 96:104, 168:176]
    shallow = slice(0, STAGE_DIMS[0])
    change = np.abs(encoder.encode(after)[0][0, shallow] - encoder.encode(before)[0][0, shallow]).sum(axis=0)
    assert np.unravel_index(change.argmax(), change.shape) == (12, 21)


def test_tiles_that_do_not_fit_are_refused(encoder: LiteEncoder) -> None:
    with pytest.raises(ModelError, match="with T a multiple of 128"):
        encoder.encode(tiles(0, 1, 96))


def test_a_file_that_is_not_the_known_one_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(b"\x80\x02csomething that would run")
    with pytest.raises(ModelError, match=r"sha256 is [0-9a-f]{12}\.\.\., 579344248a93\.\.\. is needed"):
        converted(tmp_path / "weights.pth", tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_without_the_package_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lite, "PACKAGE", "no_such_package_at_all")
    with pytest.raises(ModelError, match=r"which is not installed; install it, or choose texture"):
        load_lite("lite0", blocks=(), tile_px=None, precision="fp32", device="cpu")


@pytest.fixture
def package() -> Path:
    try:
        return lite.weights_file()
    except ModelError as error:
        pytest.skip(str(error))


def test_the_package_becomes_safetensors_once_and_again_where_they_are_damaged(package: Path, tmp_path: Path) -> None:
    folder = converted(package, tmp_path / "lite0")
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    assert (converted(package, folder) / "model.safetensors").stat().st_mtime_ns == stamp
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-1] + b"?")
    assert (converted(package, folder) / "model.safetensors").read_bytes() == whole
    known = torch.load(package, weights_only=True)
    for name, tensor in read_network(folder).state_dict().items():
        assert torch.equal(tensor, known[name]), name
    shutil.rmtree(folder)


def test_settings_that_it_does_not_have_are_refused(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ModelError, match="has no norm to set"):
        load_encoder(EncoderSettings(encoder="lite0", norm=False))
    with pytest.raises(ModelError, match="tile_px 200 does not fit lite0: it needs a multiple of 128 px"):
        load_encoder(EncoderSettings(encoder="lite0", tile_px=200))
    named = load_encoder(EncoderSettings(encoder="lite0:3,4"))
    for asked in ({"encoder": "lite0:3,4", "blocks": (3,)}, {"encoder": "lite0:middle"}):
        with pytest.raises(ModelError, match="stages are numbers with commas between them, such as lite0:3,4"):
            load_encoder(EncoderSettings.model_validate(asked))
    with pytest.raises(ModelError, match=r"lite0:3,9: stages \[3, 9\] asked for; the model has stages 1 to 5"):
        load_encoder(EncoderSettings(encoder="lite0:3,9"))
    chosen = load_encoder(EncoderSettings(encoder="lite0", blocks=(3, 4)))
    assert named.digest == chosen.digest
    whole = load_encoder(EncoderSettings(encoder="lite0", tile_px=128)).encode(tiles(3, 1, 128))
    some = load_encoder(EncoderSettings(encoder="lite0:3,4", tile_px=128)).encode(tiles(3, 1, 128))
    for every, few in zip(whole, some, strict=True):
        np.testing.assert_array_equal(every[:, 40:192], few)
    assert chosen.dims(3) == (152, 152, 152)
    assert chosen.digest != load_encoder(EncoderSettings(encoder="lite0")).digest
