"""The figures by which brains are compared: what was mapped, how well the head and its map do, what clusters follow."""

from typing import Any

import numpy as np

from cytoarch.steps.agreement import AgreementStep, parted
from cytoarch.steps.clusters import ClustersStep, purities
from cytoarch.steps.familiarity import Familiarity, FamiliarityStep
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.pictures import Shown
from cytoarch.steps.sources import open_head, sections_with
from cytoarch.steps.step import Facts, Place, Stored
from cytoarch.steps.tissue import TISSUE
from cytoarch.steps.training import training_of


def brain_metrics(brain: OpenBrain, shown: Shown, training: str | None) -> dict[str, float]:
    """The figures by which a brain is compared with others: sections, tissue, scores of head and map, purities."""
    tissue = [TISSUE.record(Place(brain, one)).facts["area_mm2"] for one in sections_with(brain, TISSUE)]
    metrics: dict[str, float] = {
        "sections/mapped": len(brain.sections),
        "sections/failed": len(brain.failed),
        "sections/excluded": len(brain.brain.sections) - len(brain.brain.kept),
        "tissue/area_mm2": sum(tissue),
    }
    if training is not None:
        metrics |= training_of(brain, training)[0].facts["scores"]
    if shown.parcellation is not None and shown.model_digest is not None:
        metrics |= map_metrics(brain, shown.parcellation, shown.model_digest)
    if shown.clusters is not None:
        clusters = Stored(ClustersStep, shown.clusters)
        metrics |= purities(clusters.record(Place(brain, one)).facts for one in sections_with(brain, clusters))
    return {name: value for name, value in metrics.items() if np.isfinite(value)}


def map_metrics(brain: OpenBrain, parcellation: str, model_digest: str) -> dict[str, float]:
    """Scores of the maps of sections that the model did not learn from, and how far the brain lies from it."""
    card = open_head(brain.store, model_digest).card
    unseen, _ = parted(card, brain.brain_id, _facts(brain, Stored(AgreementStep, parcellation)))
    compared = Familiarity.of(_facts(brain, Stored(FamiliarityStep, parcellation)).values())
    return (unseen.metrics("map") if unseen else {}) | (compared.metrics() if compared else {})


def _facts(brain: OpenBrain, stored: Stored[Any]) -> dict[str, Facts]:
    return {one.section_id: stored.record(Place(brain, one)).facts for one in sections_with(brain, stored)}
