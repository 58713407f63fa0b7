"""Clusters of a brain's embeddings."""

from prefect import flow

from cytoarch.discovery.clusters import ClusterSettings
from cytoarch.discovery.layout import LayoutSettings, check_method
from cytoarch.errors import StoreError
from cytoarch.steps.cluster_checks import CheckSettings, ClusterChecksStep, checks_notes
from cytoarch.steps.clusters import ClusterFitStep, ClustersStep, cluster_purities
from cytoarch.steps.embeddings import EmbeddingsStep
from cytoarch.steps.known_tokens import KnownTokensStep
from cytoarch.steps.layouts import LayoutStep
from cytoarch.steps.retrieval import RetrievalSettings, RetrievalStep, retrieval_notes
from cytoarch.steps.sources import require_stored, sections_with
from cytoarch.steps.step import Place, Stored
from flows.parameters import RunSettings, StoredBrain
from flows.stages import Clustered, final_state, held_brain, run_name, run_steps, run_whole, skipping, workers
from tasks.cancelling import HOOKS


@flow(name="cluster-brain", flow_run_name=run_name("cluster"), **HOOKS)
def cluster_brain(
    brain: StoredBrain,
    embedding: str = "",
    cluster: ClusterSettings = ClusterSettings(),
    check: CheckSettings = CheckSettings(),
    layout: LayoutSettings = LayoutSettings(),
    retrieve: RetrievalSettings = RetrievalSettings(),
    skip: tuple[str, ...] = (),
    run: RunSettings = RunSettings(),
) -> Clustered:
    """Cluster the embeddings of a brain with k-means, draw the clusters of every section, and say what they follow.

    The embeddings are laid out in a picture, too, and the nearest neighbours of typical places drawn as a sheet.

    Args:
        brain: The brain in the store.
        embedding: Name of the embedding; blank where there is only one.
        cluster: How many clusters, from how many tokens.
        check: How it is found out what the clusters follow.
        layout: How embeddings are laid out to be looked at.
        retrieve: How the sheet of nearest neighbours is made.
        skip: Sections to leave out.
        run: How the work is spread.

    """
    check_method(layout)
    with held_brain(brain.store_path, brain.brain_id) as opened, skipping(opened, skip), workers(run) as runner:
        chosen = require_stored(EmbeddingsStep, Place(opened), embedding, "Run embed-brain, or name one of them")
        embeddings = Stored(EmbeddingsStep, chosen)
        if not sections_with(opened, embeddings):
            raise StoreError(f"{opened.name}: no section has embeddings {chosen}; run embed-brain first")
        fit = ClusterFitStep.of(embeddings, cluster)
        checks, near = ClusterChecksStep.of(fit, check), RetrievalStep.of(fit, retrieve)
        made = run_whole("fit clusters", opened, fit)
        made += run_steps("cluster", runner, opened, [ClustersStep.of(fit)], run, sections_with(opened, embeddings))
        made += run_whole("draw tokens", opened, KnownTokensStep.of(fit, check.tokens))
        made += run_whole("check clusters", opened, checks)
        laid = LayoutStep.of(fit, layout)
        made += run_whole("lay out tokens", opened, laid)
        made += run_whole("find neighbours", opened, near)
        found = checks_notes(checks.stored.record(Place(opened)).facts)
        found |= retrieval_notes(near.stored.record(Place(opened)).facts)
        found |= {"layout": str(laid.stored.open(Place(opened))), "neighbours": str(near.stored.open(Place(opened)))}
        purities = cluster_purities(opened, fit.name)
        notes = {"clusters": fit.name, **{key: f"{value:.4f}" for key, value in purities.items()}, **found}
        return final_state(Clustered(opened.brain_id, made, dict(opened.failed), notes, fit.name))
