"""What a brain's clusters follow, by all that is known of its tokens; and how alike its areas are."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cytoarch.digests import canonical_json
from cytoarch.discovery.clusters import Clustering, ClusterSettings
from cytoarch.discovery.known import KnownTokens
from cytoarch.discovery.quality import UNKNOWN, judge
from cytoarch.discovery.similarity import similarity
from cytoarch.errors import StoreError
from cytoarch.sampling import standardised
from cytoarch.settings import Settings
from cytoarch.steps.clusters import ClusterFitStep
from cytoarch.steps.known_tokens import KnownTokensStep
from cytoarch.steps.step import Facts, Inputs, Step, Stored
from cytoarch.store.staging import Staging

CHECKS_FILE = "checks.json"
Float32 = NDArray[np.float32]


class CheckSettings(Settings):
    """How clusters are checked."""

    runs: int = Field(default=10, ge=2, le=200, description="Fits from other starts; the paper took 30.")
    tokens: int = Field(default=6_000, ge=100, le=1_000_000, description="Tokens that are clustered in each, at most.")
    counts: tuple[int, ...] = Field(
        default=(2, 4, 6, 8, 12), max_length=20, description="Numbers of clusters whose stability is measured."
    )


@dataclass(frozen=True)
class ClusterChecksStep(Step[Facts]):
    """Purity of clusters against areas, sides, sections, stains and distance to the border, over runs; stability."""

    step: ClassVar[str] = "cluster-checks"
    version: ClassVar[int] = 3
    scope: ClassVar = "brain"
    verb: ClassVar[str] = "check clusters"

    check: CheckSettings
    cluster: ClusterSettings
    fit: Stored[Clustering]
    known: Stored[KnownTokens]

    @classmethod
    def of(cls, fit: ClusterFitStep, check: CheckSettings) -> "ClusterChecksStep":
        """The checks of one clustering; its tokens (`KnownTokensStep`) are drawn before.

        Raises StoreError if fewer tokens than clusters are asked for.
        """
        enough_tokens(check.tokens, fit.cluster.clusters, f"check.tokens is {check.tokens}")
        return cls(check, fit.cluster, fit.stored, KnownTokensStep.of(fit, check.tokens).stored)

    @property
    def name(self) -> str:
        """That of the fit."""
        return self.fit.name

    def write(self, inputs: Inputs, staging: Staging) -> Facts:
        """Cluster again and again, and compare. Raises StoreError if the brain has fewer tokens than clusters."""
        known, settings = inputs[self.known], self.cluster
        enough_tokens(len(known), settings.clusters, f"{', '.join(known.brain_ids)} has {len(known)} tokens")
        tokens = scaled(known, inputs[self.fit])
        quality = judge(tokens, known.values(), settings.clusters, self.check.runs, self.check.counts, settings.seed)
        facts = quality.facts()
        alike = areas_alike(tokens, known)
        if alike is not None:
            facts["similarity"] = alike
        staging.write(CHECKS_FILE, canonical_json(facts).encode())
        return {key: value for key, value in facts.items() if key != "similarity"}

    @classmethod
    def opened(cls, folder: Path) -> Facts:
        """All that was found, similarity of areas included."""
        facts: Facts = json.loads((folder / CHECKS_FILE).read_text())
        return facts


def enough_tokens(tokens: int, clusters: int, said: str) -> None:
    """Raise StoreError, with what is said of the tokens, if they are fewer than the clusters they are to form.

    >>> enough_tokens(200, 200, "check.tokens is 200")
    """
    if tokens < clusters:
        raise StoreError(
            f"{said}, too few for {clusters} clusters, which need {clusters} at least; ask for fewer clusters, or "
            "raise check.tokens where there are more"
        )


def scaled(known: KnownTokens, fit: Clustering) -> Float32:
    """Tokens (n, c) float32 as a clustering sees them."""
    return standardised(known.tokens, fit.mean.astype(np.float64), fit.spread.astype(np.float64))


def areas_alike(tokens: Float32, known: KnownTokens) -> dict[str, Any] | None:
    """How alike the areas of tokens are, as JSON values; None where no token has one."""
    at = known.area != UNKNOWN
    if not at.any():
        return None
    alike = similarity(tokens[at], known.area[at], len(known.area_names))
    kept = np.flatnonzero(np.isfinite(alike).any(axis=1))
    values = [[_plain(value) for value in row] for row in alike[np.ix_(kept, kept)]]
    return {"areas": [known.area_names[one] for one in kept], "values": values}


def _plain(value: float) -> float | None:
    return round(float(value), 5) if np.isfinite(value) else None


def checks_notes(facts: Facts) -> dict[str, str]:
    """What a person is told of the checks."""
    return {
        f"purity against {name}": f"{one['purity']:.3f} +- {one['spread']:.3f} (chance {one['baseline']:.3f})"
        for name, one in facts["followed"].items()
    }
