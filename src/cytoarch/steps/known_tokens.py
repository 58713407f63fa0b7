"""Tokens drawn from a brain with all that is known of each."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.discovery.clusters import ClusterSettings, cluster_sample
from cytoarch.discovery.known import SIDE_NAMES, KnownTokens
from cytoarch.discovery.quality import UNKNOWN
from cytoarch.embeddings import SectionEmbeddings
from cytoarch.images.views import StoredImage
from cytoarch.learning.targets import targets_on_grid
from cytoarch.steps.clusters import ClusterFitStep
from cytoarch.steps.colours import name_of, tissue_sources
from cytoarch.steps.sections import LABELS
from cytoarch.steps.sources import Each, Rows, Table
from cytoarch.steps.step import Facts, Inputs, Step, Stored
from cytoarch.store.staging import Staging

TOKENS_FILE = "tokens.npz"
UNSTATED = "unstated"
Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class KnownTokensStep(Step[KnownTokens]):
    """Some of the tokens that clusters are fitted to, with area, side, section, stain and distance to the border."""

    step: ClassVar[str] = "known-tokens"
    scope: ClassVar = "brain"
    verb: ClassVar[str] = "draw tokens"

    clusters: str
    cluster: ClusterSettings
    tokens: int
    embeddings: Each[SectionEmbeddings]
    tissue: Each[TissueMask]
    labels: Each[StoredImage]
    table: Table = Table()
    stated: Rows = Rows(("brain_id", "hemisphere", "stain"))

    @classmethod
    def of(cls, fit: ClusterFitStep, tokens: int) -> "KnownTokensStep":
        """At most so many of the tokens of a clustering."""
        if not isinstance(fit.embeddings.source, Stored):
            raise TypeError("embeddings of every section are products of a step")
        labels = Each(LABELS, having=(fit.embeddings.source,))
        return cls(fit.name, fit.cluster, tokens, fit.embeddings, fit.tissue, labels)

    @property
    def name(self) -> str:
        """That of the clusters."""
        return self.clusters

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Draw them, and look up what is known."""
        embeddings, tissue = inputs[self.embeddings], inputs[self.tissue]
        sample = cluster_sample(tissue_sources(embeddings, tissue), self.cluster)
        chosen = np.sort(np.random.default_rng(self.cluster.seed).permutation(len(sample.tokens))[: self.tokens])
        sections, places = sample.sections[chosen], sample.places[chosen]
        rows, ids = inputs[self.stated], tuple(embeddings)
        stains = tuple(dict.fromkeys(rows[one]["stain"] for one in ids if rows[one]["stain"] != UNSTATED))
        side = [_index(SIDE_NAMES, rows[one]["hemisphere"]) for one in ids]
        stain = [_index(stains, rows[one]["stain"]) for one in ids]
        area, places_um, distance, names = self._looked_up(inputs, sections, places)
        known = KnownTokens(
            tokens=sample.tokens[chosen],
            places_um=places_um,
            section=sections,
            area=area,
            side=np.array(side, dtype=np.int64)[sections],
            stain=np.array(stain, dtype=np.int64)[sections],
            brain=np.zeros(len(chosen), dtype=np.int64),
            from_border_um=distance,
            section_ids=ids,
            area_names=names,
            stain_names=stains,
            brain_ids=(next(rows[one]["brain_id"] for one in ids),),
            token_um=max((embeddings[ids[one]].token_um for one in np.unique(sections)), default=0.0),
        )
        staging.write(TOKENS_FILE, known.to_bytes())
        return {"tokens": len(known), "embeddings": name_of(self.embeddings)}

    def _looked_up(
        self, inputs: Inputs, sections: Int64, places: Int64
    ) -> tuple[Int64, Float64, Float64, tuple[str, ...]]:
        """Area (n,), place (n, 2) um and distance (n,) um to the border of tokens, and the names of areas."""
        embeddings, tissue, labels = inputs[self.embeddings], inputs[self.tissue], inputs[self.labels]
        table, ids = inputs[self.table], tuple(embeddings)
        area = np.full(len(sections), UNKNOWN, dtype=np.int64)
        distance, places_um = np.zeros(len(sections)), np.zeros((len(sections), 2))
        classes = () if table is None else table.classes(by_group=False)
        for index in np.unique(sections):
            section_id, own = ids[index], sections == index
            opened = embeddings[section_id]
            grid, (rows, columns) = opened.layers[0].grid, places[own].T
            distance[own] = _from_border(tissue[section_id], opened)[rows, columns]
            places_um[own] = grid.um(places[own])
            if classes and section_id in labels:
                area[own] = targets_on_grid(labels[section_id].levels[0], classes, grid)[rows, columns]
        return area, places_um, distance, tuple(one.name for one in classes)

    @classmethod
    def opened(cls, folder: Path) -> KnownTokens:
        """The tokens."""
        return KnownTokens.from_bytes((folder / TOKENS_FILE).read_bytes())


def _index(names: tuple[str, ...], name: str) -> int:
    return names.index(name) if name in names else UNKNOWN


def _from_border(tissue: TissueMask, embeddings: SectionEmbeddings) -> Float64:
    """Distance of every token (y, x) to the nearest that is no tissue (um)."""
    inside = np.pad(embeddings.inside(tissue), 1)
    return np.asarray(distance_transform_edt(inside)[1:-1, 1:-1] * embeddings.token_um)
