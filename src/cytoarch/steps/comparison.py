"""Brains compared: whether they agree on which areas are alike, and whether their embeddings follow areas or brains."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cytoarch.brains import LabelTable
from cytoarch.digests import canonical_json
from cytoarch.discovery.clusters import Clustering, ClusterSettings
from cytoarch.discovery.known import KnownTokens, together
from cytoarch.discovery.layout import LayoutSettings
from cytoarch.discovery.quality import judge
from cytoarch.discovery.similarity import agreement
from cytoarch.errors import StoreError
from cytoarch.images.views import StoredImage
from cytoarch.reporting.brains import BrainsPage, render_brains
from cytoarch.reporting.findings import Findings
from cytoarch.steps.cluster_checks import CheckSettings, ClusterChecksStep, enough_tokens, scaled
from cytoarch.steps.known_tokens import KnownTokensStep
from cytoarch.steps.layouts import PICTURE_FILE, write_layout
from cytoarch.steps.report_findings import alike_matrix, of_clusters
from cytoarch.steps.retrieval import SHEET_FILE, RetrievalSettings, write_retrieval
from cytoarch.steps.sections import SECTION
from cytoarch.steps.sources import Each, OfBrains, Sections, Table
from cytoarch.steps.step import Facts, Inputs, Step, Stored
from cytoarch.store.staging import Staging

COMPARISON_FILE, PAIRS_FILE, PAGE_FILE = "comparison.json", "pairs.csv", "index.html"
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class ComparisonStep(Step[Facts]):
    """How alike areas are in each of several brains, how far brains agree, and what their tokens follow together."""

    step: ClassVar[str] = "comparison"
    version: ClassVar[int] = 5
    scope: ClassVar = "study"
    verb: ClassVar[str] = "compare"

    clusters: str
    check: CheckSettings
    layout: LayoutSettings
    retrieve: RetrievalSettings
    checked: OfBrains[Facts]
    known: OfBrains[KnownTokens]
    images: OfBrains[Sections[StoredImage]]
    tables: OfBrains[LabelTable | None]

    @classmethod
    def of(
        cls,
        brains: Sequence[str],
        clusters: str,
        check: CheckSettings,
        layout: LayoutSettings,
        retrieve: RetrievalSettings,
    ) -> "ComparisonStep":
        """The comparison of brains that were clustered in the same way."""
        ids = tuple(brains)
        return cls(
            clusters,
            check,
            layout,
            retrieve,
            OfBrains(ids, Stored(ClusterChecksStep, clusters)),
            OfBrains(ids, Stored(KnownTokensStep, clusters)),
            OfBrains(ids, Each(SECTION)),
            OfBrains(ids, Table()),
        )

    @property
    def name(self) -> str:
        """That of the clusters."""
        return self.clusters

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Compare every two brains over the areas both have. Raises StoreError if a brain has no labelled areas."""
        checks = inputs[self.checked]
        bare = [one for one, facts in checks.items() if "similarity" not in facts]
        if bare:
            raise StoreError(
                f"brain {', '.join(bare)}: no labels lie on the sampled tokens, and no areas can be compared; ingest "
                "with a manifest that names label images, and cluster again"
            )
        names = list(dict.fromkeys(name for one in checks.values() for name in one["similarity"]["areas"]))
        matrices = {one: spread_out(facts["similarity"], names) for one, facts in checks.items()}
        facts = agreements(matrices)
        count = next(int(one["clusters"]) for one in checks.values())
        facts |= self._together(inputs, staging, count)
        staging.write(COMPARISON_FILE, canonical_json({**facts, "areas": names}).encode())
        staging.write(PAIRS_FILE, _csv(facts["pairs"]))
        page = BrainsPage(facts["brains"], facts["pairs"], self._found(facts), [
            alike_matrix(brain, one["similarity"]) for brain, one in checks.items()
        ])  # fmt: skip
        staging.write(PAGE_FILE, render_brains(page))
        return facts

    def _together(self, inputs: Inputs, staging: Staging, clusters: int) -> dict[str, Any]:
        """Cluster, lay out and compare the tokens of all brains as one, as many of each.

        Raises StoreError if these are too few, or of different length.
        """
        brains = inputs[self.known]
        widths = {one: known.tokens.shape[1] for one, known in brains.items()}
        if len(set(widths.values())) > 1:
            said = ", ".join(f"{one} {width}" for one, width in widths.items())
            raise StoreError(f"embeddings of different length cannot be compared ({said}); embed all in the same way")
        each = min(self.check.tokens // len(brains), *map(len, brains.values()))
        fewest = ", ".join(f"{one} {len(part)}" for one, part in brains.items())
        enough_tokens(
            each * len(brains),
            clusters,
            f"of {self.check.tokens} tokens (check.tokens) every brain gives {each}, as many as the others, of those "
            f"that are known ({fewest})",
        )
        known = together({one: drawn(part, each) for one, part in brains.items()})
        fit = Clustering.fit([known.tokens], ClusterSettings(clusters=clusters))
        quality = judge(scaled(known, fit), known.values(), clusters, self.check.runs, self.check.counts, 0)
        images = inputs[self.images]
        table = next((one for one in inputs[self.tables].values() if one is not None), None)

        def image_of(named: str) -> StoredImage:
            brain, _, section_id = named.partition("/")
            return images[brain][section_id]

        laid = write_layout(staging, known, fit, table, self.layout)
        near = write_retrieval(staging, known, fit, image_of, self.retrieve)
        return {"checks": quality.facts(), "layout": laid, "retrieval": near}

    def _found(self, facts: Facts) -> Findings:
        found = of_clusters(facts["checks"], facts["layout"], facts["retrieval"])
        return Findings(**found, layout=PICTURE_FILE, sheet=SHEET_FILE)

    @classmethod
    def opened(cls, folder: Path) -> Facts:
        """All that was found."""
        facts: Facts = json.loads((folder / COMPARISON_FILE).read_text())
        return facts


def drawn(known: KnownTokens, count: int) -> KnownTokens:
    """So many of the tokens of a brain, drawn by lot."""
    return known.chosen(np.sort(np.random.default_rng(0).permutation(len(known))[:count]))


def agreements(matrices: Mapping[str, Float64]) -> dict[str, Any]:
    """How far every two brains agree on which areas are alike, and all of them on average."""
    pairs: list[dict[str, Any]] = [
        {"one": one, "other": other, "correlation": _plain(r), "pairs": count}
        for one, other in combinations(matrices, 2)
        for r, count in [agreement(matrices[one], matrices[other])]
    ]
    known = [float(row["correlation"]) for row in pairs if row["correlation"] is not None]
    return {
        "brains": list(matrices),
        "pairs": pairs,
        "correlation_mean": _plain(float(np.mean(known))) if known else None,
        "correlation_sd": _plain(float(np.std(known))) if known else None,
    }


def spread_out(found: Mapping[str, Any], names: Sequence[str]) -> Float64:
    """The similarity of areas (k, k) in the order of `names`, NaN where a brain lacks one."""
    matrix = np.full((len(names), len(names)), np.nan)
    at = [names.index(one) for one in found["areas"]]
    matrix[np.ix_(np.array(at), np.array(at))] = np.array(found["values"], dtype=np.float64)
    return matrix


def _plain(value: float) -> float | None:
    return round(value, 5) if np.isfinite(value) else None


def _csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, ("one", "other", "correlation", "pairs"), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue().encode()
