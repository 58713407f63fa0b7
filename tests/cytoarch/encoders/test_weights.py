"""Where weights come from, and what is refused before a model is made of them."""

import json
import pickle
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from tiny_models import COMMIT, WEIGHTS, Marker, changed_copy, random_tiles, save_model

from cytoarch.encoders.dino import load_dino
from cytoarch.encoders.weights import WANTED, weights_digest, weights_folder
from cytoarch.errors import ModelError

INDEX = "model.safetensors.index.json"
REPOSITORY = "facebook/dinov3-vitb16-pretrain-lvd1689m"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model("dinov3_vit", tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(autouse=True)
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no network whatever happens."""
    from huggingface_hub.utils import _cache_manager

    cache = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(_cache_manager, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return cache


def put_in_cache(cache: Path, folder: Path, repository: str = REPOSITORY) -> Path:
    snapshot = cache / f"models--{repository.replace('/', '--')}" / "snapshots" / COMMIT
    shutil.copytree(folder, snapshot)
    return snapshot


def sharded(source: Path, target: Path) -> Path:
    """The same model in two shards with an index."""
    shutil.copytree(source, target)
    tensors = load_file(target / WEIGHTS)
    (target / WEIGHTS).unlink()
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, held in shards.items():
        save_file({name: tensors[name] for name in held}, target / shard, metadata={"format": "pt"})
    places = {name: shard for shard, held in shards.items() for name in held}
    (target / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return target


def loaded(folder: Path | str, **more):
    return load_dino(f"dinov3:{folder}", tile_px=64, **more)


# -- from where ------------------------------------------------------------------------------------------------------


def test_a_missing_folder_is_refused_and_the_choices_are_named(tmp_path: Path):
    with pytest.raises(ModelError, match=r"no such folder[\s\S]*config\.json[\s\S]*facebook/dinov3[\s\S]*texture"):
        loaded(tmp_path / "absent")


@pytest.mark.parametrize("source", ["my weights/dino v3", "weights/..", "-a/b-", "models/dinov3.tar.gz copy", "vitz16"])
def test_a_mistyped_relative_folder_is_refused_as_an_error_of_the_user(source: str):
    with pytest.raises(ModelError, match="texture"):
        loaded(source, revision=COMMIT)


@pytest.mark.parametrize("revision", [None, "", "main", "v1.0", COMMIT[:7], COMMIT.upper(), COMMIT + "0"])
def test_a_repository_without_a_pinned_commit_is_refused_and_told_why(revision: str | None):
    with pytest.raises(ModelError, match=r"40 hexadecimal digits[\s\S]*can move[\s\S]*texture"):
        loaded("vitb16", revision=revision)


def gated() -> GatedRepoError:
    import httpx2

    request = httpx2.Request("GET", "https://huggingface.co")
    return GatedRepoError("access is restricted", response=httpx2.Response(403, request=request))


@pytest.mark.parametrize(
    "error",
    [LocalEntryNotFoundError("offline and not cached"), OSError("no route to host"), ConnectionError(), gated()],
    ids=["not-cached", "no-route", "no-message", "gated"],
)
def test_a_hub_that_gives_nothing_is_one_error_that_names_the_choices(
    monkeypatch: pytest.MonkeyPatch, error: Exception
):
    def offline(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(ModelError, match=r"hub[\s\S]*hf auth login[\s\S]*folder[\s\S]*texture"):
        loaded("vitb16", revision=COMMIT)


def test_the_real_client_offline_gives_the_same_error():
    with pytest.raises(ModelError, match=rf"{REPOSITORY}[\s\S]*cannot be had[\s\S]*texture \(needs no weights\)"):
        loaded("vitb16", revision=COMMIT)


def test_only_configuration_and_safetensors_are_asked_of_the_hub_at_the_commit(
    monkeypatch: pytest.MonkeyPatch, model_folder: Path
):
    asked = []

    def snapshot(repository: str, **more) -> str:
        asked.append(more | {"repository": repository})
        if more.get("local_files_only"):
            raise LocalEntryNotFoundError("not cached")
        return str(model_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    encoder = loaded("someone/model", revision=COMMIT)
    assert [one["repository"] for one in asked] == ["someone/model"] * 2
    assert {one["revision"] for one in asked} == {COMMIT}
    assert asked[-1]["allow_patterns"] == list(WANTED)
    assert not any("*" in pattern and not pattern.endswith(".safetensors") for pattern in WANTED)
    assert encoder.encoder_id == "dinov3:someone/model"


def test_a_cached_snapshot_is_used_without_a_network(hub_cache: Path, model_folder: Path):
    snapshot = put_in_cache(hub_cache, model_folder)
    assert weights_folder(REPOSITORY, COMMIT).resolve() == snapshot.resolve()
    cached = loaded("vitb16", revision=COMMIT)
    assert cached.digest == loaded(model_folder).digest
    assert (cached.encode(random_tiles())[0] == loaded(model_folder).encode(random_tiles())[0]).all()


def test_models_in_the_cache_are_listed_with_their_commit_where_another_cannot_be_had(
    hub_cache: Path, model_folder: Path
):
    put_in_cache(hub_cache, model_folder, "someone/dino")
    strange = put_in_cache(hub_cache, model_folder, "someone/words")
    (strange / "config.json").write_text('{"model_type": "bert"}')
    half = put_in_cache(hub_cache, model_folder, "someone/half")
    (half / WEIGHTS).unlink()
    for source in ("vitb16", "/nowhere"):
        with pytest.raises(ModelError) as caught:
            loaded(source, revision=COMMIT)
        assert f"dinov3:someone/dino (revision {COMMIT}), texture" in str(caught.value)
        assert "words" not in str(caught.value)
        assert "half" not in str(caught.value)


def test_a_snapshot_cut_short_is_not_taken_for_whole(hub_cache: Path, model_folder: Path, tmp_path: Path):
    snapshot = put_in_cache(hub_cache, sharded(model_folder, tmp_path / "sharded"))
    (snapshot / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"1 of 2 shards are missing|cannot be had"):
        loaded("vitb16", revision=COMMIT)


# -- what they hold --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pickle_name", ["pytorch_model.bin", "model.pth"])
def test_a_folder_with_only_a_pickle_is_refused_and_nothing_is_unpickled(
    model_folder: Path, tmp_path: Path, pickle_name: str
):
    folder, marker = tmp_path / "pickled", tmp_path / "executed"
    folder.mkdir()
    shutil.copy(model_folder / "config.json", folder)
    (folder / pickle_name).write_bytes(pickle.dumps(Marker(marker)))
    with pytest.raises(ModelError, match=rf"{pickle_name} would have to be unpickled[\s\S]*texture"):
        loaded(folder)
    assert not marker.exists()


def test_a_pickle_under_the_name_of_safetensors_is_refused_and_not_unpickled(model_folder: Path, tmp_path: Path):
    folder, marker = tmp_path / "disguised", tmp_path / "executed"
    shutil.copytree(model_folder, folder)
    (folder / WEIGHTS).write_bytes(pickle.dumps(Marker(marker)))
    with pytest.raises(ModelError, match="not a readable safetensors"):
        loaded(folder)
    assert not marker.exists()


def test_code_that_comes_with_a_model_is_not_run(model_folder: Path, tmp_path: Path):
    folder, marker = tmp_path / "coded", tmp_path / "executed"
    shutil.copytree(model_folder, folder)
    (folder / "modeling.py").write_text(f"open({str(marker)!r}, 'w')\nclass Model: pass\nclass Config: pass\n")
    names = {"AutoModel": "modeling.Model", "AutoConfig": "modeling.Config"}
    config = json.loads((folder / "config.json").read_text()) | {"auto_map": names}
    (folder / "config.json").write_text(json.dumps(config))
    loaded(folder)
    assert not marker.exists()


def test_an_empty_folder_is_refused(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ModelError, match=r"config\.json and model\.safetensors.*are needed, found nothing[\s\S]*texture"
    ):
        loaded(tmp_path / "empty")


@pytest.mark.parametrize("text", ['{"model_type": "vit"}', '{"model_type": 3}', "{}", "{", "[]", ""])
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
    with pytest.raises(ModelError, match=r"'vit' model; dinov3: reads dinov3_vit, dinov3_convnext[\s\S]*texture"):
        loaded(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(model_folder: Path, tmp_path: Path, value: float):
    def broken(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if name == "layer.2.norm1.weight":
            tensor[3] = value
        return tensor

    folder = changed_copy(model_folder, tmp_path / "broken", broken)
    for fault in ({}, {"blocks": (1,)}, {"blocks": (99,)}):
        with pytest.raises(ModelError, match=r"layer\.2\.norm1\.weight holds NaN or infinite"):
            loaded(folder, **fault)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_file_cut_short_is_refused(model_folder: Path, tmp_path: Path, share: float):
    folder = tmp_path / "short"
    shutil.copytree(model_folder, folder)
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError, match="not a readable safetensors"):
        loaded(folder)


# -- in several files ------------------------------------------------------------------------------------------------


def test_a_model_in_shards_gives_what_it_gives_in_one_file(model_folder: Path, tmp_path: Path):
    folder = sharded(model_folder, tmp_path / "sharded")
    tiles = random_tiles()
    for one, other in zip(loaded(folder).encode(tiles), loaded(model_folder).encode(tiles), strict=True):
        assert (one == other).all()


def test_the_index_and_every_shard_are_in_the_digest(model_folder: Path, tmp_path: Path):
    folder = sharded(model_folder, tmp_path / "sharded")
    before = weights_digest(folder)
    index = json.loads((folder / INDEX).read_text())
    (folder / INDEX).write_text(json.dumps(index, indent=1))
    second = weights_digest(folder)
    changed = folder / "model-00002-of-00002.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(changed).items()}, changed, metadata={"format": "pt"})
    assert len({before, second, weights_digest(folder)}) == 3


def test_a_missing_shard_is_refused_by_name(model_folder: Path, tmp_path: Path):
    folder = sharded(model_folder, tmp_path / "sharded")
    (folder / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"1 of 2 shards are missing: model-00001-of-00002\.safetensors"):
        loaded(folder)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"weight_map": {}}',
        '{"weight_map": {"a": 3}}',
        '{"weight_map": {"a": "../model.safetensors"}}',
        '{"weight_map": {"a": "pytorch_model.bin"}}',
    ],
)
def test_an_index_that_is_none_or_points_elsewhere_is_refused(model_folder: Path, tmp_path: Path, text: str):
    folder = sharded(model_folder, tmp_path / "sharded")
    (folder / INDEX).write_text(text)
    with pytest.raises(ModelError, match=r"index\.json"):
        loaded(folder)
