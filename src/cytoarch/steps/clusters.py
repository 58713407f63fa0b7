"""Clusters of embeddings: fitted to a brain, drawn section by section."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.discovery.clusters import Clustering, ClusterSettings, cluster_sample, write_clusters
from cytoarch.embeddings import SectionEmbeddings
from cytoarch.images.views import StoredImage
from cytoarch.learning.targets import UNLABELLED, targets_on_grid
from cytoarch.measures.overlap import purity
from cytoarch.sampling import all_tokens
from cytoarch.steps.colours import FIT_FILE, name_of, stored_of, tissue_sources
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.sections import LABELS
from cytoarch.steps.sources import Each, Maybe, Table, sections_with
from cytoarch.steps.step import Facts, Inputs, Place, Step, Stored
from cytoarch.steps.tissue import TISSUE
from cytoarch.store.staging import Staging


@dataclass(frozen=True)
class ClusterFitStep(Step[Clustering]):
    """k-means on tokens of a whole brain."""

    step: ClassVar[str] = "clusters"
    version: ClassVar[int] = 5
    scope: ClassVar = "brain"
    verb: ClassVar[str] = "fit clusters"

    cluster: ClusterSettings
    embeddings: Each[SectionEmbeddings]
    tissue: Each[TissueMask]

    @classmethod
    def of(cls, embeddings: Stored[SectionEmbeddings], cluster: ClusterSettings) -> "ClusterFitStep":
        """The clusters of one way of embedding."""
        return cls(cluster, Each(embeddings), Each(TISSUE, having=(embeddings,)))

    @property
    def name(self) -> str:
        """How many, and of which embeddings."""
        return f"k{self.cluster.clusters}-{name_of(self.embeddings)}"[:64]

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Fit to tokens drawn from every section, and to all of them where that is asked for."""
        sources = tissue_sources(inputs[self.embeddings], inputs[self.tissue])
        sample = cluster_sample(sources, self.cluster)
        fit = Clustering.fit([sample.tokens], self.cluster)
        facts: dict[str, Any] = {"clusters": self.cluster.clusters, **sample.facts()}
        if self.cluster.passes:
            fit, passed = fit.refined(lambda: all_tokens(sources), self.cluster.passes)
            facts |= {"passes": passed.passes, "all_tokens": passed.tokens, "inertia": round(passed.inertia, 6)}
        staging.write(FIT_FILE, fit.to_bytes())
        return facts

    @classmethod
    def opened(cls, folder: Path) -> Clustering:
        """The clustering."""
        return Clustering.from_bytes((folder / FIT_FILE).read_bytes())


@dataclass(frozen=True)
class ClustersStep(Step[StoredImage]):
    """The clusters of a section, counted against its labels where it has any."""

    step: ClassVar[str] = "clusters"
    version: ClassVar[int] = 3
    verb: ClassVar[str] = "cluster"

    embeddings: Stored[SectionEmbeddings]
    fit: Stored[Clustering]
    tissue: Stored[TissueMask] = TISSUE
    labels: Maybe[StoredImage] = Maybe(LABELS)
    table: Table = Table()

    @classmethod
    def of(cls, fit: ClusterFitStep) -> "ClustersStep":
        """The clusters of each section by one fit."""
        return cls(stored_of(fit.embeddings), fit.stored)

    @property
    def name(self) -> str:
        """That of the fit."""
        return self.fit.name

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Draw the label map and count its clusters."""
        clustering = inputs[self.fit]
        facts = write_clusters(staging, inputs[self.embeddings], inputs[self.tissue], clustering)
        drawn = self.opened(staging.path).levels[0]
        clusters = drawn.pixels().astype(np.int64)
        count = len(clustering.centres)
        facts["sizes"] = np.bincount(clusters.ravel(), minlength=count + 1)[1:].tolist()
        labels, table = inputs[self.labels], inputs[self.table]
        if labels is not None and table is not None:
            classes = table.classes(by_group=False)
            truth = targets_on_grid(labels.levels[0], classes, drawn.grid)
            both = (clusters > 0) & (truth != UNLABELLED)
            pairs = (clusters[both] - 1) * len(classes) + truth[both]
            counts = np.bincount(pairs, minlength=count * len(classes))
            facts["by_label"] = counts.reshape(count, len(classes)).tolist()
        return facts

    @classmethod
    def opened(cls, folder: Path) -> StoredImage:
        """The label map: 0 is outside tissue, clusters count from 1."""
        return StoredImage.open(folder / "labels" / "clusters")


def cluster_purities(brain: OpenBrain, name: str) -> dict[str, float]:
    """Purity of the clusters against sections, and against labels where there are any."""
    stored: Stored[StoredImage] = Stored(ClustersStep, name)
    facts = [stored.record(Place(brain, one)).facts for one in sections_with(brain, stored)]
    return purities(facts)


def purities(facts: Iterable[Facts]) -> dict[str, float]:
    """Purity of clusters against sections, and against labels, from what is known of every section."""
    known = list(facts)
    result = {}
    if len(known) > 1:  # one section is pure by itself
        result["clusters/purity_sections"] = purity(np.array([one["sizes"] for one in known]).T)
    by_label = [np.array(one["by_label"]) for one in known if "by_label" in one]
    if by_label:
        result["clusters/purity_labels"] = purity(np.sum(by_label, axis=0))
    return {key: value for key, value in result.items() if np.isfinite(value)}
