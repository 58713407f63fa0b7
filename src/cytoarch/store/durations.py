"""How long steps took on this store's machines: what the next brain will cost is told from it."""

import json
from collections.abc import Iterable, Sequence
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
    mpx: float = 0.0
    """Megapixels of the scans of those sections; 0: not known, or a step of the whole brain."""


class Speed(NamedTuple):
    """What a section takes: some seconds whatever its size, and some for every megapixel of its scan."""

    each_s: float
    mpx_s: float
    mpx: float
    """The size of a section that this was seen at, on average."""

    def seconds(self, count: int, mpx_each: float) -> float:
        """The time for so many sections of a size; 0: of the size that was seen."""
        return count * (self.each_s + self.mpx_s * (mpx_each or self.mpx))


def note_duration(root: Path, duration: Duration) -> None:
    """Add a line to the store's file of durations. Lines of processes that write at once do not mix.

    Where the store cannot be written to, none is added: that is said by what is being made, and no time is worth a run.
    """
    rounded = {"seconds": round(duration.seconds, 3), "mpx": round(duration.mpx, 6)}
    line = json.dumps({**duration._asdict(), **rounded})
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
            steps, mpx = tuple(fields["steps"]), float(fields.get("mpx", 0))
            found.append(Duration(fields["brain_id"], steps, fields["made"], fields["seconds"], mpx))
        except (ValueError, KeyError, TypeError):
            continue
    return found


_ALIKE = 1.5
"""Sections whose sizes differ by less than this factor do not tell what depends on size and what does not."""


def speeds(durations: Iterable[Duration]) -> dict[tuple[str, ...], Speed]:
    """What a section takes, by the steps that are run together, over all that was made.

    Where sections were of several sizes, seconds are a line over megapixels (least squares, neither part below zero);
    where all were alike, they grow with the megapixels, as they do for large sections.

    >>> speeds([Duration("A", ("tissue",), 10, 20.0), Duration("B", ("tissue",), 10, 40.0)])
    {('tissue',): Speed(each_s=3.0, mpx_s=0.0, mpx=0.0)}
    >>> speeds([Duration("A", ("tissue",), 10, 20.0, 10.0), Duration("B", ("tissue",), 10, 40.0, 30.0)])
    {('tissue',): Speed(each_s=1.0, mpx_s=1.0, mpx=2.0)}
    """
    found: dict[tuple[str, ...], list[Duration]] = {}
    for one in durations:
        if one.made:
            found.setdefault(one.steps, []).append(one)
    return {steps: _speed(seen) for steps, seen in found.items()}


def _speed(seen: Sequence[Duration]) -> Speed:
    sized = [one for one in seen if one.mpx > 0] or seen
    count, seconds, mpx = (sum(getattr(one, name) for one in sized) for name in ("made", "seconds", "mpx"))
    if not mpx:
        return Speed(seconds / count, 0.0, 0.0)
    sizes = [one.mpx / one.made for one in sized]
    mean_mpx, mean_s = mpx / count, seconds / count
    if max(sizes) < _ALIKE * min(sizes):
        return Speed(0.0, seconds / mpx, mean_mpx)
    spread = sum(one.made * (size - mean_mpx) ** 2 for one, size in zip(sized, sizes, strict=True))
    rise = sum(one.seconds * (size - mean_mpx) for one, size in zip(sized, sizes, strict=True)) / spread
    each_s = mean_s - rise * mean_mpx
    if rise < 0:
        return Speed(mean_s, 0.0, mean_mpx)
    if each_s < 0:
        weighted = sum(one.mpx * size for one, size in zip(sized, sizes, strict=True))
        rise = sum(one.seconds * size for one, size in zip(sized, sizes, strict=True)) / weighted
        return Speed(0.0, rise, mean_mpx)
    return Speed(each_s, rise, mean_mpx)


def usual(durations: Iterable[Duration]) -> set[str]:
    """The steps that were run for every brain of which a report was drawn: what mapping a brain takes.

    >>> one = Duration("A", ("report",), 1, 2.0)
    >>> sorted(usual([one, Duration("A", ("tissue",), 3, 9.0), Duration("B", ("borders",), 3, 9.0)]))
    ['report', 'tissue']
    """
    steps: dict[str, set[str]] = {}
    for one in durations:
        steps.setdefault(one.brain_id, set()).update(one.steps)
    drawn = [of_brain for of_brain in steps.values() if "report" in of_brain]
    return set.intersection(*drawn) if drawn else set()
