"""Studies in MLflow: one row a study, below it one for every brain and part that a model was scored on."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cytoarch.store.brain_store import BrainStore
from tasks.tracking.database import artifacts, client, experiment_id
from tasks.tracking.runs import flat, log_metrics, log_params, run_tags

STUDY_KIND = "study"
_SHOWN = ("macro_f1", "macro_f1_sd", "top1", "top1_sd")


def log_study(
    store: BrainStore,
    name: str,
    fingerprint: str,
    roles: Mapping[str, str],
    metrics: Mapping[str, float],
    parameters: Mapping[str, Any],
    scores_path: Path,
) -> str:
    """The id of the row of a study, made unless it is there, with its figures and table, and a row per score below it.

    Args:
        store: The store that holds the study.
        name: The study.
        fingerprint: What tells it from the same study of other inputs or settings.
        roles: What each brain is there for.
        metrics: Its figures by name.
        parameters: How it was done.
        scores_path: The CSV file of its scores.

    """
    mlflow, experiment = client(store), experiment_id(store)
    where = f"tags.kind = '{STUDY_KIND}' and tags.study_digest = '{fingerprint}' and attributes.status = 'FINISHED'"
    for known in mlflow.search_runs([experiment], filter_string=where, max_results=1):
        return str(known.info.run_id)
    brains = ", ".join(f"{brain} ({role})" for brain, role in roles.items())
    tags = {"kind": STUDY_KIND, "study": name, "study_digest": fingerprint, "brains": brains[:4000], **run_tags()}
    tags["mlflow.note.content"] = f"One model of several brains: {brains}. Scores are of fits that had not seen them."
    run = mlflow.create_run(experiment, run_name=f"study-{name}", tags=tags)
    run_id = str(run.info.run_id)
    log_params(store, run_id, flat(parameters))
    log_metrics(store, run_id, metrics)
    artifacts(store, str(run.info.artifact_uri)).log_artifact(str(scores_path))
    with scores_path.open(newline="") as file:
        for row in csv.DictReader(file):
            _log_row(store, experiment, run_id, name, row)
    mlflow.set_terminated(run_id)
    return run_id


def _log_row(store: BrainStore, experiment: str, parent: str, study: str, row: Mapping[str, str]) -> None:
    tags = {"kind": "score", "study": study, "mlflow.parentRunId": parent}
    tags |= {one: row[one] for one in ("model", "brain", "part")} | {"brain_kind": row["kind"]}
    run = client(store).create_run(experiment, run_name=f"{row['model']} on {row['brain']}, {row['part']}", tags=tags)
    figures = {one: float(row[one]) for one in _SHOWN if row[one] != "nan"}
    log_metrics(store, str(run.info.run_id), figures)
    client(store).set_terminated(run.info.run_id)
