"""Runs every benchmark and writes the table in benchmarks/README.md (`make bench`, some three minutes)."""

import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks import embedding, ingestion, phantoms

README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- table: written by make bench -->", "<!-- table end -->"
REPEATS = 5


class Row(NamedTuple):
    """A line of the table: what was measured against what, and both medians."""

    work: str
    ours_s: float
    peer: str
    peer_s: float

    def __str__(self) -> str:
        ratio = self.peer_s / self.ours_s
        return f"| {self.work} | {self.ours_s:.2f} | {self.peer} | {self.peer_s:.2f} | {ratio:.2f} |"


def median_s(work: Callable[[Path], object], scratch: Path) -> float:
    """Median wall time over five runs, each in an empty folder."""
    times = []
    for _ in range(REPEATS):
        folder = scratch / "run"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        start = time.perf_counter()
        work(folder)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> int:
    """Measure, print and write the table."""
    torch.set_num_threads(2)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for case in (*ingestion.cases(scratch), *embedding.cases(), *phantoms.cases()):
            ours = median_s(case.ours, scratch)
            rows += [Row(case.work, ours, peer, median_s(run, scratch)) for peer, run in case.peers.items()]
            for row in rows[-len(case.peers) :]:
                print(row, flush=True)
    head, tail = README.read_text().split(BEGIN)[0], README.read_text().split(END)[1]
    lines = [
        BEGIN,
        "",
        f"Python {platform.python_version()}, torch {torch.__version__}, two cores, CPU; medians of {REPEATS}.",
        "",
        "| work | ours (s) | against | its time (s) | its time / ours |",
        "|---|---|---|---|---|",
        *map(str, rows),
        "",
        END,
    ]
    README.write_text(head + "\n".join(lines) + tail)
    return 0


if __name__ == "__main__":
    sys.exit(main())
