"""An atlas cut along the sections of a brain in the store."""

import csv
from pathlib import Path
from typing import NamedTuple

from cytoarch.anatomy.reference import AtlasVolume, read_anchorings, read_ontology
from cytoarch.anatomy.reference.label_files import LabelCodes, write_label_image
from cytoarch.brains import LABEL_TABLE_FILE
from cytoarch.errors import ManifestError
from cytoarch.steps.opened import read_only
from cytoarch.steps.sections import SECTION
from cytoarch.steps.sources import sections_with
from cytoarch.steps.step import Place
from cytoarch.tables import csv_rows

ORIGIN = "automatic"


class Cut(NamedTuple):
    """What was written."""

    folder: Path
    table_path: Path
    manifest_path: Path
    sections: int
    structures: int
    without: tuple[str, ...]
    """Sections without an anchoring."""


def cut_brain(
    manifest_path: Path,
    anchorings_path: Path,
    volume_path: Path,
    brain_id: str,
    store_path: Path,
    axes: str,
    ontology_path: Path | None,
    level: int | None,
    name: str,
) -> Cut:
    """Write label images, table and manifest. Raises ManifestError if no section has an anchoring."""
    anchorings = read_anchorings(anchorings_path)
    volume = AtlasVolume.read(volume_path, axes)
    codes = LabelCodes.of(volume, None if ontology_path is None else read_ontology(ontology_path), level)
    brain = read_only(store_path, brain_id)
    folder = manifest_path.parent / name
    folder.mkdir(exist_ok=True)
    written: dict[str, str] = {}
    without: list[str] = []
    for section in sections_with(brain, SECTION):
        known = next((one for one in (Path(section.path).stem, section.section_id) if one in anchorings), None)
        if known is None:
            without.append(section.section_id)
            continue
        image = SECTION.open(Place(brain, section))
        path = folder / f"{section.section_id}.tif"
        write_label_image(path, anchorings[known], volume, codes, image.grid)
        written[section.section_id] = f"{name}/{path.name}"
    if not written:
        raise ManifestError(
            str(anchorings_path),
            [f"names {', '.join(sorted(anchorings)[:5])}, none of which is a scan or section of {brain_id}"],
        )
    codes.write(folder / LABEL_TABLE_FILE)
    table = _manifest(manifest_path, name, brain_id, written)
    return Cut(folder, folder / LABEL_TABLE_FILE, table, len(written), len(codes.names), tuple(without))


def _manifest(path: Path, name: str, brain_id: str, written: dict[str, str]) -> Path:
    """The manifest's rows of a brain with the label images in them, beside it; its other labels are left out."""
    rows, faults = csv_rows(path, None, ("brain_id", "section_id"))
    chosen = [row for _, row in rows if row.get("brain_id") == brain_id]
    if faults or not chosen:
        raise ManifestError(str(path), faults or [f"has no row of brain {brain_id}"])
    for row in chosen:
        row.pop("labels", None)
        row.pop("labels_origin", None)
        if row.get("section_id") in written:
            row["labels"], row["labels_origin"] = written[row["section_id"]], ORIGIN
    columns = list(dict.fromkeys(column for row in chosen for column in row))
    target = path.with_name(f"{path.stem}-{name}.csv")
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=columns, restval="")
        writer.writeheader()
        writer.writerows(chosen)
    return target
