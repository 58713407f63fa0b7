"""What each stage of `map-brain` costs in time and room: measured at three pixel sizes, told for large brains.

`python -m benchmarks.stages` (some five minutes) writes the table in docs/lab.md. `python -m flows status` tells costs
by the same lines, from the durations of its own store.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.cases import write_block
from benchmarks.large_brains import quiet
from cytoarch.phantoms.writing import PhantomRequest, write_phantom
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.durations import Duration, Speed, read_durations, speeds
from cytoarch.store.standing import megapixels_each, standings

DOCS = Path(__file__).parent.parent / "docs" / "lab.md"
BLOCK = "stages: written by python -m benchmarks.stages"
SECTIONS = 3
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


def main() -> int:
    """Measure and write the table."""
    quiet()
    from prefect.testing.utilities import prefect_test_harness

    with tempfile.TemporaryDirectory() as scratch, prefect_test_harness(server_startup_timeout=300):
        folder = Path(scratch)
        mapped(folder / "warm", 80.0)
        stores = [mapped(folder / f"{size:g}", size) for size in SIZES_UM]
        sizes = [megapixels_each(store, "P01") for store in stores]
        stages = measured(stores)
    body = table(stages, sizes)
    write_block(DOCS, BLOCK, body)
    print(body)
    return 0


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
    sys.exit(main())
