"""A manifest drafted from a folder of scans: a row for every file, and remarks on what a person has to look at."""

import csv
import io
import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from cytoarch.brains import COLUMNS
from cytoarch.containment import Contained
from cytoarch.drafting.folders import (
    cell_for,
    common_root,
    folders_with_images,
    images_in,
    is_text,
    lacks_content,
    printable,
)
from cytoarch.drafting.headers import stated_pixel_sizes
from cytoarch.drafting.names import bare_name, match_labels, pixel_sizes, section_ids, section_numbers
from cytoarch.errors import ManifestError, ScanError
from cytoarch.images.scans import DRAWN_SUFFIXES, LABEL_SUFFIXES, SUFFIXES
from cytoarch.paths import is_id
from cytoarch.progress import Progress
from cytoarch.store.disk import write_atomically
from cytoarch.tables import UNCONFIRMED

_SHOWN = 5


def draft_manifest(
    scans_folder: Path,
    output_path: Path,
    labels_folder: Path | None = None,
    brain_id: str = "",
    on_progress: Progress | None = None,
) -> tuple[Path, list[str]]:
    """Write a draft for the scans in a folder; returns the folder its paths are relative to, and remarks.

    Pixel sizes come from the files, read in a child process. Section numbers, and pixel sizes that no file states, are
    read from the file names and marked with '?', and so are label images whose name is not quite that of their scan.
    Everything else stays blank. What cannot be read, matched or named in a manifest is told in the remarks.

    Raises ManifestError if there is no scan, the output exists, or the folders or the brain's id cannot be used.
    """
    _check(scans_folder, output_path, labels_folder, brain_id)
    scans = images_in(scans_folder)
    if not scans:
        below = folders_with_images(scans_folder)
        hint = f"; there are some in {', '.join(below[:_SHOWN])}" if below else ""
        raise ManifestError(printable(scans_folder), [f"no file with a suffix of {', '.join(SUFFIXES)}{hint}"])
    labels = images_in(labels_folder, DRAWN_SUFFIXES) if labels_folder else []
    root = common_root([scans_folder, labels_folder or scans_folder], [*scans, *labels])
    paths, remarks = _cells(scans, root)
    remarks += _drop_copies(paths)
    if not paths:
        raise ManifestError(printable(scans_folder), remarks)
    label_cells, label_remarks = _label_cells(list(paths), labels, root)
    stated_sizes, unread = _stated_sizes(list(paths), on_progress)
    names = [bare_name(path.name) for path in paths]
    told_sizes = pixel_sizes(names, [stated_sizes.get(path, "") for path in paths])
    _write(
        output_path,
        [
            {
                "brain_id": brain_id,
                "section_id": section_id,
                "section_number": "" if number is None else f"{UNCONFIRMED}{number}",
                "path": cell,
                "pixel_size_um": stated_sizes.get(path) or (f"{UNCONFIRMED}{size}" if size else ""),
                "labels": label_cells.get(path, ""),
            }
            for (path, cell), section_id, number, size in zip(
                paths.items(), section_ids(names), section_numbers(names), told_sizes, strict=True
            )
        ],
    )
    return root, [*remarks, *unread, *label_remarks]


def _check(scans_folder: Path, output_path: Path, labels_folder: Path | None, brain_id: str) -> None:
    for path in (scans_folder, labels_folder, output_path):
        if path is not None and not is_text(path.absolute()):
            raise ManifestError(
                printable(path), ["its name is no UTF-8 text, which a manifest is; rename it, or the folder above"]
            )
    if os.path.lexists(output_path):
        raise ManifestError(str(output_path), ["the file exists; a draft never replaces work, give another name"])
    if brain_id and not is_id(brain_id):
        raise ManifestError(
            str(output_path),
            [f"brain {brain_id!r}: a letter or digit is needed, then up to 63 letters, digits, '.', '_' or '-'"],
        )
    if labels_folder is not None and labels_folder.resolve() == scans_folder.resolve():
        raise ManifestError(
            str(labels_folder),
            ["is the folder of the scans too; put label images into a folder of their own, to be told from scans"],
        )


def _cells(files: Sequence[Path], root: Path) -> tuple[dict[Path, str], list[str]]:
    """What the manifest writes for each file, and remarks on those that it cannot name."""
    cells: dict[Path, str] = {}
    remarks = []
    for path in files:
        try:
            cells[path] = cell_for(path, root)
        except ScanError as error:
            remarks.append(f"{error}; it is left out of the draft")
    return cells, remarks


def _drop_copies(cells: dict[Path, str]) -> list[str]:
    """Leave out scans that are links to one with a row, as no manifest may name a scan twice; returns remarks."""
    first: dict[str, Path] = {}
    remarks = []
    for path in list(cells):
        other = first.setdefault(os.path.realpath(path), path)
        if other != path:
            del cells[path]
            remarks.append(f"{path}: is the same file as {other.name}; it is left out of the draft")
    return remarks


def _label_cells(scans: Sequence[Path], labels: Sequence[Path], root: Path) -> tuple[dict[Path, str], list[str]]:
    """What the manifest writes for the label image of a scan, and remarks on those that belong to none."""
    remarks = [
        f"{printable(path)}: ids are not kept in a {path.suffix}; save the label image as PNG or TIFF"
        for path in labels
        if path.suffix.lower() not in LABEL_SUFFIXES
    ]
    cells, unnamed = _cells([path for path in labels if path.suffix.lower() in LABEL_SUFFIXES], root)
    usable = list(cells)
    found = match_labels([bare_name(path.name) for path in scans], [bare_name(path.name) for path in usable])
    matched = {scans[scan]: cells[usable[label]] for scan, label in found.same.items()}
    matched |= {scans[scan]: f"{UNCONFIRMED}{cells[usable[label]]}" for scan, label in found.alike.items()}
    remarks += [*unnamed, *(_absent(path) for path in usable if lacks_content(path))]
    for label, choices in found.doubtful.items():
        shown = " or ".join(scans[scan].name for scan in choices[:_SHOWN]) + (
            " or ..." if len(choices) > _SHOWN else ""
        )
        remarks.append(
            f"{usable[label]}: could be the label image of {shown}, and is not the only one or not of one only; write "
            "it into the column labels of its scan"
        )
    if found.left_over:
        names = ", ".join(usable[label].name for label in found.left_over)
        remarks.append(
            f"label images that no scan has the name of: {names}; write them into the column labels of their scans"
        )
    return matched, remarks


def _stated_sizes(scans: Sequence[Path], on_progress: Progress | None) -> tuple[dict[Path, str], list[str]]:
    """The pixel size (um) that each scan states, where it does, and remarks on those that cannot be read."""
    faults = {path: _absent(path) for path in scans if lacks_content(path)}
    with closing(Contained()) as children:
        sizes, unread = stated_pixel_sizes([path for path in scans if path not in faults], children, on_progress)
    faults |= unread
    return sizes, [f"{faults[path]}; its pixel size is left blank" for path in scans if path in faults]


def _absent(link: Path) -> str:
    target = printable(link.readlink())
    fetch = "fetch it with `git annex get` or `datalad get`" if "annex" in link.readlink().parts else "mend the link"
    return f"{printable(link)}: its content is not here, it is a link to {target}; {fetch}"


def _write(path: Path, rows: Sequence[dict[str, str]]) -> None:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=COLUMNS, restval="")
    writer.writeheader()
    writer.writerows(rows)
    try:
        write_atomically(path, buffer.getvalue().encode())
    except OSError as error:
        raise ManifestError(str(path), [f"cannot be written ({error.strerror}); name another file"]) from None
