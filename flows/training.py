"""What the two training flows share."""

from typing import Literal

from cytoarch.contents import embedded_sections, pick_embedding
from cytoarch.learning.training import DecoderSettings, ProbeSettings
from cytoarch.store.brain_store import BrainStore
from flows.parameters import StoredBrain
from flows.stages import Summary, final_state
from tasks.learning import STAGE, Trained, held_out_labels, train, training_metrics
from tasks.progress import stage_progress
from tasks.tracking import register_head, run_url


def train_on_brain(
    brain: StoredBrain,
    embedding: str,
    settings: ProbeSettings | DecoderSettings,
    kind: Literal["probe", "decoder"],
    skip: tuple[str, ...],
) -> Trained:
    """Train a head on the embedded sections of a brain."""
    store = BrainStore(brain.store_path)
    known = store.read_brain(brain.brain_id)
    name = pick_embedding(store, brain.brain_id, embedding)
    sections = embedded_sections(store, known, name, skip)
    with store.lock(brain.brain_id), stage_progress(STAGE, 1) as progress:
        trained = train(brain.store_path, known, sections, name, settings, kind)
        progress.finished("head")
    return trained


def train_and_register(
    brain: StoredBrain,
    embedding: str,
    settings: ProbeSettings | DecoderSettings,
    kind: Literal["probe", "decoder"],
    skip: tuple[str, ...],
) -> Summary:
    """Train a head and make it a version of its registered model."""
    store = BrainStore(brain.store_path)
    trained = train_on_brain(brain, embedding, settings, kind, skip)
    record, _ = training_metrics(store, brain.brain_id, trained.name)
    scores = record.facts["scores"]
    parameters, split = settings.model_dump(mode="json"), held_out_labels(record)
    version = register_head(store, brain.brain_id, trained.digest, scores, parameters, split)
    notes = {
        "model": f"{version.name} version {version.version}" + (" (champion)" if version.champion else ""),
        "champion": version.reason,
        "model digest": trained.digest,
        "MLflow run": run_url(store, version.run_id),
        **{name: f"{value:.3f}" for name, value in scores.items()},
    }
    return final_state(Summary(brain.brain_id, int(trained.made), {}, notes))
