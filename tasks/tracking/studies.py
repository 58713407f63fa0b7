"""Studies in MLflow: one row a study, below it one for every fold, and below that one for every seed.

A fold is a model and the part of a brain that it had not seen and was scored on.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cytoarch.learning.evaluation import FIGURES
from cytoarch.steps.studies import HOPS_FILE, SCORES_FILE
from cytoarch.store.brain_store import BrainStore
from tasks.tracking.database import artifacts, client
from tasks.tracking.experiments import across_brains, experiment_id, search_rows
from tasks.tracking.runs import flat, log_metrics, log_params, run_tags

STUDY_KIND = "study"
FOLD_KIND, SEED_KIND = "fold", "seed"
_FOLD = ("model", "brain", "part")
_NO_FIGURES = ("model", "brain", "kind", "part", "sections", "seeds")


def log_study(
    store: BrainStore,
    name: str,
    target: str,
    fingerprint: str,
    roles: Mapping[str, str],
    metrics: Mapping[str, float],
    parameters: Mapping[str, Any],
    folder: Path,
    scores: Sequence[Mapping[str, Any]],
) -> str:
    """The id of the row of a study, made unless it is there, with its figures and tables, and rows of folds below it.

    Args:
        store: The store that holds the study.
        name: The study.
        target: What its classes are.
        fingerprint: What tells it from the same study of other inputs or settings.
        roles: What each brain is there for.
        metrics: Its figures by name.
        parameters: How it was done.
        folder: That of its product: tables of scores and of hops.
        scores: The score of every model, brain, part and seed.

    """
    where = f"tags.kind = '{STUDY_KIND}' and tags.study_digest = '{fingerprint}' and attributes.status = 'FINISHED'"
    for known in search_rows(store, where):
        return str(known.info.run_id)
    mlflow, experiment = client(store), experiment_id(store, across_brains(target))
    brains = ", ".join(f"{brain} ({role})" for brain, role in roles.items())
    tags = {"kind": STUDY_KIND, "study": name, "study_digest": fingerprint, "brains": brains[:4000], **run_tags()}
    tags["mlflow.note.content"] = f"One model of several brains: {brains}. Scores are of fits that had not seen them."
    run = mlflow.create_run(experiment, run_name=f"study-{name}", tags=tags)
    run_id = str(run.info.run_id)
    log_params(store, run_id, flat(parameters))
    log_metrics(store, run_id, metrics)
    files = artifacts(store, str(run.info.artifact_uri))
    for table in (SCORES_FILE, HOPS_FILE):
        files.log_artifact(str(folder / table))
    with (folder / SCORES_FILE).open(newline="") as file:
        for row in csv.DictReader(file):
            own = [one for one in scores if all(one[key] == row[key] for key in _FOLD)]
            _log_fold(store, experiment, run_id, name, row, own)
    mlflow.set_terminated(run_id)
    return run_id


def _log_fold(
    store: BrainStore,
    experiment: str,
    parent: str,
    study: str,
    row: Mapping[str, str],
    seeds: Sequence[Mapping[str, Any]],
) -> None:
    """The row of a fold with means and deviations, and below it those of its seeds, where there are several."""
    fold = {"study": study, **{one: row[one] for one in _FOLD}, "brain_kind": row["kind"]}
    title = f"{row['model']} on {row['brain']}, {row['part']}"
    means = {key: float(value) for key, value in row.items() if key not in _NO_FIGURES and value != "nan"}
    run_id = _logged(store, experiment, title, {**fold, "kind": FOLD_KIND, "mlflow.parentRunId": parent}, means)
    for one in seeds if len(seeds) > 1 else ():
        tags = {**fold, "kind": SEED_KIND, "seed": str(one["seed"]), "mlflow.parentRunId": run_id}
        figures = {key: float(one[key]) for key in FIGURES if one[key] is not None}
        _logged(store, experiment, f"{title}, seed {one['seed']}", tags, figures)


def _logged(
    store: BrainStore, experiment: str, title: str, tags: Mapping[str, str], figures: Mapping[str, float]
) -> str:
    """The id of a finished row with figures."""
    run_id = str(client(store).create_run(experiment, run_name=title, tags=dict(tags)).info.run_id)
    log_metrics(store, run_id, figures)
    client(store).set_terminated(run_id)
    return run_id
