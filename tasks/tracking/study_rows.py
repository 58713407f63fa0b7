"""Rows of studies in MLflow that hold figures and files: found where they are, gone on with, or begun."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mlflow.entities import Run

from cytoarch.store.brain_store import BrainStore
from tasks.tracking.database import artifacts, client
from tasks.tracking.experiments import STUDIES, experiment_id, search_rows
from tasks.tracking.runs import flat, log_metrics, log_params, run_tags

UNFIT = re.compile(r"[^\w/ .-]")
"""What names of MLflow's metrics may not hold."""


class StudyRow(NamedTuple):
    """The row of a study."""

    run: Run
    is_finished: bool
    """Whether all of it was told before."""


def study_row(store: BrainStore, kind: str, study: str, fingerprint: str) -> StudyRow:
    """The row of a study of some kind; one that was begun when MLflow went away is gone on with.

    `fingerprint` tells the study from the same one of other inputs or settings.
    """
    where = f"tags.kind = '{kind}' and tags.study_digest = '{fingerprint}' and attributes.status = "
    for status in ("FINISHED", "RUNNING"):
        for run in search_rows(store, f"{where}'{status}'"):
            return StudyRow(run, status == "FINISHED")
    tags = {"kind": kind, "study": study, "study_digest": fingerprint, **run_tags()}
    experiment = experiment_id(store, STUDIES[kind])
    return StudyRow(client(store).create_run(experiment, run_name=f"{kind}-{study}", tags=tags), is_finished=False)


def log_figures(
    store: BrainStore,
    kind: str,
    study: str,
    fingerprint: str,
    metrics: Mapping[str, float],
    parameters: Mapping[str, Any],
    files: Mapping[str, Path],
) -> str:
    """The id of the row of a study, made unless it is there, with its figures and files.

    Args:
        store: The store that holds the study.
        kind: What kind of study it is: `neurons`, `structure`.
        study: Its name.
        fingerprint: What tells it from the same study of other inputs or settings.
        metrics: Its figures by name.
        parameters: How it was done.
        files: What is kept with it: folder among the artifacts -> file, or folder of files.

    """
    row = study_row(store, kind, study, fingerprint)
    run_id = str(row.run.info.run_id)
    if row.is_finished:
        return run_id
    log_params(store, run_id, flat(parameters))
    log_metrics(store, run_id, {UNFIT.sub("_", name): value for name, value in metrics.items()})
    kept = artifacts(store, str(row.run.info.artifact_uri))
    for folder, path in files.items():
        (kept.log_artifacts if path.is_dir() else kept.log_artifact)(str(path), folder or None)
    client(store).set_terminated(run_id)
    return run_id
