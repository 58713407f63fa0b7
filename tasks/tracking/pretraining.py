"""Pretrained encoders in MLflow: one row each, with its loss, the health of its embeddings and its errors of places."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from mlflow.entities import Metric

from cytoarch.store.brain_store import BrainStore
from tasks.tracking.database import artifacts, client
from tasks.tracking.registry import new_version
from tasks.tracking.runs import flat, log_metrics, log_params
from tasks.tracking.study_rows import study_row

PRETRAINING_KIND = "pretraining"
ENCODER_FOLDER = "encoder"
ROLES = ("learned", "held out")
"""What brains are there for, in the record of a training."""
POINTS_OF_CURVE = 200
"""Losses are told as means of so many stretches, at most."""
AT_ONCE = 1000
"""Figures that MLflow takes in one call."""


class EncoderRow(NamedTuple):
    """A pretrained encoder in MLflow."""

    run_id: str
    model: str
    """The registered model that it is a version of."""
    version: int


def log_pretraining(
    store: BrainStore,
    study: str,
    fingerprint: str,
    record: Mapping[str, Any],
    folder: Path,
    cost: Mapping[str, float] = MappingProxyType({}),
) -> EncoderRow:
    """The row of a pretrained encoder, and its version of a registered model; both made unless they are there.

    Args:
        store: The store that holds the study.
        study: Its name.
        fingerprint: What tells it from the same study of other inputs or settings.
        record: The record of the training.
        folder: That of the encoder.
        cost: What it took, where it was trained now.

    """
    mlflow = client(store)
    run, is_finished = study_row(store, PRETRAINING_KIND, study, fingerprint)
    if is_finished:
        return _registered(store, study, fingerprint, record, run)
    run_id = str(run.info.run_id)
    log_params(store, run_id, flat({"train": record["settings"], "brains": record["brains"]}))
    curve = curve_of(record)
    for first in range(0, len(curve), AT_ONCE):
        mlflow.log_batch(run_id, metrics=curve[first : first + AT_ONCE])
    errors = record["place_error_mm"]
    figures = {f"place_error_mm/{brain}/{how}": value for brain, one in errors.items() for how, value in one.items()}
    log_metrics(store, run_id, {**figures, **cost})
    artifacts(store, str(run.info.artifact_uri)).log_artifacts(str(folder), ENCODER_FOLDER)
    row = _registered(store, study, fingerprint, record, run)
    mlflow.set_terminated(run_id)
    return row


def _registered(store: BrainStore, study: str, fingerprint: str, record: Mapping[str, Any], run: Any) -> EncoderRow:
    """The version of the study's model that is this encoder; its tags name the brains that it saw."""
    name = f"encoder-{study}"
    known = client(store).search_model_versions(f"name = '{name}'")
    version = next((one for one in known if one.tags.get("study_digest") == fingerprint), None)
    if version is None:
        seen = {role: [one for one, found in record["brains"].items() if found == role] for role in ROLES}
        tags = {role.replace(" ", "_"): ", ".join(brains)[:4000] for role, brains in seen.items() if brains}
        tags |= {"study_digest": fingerprint, "kind": str(record["kind"]), "learning": record["settings"]["learning"]}
        version = new_version(store, name, run, tags, ENCODER_FOLDER)
    return EncoderRow(str(run.info.run_id), name, int(version.version))


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
    for step, probed in record["probe"].items():
        points += [Metric(f"place_error_mm/{name}", value, 0, int(step)) for name, value in probed.items()]
    return points
