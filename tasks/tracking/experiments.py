"""Experiments: one for every question, so that the rows of one have the same figures and can be compared."""

from typing import Any, NamedTuple

from cytoarch.store.brain_store import BrainStore
from tasks.tracking.database import EXPERIMENT, client, database_path, is_own, location, make_relative

KIND_TAG = "mlflow.experimentKind"
MODEL_TRAINING = "custom_model_development"
"""What an experiment is for, among those that MLflow knows."""


class Question(NamedTuple):
    """What the rows of an experiment answer."""

    asked: str
    """In a few words; names the experiment."""
    rows: str
    """What a row is, and which figures to look at."""

    @property
    def name(self) -> str:
        """That of its experiment."""
        return f"{EXPERIMENT}: {self.asked}"


def of_brains(target: str) -> Question:
    """How well the classes of a target are told in single brains, by models of their own or of others."""
    return Question(
        f"{target} of brains",
        "A row is a brain and how it was mapped; the training of its model lies below it. `headline/macro_f1` and "
        "`held_out/macro_f1` are of sections that its model had not seen, `map/macro_f1` of a map of a brain that its "
        "model had not seen, scored when labels arrived.",
    )


def across_brains(target: str) -> Question:
    """How well the classes of a target are told in brains that a model has not seen."""
    return Question(
        f"{target} across brains",
        "A row is a study of several brains; below it lie its model, and every model, brain and part with its seeds. "
        "`headline/macro_f1` is of brains left out, where there are several.",
    )


CLUSTERS = Question("clusters of brains", "A row is a brain without labels: what its embeddings say alone.")
STUDIES = {
    "areas": Question("areas", "A row is a network that draws areas, judged on sections and brains held out."),
    "neurons": Question("neurons", "A row is a study of volumes: what was segmented and traced, and how well."),
    "pretraining": Question("pretraining", "A row is an encoder, with its loss and its errors of places."),
    "structure": Question("structure", "A row is how well embeddings tell the cortex's thickness, layers and places."),
}
"""Questions of studies, by their kind."""


def experiment_id(store: BrainStore, question: Question) -> str:
    """The id of the experiment of a question, which is made on first use."""
    from mlflow.exceptions import MlflowException

    known = client(store).get_experiment_by_name(question.name)
    if known is None:
        tags = {KIND_TAG: MODEL_TRAINING, "mlflow.note.content": question.rows}
        try:
            return str(client(store).create_experiment(question.name, artifact_location=location(store), tags=tags))
        except MlflowException as error:  # another run was first
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            known = client(store).get_experiment_by_name(question.name)
    return str(known.experiment_id)


def experiments(store: BrainStore) -> dict[str, str]:
    """What is asked in each of our experiments, by their ids; blank: of all that earlier versions told."""
    named = client(store).search_experiments(filter_string=f"name LIKE '{EXPERIMENT}%'")
    ours = [one for one in named if one.name == EXPERIMENT or one.name.startswith(f"{EXPERIMENT}: ")]
    if is_own(store) and any(str(one.artifact_location).startswith("file:") for one in ours):
        make_relative(database_path(store))
    return {str(one.experiment_id): one.name.removeprefix(EXPERIMENT).removeprefix(": ") for one in ours}


def search_rows(store: BrainStore, where: str, **how: Any) -> Any:
    """The runs of all our experiments that a filter of MLflow finds, the first of them unless `how` says otherwise."""
    ids = list(experiments(store))
    return client(store).search_runs(ids, filter_string=where, **{"max_results": 1, **how}) if ids else []
