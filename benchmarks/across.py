"""Maps of phantoms smoothed from section to section: scores of sections the model has not seen, before and after.

`python -m benchmarks.across` (some ten minutes on two cores) writes the table into the README; other `--seeds`,
`--sections` or `--pixel-size-um` print it only.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.cases import write_block
from benchmarks.layers import prepared
from cytoarch.anatomy.midline import MidlineSettings
from cytoarch.anatomy.reconstruction import ReconstructionSettings
from cytoarch.brains import read_manifest
from cytoarch.embeddings import EmbedSettings
from cytoarch.learning.training import ProbeSettings
from cytoarch.measures.neighbours import errors_by_hops, hops
from cytoarch.measures.overlap import accuracy, map_macro_f1
from cytoarch.parcellation.across import AcrossSettings
from cytoarch.parcellation.inference import ParcellateSettings
from cytoarch.parcellation.smoothing import SmoothSettings
from cytoarch.phantoms.writing import PhantomRequest, write_phantom
from cytoarch.steps import make, open_brain
from cytoarch.steps.across import AcrossStep, touching_classes, unseen_labels
from cytoarch.steps.agreement import AgreementStep, MapScore, parted
from cytoarch.steps.depth import DepthStep
from cytoarch.steps.map_points import NodesStep
from cytoarch.steps.midline import MidlineStep
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.parcellations import ParcellationStep, parcellation_steps
from cytoarch.steps.reconstruction import LinksStep, ReconstructionStep
from cytoarch.steps.running import make_sections
from cytoarch.steps.sections import LABELS
from cytoarch.steps.sources import Each, open_head, sections_with
from cytoarch.steps.step import Facts, Place, Step
from cytoarch.steps.training import TrainingStep, keep_head

README = Path(__file__).parent / "README.md"
BLOCK = "across: written by python -m benchmarks.across"
SEEDS, SECTIONS, PIXEL_UM, SPACING_UM = (1, 2, 3, 4, 5), 60, 80.0, 500.0


class Scored(NamedTuple):
    """A map of the sections that the model has not seen, beside their labels."""

    macro_f1: float
    top1: float
    one_hop: float
    """Share of the errors that are one border off."""
    violations: int
    """Neighbouring points of areas that touch on no labelled section."""
    pieces: int


class Found(NamedTuple):
    """What smoothing did to a brain."""

    strength: float
    before: Scored
    after: Scored


def each(brain: OpenBrain, *steps: Step[Any]) -> None:
    """Make steps for every section. Raises RuntimeError if one fails."""
    failed = [one for one in make_sections(steps, brain) if one.status == "failed"]
    if failed:
        raise RuntimeError(f"{brain.name}: {failed[:3]}")


def unseen_score(brain: OpenBrain, mapped: ParcellationStep) -> MapScore:
    """The score of a map, which is drawn, on the sections that its head has not seen."""
    agreement = AgreementStep.of(mapped)
    each(brain, mapped, agreement)
    facts = {
        one.section_id: agreement.stored.record(Place(brain, one)).facts
        for one in sections_with(brain, agreement.stored)
    }
    unseen, _ = parted(open_head(brain.store, mapped.head.digest).card, brain.brain_id, facts)
    if unseen is None:
        raise RuntimeError(f"{brain.name}: the head has seen every labelled section")
    return unseen


def scored(score: MapScore, far: np.ndarray[Any, Any], shape: Mapping[str, Any]) -> Scored:
    """The figures of a map; `far` is how many borders classes lie apart, `shape` what was counted of its points."""
    errors = errors_by_hops(score.confusion[1:, 1:], far)
    off = sum(errors.values())
    violations = sum(pairs for *_, pairs in shape["violations"])
    top1, one_hop = accuracy(score.confusion), errors.get(1, 0) / max(1, off)
    return Scored(map_macro_f1(score.confusion), top1, one_hop, violations, int(shape["pieces"]))


def smoothed(folder: Path, seed: int, sections: int, pixel_um: float) -> Found:
    """Map a phantom, then smooth the map from section to section; scores before and after."""
    request = PhantomRequest(seed=seed, sections=sections, pixel_size_um=pixel_um)
    manifest = write_phantom(folder / f"P{seed}", f"P{seed}", request)
    (read,) = read_manifest(manifest, manifest.parent, manifest.parent / "labels.csv")
    align = ReconstructionSettings()
    with open_brain(folder / "store", read) as brain:
        embeddings = prepared(brain, manifest.parent, EmbedSettings()).stored
        training = TrainingStep.of(read.brain_id, embeddings, "probe", ProbeSettings(refit=False))
        make(training, brain)
        digest = keep_head(brain, training.name)
        card, smooth = open_head(brain.store, digest).card, SmoothSettings()
        raw, alone = parcellation_steps(card, digest, embeddings, ParcellateSettings(source="cache"), smooth, {})
        depth = DepthStep()
        middle = MidlineStep.of(depth, MidlineSettings(spacing_um=SPACING_UM))
        each(brain, raw, depth, middle, LinksStep.of(align))
        make(ReconstructionStep(align), brain)
        before = unseen_score(brain, alone)
        nodes = NodesStep.of(raw.stored, brain, middle.name)
        each(brain, nodes)
        settings = AcrossSettings(method="poisson")
        whole = AcrossStep.of(nodes, raw.head, settings, unseen_labels(brain, card), smooth.weight_for(card))
        facts: Facts = make(whole, brain)[0].facts
        after = unseen_score(brain, ParcellationStep.following(alone, whole))
        touch = touching_classes(Each(LABELS).open(Place(brain)), card.classes)
    far = hops(touch, len(card.classes))
    scores = scored(before, far, facts["before"]), scored(after, far, facts["after"])
    return Found(float(facts["strength"]), *scores)


def table(found: Mapping[int, Found]) -> list[str]:
    """Rows: before and after of every phantom."""
    lines = [
        "| seed | strength | macro-F1 | top-1 | errors one border off | borders no labels have | pieces |",
        "|---|---|---|---|---|---|---|",
    ]
    for seed, one in found.items():
        pairs = list(zip(one.before, one.after, strict=True))
        shares = " | ".join(f"{before:.3f}, {after:.3f}" for before, after in pairs[:3])
        counts = " | ".join(f"{before:,}, {after:,}" for before, after in pairs[3:])
        lines.append(f"| {seed} | {one.strength:g} | {shares} | {counts} |")
    return lines


def main(given: Sequence[str] | None = None) -> int:
    """Measure, print and write the table; 1 if macro-F1 is lower after smoothing for any phantom."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--sections", type=int, default=SECTIONS)
    parser.add_argument("--pixel-size-um", type=float, default=PIXEL_UM)
    asked = parser.parse_args(given)
    found: dict[int, Found] = {}
    for seed in asked.seeds:
        with tempfile.TemporaryDirectory() as scratch:
            found[seed] = smoothed(Path(scratch), seed, asked.sections, asked.pixel_size_um)
        print(seed, found[seed], flush=True)
    lines = [
        f"{asked.sections} sections at {asked.pixel_size_um:g} um, points {SPACING_UM:g} um apart; before, after.",
        "",
        *table(found),
    ]
    print("\n".join(lines))
    if tuple(asked.seeds) == SEEDS and asked.sections == SECTIONS and asked.pixel_size_um == PIXEL_UM:
        write_block(README, BLOCK, "\n".join(lines))
    return int(any(one.after.macro_f1 < one.before.macro_f1 for one in found.values()))


if __name__ == "__main__":
    sys.exit(main())
