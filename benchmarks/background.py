"""Bare slide beside the tissue: whether clusters follow the distance to it less where tissue is mirrored there.

`python -m benchmarks.background` embeds the human sections of `benchmarks.layers` and a tiny phantom both ways, and
prints how far clusters follow the distance to the tissue's border and the labels (purity between chance, 0, and 1), and
what a probe is worth: macro-F1 of the other donor, and of the sections that a phantom holds out.
"""

import argparse
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from benchmarks.layers import DONORS, brain_of, ours, prepared, score, spots_of
from cytoarch.brains import read_manifest
from cytoarch.discovery.clusters import ClusterSettings
from cytoarch.discovery.known import BORDER
from cytoarch.embeddings import EmbedSettings
from cytoarch.learning.training import ProbeSettings
from cytoarch.phantoms.writing import PhantomRequest, write_phantom
from cytoarch.steps import ClusterFitStep, EmbeddingsStep, make, open_brain
from cytoarch.steps.cluster_checks import CheckSettings, ClusterChecksStep
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.step import Step
from cytoarch.steps.training import TrainingStep

Way = Literal["as-scanned", "filled"]
CLUSTERS = 7
CHECK = CheckSettings(runs=5, tokens=4_000, counts=())


class Found(NamedTuple):
    """What embeddings of a brain are like."""

    border: float
    """How far clusters follow the distance to the border: 0 as chance, 1 wholly."""
    labels: float
    """How far they follow the labels."""
    macro_f1: float
    """Of a probe."""


def facts_of(brain: OpenBrain, step: Step[Any]) -> Mapping[str, Any]:
    """The facts of a step of the whole brain, which is made."""
    make(step, brain)
    return brain.catalogue.require(step.product(), "make it").facts


def followed(brain: OpenBrain, embeddings: EmbeddingsStep) -> tuple[float, float]:
    """How far clusters follow the border and the labels."""
    fit = ClusterFitStep.of(embeddings.stored, ClusterSettings(clusters=CLUSTERS))
    make(fit, brain)
    found = facts_of(brain, ClusterChecksStep.of(fit, CHECK))["followed"]
    return float(found[BORDER]["excess"]), float(found["labels"]["excess"])


def human(store: Path, data: Path, encoder: str, background: Way) -> Found:
    """Both donors: the mean of what clusters follow, and of a probe's score in the other donor."""
    embed = EmbedSettings(encoder=encoder, background=background)
    follows, scores = [], []
    for learned, other in (("H1", "H2"), ("H2", "H1")):
        with open_brain(store, brain_of(learned)) as brain:
            follows.append(followed(brain, prepared(brain, data, embed)))
        truth = np.concatenate([spots_of(data, one)[1] for one in DONORS[other]])
        found = ours(store, data, learned, other, embed, "probe", ProbeSettings(target="layers"))
        scores.append(float(score(truth, found["none"]).mean()))
    border, labels = np.mean(follows, axis=0).tolist()
    return Found(border, labels, float(np.mean(scores)))


def phantom(store: Path, manifest: Path, encoder: str, background: Way) -> Found:
    """A phantom: what clusters follow, and a probe's score on the sections it holds out."""
    (read,) = read_manifest(manifest, manifest.parent, manifest.parent / "labels.csv")
    with open_brain(store, read) as brain:
        embeddings = prepared(brain, manifest.parent, EmbedSettings(encoder=encoder, background=background))
        border, labels = followed(brain, embeddings)
        training = TrainingStep.of(read.brain_id, embeddings.stored, "probe", ProbeSettings())
        scores = facts_of(brain, training)["scores"]
    return Found(border, labels, float(scores["held_out/macro_f1"]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-path", type=Path, default=Path(os.environ.get("CYTOARCH_REAL_DATA", "../shared/data")))
    parser.add_argument("--encoders", default="texture,compact,lite0")
    asked = parser.parse_args()
    print("| brain | encoder | background | border | labels | macro-F1 |\n|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        manifest = write_phantom(Path(name) / "P01", "P01", PhantomRequest(size="tiny"))
        for encoder in asked.encoders.split(","):
            for way in get_args(Way):
                rows = {
                    "human": human(Path(name) / "human", asked.data_path / "human_dlpfc_layers", encoder, way),
                    "phantom": phantom(Path(name) / "phantom", manifest, encoder, way),
                }
                for brain, found in rows.items():
                    figures = " | ".join(f"{one:.3f}" for one in found)
                    print(f"| {brain} | {encoder} | {way} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
