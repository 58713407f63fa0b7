"""What an embedding is worth: how few labels are enough."""

from prefect import flow

from cytoarch.learning.label_shares import ShareSettings
from cytoarch.steps.embeddings import EmbeddingsStep
from cytoarch.steps.label_shares import LabelSharesStep
from cytoarch.steps.scales import ScaleStep
from cytoarch.steps.sources import require_stored
from cytoarch.steps.step import Place, Stored
from flows.parameters import StoredBrain
from flows.stages import Summary, final_state, held_brain, run_name, run_whole, skipping
from tasks.cancelling import HOOKS


@flow(name="evaluate-layers", flow_run_name=run_name("evaluate-layers"), **HOOKS)
def evaluate_layers(
    brain: StoredBrain, embedding: str = "", shares: ShareSettings = ShareSettings(), skip: tuple[str, ...] = ()
) -> Summary:
    """Learn layers, or whatever the labels show, from 1 to 100 % of a brain's labels, and score on sections held out.

    Args:
        brain: The brain in the store.
        embedding: Name of the embedding to judge; blank where there is only one.
        shares: Which shares of the labels, in how many folds.
        skip: Sections to leave out.

    """
    with held_brain(brain.store_path, brain.brain_id) as opened, skipping(opened, skip):
        chosen = require_stored(EmbeddingsStep, Place(opened), embedding, "Run embed-brain, or name one of them")
        made = run_whole("fit scale", opened, ScaleStep.of(Stored(EmbeddingsStep, chosen)))
        step = LabelSharesStep.of(Stored(EmbeddingsStep, chosen), shares)
        made += run_whole("evaluate", opened, step)
        record = opened.catalogue.require(step.product(), "evaluate first")
        notes = {"table": str(step.opened(opened.catalogue.path(step.product())))}
        notes |= {name: f"{value:.3f}" for name, value in record.facts["scores"].items()}
        return final_state(Summary(opened.brain_id, made, dict(opened.failed), notes))
