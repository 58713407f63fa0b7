"""Brains compared: whether they agree on which areas are alike."""

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

from cytoarch.digests import canonical_json
from cytoarch.discovery.similarity import agreement
from cytoarch.errors import StoreError
from cytoarch.steps.cluster_checks import ClusterChecksStep
from cytoarch.steps.sources import OfBrain
from cytoarch.steps.step import Facts, Inputs, Place, Source, Step, Stored
from cytoarch.store.staging import Staging

COMPARISON_FILE, PAIRS_FILE = "comparison.json", "pairs.csv"
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Checked(Source[Mapping[str, Facts]]):
    """What is known of the clusters and areas of several brains."""

    brains: tuple[OfBrain[Facts], ...]

    def digests(self, place: Place) -> Mapping[str, str]:
        """Those of every brain."""
        return {one.brain_id: digest for one in self.brains for digest in one.digests(place).values()}

    def open(self, place: Place) -> Mapping[str, Facts]:
        """The checks by brain."""
        return {one.brain_id: one.open(place) for one in self.brains}


@dataclass(frozen=True)
class ComparisonStep(Step[Facts]):
    """How alike areas are by their embeddings, in each of several brains, and how far the brains agree on it."""

    step: ClassVar[str] = "comparison"
    scope: ClassVar = "study"
    verb: ClassVar[str] = "compare"

    clusters: str
    checked: Checked

    @classmethod
    def of(cls, brains: Sequence[str], clusters: str) -> "ComparisonStep":
        """The comparison of brains that were clustered in the same way."""
        stored = Stored(ClusterChecksStep, clusters)
        return cls(clusters, Checked(tuple(OfBrain(one, stored) for one in brains)))

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
        pairs: list[dict[str, Any]] = [
            {"one": one, "other": other, "correlation": _plain(r), "pairs": count}
            for one, other in combinations(matrices, 2)
            for r, count in [agreement(matrices[one], matrices[other])]
        ]
        known = [float(row["correlation"]) for row in pairs if row["correlation"] is not None]
        facts = {
            "brains": list(matrices),
            "pairs": pairs,
            "correlation_mean": _plain(float(np.mean(known))) if known else None,
            "correlation_sd": _plain(float(np.std(known))) if known else None,
        }
        staging.write(COMPARISON_FILE, canonical_json({**facts, "areas": names}).encode())
        staging.write(PAIRS_FILE, _csv(pairs).encode())
        return facts

    @classmethod
    def opened(cls, folder: Path) -> Facts:
        """All that was found."""
        facts: Facts = json.loads((folder / COMPARISON_FILE).read_text())
        return facts


def spread_out(found: Mapping[str, Any], names: Sequence[str]) -> Float64:
    """The similarity of areas (k, k) in the order of `names`, NaN where a brain lacks one."""
    matrix = np.full((len(names), len(names)), np.nan)
    at = [names.index(one) for one in found["areas"]]
    matrix[np.ix_(np.array(at), np.array(at))] = np.array(found["values"], dtype=np.float64)
    return matrix


def _plain(value: float) -> float | None:
    return round(value, 5) if np.isfinite(value) else None


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, ("one", "other", "correlation", "pairs"), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
