"""Which products are no longer current when something they are made from changes: those, and no others."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cytoarch.anatomy.tissue import TissueSettings
from cytoarch.learning.training import ProbeSettings
from cytoarch.parcellation.smoothing import SmoothSettings
from cytoarch.steps.sections import SECTION
from cytoarch.steps.step import MissingInputError, Place, Step
from cytoarch.steps.tissue import TISSUE, TissueStep
from tests.cytoarch.steps.small_brain import CORTEX, IDS, WHITE_MATTER, Chain, SmallBrain, Steps, labels_of, scan_of

pytestmark = pytest.mark.xdist_group("steps")


def parts(steps: Steps) -> dict[str, Step[Any]]:
    """The steps after ingestion by what they are called here."""
    probabilities, parcellations = steps.parcellation
    return {
        "embeddings": steps.embeddings,
        "colour fit": steps.colour_fit,
        "colours": steps.colours,
        "training": steps.training,
        "probabilities": probabilities,
        "parcellations": parcellations,
        "cluster fit": steps.cluster_fit,
        "clusters": steps.clusters,
    }


def still_current(small: SmallBrain) -> dict[str, list[str]]:
    """By step the sections for which there is nothing to do."""
    with small.opened() as opened:
        steps = Steps(small, opened)
        return {name: steps.current(step) for name, step in parts(steps).items()}


def whole(step: str) -> list[str]:
    return ["brain"] if step in ("colour fit", "training", "cluster fit") else list(IDS)
