"""Brains of thousands of sections: what it costs to see that all is current.

`python -m benchmarks.large_brains` (some fifteen minutes) writes its table. The sections are tiny, the store is real:
see tests/many_sections.py. What a section costs that is worked on is measured by `python -m benchmarks.orchestration`.
"""

import json
import os
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.cases import write_block

README = Path(__file__).parent / "README.md"
BLOCK = "large brains: written by python -m benchmarks.large_brains"
COUNTS = (500, 5000)


class Seen(NamedTuple):
    """What runs over a brain that is all current showed, and one after a row of its manifest was changed."""

    sections: int
    records: int
    bare_s: float
    """Reading every record once: read, parse."""
    map_s: float
    map_cpu_s: float
    """Of the process that runs the flow; Prefect's server is another."""
    most_reads: int
    """How often a record was read at most."""
    peak_mb: float
    largest_parameter: int
    report_bytes: int
    redrawn: int
    """Sections whose pictures were drawn again after the manifest turned one of them."""
    redraw_s: float


def main() -> int:
    """Measure at every count, each in a process of its own, and write the table."""
    with tempfile.TemporaryDirectory() as name:
        seen = []
        for count in COUNTS:
            folder = Path(name) / str(count)
            _child("make", folder, count)
            seen.append(Seen(*json.loads(_child("map", folder, count))))
            print(seen[-1], flush=True)
    write_block(README, BLOCK, table(seen))
    return 0


def _child(mode: str, folder: Path, count: int) -> str:
    """The last line of what a process of its own says."""
    command = [sys.executable, "-m", "benchmarks.large_brains", mode, str(folder), str(count)]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip().splitlines()
    return said[-1] if said else ""


def table(seen: Sequence[Seen]) -> str:
    """The table, and below it the part of the time that does not depend on the number of sections."""
    heads = ["sections", "records", "bare loop (s)", "map-brain, all current (s)", "ratio", "of it CPU (s)"]
    heads += ["reads of a record, at most", "peak RSS (MB)", "largest task parameter (bytes)", "first page (kB)"]
    heads += ["redrawn after one was turned", "in (s)"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    lines += [
        f"| {one.sections:,} | {one.records:,} | {one.bare_s:.2f} | {one.map_s:.1f} | {one.map_s / one.bare_s:.1f} "
        f"| {one.map_cpu_s:.1f} | {one.most_reads} | {one.peak_mb:.0f} | {one.largest_parameter:,} "
        f"| {one.report_bytes / 1e3:.0f} | {one.redrawn} | {one.redraw_s:.1f} |"
        for one in seen
    ]
    few, many = seen[0], seen[-1]
    more = many.sections - few.sections
    slope, bare = (many.map_s - few.map_s) / more, (many.bare_s - few.bare_s) / more
    return "\n".join(
        [
            *lines,
            "",
            (
                f"Between the two a section costs {1000 * slope:.2f} ms, {slope / bare:.1f} times the bare loop's "
                f"{1000 * bare:.2f} ms; what is left, {few.map_s - few.sections * slope:.1f} s, is paid once whatever "
                "the size: five flow runs, their progress and tables on a Prefect server, and MLflow's database."
            ),
            (
                f"Memory grows by {100 * (many.peak_mb / few.peak_mb - 1):.0f} % from {few.sections:,} to "
                f"{many.sections:,} sections."
            ),
            "What running a stage adds to its sections: `python -m benchmarks.orchestration`.",
        ]
    )


def quiet() -> None:
    """No logs on the terminal, a patient server."""
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("DO_NOT_TRACK", "true")


def make_brains(folder: Path, count: int) -> None:
    """A brain of so many sections and a small one, mapped, with their reports."""
    from prefect.testing.utilities import prefect_test_harness

    from flows.map_brain import map_brain
    from flows.parameters import BrainSource, MapSettings
    from flows.serving import unwatched
    from tests.many_sections import MADE, map_many

    with prefect_test_harness(server_startup_timeout=300), unwatched():
        for each in (map_many(folder / "small", 2 * MADE), map_many(folder, count)):
            source = BrainSource(manifest_path=each.manifest_path, store_path=each.store_path)
            map_brain(source, MapSettings(reconstruct="none"))


def map_again(folder: Path) -> Seen:
    """Map a brain that is mapped, in a process that has mapped a small one: what is imported is imported."""
    from prefect.testing.utilities import prefect_test_harness

    from cytoarch.brains import read_manifest
    from cytoarch.steps.opened import open_brain
    from cytoarch.store import catalogue as catalogues
    from flows.map_brain import map_brain
    from flows.parameters import BrainSource, MapSettings
    from flows.serving import unwatched

    manifest = folder / "brain" / "manifest.csv"
    source = BrainSource(manifest_path=manifest, store_path=folder / "store")
    small = BrainSource(
        manifest_path=folder / "small" / "brain" / "manifest.csv", store_path=folder / "small" / "store"
    )
    settings = MapSettings(reconstruct="none")  # one record whatever the size, and hours at the first run
    read: Counter[str] = Counter()
    record_of = catalogues.Catalogue._read

    def counted(self: Any, product: Any) -> Any:
        read[product.address] += 1
        return record_of(self, product)

    home = source.store_path / "brains" / "B1"
    with prefect_test_harness(server_startup_timeout=300), unwatched():
        map_brain(small, settings)
        paths = list((home / "records").glob("*/*/*.json"))
        bare_s = min(_bare(paths) for _ in range(3))
        catalogues.Catalogue._read = counted  # type: ignore[method-assign]
        start, cpu = time.perf_counter(), time.process_time()
        summary = map_brain(source, settings)
        map_s, map_cpu_s = time.perf_counter() - start, time.process_time() - cpu
        catalogues.Catalogue._read = record_of  # type: ignore[method-assign]
        if summary.made:
            raise RuntimeError(f"{summary.made} products were made of a brain that was current")
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        before = _identities(home / "derived" / "pictures" / "map")
        manifest.write_text(manifest.read_text().replace(",none\n", ",vertical\n", 1))
        start = time.perf_counter()
        map_brain(source, settings)
        redraw_s = time.perf_counter() - start
        after = _identities(home / "derived" / "pictures" / "map")
    redrawn = sum(before[one] != after[one] for one in before)
    (brain,) = read_manifest(manifest, manifest.parent, manifest.parent / "labels.csv")
    with open_brain(source.store_path, brain) as opened:
        largest = max(len(pickle.dumps(one)) for one in steps_of(opened))
    page = (home / "report" / "index.html").stat().st_size
    return Seen(
        len(brain.sections),
        len(paths),
        bare_s,
        map_s,
        map_cpu_s,
        max(read.values()),
        peak_mb,
        largest,
        page,
        redrawn,
        redraw_s,
    )


def _bare(paths: Sequence[Path]) -> float:
    """Seconds to read and parse every record once."""
    start = time.perf_counter()
    for path in paths:
        json.loads(path.read_bytes())
    return time.perf_counter() - start


def _identities(folder: Path) -> dict[str, tuple[int, int]]:
    """What tells the folder of a section's pictures from one that was made later."""
    stats = {path.name: path.stat() for path in folder.iterdir()}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


def steps_of(brain: Any) -> list[Any]:
    """The steps that `map-brain` passes to its tasks."""
    from cytoarch.discovery.clusters import ClusterSettings
    from cytoarch.embeddings import EmbedSettings
    from cytoarch.learning.training import ProbeSettings
    from cytoarch.steps.clusters import ClusterFitStep, ClustersStep
    from cytoarch.steps.colours import ColourFitStep, ColoursStep
    from cytoarch.steps.embeddings import EmbeddingsStep
    from cytoarch.steps.pictures import PicturesStep, Shown
    from cytoarch.steps.report import ReportStep
    from cytoarch.steps.scales import ScaleStep
    from cytoarch.steps.training import TrainingStep

    embeddings = EmbeddingsStep.of(EmbedSettings(), brain)
    clusters = ClusterFitStep.of(embeddings.stored, ClusterSettings())
    colours = ColourFitStep.of(embeddings.stored)
    shown = Shown(embeddings.name, clusters.name)
    return [
        embeddings,
        colours,
        ColoursStep.of(colours),
        ScaleStep.of(embeddings.stored),
        TrainingStep.of(brain.brain_id, embeddings.stored, "probe", ProbeSettings()),
        clusters,
        ClustersStep.of(clusters),
        PicturesStep.of(shown),
        ReportStep.of(embeddings.name, shown),
    ]


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit(main())
    quiet()
    chosen, place, number = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if chosen == "make":
        make_brains(place, number)
    else:
        print(json.dumps(map_again(place)))
