"""What a benchmark is, how it is timed and where its table goes."""

import os
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

REPEATS = 5


class Case(NamedTuple):
    """A piece of work, ours and the peers or limits it is held against; each writes into the folder it is given."""

    work: str
    ours: Callable[[Path], object]
    peers: Mapping[str, Callable[[Path], object]]


def medians_s(works: Sequence[Callable[[Path], object]], scratch: Path) -> list[float]:
    """Median wall times over five rounds; the works take turns, so that a slow spell meets them all."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(REPEATS):
        for spent, work in zip(times, works, strict=True):
            folder = scratch / "run"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            os.sync()  # what others wrote is not flushed in our time
            start = time.perf_counter()
            work(folder)
            spent.append(time.perf_counter() - start)
    return [statistics.median(spent) for spent in times]


def write_block(readme: Path, name: str, body: str) -> None:
    """Put `body` between the marks of a block of a README: <!-- NAME --> and <!-- end of NAME -->."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    text = readme.read_text()
    head, tail = text.split(begin)[0], text.split(end)[1]
    readme.write_text(f"{head}{begin}\n\n{body}\n\n{end}{tail}")
