"""Weights: where they come from, and what is checked of them before a model is made.

A model is a folder with config.json and safetensors, local or a repository of the hub at a pinned commit. Pickles are
never unpickled and code that comes with a model is never run.
"""

import json
import re
import shutil
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import CacheNotFound, HFValidationError, StrictDataclassError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from cytoarch.digests import content_digest, hash_file
from cytoarch.errors import ModelError

CONFIG, SINGLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PREPROCESSOR = "preprocessor_config.json"
WANTED = (CONFIG, PREPROCESSOR, SINGLE, INDEX, "model-*.safetensors")
"""All that is ever downloaded of a repository."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
KINDS = {
    "dinov3_vit": "dinov3",
    "dinov3_convnext": "dinov3",
    "dinov2": "dinov2",
    "dinov2_with_registers": "dinov2",
    "cytonet_r50": "cytonet",
    "cytonet_r50_vit": "cytonet",
}
"""model_type in config.json -> the kind of encoder, which its id begins with."""
UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, StrictDataclassError)
"""What transformers raises at a configuration or weights that make no model."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NAMED = 5


def weights_folder(source: str, revision: str | None = None) -> Path:
    """The local folder of a model: `source` itself, or the hub repository it names at a commit, downloaded if need be.

    A snapshot already in the local Hugging Face cache is used without asking the network. Raises ModelError, naming
    what can be used instead, if there is no such folder, the commit is not pinned, or the repository cannot be had.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ModelError(
                f"{folder}: is a folder here, to which revision {revision} says nothing; leave the revision out, or "
                "run where no folder has the name of the hub id"
            )
        return folder
    if folder.is_absolute() or source.startswith((".", "~")) or source.count("/") != 1:
        raise ModelError(
            f"encoder weights {source!r}: no such folder. Needed: a folder with {CONFIG} and {SINGLE} (as "
            "save_pretrained writes it), or a hub id such as facebook/dinov3-vitb16-pretrain-lvd1689m. "
            f"{alternatives()}"
        )
    if revision is None or not _COMMIT.fullmatch(revision):
        raise ModelError(
            f"encoder weights {source!r}: revision is {revision!r}; needed is the commit of the hub repository (40 "
            "hexadecimal digits, shown under 'Files and versions', 'History'). A branch or tag can move, and results "
            f"would change without a word. {alternatives()}"
        )
    return _cached(source, revision) or _downloaded(source, revision)


def _cached(source: str, revision: str) -> Path | None:
    """The snapshot in the local cache, if it is whole."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(source, revision=revision, allow_patterns=list(WANTED), local_files_only=True))
        read_config(folder)
        safetensors_files(folder)
    except (OSError, HFValidationError, ModelError):
        return None
    return folder


def _downloaded(source: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=list(WANTED)))
    except Exception as error:  # noqa: BLE001 - the hub's client lets errors of several libraries through
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise ModelError(
            f"encoder weights {source!r} at {revision} cannot be had from the hub ({type(error).__name__}: {reason}). "
            "If the model is gated, accept its licence and log in with `hf auth login`; offline, download it "
            f"elsewhere and give its folder. {alternatives()}"
        ) from None


def alternatives() -> str:
    """One sentence on what can be used here and now: models in the local Hugging Face cache, and texture."""
    from huggingface_hub import scan_cache_dir

    try:
        repositories = scan_cache_dir().repos
    except (CacheNotFound, OSError, ValueError):
        repositories = frozenset()
    found = []
    for repository in sorted(repositories, key=lambda one: one.repo_id):
        for snapshot in sorted(repository.revisions, key=lambda one: one.commit_hash):
            try:
                config = read_config(snapshot.snapshot_path)
                safetensors_files(snapshot.snapshot_path)
            except (ModelError, OSError):
                continue
            if kind := KINDS.get(str(config.get("model_type"))):
                found.append(f"{kind}:{repository.repo_id} (revision {snapshot.commit_hash})")
    return f"Usable here without the hub: {', '.join([*found, 'texture (needs no weights)'])}"


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model folder. Raises ModelError if it is not there or is no JSON object."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: {CONFIG} cannot be read ({error})") from None
    if not isinstance(config, dict):
        raise ModelError(f"{folder}: {CONFIG} is no JSON object, so no model's configuration")
    return config


def safetensors_files(folder: Path) -> list[Path]:
    """The files that hold the weights: model.safetensors, or every shard its index names, the index not among them.

    Raises ModelError if there are none or a shard is missing.
    """
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        return _shards(folder)
    found = sorted(path.name for path in folder.iterdir())
    shown = ", ".join(found[:12]) or "nothing"
    pickles = [name for name in found if name.endswith(PICKLES)]
    advice = f"; {', '.join(pickles)} would have to be unpickled, which is refused" if pickles else ""
    raise ModelError(f"{folder}: {CONFIG} and {SINGLE} (or shards with {INDEX}) are needed, found {shown}{advice}")


def _shards(folder: Path) -> list[Path]:
    try:
        places = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        names = sorted({str(name) for name in places.values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{folder / INDEX}: is no index of shards ({type(error).__name__}: {error})") from None
    # an index could point outside its folder, or at a pickle
    strange = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
    if strange or not names:
        raise ModelError(f"{folder / INDEX}: names {strange[:_NAMED] or 'no file'}; needed are *.safetensors beside it")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ModelError(f"{folder}: {len(missing)} of {len(names)} shards are missing: {_some(missing)}")
    return [folder / name for name in names]


def check_folder(folder: Path, kind: str, source: str) -> dict[str, Any]:
    """The configuration of the model of one kind in a folder, once its weights are known to be whole and finite.

    Raises ModelError if weights are absent, damaged, or not safetensors, or if the model is of another kind; where the
    folder holds no usable model at all, it names what can be used instead.
    """
    try:
        files, config = safetensors_files(folder), read_config(folder)
    except ModelError as error:
        raise ModelError(f"{error}. {alternatives()}") from None
    found = config.get("model_type")
    supported = ", ".join(model_type for model_type in KINDS if KINDS[model_type] == kind)
    if found not in KINDS:
        raise ModelError(f"{folder}: holds a {found!r} model; {kind}: reads {supported}. {alternatives()}")
    if KINDS[found] != kind:
        raise ModelError(
            f"{folder}: holds a {found!r} model, and {kind}: reads {supported}; its id is {KINDS[found]}:{source}"
        )
    for path in files:
        _check_finite(path)
    return config


def _check_finite(path: Path) -> None:
    try:
        with safe_open(path, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - safe_open offers keys() but is no mapping
                if not torch.isfinite(weights.get_tensor(name)).all():
                    raise ModelError(f"{path}: tensor {name} holds NaN or infinite weights; the file is damaged")
    except SafetensorError as error:
        raise ModelError(f"{path}: is not a readable safetensors file ({error})") from None


def weights_digest(folder: Path) -> str:
    """sha256 over the configuration, the index of the shards if there is one, and every file of weights."""
    files = safetensors_files(folder)
    index = [] if files == [folder / SINGLE] else [folder / INDEX]
    return content_digest({path.name: hash_file(path).sha256 for path in [folder / CONFIG, *index, *files]})


def check_names(where: str, needed: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ModelError unless the tensors found are those needed, with the same shapes; name -> shape."""
    faults = []
    if missing := sorted(needed.keys() - found.keys()):
        faults.append(f"{len(missing)} tensors are missing ({_some(missing)})")
    if unexpected := sorted(found.keys() - needed.keys()):
        faults.append(f"{len(unexpected)} tensors have no place in the model ({_some(unexpected)})")
    unlike = [
        f"{name}: {found[name]} instead of {needed[name]}"
        for name in sorted(needed.keys() & found.keys())
        if found[name] != needed[name]
    ]
    if unlike:
        faults.append(f"{len(unlike)} tensors have another shape ({_some(unlike)})")
    if faults:
        raise ModelError(f"{where}: the weights do not fit the model: {'; '.join(faults)}")


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:_NAMED]) + (", ..." if len(listed) > _NAMED else "")


def write_folder(
    folder: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    preprocessor: Mapping[str, Any] | None = None,
) -> None:
    """Write a model folder whole or not at all. Raises ModelError if something is already there."""
    if folder.exists():
        raise ModelError(f"{folder}: is already there; name a folder that is not, nothing is overwritten")
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = folder.parent / f".{folder.name}.{uuid.uuid4().hex}"
    staging.mkdir()
    try:
        (staging / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        if preprocessor is not None:
            (staging / PREPROCESSOR).write_text(json.dumps(preprocessor, indent=2, sort_keys=True) + "\n", "utf-8")
        # clones: safetensors refuses tensors that share memory, as the three parts of one matrix do
        whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        save_file(whole, staging / SINGLE, metadata={"format": "pt"})
        staging.rename(folder)
    finally:
        if staging.exists():
            shutil.rmtree(staging)
