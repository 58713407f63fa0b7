"""What embeddings know of cortex, in MLflow: one row a study, with the best R2 of every measure in every brain."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cytoarch.store.brain_store import BrainStore
from tasks.tracking.database import artifacts, client, experiment_id
from tasks.tracking.runs import flat, log_metrics, log_params, run_tags

STRUCTURE_KIND = "structure"
UNFIT = re.compile(r"[^\w/ .-]")
"""What names of MLflow's metrics may not hold."""


def log_structure(
    store: BrainStore,
    study: str,
    fingerprint: str,
    metrics: Mapping[str, float],
    parameters: Mapping[str, Any],
    page: Path,
) -> str:
    """The id of the row of a study of structure, made unless it is there, with its figures and its page.

    Args:
        store: The store that holds the study.
        study: Its name.
        fingerprint: What tells it from the same study of other inputs or settings.
        metrics: Its figures by name.
        parameters: How it was done.
        page: Its page, kept with the figures that lie beside it.

    """
    mlflow, experiment = client(store), experiment_id(store)
    where = f"tags.kind = '{STRUCTURE_KIND}' and tags.study_digest = '{fingerprint}' and attributes.status = "
    for known in mlflow.search_runs([experiment], filter_string=f"{where}'FINISHED'", max_results=1):
        return str(known.info.run_id)
    begun = mlflow.search_runs([experiment], filter_string=f"{where}'RUNNING'", max_results=1)  # MLflow went away
    tags = {"kind": STRUCTURE_KIND, "study": study, "study_digest": fingerprint, **run_tags()}
    run = begun[0] if begun else mlflow.create_run(experiment, run_name=f"structure-{study}", tags=tags)
    run_id = str(run.info.run_id)
    log_params(store, run_id, flat(parameters))
    log_metrics(store, run_id, {UNFIT.sub("_", name): value for name, value in metrics.items()})
    artifacts(store, str(run.info.artifact_uri)).log_artifacts(str(page.parent), "page")
    mlflow.set_terminated(run_id)
    return run_id
