"""What a brain's clusters follow, by all that is known of its tokens; and how alike its areas are."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.ndimage import distance_transform_edt

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.digests import canonical_json
from cytoarch.discovery.clusters import Clustering, ClusterSettings, cluster_sample
from cytoarch.discovery.quality import UNKNOWN, bands, judge
from cytoarch.discovery.similarity import similarity
from cytoarch.embeddings import SectionEmbeddings
from cytoarch.images.views import StoredImage
from cytoarch.learning.targets import targets_on_grid
from cytoarch.sampling import TokenSample, standardised
from cytoarch.settings import Settings
from cytoarch.steps.clusters import ClusterFitStep
from cytoarch.steps.colours import tissue_sources
from cytoarch.steps.sections import LABELS
from cytoarch.steps.sources import Each, Statements, Table
from cytoarch.steps.step import Facts, Inputs, Step, Stored
from cytoarch.store.staging import Staging

CHECKS_FILE = "checks.json"
BORDER = "distance to the tissue's border"
"""What clusters follow where bare slide beside the tissue decides embeddings."""
Int64 = NDArray[np.int64]


class CheckSettings(Settings):
    """How clusters are checked."""

    runs: int = Field(default=10, ge=2, le=200, description="Fits from other starts; the paper took 30.")
    tokens: int = Field(default=6_000, ge=100, le=1_000_000, description="Tokens that are clustered in each, at most.")
    counts: tuple[int, ...] = Field(
        default=(2, 4, 6, 8, 12), max_length=20, description="Numbers of clusters whose stability is measured."
    )


@dataclass(frozen=True)
class ClusterChecksStep(Step[Facts]):
    """Purity of clusters against areas, sides, sections and the distance to the border, over runs; their stability."""

    step: ClassVar[str] = "cluster-checks"
    scope: ClassVar = "brain"
    verb: ClassVar[str] = "check clusters"

    check: CheckSettings
    cluster: ClusterSettings
    fit: Stored[Clustering]
    embeddings: Each[SectionEmbeddings]
    tissue: Each[TissueMask]
    labels: Each[StoredImage]
    table: Table = Table()
    stated: Statements = Statements()

    @classmethod
    def of(cls, fit: ClusterFitStep, check: CheckSettings) -> "ClusterChecksStep":
        """The checks of one clustering."""
        labels = Each(LABELS, having=(fit.embeddings.source,)) if isinstance(fit.embeddings.source, Stored) else None
        if labels is None:
            raise TypeError("embeddings of every section are products of a step")
        return cls(check, fit.cluster, fit.stored, fit.embeddings, fit.tissue, labels)

    @property
    def name(self) -> str:
        """That of the fit."""
        return self.fit.name

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Cluster again and again, and compare."""
        embeddings, tissue = inputs[self.embeddings], inputs[self.tissue]
        sample = cluster_sample(tissue_sources(embeddings, tissue), self.cluster)
        chosen = np.sort(np.random.default_rng(self.cluster.seed).permutation(len(sample.tokens))[: self.check.tokens])
        fit = inputs[self.fit]
        tokens = standardised(sample.tokens[chosen], fit.mean.astype(np.float64), fit.spread.astype(np.float64))
        known = self._known(inputs, sample, chosen)
        quality = judge(tokens, known, self.cluster.clusters, self.check.runs, self.check.counts, self.cluster.seed)
        facts = quality.facts()
        table = inputs[self.table]
        if table is not None and (known["areas"] != UNKNOWN).any():
            names = [one.name for one in table.classes(by_group=False)]
            at = known["areas"] != UNKNOWN
            alike = similarity(tokens[at], known["areas"][at], len(names))
            kept = np.flatnonzero(np.isfinite(alike).any(axis=1))
            facts["similarity"] = {
                "areas": [names[one] for one in kept],
                "values": [[_plain(value) for value in row] for row in alike[np.ix_(kept, kept)]],
            }
        staging.write(CHECKS_FILE, canonical_json(facts).encode())
        return {key: value for key, value in facts.items() if key != "similarity"}

    def _known(self, inputs: Inputs, sample: TokenSample, chosen: Int64) -> dict[str, Int64]:
        """What is known of the chosen tokens, by name (n,)."""
        embeddings, tissue, labels = inputs[self.embeddings], inputs[self.tissue], inputs[self.labels]
        table, ids = inputs[self.table], tuple(embeddings)
        sides = {one.section_id: one.hemisphere for one in inputs[self.stated].sections}
        sections, places = sample.sections[chosen], sample.places[chosen]
        areas = np.full(len(chosen), UNKNOWN, dtype=np.int64)
        distance = np.zeros(len(chosen))
        side = np.array([{"left": 0, "right": 1}.get(sides.get(ids[one], ""), UNKNOWN) for one in sections])
        for index in np.unique(sections):
            section_id, own = ids[index], sections == index
            rows, columns = places[own].T
            distance[own] = _from_border(tissue[section_id], embeddings[section_id])[rows, columns]
            if table is not None and section_id in labels:
                grid = embeddings[section_id].layers[0].grid
                found = targets_on_grid(labels[section_id].levels[0], table.classes(by_group=False), grid)
                areas[own] = found[rows, columns]
        return {"areas": areas, "hemispheres": side, "sections": sections, BORDER: bands(distance)}

    @classmethod
    def opened(cls, folder: Path) -> Facts:
        """All that was found, similarity of areas included."""
        facts: Facts = json.loads((folder / CHECKS_FILE).read_text())
        return facts


def _from_border(tissue: TissueMask, embeddings: SectionEmbeddings) -> NDArray[np.float64]:
    """Distance of every token (y, x) to the nearest that is no tissue (um)."""
    inside = np.pad(embeddings.inside(tissue), 1)
    return np.asarray(distance_transform_edt(inside)[1:-1, 1:-1] * embeddings.token_um)


def _plain(value: float) -> float | None:
    return round(float(value), 5) if np.isfinite(value) else None


def checks_notes(facts: Facts) -> dict[str, str]:
    """What a person is told of the checks."""
    return {
        f"purity against {name}": f"{one['purity']:.3f} +- {one['spread']:.3f} (chance {one['baseline']:.3f})"
        for name, one in facts["followed"].items()
    }
