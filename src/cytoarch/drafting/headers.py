"""What the headers of scans state, read in a child process."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cytoarch.brains import PIXEL_SIZE_LIMITS_UM
from cytoarch.containment import Contained
from cytoarch.drafting.asking import answered, ask
from cytoarch.errors import ScanError
from cytoarch.images.scans import open_scan
from cytoarch.progress import Progress

_POINTERS = {b"/annex/objects/": "git annex get", b"version https://git-lfs": "git lfs pull"}
"""How a file begins that stands for another, and what fetches that."""


def stated_pixel_sizes(
    scans: Sequence[Path], children: Contained, on_progress: Progress | None = None
) -> tuple[dict[Path, str], dict[Path, str]]:
    """The pixel size (um) that each scan states, and what is wrong with those that cannot be read.

    A size is text of six digits, blank where the scan states none within what is plausible.
    """
    return ask(scans, f"{__name__}:headers_work", children, "the scan", on_progress)


def headers_work(arguments: Mapping[str, Any], on_progress: Progress) -> dict[str, Any]:
    """Contained work: the stated pixel size of every scan."""
    return answered(_plausible_size, arguments, on_progress)


def _plausible_size(path: Path, _alive: Callable[[], None]) -> str:
    check_content(path)
    low, high = PIXEL_SIZE_LIMITS_UM
    with open_scan(path, plane_index=None) as scan:
        plausible = [one.value_um for one in scan.stated_pixel_sizes if low <= one.value_um <= high]
    return f"{plausible[0]:.6g}" if plausible else ""


def check_content(path: Path) -> None:
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
