"""What each stage of `map-brain` costs in time and room: measured at three pixel sizes, told for large brains.

`python -m benchmarks.stages` (some five minutes) writes the table in docs/lab.md. `python -m flows status` tells costs
by the same lines, from the durations of its own store. `python -m benchmarks.stages graph` (some ten minutes) then runs
the stages of 5,000 sections as steps that wait as long as was measured, on a clock that is faster, and says below the
table what that took beside what is told.
"""

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.cases import write_block
from benchmarks.large_brains import quiet
from benchmarks.orchestration import WORKERS, run, served
from cytoarch.phantoms.writing import PhantomRequest, write_phantom
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.durations import Duration, Speed, read_durations, speeds
from cytoarch.store.standing import megapixels_each, standings

DOCS = Path(__file__).parent.parent / "docs" / "lab.md"
BLOCK = "stages: written by python -m benchmarks.stages"
SEEN_PATH = DOCS.parent.parent / "work" / "stages.json"
SECTIONS = 3
GRAPH_SECTIONS, FASTER = 5000, 100
"""Sections of the brain whose stages only wait, and how much faster its clock runs."""
SIZES_UM = (40.0, 20.0, 10.0)
"""The first two are what the others are told from; the last is what that is checked against."""


class Large(NamedTuple):
    """A brain that is asked about."""

    name: str
    sections: int
    mpx: float
    """Megapixels of a section."""


LARGE = (
    Large("mouse, 250 sections of 11 x 8 mm at 1 um", 250, 88.0),
    Large("human, 4,654 sections at 20 um", 4654, 2300.0 / 400),
    Large("human, 4,654 sections at 1 um (10.7 TB)", 4654, 2300.0),
)


class Stage(NamedTuple):
    """The steps that run together, and what they cost for sections of the sizes that were measured."""

    steps: tuple[str, ...]
    whole: bool
    seconds: tuple[float, ...]
    nbytes: tuple[float, ...]


class Graph(NamedTuple):
    """Stages that waited as long as was measured, by a faster clock."""

    sections: int
    stages: int
    told_s: float
    """What they take at the measured speed."""
    wall_s: float
    """What they took where each waited for that, by the faster clock."""

    @property
    def added_s(self) -> float:
        """What is not waiting."""
        return self.wall_s - self.told_s / FASTER


def main(arguments: list[str]) -> int:
    """Measure and write the table, or run the graph."""
    quiet()
    if arguments not in ([], ["graph"]):
        print(__doc__)
        return 2
    if arguments:
        if not SEEN_PATH.exists():
            print(f"{SEEN_PATH} is not there; run `python -m benchmarks.stages` first")
            return 2
        seen = json.loads(SEEN_PATH.read_text())
        seen["graph"] = graph([Stage(*one) for one in seen["stages"]])
    else:
        stages, sizes = measure()
        seen = {"stages": stages, "sizes": sizes, "graph": None}
    SEEN_PATH.parent.mkdir(exist_ok=True)
    SEEN_PATH.write_text(json.dumps(seen))
    body = table([Stage(*one) for one in seen["stages"]], seen["sizes"])
    if seen["graph"]:
        body += f"\n\n{told(Graph(*seen['graph']))}"
    write_block(DOCS, BLOCK, body)
    print(body)
    return 0


def measure() -> tuple[list[Stage], list[float]]:
    """The stages at three sizes, and megapixels of a section at each."""
    from prefect.testing.utilities import prefect_test_harness

    with tempfile.TemporaryDirectory() as scratch, prefect_test_harness(server_startup_timeout=300):
        folder = Path(scratch)
        mapped(folder / "warm", 80.0)
        stores = [mapped(folder / f"{size:g}", size) for size in SIZES_UM]
        sizes = [megapixels_each(store, "P01") for store in stores]
        return measured(stores), sizes


def graph(stages: Sequence[Stage]) -> Graph:
    """Run the stages of a large brain as steps that wait, at the time that sections of the first size took."""
    each_s = {"-".join(one.steps): one.seconds[0] for one in stages if not one.whole}
    waits = {stage: seconds * WORKERS / FASTER for stage, seconds in each_s.items()}
    with tempfile.TemporaryDirectory() as scratch, served(Path(scratch), ""):
        wall_s = run(Path(scratch), GRAPH_SECTIONS, waits)
    return Graph(GRAPH_SECTIONS, len(waits), GRAPH_SECTIONS * sum(each_s.values()), round(wall_s, 1))


def told(found: Graph) -> str:
    """What running the stages of a large brain adds to what is told of it."""
    each_ms = 1000 * found.added_s / (found.sections * found.stages)
    return (
        f"Checked by running the {found.stages} stages of {found.sections:,} sections as steps that only wait, on a "
        f"clock {FASTER} times faster: {found.told_s / 3600:.1f} h are told at the first size, which is "
        f"{found.told_s / FASTER:.0f} s of that clock, and the run took {found.wall_s:.0f} s. What is not waiting (the "
        f"commit to the disk, Prefect's tasks, the progress: {each_ms:.1f} ms a section and stage) is "
        f"{found.added_s / found.told_s:.1%} of the time that is told."
    )


def mapped(folder: Path, pixel_size_um: float) -> BrainStore:
    """The store of a phantom of a pixel size, mapped with the defaults."""
    from flows.map_brain import map_brain
    from flows.parameters import BrainSource

    request = PhantomRequest(size="tiny", sections=SECTIONS, pixel_size_um=pixel_size_um)
    manifest = write_phantom(folder / "brain", "P01", request)
    store = BrainStore(folder / "store")
    map_brain(source=BrainSource(manifest_path=manifest, store_path=store.root))
    return store


def measured(stores: Sequence[BrainStore]) -> list[Stage]:
    """Seconds and bytes a section of every stage, by store; of a stage of the whole brain those of all sections."""
    timed = [{one.steps: one for one in read_durations(store.root)} for store in stores]
    room = [_bytes_of(store) for store in stores]
    stages = []
    for steps, last in timed[-1].items():
        seconds = tuple(one[steps].seconds / one[steps].made for one in timed)
        nbytes = tuple(sum(one.get(step, 0.0) for step in steps) / last.made for one in room)
        stages.append(Stage(steps, last.mpx == 0, seconds, nbytes))
    return stages


def _bytes_of(store: BrainStore) -> Mapping[str, float]:
    found: dict[str, float] = {}
    for row in standings(store, "P01"):
        found[row.step] = found.get(row.step, 0.0) + row.nbytes
    return found


def line(values: Sequence[float], sizes: Sequence[float]) -> Speed:
    """What a section takes of something, by its size."""
    seen = [Duration("P01", ("it",), 1, value, size) for value, size in zip(values, sizes, strict=True)]
    return speeds(seen)["it",]


def table(stages: Sequence[Stage], sizes: Sequence[float]) -> str:
    """The stages, whether the third size is what the first two tell, and large brains."""
    of_sections = [one for one in stages if not one.whole]
    heads = ["stage", *(f"{size:.2f} Mpx (s)" for size in sizes), "told for the last (s)"]
    heads += [f"{size:.2f} Mpx (MB)" for size in sizes] + ["told for the last (MB)"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for one in of_sections:
        told_s = line(one.seconds[:-1], sizes[:-1]).seconds(1, sizes[-1])
        told_mb = line(one.nbytes[:-1], sizes[:-1]).seconds(1, sizes[-1]) / 1e6
        cells = [", ".join(one.steps), *(f"{value:.2f}" for value in one.seconds), f"{told_s:.2f}"]
        cells += [f"{value / 1e6:.2f}" for value in one.nbytes] + [f"{told_mb:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    whole_s = [sum(one.seconds[at] for one in stages if one.whole) for at in range(len(sizes))]
    whole = ", ".join(f"{', '.join(one.steps)} {one.seconds[-1]:.1f} s" for one in stages if one.whole)
    lines += [
        "",
        (
            f"Seconds and MB a section, {SECTIONS} sections at {', '.join(f'{one:g}' for one in SIZES_UM)} um, texture "
            f"encoder, two cores. Stages of the whole brain took {', '.join(f'{one:.0f}' for one in whole_s)} s in all "
            f"(at the last size: {whole}); they draw within budgets, and are not told for large brains."
        ),
        "",
        "| brain | time on such a machine | room |",
        "|---|---|---|",
    ]
    for large in LARGE:
        seconds = sum(line(one.seconds, sizes).seconds(large.sections, large.mpx) for one in of_sections)
        nbytes = sum(line(one.nbytes, sizes).seconds(large.sections, large.mpx) for one in of_sections)
        lines.append(f"| {large.name} | {seconds / 3600:,.1f} h | {nbytes / 1e12:,.2f} TB |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
