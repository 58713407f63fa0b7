"""Runs: one row per brain and configuration, with its parameters, figures and where it came from."""

import json
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from prefect import runtime

import cytoarch
from cytoarch.brains import Brain
from cytoarch.digests import canonical_json
from cytoarch.store.brain_store import BrainStore
from tasks.tracking.database import artifacts, client
from tasks.tracking.experiments import Question, experiment_id, search_rows

PARENT_KIND, INGESTION_KIND = "brain", "failed ingestion"
MAP_TAG = "map"
"""Tag that names the maps of a brain's row, by which it is found when labels arrive."""
UNINGESTED = "failed_in"
"""Tag of a row of a brain whose ingestion failed; the run that ingests it goes on in that row."""

Status = Literal["FINISHED", "FAILED", "KILLED"]
Context = Literal["mapped", "training", "held_out"]


class Dataset(NamedTuple):
    """Data that a run used."""

    name: str
    digest: str
    """Of its content; MLflow keeps 36 characters."""
    context: Context
    source: str
    """The folder of the store that it was read from, relative to the store: that may be moved."""


class Remains(NamedTuple):
    """What is left of a run beside its figures."""

    files: Mapping[str, bytes] = {}
    """Name -> content, for people to look at."""
    datasets: Sequence[Dataset] = ()
    tags: Mapping[str, str] = {}
    title: str = ""
    """The name of the run; blank: as it was."""
    description: str = ""


NOTHING_REMAINS = Remains()


class BrainLedger:
    """The one MLflow run of a brain, configuration and input, opened only when something is made.

    It is found again by its tags: a run that was killed goes on in the same row, one that finds all current adds none.
    Nothing is asked of MLflow before it is needed.
    """

    def __init__(
        self,
        store: BrainStore,
        brain: Brain,
        configuration: Mapping[str, Any],
        tags: Mapping[str, str],
        question: Question,
    ) -> None:
        self._store, self._brain, self._configuration, self._question = store, brain, configuration, question
        self.tags = {"brain": brain.brain_id, "kind": PARENT_KIND, **tags}
        self._started_ms = int(time.time() * 1000)
        self.opened = False
        """Whether it was opened, to be closed with figures."""
        self._run_id: str | None = None
        self._finished = False

    @property
    def run_id(self) -> str | None:
        """The run, if it is there."""
        self._find()
        return self._run_id

    @property
    def finished(self) -> bool:
        """Whether the run is there and was ended with its figures."""
        self._find()
        return self._finished

    def open(self) -> str:
        """The id of the run, which is made or opened again."""
        if self.opened and self._run_id is not None:
            return self._run_id
        mlflow, run_id = client(self._store), self.run_id or self._adopted()
        if run_id is None:
            run_id = _created(
                self._store, self._question, self._name, self._started_ms, {**self.tags, "unfinished": "true"}
            )
        run = mlflow.get_run(run_id)
        if "unfinished" in run.data.tags or UNINGESTED in run.data.tags:  # its settings may not have been written
            documents = {"config.json": dict(self._configuration), "brain.json": self._brain.model_dump(mode="json")}
            log_files(self._store, str(run.info.artifact_uri), _as_json(documents))
            log_params(self._store, run_id, flat(self._configuration))
            for name in {"unfinished", UNINGESTED} & set(run.data.tags):
                mlflow.delete_tag(run_id, name)
        mlflow.update_run(run_id, status="RUNNING")
        for name, value in {**self.tags, **run_tags()}.items():
            mlflow.set_tag(run_id, name, value)
        self._run_id, self.opened = run_id, True
        return run_id

    def close(
        self,
        metrics: Mapping[str, float],
        status: Status = "FINISHED",
        map_name: str | None = None,
        remains: Remains = NOTHING_REMAINS,
    ) -> None:
        """Log the figures and what is left, and end the run, if it was opened; `map_name` is that of its maps."""
        if not self.opened or self._run_id is None:
            return
        mlflow, run_id = client(self._store), self._run_id
        for name, value in {**remains.tags, **({MAP_TAG: map_name} if map_name else {})}.items():
            mlflow.set_tag(run_id, name, value[:4000])
        if remains.description:
            mlflow.set_tag(run_id, "mlflow.note.content", remains.description)
        if remains.title:
            mlflow.update_run(run_id, name=remains.title)
        log_metrics(self._store, run_id, metrics)
        log_datasets(self._store, run_id, remains.datasets)
        log_files(self._store, str(mlflow.get_run(run_id).info.artifact_uri), remains.files)
        mlflow.set_terminated(run_id, status=status)

    def end_early(self, metrics: Mapping[str, float], status: Status) -> None:
        """End the run of a flow that broke off or was stopped; one that finished before, and was not opened, stays."""
        if self.run_id is None or not self._finished:
            self.open()
        self.close(metrics, status)

    @property
    def _name(self) -> str:
        return f"{self._brain.brain_id}-{self.tags['config_digest'][:8]}"

    def _find(self) -> None:
        if self._run_id is not None:
            return
        keys = ("brain", "kind", "config_digest", "input_digest", "encoder_digest")
        known = _search(self._store, {key: self.tags[key] for key in keys})
        if known is not None:
            self._run_id = str(known.info.run_id)
            self._finished = known.info.status == "FINISHED"

    def _adopted(self) -> str | None:
        """The row that a failed ingestion of the brain left, if one did and it lies where this question is answered.

        One that lies elsewhere, as nobody knew yet what would be asked, stands for the brain no more.
        """
        known = _search(self._store, {"brain": self._brain.brain_id, "kind": PARENT_KIND, UNINGESTED: "ingestion"})
        if known is None:
            return None
        run_id = str(known.info.run_id)
        if str(known.info.experiment_id) == experiment_id(self._store, self._question):
            return run_id
        client(self._store).set_tag(run_id, "kind", INGESTION_KIND)
        return None


def log_failed_ingestion(store: BrainStore, brain_id: str, question: Question, reason: str, status: Status) -> None:
    """Leave a row of a brain that could not be ingested, which the run that ingests it goes on with."""
    tags = {"brain": brain_id, "kind": PARENT_KIND, UNINGESTED: "ingestion"}
    known = _search(store, tags)
    run_id = (
        str(known.info.run_id) if known else _created(store, question, f"{brain_id}: not ingested", _now_ms(), tags)
    )
    client(store).set_tag(run_id, "mlflow.note.content", f"Brain {brain_id} could not be ingested: {reason}"[:4000])
    for name, value in run_tags().items():
        client(store).set_tag(run_id, name, value)
    client(store).set_terminated(run_id, status=status)


def _search(store: BrainStore, tags: Mapping[str, str]) -> Any:
    """The latest run that has all of these tags, or None."""
    where = " and ".join(f"tags.{name} = '{value}'" for name, value in tags.items())
    order = ["attributes.start_time DESC"]
    known = search_rows(store, where, order_by=order)
    return known[0] if known else None


def _created(store: BrainStore, question: Question, name: str, started_ms: int, tags: Mapping[str, str]) -> str:
    run = client(store).create_run(
        experiment_id(store, question), start_time=started_ms, run_name=name, tags={**tags, **run_tags()}
    )
    return str(run.info.run_id)


def log_later(store: BrainStore, brain_id: str, map_name: str, metrics: Mapping[str, float]) -> list[str]:
    """Log figures of maps to the latest row of the brain that made them; its id, or none where there is no such row."""
    known = _search(store, {"kind": PARENT_KIND, "brain": brain_id, MAP_TAG: map_name})
    if known is None:
        return []
    run_id = str(known.info.run_id)
    log_metrics(store, run_id, metrics)
    client(store).set_tag(run_id, "scored_later", "labels arrived after the map was made")
    return [run_id]


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

    now = _now_ms()
    entities = [Metric(name, value, now, 0) for name, value in sorted(metrics.items())]
    for first in range(0, len(entities), 1000):
        client(store).log_batch(run_id, metrics=entities[first : first + 1000])


def log_datasets(store: BrainStore, run_id: str, datasets: Sequence[Dataset]) -> None:
    """Log which data a run used; what it names already is not named twice."""
    from mlflow.entities import Dataset as Entity
    from mlflow.entities import DatasetInput, InputTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    inputs = [
        DatasetInput(
            Entity(one.name, one.digest[:36], "local", canonical_json({"uri": one.source})),
            [InputTag(MLFLOW_DATASET_CONTEXT, one.context)],
        )
        for one in datasets
    ]
    if inputs:
        client(store).log_inputs(run_id, datasets=inputs)


def log_files(store: BrainStore, artifact_uri: str, files: Mapping[str, bytes]) -> None:
    """Put files beside a run."""
    if not files:
        return
    with tempfile.TemporaryDirectory() as scratch:
        for name, content in files.items():
            (Path(scratch) / name).write_bytes(content)
        artifacts(store, artifact_uri).log_artifacts(scratch)


def _as_json(documents: Mapping[str, Any]) -> dict[str, bytes]:
    return {name: json.dumps(content, indent=2).encode() for name, content in documents.items()}


def _now_ms() -> int:
    return int(time.time() * 1000)
