"""Conversion of weights: what goes in under other names comes out with the same numbers, or is refused."""

import json
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import Marker, random_tiles, randomised
from torch import nn
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from cytoarch.encoders.conversion import convert_weights
from cytoarch.encoders.cytonet import CytoNetConfig, build_cytonet
from cytoarch.encoders.registry import EncoderSettings, load_encoder
from cytoarch.errors import ModelError

DEPTHS, SIZES = (2, 1, 2, 1), (8, 16, 24, 32)


class TorchvisionBlock(nn.Module):
    """A bottleneck with the names and the order of computation of torchvision."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        inner = after // 4
        self.conv1, self.bn1 = nn.Conv2d(before, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, after, 1, bias=False), nn.BatchNorm2d(after)
        self.downsample = None
        if stride != 1 or before != after:
            self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        shortcut = given if self.downsample is None else self.downsample(given)
        inner = torch.relu(self.bn1(self.conv1(given)))
        inner = torch.relu(self.bn2(self.conv2(inner)))
        return torch.relu(self.bn3(self.conv3(inner)) + shortcut)


class TorchvisionNet(nn.Module):
    """A ResNet with torchvision's names and the stem of CytoNet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 8, 5, 4, 2, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8)
        before = 8
        for stage, (depth, after) in enumerate(zip(DEPTHS, SIZES, strict=True)):
            blocks = [
                TorchvisionBlock(before if block == 0 else after, after, 2 if stage and not block else 1)
                for block in range(depth)
            ]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            before = after
        self.fc = nn.Linear(before, 3)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        features = torch.relu(self.bn1(self.conv1(pixels)))
        features = nn.functional.max_pool2d(torch.relu(self.bn2(self.conv2(features))), 2)
        return self.layer4(self.layer3(self.layer2(self.layer1(features))))


@pytest.fixture(scope="module")
def torchvision_net() -> TorchvisionNet:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return randomised(TorchvisionNet())


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    path = tmp_path / "small.json"
    path.write_text(json.dumps({"tile_px": 256, "stem_width": 8, "hidden_sizes": SIZES, "depths": DEPTHS}))
    return path


def written(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def folders_in(path: Path) -> list[str]:
    return [one.name for one in path.iterdir() if one.is_dir()]


# -- CytoNet ---------------------------------------------------------------------------------------------------------


def test_weights_named_as_in_torchvision_give_the_same_features(torchvision_net, config_path: Path, tmp_path: Path):
    source = written(tmp_path / "net.pth", torchvision_net.state_dict())
    made = convert_weights(source, tmp_path / "model", "torchvision-r50", config_path=config_path)
    assert made.left_out == ("fc.bias", "fc.weight")
    assert made.encoder_id == f"cytonet:{tmp_path / 'model'}"
    encoder = load_encoder(EncoderSettings(encoder=made.encoder_id))
    tiles = random_tiles(2, 256, channels=1)
    with torch.inference_mode():
        expected = torchvision_net(torch.from_numpy(tiles)).numpy()
    np.testing.assert_allclose(encoder.encode(tiles)[0], expected, rtol=1e-5, atol=1e-5)
    assert sorted(one.name for one in made.folder.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("model_type", ["cytonet_r50", "cytonet_r50_vit"])
def test_our_own_names_are_kept(model_type: str, tmp_path: Path):
    more = {"width": 24, "blocks": 2, "heads": 3, "mlp_width": 48}
    config = CytoNetConfig(
        model_type=model_type, channels=3, tile_px=128, stem_width=8, hidden_sizes=SIZES, depths=DEPTHS, **more
    )
    with torch.random.fork_rng(devices=()):
        model = randomised(build_cytonet(config))
    (tmp_path / "config.json").write_text(config.model_dump_json())
    source = written(tmp_path / "own.pt", model.state_dict())
    made = convert_weights(source, tmp_path / "model", "cytonet", config_path=tmp_path / "config.json")
    encoder = load_encoder(EncoderSettings(encoder=made.encoder_id))
    for name, tensor in encoder.model.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])


def test_without_a_configuration_the_published_sizes_are_needed(torchvision_net, tmp_path: Path):
    source = written(tmp_path / "net.pth", torchvision_net.state_dict())
    with pytest.raises(ModelError, match=r"not in the table|missing"):
        convert_weights(source, tmp_path / "model", "torchvision-r50")
    assert folders_in(tmp_path) == []


def test_a_table_of_the_user_says_what_becomes_what(torchvision_net, config_path: Path, tmp_path: Path):
    from cytoarch.encoders.conversion_tables import torchvision_table

    names = torchvision_table(CytoNetConfig(model_type="cytonet_r50", hidden_sizes=SIZES, depths=DEPTHS))
    rows = [f"net_{old},{new}" for old, new in names.items()]
    (tmp_path / "table.csv").write_text("\n".join(["from,to", *rows]))
    source = written(
        tmp_path / "net.pt", {f"net_{name}": tensor for name, tensor in torchvision_net.state_dict().items()}
    )
    by_table = convert_weights(source, tmp_path / "one", str(tmp_path / "table.csv"), config_path=config_path)
    plain = written(tmp_path / "plain.pt", torchvision_net.state_dict())
    by_name = convert_weights(plain, tmp_path / "two", "torchvision-r50", config_path=config_path)
    assert by_table.digest == by_name.digest


@pytest.mark.parametrize(
    "text", ["", "from,to\n", "a,b\nc,d\n", "from,to\na,x\na,y\n", "from,to\na,x\nb,x\n", "from,to\n,x\n"]
)
def test_a_table_that_is_ambiguous_is_refused(torchvision_net, config_path: Path, tmp_path: Path, text: str):
    (tmp_path / "table.csv").write_text(text)
    source = written(tmp_path / "net.pt", torchvision_net.state_dict())
    with pytest.raises(ModelError, match=r"table\.csv"):
        convert_weights(source, tmp_path / "model", str(tmp_path / "table.csv"), config_path=config_path)


def test_wrappers_are_taken_off_only_where_they_are_named(torchvision_net, config_path: Path, tmp_path: Path):
    wrapped = OrderedDict((f"module.{name}", tensor) for name, tensor in torchvision_net.state_dict().items())
    source = written(tmp_path / "net.pt", {"state_dict": wrapped, "epoch": 3})

    def convert(prefix: str):
        return convert_weights(source, tmp_path / "model", "torchvision-r50", config_path=config_path, prefix=prefix)

    with pytest.raises(ModelError, match=r"state_dict, epoch are no tensors[\s\S]*prefix"):
        convert("")
    with pytest.raises(ModelError, match=r"not in the table[\s\S]*all begin with 'module\.'"):
        convert("state_dict")
    with pytest.raises(ModelError, match=r"do not begin with 'model\.'"):
        convert("state_dict.model.")
    assert convert("state_dict.module").tensor_count > 0


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda state: state | {"layer9.weight": torch.zeros(1)}, r"1 of \d+ tensors are not in the table: layer9"),
        (lambda state: {name: one for name, one in state.items() if name != "conv2.weight"}, r"missing \(trunk"),
        (lambda state: state | {"conv1.weight": torch.zeros(8, 3, 7, 7)}, r"\(8, 3, 7, 7\) instead of \(8, 1, 5, 5\)"),
        (lambda state: state | {"bn1.bias": torch.full((8,), torch.nan)}, "NaN"),
        (lambda state: {}, "dictionary of tensors"),
        (lambda state: [1, 2], "list"),
        (lambda state: state | {"extra": "text"}, "extra are no tensors"),
    ],
    ids=["unmatched", "missing", "shape", "nan", "empty", "list", "text"],
)
def test_tensors_that_do_not_fit_are_refused_and_nothing_is_written(
    torchvision_net, config_path: Path, tmp_path: Path, change, fault: str
):
    source = written(tmp_path / "net.pt", change(dict(torchvision_net.state_dict())))
    with pytest.raises(ModelError, match=fault):
        convert_weights(source, tmp_path / "model", "torchvision-r50", config_path=config_path)
    assert folders_in(tmp_path) == []


def test_files_without_batch_counters_are_whole(torchvision_net, config_path: Path, tmp_path: Path):
    state = {name: one for name, one in torchvision_net.state_dict().items() if "num_batches" not in name}
    source = written(tmp_path / "net.pt", state)
    made = convert_weights(source, tmp_path / "model", "torchvision-r50", config_path=config_path)
    load_encoder(EncoderSettings(encoder=made.encoder_id))


def test_a_pickle_with_code_is_refused_and_never_run(config_path: Path, tmp_path: Path):
    marker = tmp_path / "executed"
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Marker(marker)))
    written(tmp_path / "zipped.pt", {"conv1.weight": torch.zeros(1), "trap": Marker(marker)})
    written(tmp_path / "module.pt", nn.Linear(2, 2))
    for name in ("plain.pt", "zipped.pt", "module.pt"):
        with pytest.raises(ModelError, match=r"which is refused|no file of torch"):
            convert_weights(tmp_path / name, tmp_path / "model", "torchvision-r50", config_path=config_path)
    assert not marker.exists()
    assert folders_in(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04", bytes(100)])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "net.pt").write_bytes(content)
    with pytest.raises(ModelError, match=r"net\.pt"):
        convert_weights(tmp_path / "net.pt", tmp_path / "model", "cytonet")
    with pytest.raises(ModelError, match="cannot be read"):
        convert_weights(tmp_path / "absent.pt", tmp_path / "model", "cytonet")


def test_what_is_there_is_not_overwritten(torchvision_net, config_path: Path, tmp_path: Path):
    (tmp_path / "model").mkdir()
    source = written(tmp_path / "net.pt", torchvision_net.state_dict())
    with pytest.raises(ModelError, match="already there"):
        convert_weights(source, tmp_path / "model", "torchvision-r50", config_path=config_path)
    assert list((tmp_path / "model").iterdir()) == []


def test_a_write_that_fails_leaves_nothing(
    torchvision_net, config_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("cytoarch.encoders.weights.save_file", full)
    source = written(tmp_path / "net.pt", torchvision_net.state_dict())
    with pytest.raises(OSError, match="no space"):
        convert_weights(source, tmp_path / "model", "torchvision-r50", config_path=config_path)
    assert folders_in(tmp_path) == []


@pytest.mark.parametrize("table", ["dinov9", "", "nowhere.csv"])
def test_an_unknown_table_is_refused_and_those_there_are_are_listed(torchvision_net, tmp_path: Path, table: str):
    source = written(tmp_path / "net.pt", torchvision_net.state_dict())
    with pytest.raises(ModelError, match="dinov3, torchvision-r50, cytonet, or a CSV"):
        convert_weights(source, tmp_path / "model", table)


# -- DINOv3 ----------------------------------------------------------------------------------------------------------


def tiny_dinov3(*, gated: bool, biased: bool) -> DINOv3ViTModel:
    config = DINOv3ViTConfig(
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_register_tokens=4,
        use_gated_mlp=gated,
        hidden_act="silu" if gated else "gelu",
        query_bias=biased,
        value_bias=biased,
    )
    with torch.random.fork_rng(devices=()):
        return randomised(DINOv3ViTModel(config))


def in_metas_names(model: DINOv3ViTModel) -> dict[str, torch.Tensor]:
    """The model's weights as Meta's own files hold them: fused qkv with a masked bias, periods of the positions."""
    embeddings = model.embeddings
    state = {
        "cls_token": embeddings.cls_token,
        "storage_tokens": embeddings.register_tokens,
        "mask_token": embeddings.mask_token[0],
        "patch_embed.proj.weight": embeddings.patch_embeddings.weight,
        "patch_embed.proj.bias": embeddings.patch_embeddings.bias,
        "rope_embed.periods": (1 / model.rope_embeddings.inv_freq).bfloat16(),
        "norm.weight": model.norm.weight,
        "norm.bias": model.norm.bias,
    }
    gated = model.config.use_gated_mlp
    for index, layer in enumerate(model.model.layer):
        block, attention = f"blocks.{index}", layer.attention
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        state[f"{block}.attn.qkv.weight"] = torch.cat([one.weight for one in projections])
        if attention.q_proj.bias is not None:
            nothing = torch.full((128,), 0.25)  # masked, so of no account
            state[f"{block}.attn.qkv.bias"] = torch.cat([attention.q_proj.bias, nothing, attention.v_proj.bias])
            state[f"{block}.attn.qkv.bias_mask"] = torch.cat([torch.ones(128), torch.zeros(128), torch.ones(128)])
        state[f"{block}.ls1.gamma"] = layer.layer_scale1.lambda1
        state[f"{block}.ls2.gamma"] = layer.layer_scale2.lambda1
        modules = {"attn.proj": attention.o_proj, "norm1": layer.norm1, "norm2": layer.norm2}
        if gated:
            modules |= {"mlp.w1": layer.mlp.gate_proj, "mlp.w2": layer.mlp.up_proj, "mlp.w3": layer.mlp.down_proj}
        else:
            modules |= {"mlp.fc1": layer.mlp.up_proj, "mlp.fc2": layer.mlp.down_proj}
        for name, module in modules.items():
            state |= {f"{block}.{name}.weight": module.weight, f"{block}.{name}.bias": module.bias}
    return {name: tensor.detach().clone() for name, tensor in state.items()}


@pytest.mark.parametrize(("gated", "biased"), [(False, True), (True, True), (True, False)])
def test_metas_weights_give_exactly_what_they_gave(tmp_path: Path, gated: bool, biased: bool):
    model = tiny_dinov3(gated=gated, biased=biased)
    model.save_pretrained(tmp_path / "saved")
    state = in_metas_names(model) | {"local_cls_norm.weight": torch.ones(128), "local_cls_norm.bias": torch.zeros(128)}
    made = convert_weights(written(tmp_path / "meta.pth", state), tmp_path / "model", "dinov3")
    assert made.encoder_id.startswith("dinov3:")
    assert {"rope_embed.periods", "local_cls_norm.bias"} < set(made.left_out)
    ours, theirs = (
        load_encoder(EncoderSettings(encoder=f"dinov3:{tmp_path / name}", tile_px=64)) for name in ("model", "saved")
    )
    tiles = random_tiles()
    for one, other in zip(ours.encode(tiles), theirs.encode(tiles), strict=True):
        assert np.abs(one - other).max() == 0
    assert np.abs(ours.embed(tiles) - theirs.embed(tiles)).max() == 0


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"blocks.1.attn.qkv.bias_mask": torch.ones(384)}, "keys have a bias"),
        ({"blocks.1.attn.qkv.weight": torch.zeros(383, 128)}, "cannot be split"),
        ({"blocks.1.mlp.fc1.weight": torch.zeros(200, 128)}, r"\(200, 128\) instead of \(192, 128\)"),
        ({"rope_embed.periods": torch.ones(16)}, "periods"),
        ({"head.weight": torch.zeros(2)}, "not in the table: head.weight"),
        ({"rope_embed.periods": None}, "not the weights of a DINOv3"),
        ({"norm.bias": None}, r"missing \(norm\.bias\)"),
    ],
    ids=["mask", "split", "shape", "periods", "unmatched", "none", "missing"],
)
def test_other_weights_than_metas_are_refused(tmp_path: Path, change: dict, fault: str):
    state = in_metas_names(tiny_dinov3(gated=False, biased=True)) | change
    kept = {name: tensor for name, tensor in state.items() if tensor is not None}
    with pytest.raises(ModelError, match=fault):
        convert_weights(written(tmp_path / "meta.pth", kept), tmp_path / "model", "dinov3")
    assert folders_in(tmp_path) == []
