"""Brains of thousands of sections: what it costs to see that all is current, and to run a step that does nothing.

`python -m benchmarks.large_brains` (some fifteen minutes) writes its table. The sections are tiny, the store is real:
see tests/many_sections.py.
"""

import json
import os
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.cases import write_block

README = Path(__file__).parent / "README.md"
BLOCK = "large brains: written by python -m benchmarks.large_brains"
COUNTS = (500, 5000)
NULL_SECTIONS = 2000


class Seen(NamedTuple):
    """What one run over a brain that is all current showed."""

    sections: int
    records: int
    bare_s: float
    """Reading every record once: read, parse."""
    map_s: float
    records_read: int
    peak_mb: float
    largest_parameter: int
    report_bytes: int


def main() -> int:
    """Measure at every count, each in a process of its own, and write the table."""
    with tempfile.TemporaryDirectory() as name:
        seen = []
        for count in COUNTS:
            folder = Path(name) / str(count)
            for mode in ("make", "map"):
                done = subprocess.run(
                    [sys.executable, "-m", "benchmarks.large_brains", mode, str(folder), str(count)],
                    capture_output=True,
                    text=True,
                    check=True,
                )
            seen.append(Seen(*json.loads(done.stdout.strip().splitlines()[-1])))
            print(seen[-1], flush=True)
        per_section = float(
            subprocess.run(
                [sys.executable, "-m", "benchmarks.large_brains", "null", name, str(NULL_SECTIONS)],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.split()[-1]
        )
    heads: tuple[str, ...] = (
        "sections",
        "records",
        "bare loop (s)",
        "map-brain, all current (s)",
        "ratio",
        "records read",
    )
    heads += ("records read", "peak RSS (MB)", "largest task parameter (bytes)", "first page (kB)")
    lines = [
        f"| {' | '.join(heads)} |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.sections:,} | {one.records:,} | {one.bare_s:.2f} | {one.map_s:.1f} | {one.map_s / one.bare_s:.1f} | "
        f"{one.records_read:,} | {one.peak_mb:.0f} | {one.largest_parameter:,} | {one.report_bytes / 1e3:.0f} |"
        for one in seen
    ]
    growth = seen[-1].peak_mb / seen[0].peak_mb - 1
    lines += ["", f"Memory grows by {100 * growth:.0f} % from {COUNTS[0]:,} to {COUNTS[-1]:,} sections."]
    lines += [f"A step that does nothing, {NULL_SECTIONS:,} sections: {1000 * per_section:.1f} ms a section."]
    write_block(README, BLOCK, "\n".join(lines))
    return 0


def quiet() -> None:
    """No logs on the terminal, a patient server."""
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("DO_NOT_TRACK", "true")


def map_again(folder: Path) -> Seen:
    """Map a brain that is mapped, after a first run that drew the report."""
    from prefect.testing.utilities import prefect_test_harness

    from cytoarch.brains import read_manifest
    from cytoarch.steps.opened import open_brain
    from cytoarch.store import catalogue as catalogues
    from flows.map_brain import map_brain
    from flows.parameters import BrainSource

    manifest = folder / "brain" / "manifest.csv"
    source = BrainSource(manifest_path=manifest, store_path=folder / "store")
    read: list[int] = []
    record_of = catalogues.Catalogue._read

    def counted(self: Any, product: Any) -> Any:
        read.append(1)
        return record_of(self, product)

    with prefect_test_harness(server_startup_timeout=300):
        map_brain(source=source)
        paths = list((folder / "store" / "brains" / "B1" / "records").glob("*/*/*.json"))
        start = time.perf_counter()
        for path in paths:
            json.loads(path.read_bytes())
        bare_s = time.perf_counter() - start
        catalogues.Catalogue._read = counted  # type: ignore[method-assign]
        start = time.perf_counter()
        summary = map_brain(source=source)
        map_s = time.perf_counter() - start
        catalogues.Catalogue._read = record_of  # type: ignore[method-assign]
        if summary.made:
            raise RuntimeError(f"{summary.made} products were made of a brain that was current")
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    (brain,) = read_manifest(manifest, manifest.parent, manifest.parent / "labels.csv")
    with open_brain(source.store_path, brain) as opened:
        largest = max(len(pickle.dumps(one)) for one in steps_of(opened))
    page = folder / "store" / "brains" / "B1" / "report" / "index.html"
    return Seen(len(brain.sections), len(paths), bare_s, map_s, len(read), peak_mb, largest, page.stat().st_size)


def steps_of(brain: Any) -> list[Any]:
    """The steps that `map-brain` passes to its tasks."""
    from cytoarch.discovery.clusters import ClusterSettings
    from cytoarch.embeddings import EmbedSettings
    from cytoarch.learning.training import ProbeSettings
    from cytoarch.steps.clusters import ClusterFitStep, ClustersStep
    from cytoarch.steps.colours import ColourFitStep, ColoursStep
    from cytoarch.steps.embeddings import EmbeddingsStep
    from cytoarch.steps.pictures import PicturesStep
    from cytoarch.steps.report import ReportStep
    from cytoarch.steps.training import TrainingStep
    from tasks.summaries import Remembered

    embeddings = EmbeddingsStep.of(EmbedSettings(), brain)
    clusters = ClusterFitStep.of(embeddings.stored, ClusterSettings())
    colours = ColourFitStep.of(embeddings.stored)
    shown = Remembered(embeddings.name, None, None, clusters.name).shown
    return [
        embeddings,
        colours,
        ColoursStep.of(colours),
        TrainingStep.of(embeddings.stored, "probe", ProbeSettings()),
        clusters,
        ClustersStep.of(clusters),
        PicturesStep.of(shown),
        ReportStep.of(embeddings.name, shown),
    ]


def null_steps(folder: Path, count: int) -> float:
    """Seconds a section that Prefect and we take to run a step that makes nothing: its sections fail at once."""
    from dataclasses import dataclass
    from typing import ClassVar

    from prefect import flow
    from prefect.testing.utilities import prefect_test_harness

    from cytoarch.brains import Brain, Section
    from cytoarch.errors import SectionError
    from cytoarch.steps.opened import open_brain
    from cytoarch.steps.step import Facts, Inputs, Step
    from cytoarch.store.staging import Staging
    from flows.parameters import RunSettings
    from flows.stages import run_steps, workers

    @dataclass(frozen=True)
    class NullStep(Step[None]):
        step: ClassVar[str] = "null"
        verb: ClassVar[str] = "do nothing"

        @property
        def name(self) -> str:
            return "null"

        def work(self, place: Any, at_once: bool = False) -> Any:  # noqa: ARG002 - as steps have it
            if at_once:
                return None
            raise SectionError("nothing is made")

        def write(self, inputs: Inputs, staging: Staging) -> Facts:  # noqa: ARG002 - as steps have it
            return {}

        @classmethod
        def opened(cls, folder: Path) -> None:  # noqa: ARG003 - as steps have it
            return None

    rows = (Section(brain_id="N1", section_id=f"s{one}", section_number=one, path="x.tif") for one in range(count))
    brain = Brain(brain_id="N1", sections=tuple(rows))

    @flow
    def run_null() -> float:
        with open_brain(folder / "store", brain) as opened, workers(RunSettings()) as runner:
            start = time.perf_counter()
            run_steps("null", runner, opened, [NullStep()], RunSettings())
            return time.perf_counter() - start

    with prefect_test_harness(server_startup_timeout=300):
        return float(run_null()) / count


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit(main())
    quiet()
    chosen, place, number = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if chosen == "make":
        from tests.many_sections import map_many

        map_many(place, number)
    elif chosen == "map":
        print(json.dumps(map_again(place)))
    else:
        print(null_steps(place, number))
