"""How long steps took on this store's machines: what the next brain will cost is told from it."""

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

DURATIONS_FILE = "durations.jsonl"
_MOST_BYTES = 4 << 20
"""No more than the end of the file is read: costs are those of lately."""


class Duration(NamedTuple):
    """The time that a stage took for a brain."""

    brain_id: str
    steps: tuple[str, ...]
    """The steps that it ran for each section."""
    made: int
    """Sections that something was made for; 1 where a step is of the whole brain."""
    seconds: float


def note_duration(root: Path, duration: Duration) -> None:
    """Add a line to the store's file of durations. Lines of processes that write at once do not mix.

    Where the store cannot be written to, none is added: that is said by what is being made, and no time is worth a run.
    """
    line = json.dumps({**duration._asdict(), "seconds": round(duration.seconds, 3)})
    with suppress(OSError), (root / DURATIONS_FILE).open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def read_durations(root: Path) -> list[Duration]:
    """The durations of a store, the oldest first; a line that a crash cut short is left out."""
    path = root / DURATIONS_FILE
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _MOST_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    found = []
    for line in lines:
        try:
            fields = json.loads(line)
            found.append(Duration(fields["brain_id"], tuple(fields["steps"]), fields["made"], fields["seconds"]))
        except (ValueError, KeyError, TypeError):
            continue
    return found


def seconds_each(durations: Iterable[Duration]) -> dict[tuple[str, ...], float]:
    """Seconds a section by the steps that were run together, over all that was made.

    >>> seconds_each([Duration("A", ("tissue",), 10, 20.0), Duration("B", ("tissue",), 10, 40.0)])
    {('tissue',): 3.0}
    """
    made: dict[tuple[str, ...], int] = {}
    seconds: dict[tuple[str, ...], float] = {}
    for one in durations:
        made[one.steps] = made.get(one.steps, 0) + one.made
        seconds[one.steps] = seconds.get(one.steps, 0.0) + one.seconds
    return {steps: seconds[steps] / count for steps, count in made.items() if count}
