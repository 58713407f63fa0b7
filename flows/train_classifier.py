"""A linear probe for a brain."""

from prefect import flow

from cytoarch.learning.training import ProbeSettings
from flows.parameters import StoredBrain
from flows.stages import Summary, run_name
from flows.training import train_and_register
from tasks.cancelling import HOOKS


@flow(name="train-classifier", flow_run_name=run_name("train-classifier"), **HOOKS)
def train_classifier(
    brain: StoredBrain, embedding: str = "", probe: ProbeSettings = ProbeSettings(), skip: tuple[str, ...] = ()
) -> Summary:
    """Train a linear probe on the labelled sections of a brain, score it on held-out ones, register it in MLflow.

    Args:
        brain: The brain in the store.
        embedding: Name of the embedding to train on; blank where there is only one.
        probe: How the probe is trained.
        skip: Sections to leave out.

    """
    return train_and_register(brain, embedding, probe, "probe", skip)
