"""What the header of a scan states, read in a child process: the files of a folder are as little trusted as any."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cytoarch.brains import PIXEL_SIZE_LIMITS_UM
from cytoarch.containment import Contained, Limits
from cytoarch.errors import ScanError
from cytoarch.images.scans import open_scan
from cytoarch.images.sections import IngestSettings
from cytoarch.progress import Progress

_POINTERS = {b"/annex/objects/": "git annex get", b"version https://git-lfs": "git lfs pull"}
"""How a file begins that stands for another, and what fetches that."""


def stated_pixel_size(scan: Path, children: Contained) -> str:
    """The pixel size (um) a scan states within what is plausible, six digits; blank where it states none.

    Raises SectionError if the file cannot be read, whatever it does to the process that reads it.
    """
    reading = IngestSettings()
    limits = Limits(int(reading.memory_gb * 1e9), reading.stall_s)
    found = children.run(f"{__name__}:header_work", {"scan": str(scan)}, limits, subject=str(scan))
    if found["fault"]:
        raise ScanError(found["fault"])
    return str(found["pixel_size_um"])


def header_work(arguments: Mapping[str, Any], on_progress: Progress) -> dict[str, Any]:  # noqa: ARG001 - the protocol of contained work
    """Contained work: a scan named as JSON; its stated pixel size as `stated_pixel_size` gives it, or what is wrong.

    A refused file is a result like another: a child is kept, and a folder of such files costs a child, not thousands.
    """
    try:
        return {"pixel_size_um": _plausible_size(Path(arguments["scan"])), "fault": ""}
    except ScanError as error:
        return {"pixel_size_um": "", "fault": str(error)}


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
