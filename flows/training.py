"""What the two training flows share."""

from prefect import get_run_logger
from pydantic import Field

from cytoarch.learning.training import HeadSettings, Kind
from cytoarch.paths import ID_PATTERN
from cytoarch.settings import Settings
from cytoarch.steps.annotations import LATEST, Scribbled
from cytoarch.steps.embeddings import EmbeddingsStep
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.scales import ScaleStep
from cytoarch.steps.sources import require_stored, sections_with
from cytoarch.steps.step import Place, Stored
from cytoarch.steps.training import Trained, TrainingStep, held_out_labels, keep_head, training_of
from flows.parameters import StoredBrain
from flows.stages import Summary, final_state, held_brain, run_whole, skipping
from tasks.summaries import notes_of_version
from tasks.tracking import TrackingLine, register_head


class ScribbleChoice(Settings):
    """Whose scribbles a head learns from, instead of the label images of the manifest."""

    author: str = Field(
        default="",
        pattern=rf"^$|{ID_PATTERN}",
        description="Learn from what this person drew; blank: from the label images of the manifest.",
    )
    version: str = Field(default=LATEST, pattern=r"^latest$|^v[0-9]{4,}$", description="Which version of it.")
    wait: bool = Field(
        default=False,
        description="Suspend the run until a person has drawn and resumes it, naming author and version. Needs a "
        "deployment; nothing waits in memory meanwhile.",
    )
    days: float = Field(default=14.0, gt=0, le=365, description="Days to wait for the person before the run fails.")


def train_on_brain(
    brain: OpenBrain,
    embedding: str,
    settings: HeadSettings,
    kind: Kind,
    scribbles: ScribbleChoice = ScribbleChoice(),
) -> Trained:
    """Train a head on the labelled sections of a brain, or on scribbles; keep it among the store's models."""
    made = 0
    if settings.standardise == "brain" and sections_with(brain, Stored(EmbeddingsStep, embedding)):
        made = run_whole("fit scale", brain, ScaleStep.of(Stored(EmbeddingsStep, embedding)))
    stored = Stored(EmbeddingsStep, embedding)
    if scribbles.author:
        scribbled = Scribbled.of(brain, scribbles.author, scribbles.version)
        step = TrainingStep.on_scribbles(brain, stored, kind, settings, scribbled)
    else:
        step = TrainingStep.of(brain.brain_id, stored, kind, settings)
    made += run_whole("train", brain, step)
    return Trained(keep_head(brain, step.name), step.name, bool(made))


def train_and_register(
    brain: StoredBrain,
    embedding: str,
    settings: HeadSettings,
    kind: Kind,
    skip: tuple[str, ...],
    scribbles: ScribbleChoice = ScribbleChoice(),
) -> Summary:
    """Train a head and make it a version of its registered model."""
    with held_brain(brain.store_path, brain.brain_id) as opened, skipping(opened, skip):
        chosen = require_stored(EmbeddingsStep, Place(opened), embedding, "Run embed-brain, or name one of them")
        trained = train_on_brain(opened, chosen, settings, kind, scribbles)
        record, _ = training_of(opened, trained.name)
        scores, parameters = record.facts["scores"], settings.model_dump(mode="json")
        held_out = held_out_labels(record)
        line = TrackingLine(opened.store, get_run_logger())
        registered = line.tell(
            "the model",
            lambda: notes_of_version(
                opened.store,
                register_head(opened.store, opened.brain_id, trained.digest, scores, parameters, held_out),
            ),
        )
        notes = {"model digest": trained.digest, **(registered or {"MLflow does not know": line.left})}
        notes |= {name: f"{value:.3f}" for name, value in scores.items()}
        return final_state(Summary(opened.brain_id, int(trained.made), dict(opened.failed), notes))
