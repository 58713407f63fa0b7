"""Pretrained encoders in MLflow: one row each, with its loss, the health of its embeddings and its errors of places."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import Metric

from cytoarch.store.brain_store import BrainStore
from tasks.tracking.database import artifacts, client, experiment_id
from tasks.tracking.runs import flat, log_metrics, log_params, run_tags

PRETRAINING_KIND = "pretraining"
POINTS_OF_CURVE = 200
"""Losses are told as means of so many stretches, at most."""
AT_ONCE = 1000
"""Figures that MLflow takes in one call."""


def log_pretraining(store: BrainStore, study: str, fingerprint: str, record: Mapping[str, Any], folder: Path) -> str:
    """The id of the row of a pretrained encoder, made unless it is there.

    Args:
        store: The store that holds the study.
        study: Its name.
        fingerprint: What tells it from the same study of other inputs or settings.
        record: The record of the training.
        folder: That of the encoder.

    """
    mlflow, experiment = client(store), experiment_id(store)
    where = f"tags.kind = '{PRETRAINING_KIND}' and tags.study_digest = '{fingerprint}' and attributes.status = "
    for known in mlflow.search_runs([experiment], filter_string=f"{where}'FINISHED'", max_results=1):
        return str(known.info.run_id)
    begun = mlflow.search_runs([experiment], filter_string=f"{where}'RUNNING'", max_results=1)  # MLflow went away
    tags = {"kind": PRETRAINING_KIND, "study": study, "study_digest": fingerprint, **run_tags()}
    run = begun[0] if begun else mlflow.create_run(experiment, run_name=f"pretraining-{study}", tags=tags)
    run_id = str(run.info.run_id)
    log_params(store, run_id, flat({"train": record["settings"], "brains": record["brains"]}))
    curve = curve_of(record)
    for first in range(0, len(curve), AT_ONCE):
        mlflow.log_batch(run_id, metrics=curve[first : first + AT_ONCE])
    errors = record["place_error_mm"]
    log_metrics(
        store,
        run_id,
        {f"place_error_mm/{brain}/{how}": value for brain, one in errors.items() for how, value in one.items()},
    )
    artifacts(store, str(run.info.artifact_uri)).log_artifacts(str(folder), "encoder")
    mlflow.set_terminated(run_id)
    return run_id


def curve_of(record: Mapping[str, Any]) -> list[Metric]:
    """The loss, in means of stretches of steps, and the health of embeddings, by step."""
    losses = record["loss"]
    stretch = -(-len(losses) // POINTS_OF_CURVE)
    ends = [min(first + stretch, len(losses)) for first in range(0, len(losses), stretch)]
    points = [
        Metric("loss", sum(losses[first:end]) / (end - first), 0, end)
        for first, end in zip(range(0, len(losses), stretch), ends, strict=True)
    ]
    for step, health in record["health"].items():
        points += [Metric(f"health/{name}", value, 0, int(step)) for name, value in health.items()]
    return points
