"""What a benchmark is, how it is timed and where its table goes."""

import json
import os
import random
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

REPEATS = 5


class Case(NamedTuple):
    """A piece of work, ours and the peers or limits it is held against; each writes into the folder it is given."""

    work: str
    ours: Callable[[Path], object]
    peers: Mapping[str, Callable[[Path], object]]


def medians_s(works: Sequence[Callable[[Path], object]], scratch: Path) -> list[float]:
    """Median wall times over five rounds; the works take turns, so that a slow spell meets them all.

    Every round has another order: who follows a work that leaves the disk or the memory busy is not always the same.
    """
    times: list[list[float]] = [[] for _ in works]
    order = random.Random(0)  # noqa: S311 - no secret
    for _ in range(REPEATS):
        for spent, work in order.sample(list(zip(times, works, strict=True)), len(works)):
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


def kept(path: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """What an earlier run left in a file, where that says what is wanted; else nothing."""
    if not path.exists():
        return {}
    earlier: dict[str, Any] = json.loads(path.read_text())
    alike = json.loads(json.dumps(wanted))  # tuples are lists there
    return earlier if all(earlier.get(name) == one for name, one in alike.items()) else {}
