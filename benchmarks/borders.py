"""Borders along the cortex of a phantom, found in embeddings and in profiles of its stain, beside the true ones.

`python -m benchmarks.borders` (some ten minutes on two cores) writes the table into the README; `--sections 2` is quick
and writes nothing. Points lie 200 um apart along the middle of the cortex, profiles a sixteenth of its thickness; a
border is found where one lies within 0.4 mm of it. Patches are as large as the cortex is thick, so that
neighbours overlap.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.cases import write_block
from cytoarch.anatomy.midline import MidlineSettings
from cytoarch.anatomy.tissue import TissueSettings
from cytoarch.brains import read_manifest
from cytoarch.embeddings import EmbedSettings
from cytoarch.embeddings.sampled import SampleSettings
from cytoarch.phantoms.writing import PhantomRequest, write_phantom
from cytoarch.steps import make, open_brain
from cytoarch.steps.borders import BorderSettings, BordersStep
from cytoarch.steps.depth import DepthStep
from cytoarch.steps.midline import CortexPointsStep, MidlineStep
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.points import PointsStep, PointTable
from cytoarch.steps.profile_borders import ProfileBorderSettings, ProfileBordersStep
from cytoarch.steps.running import make_sections, make_together
from cytoarch.steps.sections import LabelsStep, ManifestFile, SectionStep
from cytoarch.steps.sources import sections_with
from cytoarch.steps.step import Facts, Place, Step
from cytoarch.steps.tissue import TissueStep

README = Path(__file__).parent / "README.md"
BLOCK = "borders: written by python -m benchmarks.borders"
SECTIONS, PIXEL_UM, SPACING_UM, PATCH_UM = 12, 20.0, 200.0, 1280.0
NEAR_MM = 0.4
"""A third of the cortex's thickness; true borders are some 2 mm apart where a section cuts them."""


class Rates(NamedTuple):
    """How borders that were found lie beside the true ones; rates by chance are those of as many at random."""

    known: int
    found: int
    hit: float
    hit_by_chance: float
    false: float
    false_by_chance: float

    @classmethod
    def of(cls, facts: Sequence[Facts]) -> "Rates":
        """The sum over sections."""
        against = [one["against"] for one in facts if "against" in one]
        sums = {name: float(np.sum([one[name] for one in against])) for name in cls._fields}
        known, found = max(1.0, sums["known"]), max(1.0, sums["found"])
        hits = (sums["hit"] / known, sums["hit_by_chance"] / known)
        return cls(
            int(sums["known"]), int(sums["found"]), *hits, sums["false"] / found, sums["false_by_chance"] / found
        )


def traced(brain: OpenBrain, data: Path) -> tuple[DepthStep, Path]:
    """Ingest a brain and trace its cortex; the way of measuring depth, and the table of points."""
    files = ManifestFile(data, "path"), ManifestFile(data, "labels")
    depth = DepthStep()
    middle = MidlineStep.of(depth, MidlineSettings(spacing_um=SPACING_UM, patch_um=PATCH_UM))
    make_sections([SectionStep(files[0]), LabelsStep(files[1]), TissueStep(TissueSettings()), depth, middle], brain)
    points = CortexPointsStep.of(middle.stored)
    make(points, brain)
    return depth, points.stored.open(Place(brain)).csv_path


def facts_of(brain: OpenBrain, step: Step[Path]) -> list[Facts]:
    """The facts of a step of sections, which is made."""
    make_sections([step], brain)
    return [step.stored.record(Place(brain, one)).facts for one in sections_with(brain, step.stored)]


def by_embeddings(brain: OpenBrain, table: Path, encoder: str) -> Rates:
    """Borders of the embeddings of patches around the points."""
    embed = EmbedSettings(encoder=encoder, tile_px=round(PATCH_UM / PIXEL_UM), pixel_size_um=PIXEL_UM)
    points = PointsStep.of(embed, SampleSettings(), PointTable.of(table), brain)
    make_together(points, brain, [one.section_id for one in brain.sections])
    return Rates.of(facts_of(brain, BordersStep.of(points.name, BorderSettings(near_mm=NEAR_MM))))


def measured(folder: Path, seeds: Sequence[int], sections: int, encoders: Sequence[str]) -> Mapping[str, list[Rates]]:
    """The rates of every way, brain by brain."""
    found: dict[str, list[Rates]] = {}
    for seed in seeds:
        request = PhantomRequest(seed=seed, sections=sections, pixel_size_um=PIXEL_UM, stain="nissl")
        manifest = write_phantom(folder / f"P{seed}", f"P{seed}", request)
        (read,) = read_manifest(manifest, manifest.parent, manifest.parent / "labels.csv")
        with open_brain(folder / "store", read) as brain:
            depth, table = traced(brain, manifest.parent)
            for freed in (True, False):
                settings = ProfileBorderSettings(is_freed=freed, near_mm=NEAR_MM)
                rates = Rates.of(facts_of(brain, ProfileBordersStep.of(depth.name, settings)))
                found.setdefault(f"profiles{', thickness and bend taken out' if freed else ''}", []).append(rates)
                print(list(found)[-1], seed, rates, flush=True)
            for encoder in encoders:
                rates = by_embeddings(brain, table, encoder)
                found.setdefault(f"embeddings, {encoder}", []).append(rates)
                print(encoder, seed, rates, flush=True)
    return found


def main() -> int:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", type=int, default=SECTIONS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12])
    parser.add_argument("--encoders", default="texture,compact")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = measured(Path(scratch), asked.seeds, asked.sections, asked.encoders.split(","))
    rows = []
    for way, rates in found.items():
        known, hits, *shares = np.mean(rates, axis=0).tolist()
        rows.append(f"| {way} | {known:.0f} | {hits:.0f} | " + " | ".join(f"{one:.2f}" for one in shares) + " |")
    seeds = ", ".join(map(str, asked.seeds))
    lines = [
        f"Phantoms (seeds {seeds}), {asked.sections} Nissl sections of each at {PIXEL_UM:g} um, means.",
        "",
        "| by | true borders | found | hit rate | at random | false rate | at random |",
        "|---|---|---|---|---|---|---|",
        *rows,
    ]
    print("\n".join(lines))
    if asked.sections == SECTIONS:
        write_block(README, BLOCK, "\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
