"""Runs: one row per brain and configuration, with its parameters, figures and where it came from."""

import json
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import runtime

import cytoarch
from cytoarch.brains import Brain
from cytoarch.digests import canonical_json
from cytoarch.store.brain_store import BrainStore
from tasks.tracking.database import artifacts, client, experiment_id

PARENT_KIND = "brain"
MAP_TAG = "map"
"""Tag that names the maps of a brain's row, by which it is found when labels arrive."""


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
        mlflow = client(self._store)
        if self.run_id is None:
            name = f"{self._brain.brain_id}-{self._tags['config_digest'][:8]}"
            run = mlflow.create_run(
                experiment_id(self._store),
                start_time=self._started_ms,
                run_name=name,
                tags={**self._tags, **run_tags()},
            )
            self.run_id = str(run.info.run_id)
            documents = {"config.json": dict(self._configuration), "brain.json": self._brain.model_dump(mode="json")}
            _log_documents(self._store, str(run.info.artifact_uri), documents)
            log_params(self._store, self.run_id, flat(self._configuration))
        elif not self._opened:
            mlflow.update_run(self.run_id, status="RUNNING")
            for name, value in run_tags().items():
                mlflow.set_tag(self.run_id, name, value)
        self._opened = True
        return self.run_id

    def close(self, metrics: Mapping[str, float], failed: bool = False, map_name: str | None = None) -> None:
        """Log the figures and end the run, if it was opened; `map_name` is that of the maps that it made."""
        if self._opened and self.run_id is not None:
            if map_name is not None:
                client(self._store).set_tag(self.run_id, MAP_TAG, map_name)
            log_metrics(self._store, self.run_id, metrics)
            client(self._store).set_terminated(self.run_id, status="FAILED" if failed else "FINISHED")

    def _find(self) -> None:
        keys = ("brain", "kind", "config_digest", "input_digest", "encoder_digest")
        where = " and ".join(f"tags.{key} = '{self._tags[key]}'" for key in keys)
        known = client(self._store).search_runs([experiment_id(self._store)], filter_string=where, max_results=1)
        if known:
            self.run_id = str(known[0].info.run_id)
            self.finished = known[0].info.status == "FINISHED"


def log_later(store: BrainStore, brain_id: str, map_name: str, metrics: Mapping[str, float]) -> list[str]:
    """Log figures of maps to the latest row of the brain that made them; its id, or none where there is no such row."""
    where = f"tags.kind = '{PARENT_KIND}' and tags.brain = '{brain_id}' and tags.{MAP_TAG} = '{map_name}'"
    known = client(store).search_runs(
        [experiment_id(store)], filter_string=where, max_results=1, order_by=["attributes.start_time DESC"]
    )
    for run in known:
        log_metrics(store, str(run.info.run_id), metrics)
        client(store).set_tag(run.info.run_id, "scored_later", "labels arrived after the map was made")
    return [str(run.info.run_id) for run in known]


def git_revision() -> str:
    """The commit of this checkout, marked where files were changed since; `unknown` outside a repository."""
    root = Path(__file__).resolve().parent.parent.parent
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


def run_tags() -> dict[str, str]:
    """What says of a run from which code and which Prefect run it came."""
    tags = {"git_revision": git_revision(), "cytoarch_version": cytoarch.__version__}
    run = {
        "prefect.flow_run_id": runtime.flow_run.id,
        "prefect.flow_run_name": runtime.flow_run.name,
        "prefect.url": runtime.flow_run.ui_url,
    }
    return {**tags, **{name: str(value) for name, value in run.items() if value}}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings side by side.

    >>> flat({"embed": {"encoder": "texture"}, "head": "probe"})
    {'embed.encoder': 'texture', 'head': 'probe'}
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found.update(flat(value, f"{prefix}{name}."))
        else:
            found[f"{prefix}{name}"] = value
    return found


def log_params(store: BrainStore, run_id: str, params: Mapping[str, Any]) -> None:
    """Log parameters, each cut at 500 characters, in batches of as many as MLflow takes."""
    from mlflow.entities import Param

    texts = {name: value if isinstance(value, str) else canonical_json(value) for name, value in params.items()}
    entities = [Param(name, text[:500]) for name, text in sorted(texts.items())]
    for first in range(0, len(entities), 100):
        client(store).log_batch(run_id, params=entities[first : first + 100])


def log_metrics(store: BrainStore, run_id: str, metrics: Mapping[str, float]) -> None:
    """Log figures, in batches of as many as MLflow takes."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    entities = [Metric(name, value, now, 0) for name, value in sorted(metrics.items())]
    for first in range(0, len(entities), 1000):
        client(store).log_batch(run_id, metrics=entities[first : first + 1000])


def _log_documents(store: BrainStore, artifact_uri: str, documents: Mapping[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        for name, content in documents.items():
            (Path(scratch) / name).write_text(json.dumps(content, indent=2), encoding="utf-8")
        artifacts(store, artifact_uri).log_artifacts(scratch)
