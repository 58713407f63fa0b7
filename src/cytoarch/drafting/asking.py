"""One question about each of many files, answered in child processes: a folder is as little trusted as any."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cytoarch.containment import Contained, Limits
from cytoarch.errors import ScanError, SectionError
from cytoarch.images.sections import IngestSettings
from cytoarch.progress import Progress

AT_ONCE = 64
"""Files to a piece of contained work. A file that ends the child costs the answers of so many again."""


def ask(
    files: Sequence[Path], work: str, children: Contained, subject: str, on_progress: Progress | None = None
) -> tuple[dict[Path, Any], dict[Path, str]]:
    """What contained `work` ("module:name", made by `answered`) says of each file, and what is wrong with the others.

    A file that cannot be read costs itself only, whatever it does to the process that reads it; `subject` is what such
    an error calls it.
    """
    found: dict[Path, Any] = {}
    faults: dict[Path, str] = {}
    rest = list(files)
    way = _Way(len(files), on_progress)
    reading = IngestSettings()
    limits = Limits(int(reading.memory_gb * 1e9), reading.stall_s)
    while rest:
        chunk = rest[:AT_ONCE]
        way.begin(len(files) - len(rest))
        asked = {"files": [str(path) for path in chunk]}
        try:
            answers = children.run(work, asked, limits, way, subject=subject)["answers"]
        except SectionError as error:
            culprit = rest.pop(way.place)
            faults[culprit] = f"{culprit}: {str(error).removeprefix(f'{subject}: ')}"
            continue
        for path, (answer, fault) in zip(chunk, answers, strict=True):
            if fault:
                faults[path] = str(fault)
            else:
                found[path] = answer
        rest = rest[len(chunk) :]
    way.end()
    return found, faults


Answer = Callable[[Path, Callable[[], None]], Any]
"""(file, what is called as its reading goes on) -> JSON; raises ScanError"""


def answered(answer: Answer, arguments: Mapping[str, Any], on_progress: Progress) -> dict[str, Any]:
    """The result of contained work: for each file its answer as JSON and, instead, what is wrong with it.

    A refused file is an answer like another: a child is kept, and a folder of such files costs a child, not thousands.
    """
    files: list[str] = arguments["files"]
    answers: list[tuple[Any, str]] = []
    for done, name in enumerate(files):
        try:
            answers.append((answer(Path(name), partial(on_progress, done, len(files))), ""))
        except ScanError as error:
            answers.append((None, str(error)))
        on_progress(done + 1, len(files))
    return {"answers": answers}


class _Way:
    """How far reading is, as the child tells: which file of a chunk it has begun."""

    def __init__(self, total: int, on_progress: Progress | None) -> None:
        self.place = 0
        self._before, self._told, self._total, self._tell = 0, 0, total, on_progress

    def begin(self, before: int) -> None:
        self.place, self._before = 0, before

    def __call__(self, done: int, total: int) -> None:
        self.place = min(done, total - 1)
        self._say(self._before + done)

    def end(self) -> None:
        self._say(self._total)

    def _say(self, done: int) -> None:
        if done > self._told and self._tell is not None:  # after a crash, files are read again
            self._tell(done, self._total)
        self._told = max(self._told, done)
