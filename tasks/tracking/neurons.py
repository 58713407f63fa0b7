"""Neurons in MLflow: one row for a study's volumes and settings, with the scores of every volume."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cytoarch.store.brain_store import BrainStore
from tasks.tracking.database import artifacts, client, experiment_id
from tasks.tracking.runs import flat, log_metrics, log_params, run_tags

NEURONS_KIND = "neurons"


def log_neurons(
    store: BrainStore,
    study: str,
    fingerprint: str,
    metrics: Mapping[str, float],
    parameters: Mapping[str, Any],
    files: Mapping[str, Path],
) -> str:
    """The id of the row of a study of neurons, made unless it is there, with its figures and files.

    Args:
        store: The store that holds the study.
        study: Its name.
        fingerprint: What tells it from the same study of other inputs or settings.
        metrics: Its figures by name.
        parameters: How it was done.
        files: What is kept with it: folder among the artifacts -> file.

    """
    mlflow, experiment = client(store), experiment_id(store)
    where = f"tags.kind = '{NEURONS_KIND}' and tags.study_digest = '{fingerprint}' and attributes.status = "
    for known in mlflow.search_runs([experiment], filter_string=f"{where}'FINISHED'", max_results=1):
        return str(known.info.run_id)
    begun = mlflow.search_runs([experiment], filter_string=f"{where}'RUNNING'", max_results=1)  # MLflow went away
    tags = {"kind": NEURONS_KIND, "study": study, "study_digest": fingerprint, **run_tags()}
    run = begun[0] if begun else mlflow.create_run(experiment, run_name=f"neurons-{study}", tags=tags)
    run_id = str(run.info.run_id)
    log_params(store, run_id, flat(parameters))
    log_metrics(store, run_id, metrics)
    kept = artifacts(store, str(run.info.artifact_uri))
    for folder, path in files.items():
        kept.log_artifact(str(path), folder or None)
    mlflow.set_terminated(run_id)
    return run_id
