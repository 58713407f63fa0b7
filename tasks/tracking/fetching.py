"""Heads from the registry, read as what comes from outside: sizes, names, addresses and encoders are checked first."""

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cytoarch.digests import content_digest, hash_file
from cytoarch.encoders.registry import EncoderSettings, parts_of, takes
from cytoarch.errors import ModelError, StoreError
from cytoarch.learning.cards import CARD_FILE, WEIGHTS_FILE, HeadCard
from cytoarch.learning.heads import load_domain, load_head
from cytoarch.store.brain_store import BrainStore
from tasks.tracking.database import EXPERIMENT, HEAD_FOLDER, artifacts, client, tracking_uri
from tasks.tracking.experiments import experiments

LIMITS_BYTES = {CARD_FILE: 4 << 20, WEIGHTS_FILE: 2 << 30}
"""The largest files of a head that are fetched."""

MODEL_URI = re.compile(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))")


def fetch_head(store: BrainStore, model_uri: str, allow: Sequence[EncoderSettings] = ()) -> str:
    """The digest of a registered head, which is in the store then.

    A head that the store keeps is taken from there. Any other is fetched from the files of the training run that
    registered it, and from nowhere else; it may name an encoder with weights only if a head in the store uses the same
    one or it is in `allow`, since loading an encoder reads a folder or a hub repository.

    Raises ModelError if the registry has no such model, its files are not a head, or it names another encoder.
    """
    match = MODEL_URI.fullmatch(model_uri)
    if match is None:
        raise ModelError(
            f"{model_uri!r} names no registered model; models:/NAME@ALIAS or models:/NAME/VERSION is needed"
        )
    version = _version(store, model_uri, *match.groups())
    digest = str(version.tags.get("model_digest", ""))
    if _is_kept(store, digest):
        return digest
    with tempfile.TemporaryDirectory() as scratch:
        folder = _download(store, model_uri, version, Path(scratch))
        head = load_head(folder)
        load_domain(folder)  # what lies beside the weights is checked before it is kept, too
        _check_encoder(store, model_uri, head.card, allow)
        found = _files_digest(folder)
        if digest and found != digest:
            raise ModelError(
                f"{model_uri} is head {found[:12]}, but {digest[:12]} was registered: its files have changed since; "
                "train the head again, or restore them from a copy"
            )
        if not _is_kept(store, found):
            store.models.remove(found)  # a damaged one would be left as it is
        return store.models.add({name: (folder / name).read_bytes() for name in LIMITS_BYTES})


def _version(store: BrainStore, model_uri: str, name: str, alias: str | None, number: str | None) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        # not through models:/ addresses: those ask the process's default registry, whatever store this is
        if alias:
            return client(store).get_model_version_by_alias(name, alias)
        return client(store).get_model_version(name, str(number))
    except MlflowException as error:
        raise ModelError(f"{model_uri} cannot be had from {tracking_uri(store)} ({error})") from None


def _is_kept(store: BrainStore, digest: str) -> bool:
    """Whether the store holds this head as it was kept."""
    try:
        folder = store.models.path(digest)
        return folder.is_dir() and _files_digest(folder) == digest
    except (StoreError, OSError):
        return False


def _files_digest(folder: Path) -> str:
    return content_digest({name: hash_file(folder / name).sha256 for name in (CARD_FILE, WEIGHTS_FILE)})


def _download(store: BrainStore, model_uri: str, version: Any, scratch: Path) -> Path:
    """The two files of a head in a folder, fetched from its training run after a look at what is there."""
    from mlflow.exceptions import MlflowException

    try:
        files = artifacts(store, _source(store, model_uri, version))
        _check_listing(model_uri, files.list_artifacts())
        for name in LIMITS_BYTES:
            files.download_artifacts(name, str(scratch))
    except (MlflowException, StoreError, OSError) as error:
        raise ModelError(f"{model_uri} cannot be had from {tracking_uri(store)} ({error})") from None
    return scratch


def _source(store: BrainStore, model_uri: str, version: Any) -> str:
    """The address of a version's files. Raises ModelError unless it is the head of a run of one of our experiments."""
    from mlflow.exceptions import MlflowException

    ours = experiments(store)  # the first look at an old store mends the addresses in it
    try:
        run = client(store).get_run(version.run_id) if version.run_id else None
    except MlflowException:
        run = None
    if run is None or str(run.info.experiment_id) not in ours:
        raise ModelError(
            f"{model_uri} was not registered by a training run of the experiments {EXPERIMENT!r}; train it"
        )
    wanted = f"{run.info.artifact_uri}/{HEAD_FOLDER}"
    source = client(store).get_model_version(version.name, version.version).source
    if source != wanted:
        raise ModelError(
            f"{model_uri} names {source} as its files; only {wanted}, what its training run has kept, is read"
        )
    return wanted


def _check_listing(model_uri: str, listing: Sequence[Any]) -> None:
    """Raise ModelError unless exactly the files of a head are there, none larger than it may be."""
    unexpected = sorted(one.path for one in listing if one.is_dir or one.path not in LIMITS_BYTES)
    if unexpected:
        shown = ", ".join(unexpected[:5])
        raise ModelError(f"{model_uri} holds {shown}; only {CARD_FILE} and {WEIGHTS_FILE} are read")
    for one in listing:
        if one.file_size is None or one.file_size > LIMITS_BYTES[one.path]:
            raise ModelError(
                f"{model_uri}: {one.path} has {one.file_size} bytes; at most {LIMITS_BYTES[one.path]:,} are fetched"
            )


def _check_encoder(store: BrainStore, model_uri: str, card: HeadCard, allow: Sequence[EncoderSettings]) -> None:
    """Raise ModelError if using the head would load an encoder that nobody here has chosen."""
    known = {one for settings in allow for one in _loaded(settings)} | _encoders_in(store)
    if not _loaded(card.embedding) <= known:
        encoder, revision = card.embedding.encoder, card.embedding.revision
        listed = ", ".join(_shown(*one) for one in sorted(known, key=str)) or "none"
        raise ModelError(
            f"{model_uri} needs the encoder {_shown(encoder, revision)}, which it names itself and which would be read "
            f"from there; encoders chosen here: {listed}. If you trust it, allow it by name: --allow.encoder {encoder}"
            + (f" --allow.revision {revision}" if revision else "")
        )


def _loaded(settings: EncoderSettings) -> set[tuple[str, str | None]]:
    """What is read by name when an encoder is loaded, of each that it joins: the folder or repository, and its commit.

    Nothing of texture, or of encoders of installed packages and their stages.
    """
    named = [one for one in parts_of(settings.encoder) if ":" in one and not one.startswith("lite0:")]
    return {(one, settings.revision if takes(one, "revision") else None) for one in named}


def _shown(encoder: str, revision: str | None) -> str:
    return f"{encoder}@{revision}" if revision else encoder


def _encoders_in(store: BrainStore) -> set[tuple[str, str | None]]:
    """The encoders of the heads in the store: trained here, or let in before."""
    found: set[tuple[str, str | None]] = set()
    for path in (store.root / "models").glob(f"*/{CARD_FILE}"):
        if _is_kept(store, path.parent.name):  # a damaged head vouches for nothing
            found.update(_loaded(HeadCard.model_validate_json(path.read_bytes()).embedding))
    return found
