"""Clusters of embeddings: fitted to a brain, drawn section by section."""

from pathlib import Path
from typing import Any

import numpy as np
from prefect import task
from prefect.client.schemas.objects import State

from cytoarch.brains import Brain, Section
from cytoarch.contents import (
    FIT_FILE,
    embedding_records,
    labels_product,
    open_clustering,
    open_embeddings,
    open_labels,
    open_tissue,
    require_embedding,
)
from cytoarch.discovery.clusters import CLUSTERS_VERSION, Clustering, ClusterSettings, cluster_sample, write_clusters
from cytoarch.embeddings import check_same_dims
from cytoarch.images.views import StoredImage
from cytoarch.learning.targets import UNLABELLED, targets_on_grid
from cytoarch.measures.overlap import purity
from cytoarch.sampling import tissue_source
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.products import Product, Work
from cytoarch.store.staging import Staging
from tasks.sections import POLICY, section_state

STAGE = "cluster"


def clusters_name(embedding_name: str, settings: ClusterSettings) -> str:
    """The name under which a clustering is kept."""
    return f"k{settings.clusters}-{embedding_name}"[:64]


@task(name="fit-clusters", task_run_name="fit {settings.clusters} clusters", **POLICY)
def fit_clusters(
    store_path: Path, brain: Brain, sections: tuple[Section, ...], embedding_name: str, settings: ClusterSettings
) -> bool:
    """Fit k-means to tokens drawn from every section."""
    store = BrainStore(store_path)
    records = embedding_records(store, brain, embedding_name, sections)

    def write(staging: Staging) -> dict[str, Any]:
        opened = [
            (s.section_id, open_embeddings(store, brain.brain_id, embedding_name, s.section_id)) for s in sections
        ]
        check_same_dims(opened)
        sources = [tissue_source(one, found, open_tissue(store, brain.brain_id, one)) for one, found in opened]
        sample = cluster_sample(sources, settings)
        staging.write(FIT_FILE, Clustering.fit([sample.tokens], settings).to_bytes())
        return dict(sample.facts())

    inputs = {one: record.digest for one, record in records.items()}
    product = Product(brain.brain_id, "clusters", clusters_name(embedding_name, settings))
    _, made = store.ensure(product, Work(CLUSTERS_VERSION, inputs, settings.model_dump(mode="json")), write)
    return made


@task(name="cluster-section", task_run_name="cluster {section.section_id}", **POLICY)
def cluster_section(
    store_path: Path, brain: Brain, section: Section, embedding_name: str, settings: ClusterSettings
) -> "State[Any]":
    """Draw one section's clusters, and count them against its labels where it has any."""

    def work() -> bool:
        store = BrainStore(store_path)
        brain_id, section_id = section.brain_id, section.section_id
        name = clusters_name(embedding_name, settings)
        inputs = {
            "embeddings": require_embedding(store, brain_id, embedding_name, section_id).digest,
            "clustering": store.require(Product(brain_id, "clusters", name), "run cluster-brain").digest,
        }
        labels = store.record(labels_product(brain_id, section_id)) if section.labels else None
        if labels is not None:
            inputs["labels"] = labels.digest

        def write(staging: Staging) -> dict[str, Any]:
            embeddings = open_embeddings(store, brain_id, embedding_name, section_id)
            facts = write_clusters(
                staging, embeddings, open_tissue(store, brain_id, section_id), open_clustering(store, brain_id, name)
            )
            drawn = StoredImage.open(staging.path / "labels" / "clusters").levels[0]
            clusters = np.asarray(drawn.array).astype(np.int64)
            facts["sizes"] = np.bincount(clusters.ravel(), minlength=settings.clusters + 1)[1:].tolist()
            if labels is not None and brain.label_table is not None:
                classes = brain.label_table.classes(by_group=False)
                truth = targets_on_grid(
                    open_labels(store, brain_id, section_id), classes, drawn.size, drawn.pixel_size_um
                )
                both = (clusters > 0) & (truth != UNLABELLED)
                pairs = (clusters[both] - 1) * len(classes) + truth[both]
                counts = np.bincount(pairs, minlength=settings.clusters * len(classes))
                facts["by_label"] = counts.reshape(settings.clusters, len(classes)).tolist()
            return facts

        _, made = store.ensure(
            Product(brain_id, "clusters", name, section_id), Work(CLUSTERS_VERSION, inputs, {}), write
        )
        return made

    return section_state(section.section_id, work)


def cluster_purities(store: BrainStore, brain_id: str, sections: tuple[Section, ...], name: str) -> dict[str, float]:
    """Purity of the clusters against sections, and against labels where there are any."""
    facts = [
        store.require(Product(brain_id, "clusters", name, s.section_id), "run cluster-brain").facts for s in sections
    ]
    result = {"clusters/purity_sections": purity(np.array([one["sizes"] for one in facts]).T)}
    by_label = [np.array(one["by_label"]) for one in facts if "by_label" in one]
    if by_label:
        result["clusters/purity_labels"] = purity(np.sum(by_label, axis=0))
    return {key: value for key, value in result.items() if np.isfinite(value)}
