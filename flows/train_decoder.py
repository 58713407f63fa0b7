"""A fusion decoder for a brain."""

from prefect import flow

from cytoarch.learning.training import DecoderSettings
from flows.parameters import StoredBrain
from flows.stages import Summary, run_name
from flows.training import train_and_register
from tasks.cancelling import HOOKS


@flow(name="train-decoder", flow_run_name=run_name("train-decoder"), **HOOKS)
def train_decoder(
    brain: StoredBrain, embedding: str = "", decoder: DecoderSettings = DecoderSettings(), skip: tuple[str, ...] = ()
) -> Summary:
    """Train a fusion decoder on label images or scribbles of a brain, score it on held-out sections, register it.

    Args:
        brain: The brain in the store.
        embedding: Name of the embedding to train on; blank where there is only one.
        decoder: How the decoder is trained.
        skip: Sections to leave out.

    """
    return train_and_register(brain, embedding, decoder, "decoder", skip)
