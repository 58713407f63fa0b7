"""Drafts a manifest from a folder of scans: what the files state is filled in, the rest is for a person."""

import csv
import os
import re
from collections.abc import Sequence
from pathlib import Path

from cytoarch.brains import COLUMNS, PIXEL_SIZE_LIMITS_UM, RESERVED_IDS
from cytoarch.errors import ManifestError, ScanError
from cytoarch.images.scans import SUFFIXES, is_scan, open_scan
from cytoarch.paths import is_id
from cytoarch.progress import Progress
from cytoarch.store.disk import write_atomically
from cytoarch.tables import UNCONFIRMED

_NUMBER = re.compile(r"\d+")


def draft_manifest(
    scans_folder: Path,
    output_path: Path,
    labels_folder: Path | None = None,
    brain_id: str = "",
    on_progress: Progress | None = None,
) -> tuple[Path, list[str]]:
    """Write a draft for the scans in a folder; returns the folder its paths are relative to, and remarks.

    Pixel sizes come from the files. Section numbers are read from the file names and marked with '?'. Label images are
    matched by file name. Everything else stays blank. Raises ManifestError if there is no scan, or the output exists.
    """
    if output_path.exists():
        raise ManifestError(str(output_path), ["the file exists; a draft never replaces work, give another name"])
    scans = _images_in(scans_folder)
    if not scans:
        below = sorted({path.parent.relative_to(scans_folder).as_posix() for path in _images_below(scans_folder)})
        hint = f"; there are some in {', '.join(below[:5])}" if below else ""
        raise ManifestError(str(scans_folder), [f"no file with a suffix of {', '.join(SUFFIXES)}{hint}"])
    root = Path(os.path.commonpath([scans_folder.resolve(), (labels_folder or scans_folder).resolve()]))
    labels = {path.stem: path for path in _images_in(labels_folder)} if labels_folder else {}
    numbers = section_numbers([path.stem for path in scans])
    ids = section_ids([path.stem for path in scans])
    rows, remarks = [], []
    for index, (path, number) in enumerate(zip(scans, numbers, strict=True)):
        row = dict.fromkeys(COLUMNS, "")
        row["brain_id"] = brain_id
        row["section_id"] = ids[index]
        row["section_number"] = "" if number is None else f"{UNCONFIRMED}{number}"
        row["path"] = _relative(path, root)
        if path.stem in labels:
            row["labels"] = _relative(labels[path.stem], root)
        try:
            row["pixel_size_um"] = _stated_pixel_size(path)
        except ScanError as error:
            remarks.append(str(error))
        rows.append(row)
        if on_progress is not None:
            on_progress(index + 1, len(scans))
    text = _csv_text(rows)
    write_atomically(output_path, text.encode())
    return root, remarks


def section_numbers(stems: Sequence[str]) -> list[int | None]:
    """The number in each file name that tells the files apart, where there is one.

    Of the numbers in the names (first, second, ...), the last is taken that most files have and no two share.

    >>> section_numbers(["B20_0012_x4", "B20_0027_x4", "overview"]), section_numbers(["left", "right"])
    ([12, 27, None], [None, None])
    """
    found = [[int(number) for number in _NUMBER.findall(stem)] for stem in stems]
    best: list[int | None] = [None] * len(stems)
    for place in range(max(len(numbers) for numbers in found)):
        column = [numbers[place] if place < len(numbers) else None for numbers in found]
        present = [number for number in column if number is not None]
        if len(set(present)) == len(present) >= sum(number is not None for number in best):
            best = column
    return best


def _relative(path: Path, root: Path) -> str:
    full = path.resolve()
    if root not in full.parents:
        raise ManifestError(str(path), [f"is a link to {full}, outside {root}; draft in the folder it points to"])
    return full.relative_to(root).as_posix()


def _images_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ManifestError(str(folder), ["there is no such folder"])
    return sorted(path for path in folder.iterdir() if is_scan(path))


def _images_below(folder: Path) -> list[Path]:
    found = []
    for path in folder.iterdir():
        if is_scan(path):
            found.append(path)
        elif path.is_dir() and not path.is_symlink():
            found += _images_below(path)
    return found


def section_ids(stems: Sequence[str]) -> list[str]:
    """An id for each file name, what an id cannot hold replaced by dashes; no two alike, whatever the case.

    >>> section_ids(["a 1", "a-1", "A-1"])
    ['a-1', 'a-1-2', 'A-1-3']
    """
    taken: set[str] = set(RESERVED_IDS)
    ids = []
    for index, stem in enumerate(stems):
        cleaned = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:56]
        base = cleaned if is_id(cleaned) else f"section-{index + 1:04d}"
        candidate, number = base, 2
        while candidate.lower() in taken:
            candidate, number = f"{base}-{number}", number + 1
        taken.add(candidate.lower())
        ids.append(candidate)
    return ids


def _stated_pixel_size(path: Path) -> str:
    low, high = PIXEL_SIZE_LIMITS_UM
    with open_scan(path, plane_index=None) as scan:
        plausible = [one.value_um for one in scan.stated_pixel_sizes if low <= one.value_um <= high]
    return f"{plausible[0]:.6g}" if plausible else ""


def _csv_text(rows: Sequence[dict[str, str]]) -> str:
    import io

    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
