"""Clusters of a brain's embeddings."""

from prefect import flow

from cytoarch.contents import embedded_sections, pick_embedding
from cytoarch.discovery.clusters import ClusterSettings
from cytoarch.errors import StoreError
from cytoarch.store.brain_store import BrainStore
from flows.parameters import RunSettings, StoredBrain
from flows.stages import Summary, failures, final_state, made_count, run_name, run_stage, without, workers
from tasks.clusters import STAGE, cluster_purities, cluster_section, clusters_name, fit_clusters


@flow(name="cluster-brain", flow_run_name=run_name("cluster"))
def cluster_brain(
    brain: StoredBrain,
    embedding: str = "",
    cluster: ClusterSettings = ClusterSettings(),
    skip: tuple[str, ...] = (),
    run: RunSettings = RunSettings(),
) -> Summary:
    """Cluster the embeddings of a brain with k-means and draw the clusters of every section.

    Args:
        brain: The brain in the store.
        embedding: Name of the embedding; blank where there is only one.
        cluster: How many clusters, from how many tokens.
        skip: Sections to leave out.
        run: How the work is spread.

    """
    store = BrainStore(brain.store_path)
    known = store.read_brain(brain.brain_id)
    name = pick_embedding(store, brain.brain_id, embedding)
    sections = embedded_sections(store, known, name, skip)
    if not sections:
        raise StoreError(f"brain {brain.brain_id}: no section has embeddings {name}; run embed-brain first")
    with store.lock(brain.brain_id), workers(run) as runner:
        made = int(fit_clusters(brain.store_path, known, sections, name, cluster))
        outcomes = run_stage(
            STAGE,
            runner,
            cluster_section,
            sections,
            lambda section: {
                "store_path": brain.store_path,
                "brain": known,
                "section": section,
                "embedding_name": name,
                "settings": cluster,
            },
        )
    failed = failures(outcomes)
    kept = clusters_name(name, cluster)
    purities = cluster_purities(store, brain.brain_id, without(sections, failed), kept)
    notes = {"clusters": kept, **{key: f"{value:.4f}" for key, value in purities.items()}}
    return final_state(Summary(brain.brain_id, made + made_count(outcomes), failed, notes))
