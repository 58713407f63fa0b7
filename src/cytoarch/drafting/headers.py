"""What the headers of scans state, read in a child process: the files of a folder are as little trusted as any."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cytoarch.brains import PIXEL_SIZE_LIMITS_UM
from cytoarch.containment import Contained, Limits
from cytoarch.errors import ScanError, SectionError
from cytoarch.images.scans import open_scan
from cytoarch.images.sections import IngestSettings
from cytoarch.progress import Progress

AT_ONCE = 64
"""Scans to a piece of contained work. A file that ends the child costs the reading of so many headers again."""
_SUBJECT = "the scan"
_POINTERS = {b"/annex/objects/": "git annex get", b"version https://git-lfs": "git lfs pull"}
"""How a file begins that stands for another, and what fetches that."""


def stated_pixel_sizes(
    scans: Sequence[Path], children: Contained, on_progress: Progress | None = None
) -> tuple[dict[Path, str], dict[Path, str]]:
    """The pixel size (um) that each scan states, and what is wrong with those that cannot be read.

    A size is text of six digits, blank where the scan states none within what is plausible. A file that cannot be read
    costs itself only, whatever it does to the process that reads it.
    """
    sizes: dict[Path, str] = {}
    faults: dict[Path, str] = {}
    rest = list(scans)
    way = _Way(len(scans), on_progress)
    while rest:
        chunk = rest[:AT_ONCE]
        way.begin(len(scans) - len(rest))
        try:
            answers = _answers(chunk, children, way)
        except SectionError as error:
            culprit = rest.pop(way.place)
            faults[culprit] = f"{culprit}: {str(error).removeprefix(f'{_SUBJECT}: ')}"
            continue
        for path, (size, fault) in zip(chunk, answers, strict=True):
            if fault:
                faults[path] = fault
            else:
                sizes[path] = size
        rest = rest[len(chunk) :]
    way.end()
    return sizes, faults


class _Way:
    """How far reading is, as the child tells: which scan of a chunk it has begun."""

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
        if done > self._told and self._tell is not None:  # after a crash, headers are read again
            self._tell(done, self._total)
        self._told = max(self._told, done)


def _answers(scans: Sequence[Path], children: Contained, on_progress: Progress) -> list[tuple[str, str]]:
    reading = IngestSettings()
    limits = Limits(int(reading.memory_gb * 1e9), reading.stall_s)
    asked = {"scans": [str(path) for path in scans]}
    answers = children.run(f"{__name__}:headers_work", asked, limits, on_progress, subject=_SUBJECT)["answers"]
    return [(str(size), str(fault)) for size, fault in answers]


def headers_work(arguments: Mapping[str, Any], on_progress: Progress) -> dict[str, Any]:
    """Contained work: scans named as JSON; for each its stated pixel size and, instead, what is wrong with it.

    A refused file is an answer like another: a child is kept, and a folder of such files costs a child, not thousands.
    """
    answers = []
    for done, name in enumerate(arguments["scans"], start=1):
        try:
            answers.append((_plausible_size(Path(name)), ""))
        except ScanError as error:
            answers.append(("", str(error)))
        on_progress(done, len(arguments["scans"]))
    return {"answers": answers}


def _plausible_size(path: Path) -> str:
    _check_content(path)
    low, high = PIXEL_SIZE_LIMITS_UM
    with open_scan(path, plane_index=None) as scan:
        plausible = [one.value_um for one in scan.stated_pixel_sizes if low <= one.value_um <= high]
    return f"{plausible[0]:.6g}" if plausible else ""


def _check_content(path: Path) -> None:
    """Raise ScanError if a file cannot be opened, or only stands for content that lies elsewhere."""
    if not path.is_file():
        return
    try:
        with path.open("rb") as file:
            beginning = file.read(max(map(len, _POINTERS)))
    except OSError as error:
        raise ScanError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    for start, command in _POINTERS.items():
        if beginning.startswith(start):
            raise ScanError(f"{path}: its content is not here, only a pointer to it; fetch it with `{command}`")
