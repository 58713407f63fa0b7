"""Runs the benchmarks of phantoms and ingestion and writes their tables (`make bench`, some ten minutes)."""

import platform
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks import ingestion, phantoms
from benchmarks.cases import REPEATS, medians_s, write_block

README = Path(__file__).parent / "README.md"
BLOCK = "table: written by make bench"


class Row(NamedTuple):
    """A line of the table: what was measured against what, and both medians."""

    work: str
    ours_s: float
    peer: str
    peer_s: float

    def __str__(self) -> str:
        ratio = self.peer_s / self.ours_s
        return f"| {self.work} | {self.ours_s:.2f} | {self.peer} | {self.peer_s:.2f} | {ratio:.2f} |"


def main() -> int:
    """Measure, print and write the table."""
    torch.set_num_threads(2)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for case in phantoms.cases():
            ours, *theirs = medians_s([case.ours, *case.peers.values()], scratch)
            rows += [Row(case.work, ours, peer, time) for peer, time in zip(case.peers, theirs, strict=True)]
            for row in rows[-len(case.peers) :]:
                print(row, flush=True)
    lines = [
        f"Python {platform.python_version()}, torch {torch.__version__}, two cores, CPU; medians of {REPEATS}.",
        "",
        "| work | ours (s) | against | its time (s) | its time / ours |",
        "|---|---|---|---|---|",
        *map(str, rows),
    ]
    write_block(README, BLOCK, "\n".join(lines))
    return ingestion.main([])


if __name__ == "__main__":
    sys.exit(main())
