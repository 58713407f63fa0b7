"""What MLflow remembers: one row per brain and configuration, and every model version. Nobody else talks to MLflow.

Runs are named explicitly in every call: MLflow's notion of an active run is per thread and would create stray runs.
Models are registered as folders of safetensors and JSON; nothing from the registry is ever executed or unpickled.
"""

import logging
import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from prefect import runtime

import cytoarch
from cytoarch.brains import Brain
from cytoarch.digests import canonical_json
from cytoarch.errors import ModelError
from cytoarch.learning.cards import CARD_FILE, WEIGHTS_FILE
from cytoarch.learning.heads import head_files, load_head
from cytoarch.store.brain_store import BrainStore

EXPERIMENT = "cytoarch"
CHAMPION = "champion"
PARENT_KIND = "brain"

_MODEL_URI = re.compile(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))")

_client_lock = threading.Lock()


class ModelVersion(NamedTuple):
    """A version of a registered model."""

    name: str
    version: int
    champion: bool
    run_id: str


def tracking_uri(store: BrainStore) -> str:
    """Where runs are tracked: MLFLOW_TRACKING_URI, or a database inside the store."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{store.tracking_path.resolve()}/mlflow.db"


def run_url(store: BrainStore, run_id: str) -> str:
    """The page of a run, where a tracking server is in use; else the file of the database that `mlflow ui` opens."""
    uri = tracking_uri(store)
    if uri.startswith(("http://", "https://")):
        return f"{uri.rstrip('/')}/#/experiments/{_experiment(store)}/runs/{run_id}"
    return f"file://{store.tracking_path.resolve()}/mlflow.db#{run_id}"


class BrainLedger:
    """The one MLflow run of a brain, configuration and input, opened only when something is made.

    It is found again by its tags: a run that was killed goes on in the same row, one that finds all current adds none.
    """

    def __init__(
        self, store: BrainStore, brain: Brain, configuration: Mapping[str, Any], tags: Mapping[str, str]
    ) -> None:
        self._store, self._brain, self._configuration = store, brain, configuration
        self._tags = {"brain": brain.brain_id, "kind": PARENT_KIND, **tags}
        self._started_ms = int(time.time() * 1000)
        self._opened = False
        self.run_id: str | None = None
        self.finished = False
        """Whether the run is there and was ended with its figures."""
        self._find()

    def open(self) -> str:
        """The id of the run, which is made or opened again."""
        client = _client(self._store)
        if self.run_id is None:
            name = f"{self._brain.brain_id}-{self._tags['config_digest'][:8]}"
            run = client.create_run(
                _experiment(self._store), start_time=self._started_ms, run_name=name, tags={**self._tags, **_run_tags()}
            )
            self.run_id = str(run.info.run_id)
            client.log_dict(self.run_id, dict(self._configuration), "config.json")
            client.log_dict(self.run_id, self._brain.model_dump(mode="json"), "brain.json")
            _log_params(self._store, self.run_id, _flat(self._configuration))
        elif not self._opened:
            client.update_run(self.run_id, status="RUNNING")
            for name, value in _run_tags().items():
                client.set_tag(self.run_id, name, value)
        self._opened = True
        return self.run_id

    def close(self, metrics: Mapping[str, float], failed: bool = False) -> None:
        """Log the figures and end the run, if it was opened."""
        if self._opened and self.run_id is not None:
            _log_metrics(self._store, self.run_id, metrics)
            _client(self._store).set_terminated(self.run_id, status="FAILED" if failed else "FINISHED")

    def _find(self) -> None:
        keys = ("brain", "kind", "config_digest", "input_digest", "encoder_digest")
        where = " and ".join(f"tags.{key} = '{self._tags[key]}'" for key in keys)
        known = _client(self._store).search_runs([_experiment(self._store)], filter_string=where, max_results=1)
        if known:
            self.run_id = str(known[0].info.run_id)
            self.finished = known[0].info.status == "FINISHED"


def register_head(
    store: BrainStore,
    brain_id: str,
    digest: str,
    metrics: Mapping[str, float],
    params: Mapping[str, Any],
    parent: Callable[[], str] | None = None,
) -> ModelVersion:
    """Make a trained head a version of its registered model, unless it is one already.

    `parent` opens the run that the training's run hangs below, where there is one. The first version becomes the
    champion, a later one only if its held-out macro-F1 is higher.
    """
    client = _client(store)
    head = load_head(store.model_path(digest))
    name = f"{head.card.target}-{head.card.kind}-{brain_id}"
    for known in client.search_model_versions(f"name = '{name}'"):
        if known.tags.get("model_digest") == digest:
            # a run that was killed may have got no further than the version
            if _champion(store, name) is None:
                client.set_registered_model_alias(name, CHAMPION, known.version)
            client.set_terminated(known.run_id)
            champion = _champion(store, name) == int(known.version)
            return ModelVersion(name, int(known.version), champion, str(known.run_id))
    tags = {"brain": brain_id, "kind": "training", "model_digest": digest, **_run_tags()}
    if parent is not None:
        tags["mlflow.parentRunId"] = parent()
    run = client.create_run(_experiment(store), run_name=f"train-{name}", tags=tags)
    run_id = str(run.info.run_id)
    _log_params(store, run_id, {"encoder": head.card.embedding.encoder, "kind": head.card.kind, **_flat(params)})
    _log_metrics(store, run_id, metrics)
    client.log_artifacts(run_id, str(store.model_path(digest)), "head")
    _ensure_model(store, name)
    score = metrics.get("held_out/macro_f1")
    version_tags = {"model_digest": digest, "encoder_digest": head.card.encoder_digest, "brain": brain_id}
    if score is not None:
        version_tags["held_out_macro_f1"] = repr(score)
    version = client.create_model_version(name, f"{run.info.artifact_uri}/head", run_id, tags=version_tags)
    promoted = _is_better(store, name, score)
    if promoted:
        client.set_registered_model_alias(name, CHAMPION, version.version)
    client.set_terminated(run_id)
    return ModelVersion(name, int(version.version), promoted, run_id)


def fetch_head(store: BrainStore, model_uri: str) -> str:
    """Download a registered head, check that it is one, keep it in the store, and return its digest.

    Raises ModelError if the registry has no such model or its files are not a head.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    match = _MODEL_URI.fullmatch(model_uri)
    if match is None:
        raise ModelError(
            f"{model_uri!r} names no registered model; models:/NAME@ALIAS or models:/NAME/VERSION is needed"
        )
    name, alias, number = match.groups()
    client, uri = _client(store), tracking_uri(store)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            # not download_artifacts(model_uri): that asks the process's default registry, whatever store this is
            version = client.get_model_version_by_alias(name, alias).version if alias else number
            source = client.get_model_version_download_uri(name, version)
            folder = Path(download_artifacts(artifact_uri=source, dst_path=scratch, tracking_uri=uri))
        except (MlflowException, OSError) as error:
            raise ModelError(f"{model_uri} cannot be had from {uri} ({error})") from None
        unexpected = sorted(p.name for p in folder.iterdir() if p.name not in (CARD_FILE, WEIGHTS_FILE))
        if unexpected:
            raise ModelError(f"{model_uri} holds {', '.join(unexpected)}; only {CARD_FILE} and {WEIGHTS_FILE} are read")
        return store.add_model(head_files(load_head(folder)))


def git_revision() -> str:
    """The commit of this checkout, marked where files were changed since; `unknown` outside a repository."""
    root = Path(__file__).resolve().parent.parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return described.stdout.strip()


def _run_tags() -> dict[str, str]:
    tags = {"git_revision": git_revision(), "cytoarch_version": cytoarch.__version__}
    run = {
        "prefect.flow_run_id": runtime.flow_run.id,
        "prefect.flow_run_name": runtime.flow_run.name,
        "prefect.url": runtime.flow_run.ui_url,
    }
    return {**tags, **{name: str(value) for name, value in run.items() if value}}


def _client(store: BrainStore) -> Any:
    """An MLflow client for the store's tracking database or server; the database is made on first use."""
    from mlflow import MlflowClient

    with _client_lock:
        for name in ("alembic", "mlflow.store.db.utils", "mlflow.tracking"):
            logging.getLogger(name).setLevel(logging.WARNING)
        uri = tracking_uri(store)
        if uri.startswith("sqlite:"):
            store.tracking_path.mkdir(parents=True, exist_ok=True)
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _experiment(store: BrainStore) -> str:
    client = _client(store)
    known = client.get_experiment_by_name(EXPERIMENT)
    if known is not None:
        return str(known.experiment_id)
    local = tracking_uri(store).startswith("sqlite:")
    location = f"file://{store.tracking_path.resolve()}/artifacts" if local else None
    from mlflow.exceptions import MlflowException

    try:
        return str(client.create_experiment(EXPERIMENT, artifact_location=location))
    except MlflowException as error:  # another run was first
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return str(client.get_experiment_by_name(EXPERIMENT).experiment_id)


def _ensure_model(store: BrainStore, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        _client(store).create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _champion(store: BrainStore, name: str) -> int | None:
    from mlflow.exceptions import MlflowException

    try:
        return int(_client(store).get_model_version_by_alias(name, CHAMPION).version)
    except MlflowException:
        return None


def _is_better(store: BrainStore, name: str, score: float | None) -> bool:
    version = _champion(store, name)
    if version is None:
        return True
    known = _client(store).get_model_version(name, str(version)).tags.get("held_out_macro_f1")
    return score is not None and (known is None or score > float(known))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _log_params(store: BrainStore, run_id: str, params: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    texts = {name: value if isinstance(value, str) else canonical_json(value) for name, value in params.items()}
    entities = [Param(name, text[:500]) for name, text in sorted(texts.items())]
    for first in range(0, len(entities), 100):
        _client(store).log_batch(run_id, params=entities[first : first + 100])


def _log_metrics(store: BrainStore, run_id: str, metrics: Mapping[str, float]) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    _client(store).log_batch(run_id, metrics=[Metric(name, value, now, 0) for name, value in sorted(metrics.items())])
