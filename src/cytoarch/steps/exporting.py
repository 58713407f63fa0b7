"""What a brain's exports hold: maps, labels, tables and points; each format is written whole or not at all."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cytoarch.brains import Section
from cytoarch.errors import SectionError, StoreError
from cytoarch.exports import ngff
from cytoarch.exports.areas import area_rows, areas_csv
from cytoarch.exports.folder import Draft, whole_folder
from cytoarch.exports.legends import SectionMap
from cytoarch.exports.neuroglancer import section_state
from cytoarch.exports.points import describe_points
from cytoarch.exports.qupath import qupath_features
from cytoarch.exports.readme import README_FILE, readme
from cytoarch.exports.settings import FORMATS, Format
from cytoarch.exports.volume import PlacedMap, label_table, lattice_of, sidecar, volume_of, write_volume
from cytoarch.geometry import scan_to_section
from cytoarch.images.ngff import label_dtype
from cytoarch.progress import Progress
from cytoarch.steps.exports import OF_LABELS, section_areas
from cytoarch.steps.points import PointsStep
from cytoarch.steps.sections import SECTION
from cytoarch.steps.sources import sections_with
from cytoarch.steps.step import Place, Stored
from cytoarch.steps.taken import LABELS_KIND, Taken

if TYPE_CHECKING:
    import pandas as pd


def export(taken: Taken, export_format: Format, folder: Path, on_progress: Progress | None = None) -> dict[str, str]:
    """Write one format of a brain into `folder`/brain/format, whole or not at all; returns what was left out, and why.

    Raises StoreError where the brain has nothing that the format holds, or the folder cannot be written.
    """
    target = folder / taken.brain.brain_id / export_format
    reason = lacking(taken, export_format)
    if reason:
        raise StoreError(f"{taken.brain.name}: nothing to write as {export_format}: {reason}")
    about = taken.about(export_format)
    with whole_folder(target, about) as draft:
        left_out = WRITERS[export_format](taken, draft, on_progress or (lambda _done, _total: None))
        about["left_out"] = left_out
        _write(draft / README_FILE, readme(taken.brain.brain_id, export_format, draft, left_out))
        description = taken.names.description()
        if description is not None:
            _write(draft / "dataset_description.json", _json(description))
    return left_out


def chosen_formats(taken: Taken) -> tuple[tuple[Format, ...], dict[str, str]]:
    """The formats to write, and those that are not although none was named, with the reason."""
    if taken.settings.formats:
        return taken.settings.formats, {}
    reasons = {one: lacking(taken, one) for one in FORMATS}
    return tuple(one for one in FORMATS if not reasons[one]), {one: why for one, why in reasons.items() if why}


def lacking(taken: Taken, export_format: Format) -> str:
    """Why a format has nothing to hold; blank: it has."""
    if export_format == "points":
        return "" if taken.brain.catalogue.names(PointsStep.step) else "no points were sampled; run embed-points"
    if export_format == "neuroglancer" and not taken.settings.served_at:
        return "no address is stated at which the export will be served (served_at); `view` needs none"
    if not taken.legends:
        return "there is neither a map, nor are there labels or clusters; run map-brain"
    if export_format == "areas":
        return "" if taken.areas else "there is neither a map nor are there labels"
    if export_format == "nifti" and len(taken.places) < 2:
        return "fewer than two sections have a place along the cutting axis; state position_um, or thickness_um"
    return ""


# -- formats -----------------------------------------------------------------------------------------------------------


def _each_section(
    taken: Taken, on_progress: Progress, left_out: dict[str, str]
) -> Iterator[tuple[Section, list[SectionMap]]]:
    """Sections that have maps; those whose maps cannot be opened are left out."""
    sections = taken.sections
    for done, section in enumerate(sections, start=1):
        try:
            maps = taken.maps(section)
        except (SectionError, StoreError) as error:
            left_out[section.section_id] = str(error)
        else:
            if maps:
                yield section, maps
        on_progress(done, len(sections))


def _write_areas(taken: Taken, draft: Path, on_progress: Progress) -> dict[str, str]:
    left_out: dict[str, str] = {}
    for done, step in enumerate(taken.areas, start=1):
        kind = LABELS_KIND if step.name == OF_LABELS else str(taken.map_kind)
        counted = section_areas(taken.brain, step.stored)
        rows = area_rows(counted, taken.legends[kind])
        _write(draft / taken.names.of_brain(f"{kind}.areas", "csv", "areas"), areas_csv(rows))
        if kind == taken.map_kind or len(taken.areas) == 1:
            _write(draft / "areas.csv", areas_csv(rows))
        mapped = {one.section_id for one in counted}
        left_out |= {
            f"{kind} of {one.section_id}": "not measured"
            for one in taken.sections
            if one.section_id not in mapped and step.is_there(taken.brain, one)
        }
        on_progress(done, len(taken.areas))
    return left_out


def _write_qupath(taken: Taken, draft: Path, on_progress: Progress) -> dict[str, str]:
    left_out: dict[str, str] = {}
    for section, maps in _each_section(taken, on_progress, left_out):
        scan = SECTION.open(Place(taken.brain, section)).grid
        for one in maps:
            subject = f"{taken.brain.brain_id}/{section.section_id}/{one.kind}"
            try:
                found = qupath_features(one, scan, section.region_px, taken.settings.tolerance_um, subject)
            except SectionError as error:
                left_out[f"{one.kind} of {section.section_id}"] = str(error)
                continue
            path = draft / taken.names.of_section(section.section_id, one.kind, "geojson")
            _write(path, json.dumps(found, separators=(",", ":")).encode())
    return left_out


def _write_ome_zarr(taken: Taken, draft: Path, on_progress: Progress) -> dict[str, str]:
    left_out: dict[str, str] = {}
    images = []
    for section, maps in _each_section(taken, on_progress, left_out):
        size_um = taken.settings.picture_um
        drawn = [one.labels.pixel_size_um for one in maps if one.kind != LABELS_KIND]
        wanted = size_um if size_um is not None else min(drawn, default=0.0)
        image = SECTION.open(Place(taken.brain, section))
        try:
            images.append(ngff.write_section(Draft(draft), section.section_id, image, maps, wanted))
        except SectionError as error:
            shutil.rmtree(draft / ngff.COLLECTION / section.section_id, ignore_errors=True)
            left_out[section.section_id] = str(error)
    ngff.write_collection(draft, images)
    return left_out


def _write_nifti(taken: Taken, draft: Path, on_progress: Progress) -> dict[str, str]:
    left_out: dict[str, str] = {}
    by_kind: dict[str, list[PlacedMap]] = {}
    for section, maps in _each_section(taken, lambda _done, _total: None, left_out):
        place = taken.places.get(section.section_id)
        if place is None:
            left_out[section.section_id] = "has no place in the brain"
            continue
        for one in maps:
            by_kind.setdefault(one.kind, []).append(PlacedMap(section.section_id, one.labels, place))
    for done, (kind, placed) in enumerate(by_kind.items(), start=1):
        cell_um = max(one.labels.pixel_size_um for one in placed)
        legend = taken.legends[kind]
        try:
            lattice = lattice_of(placed, taken.settings.voxel_um or cell_um)
            volume = volume_of(placed, lattice, label_dtype(max(row.value for row in legend)))
        except (SectionError, StoreError) as error:  # another kind may have more sections, or whole ones
            left_out[kind] = str(error)
            continue
        write_volume(draft / taken.names.of_brain(kind, "nii.gz"), volume, lattice, taken.placed_by)
        _write(draft / taken.names.of_brain(kind, "tsv"), label_table(legend))
        known = sidecar(lattice, taken.placed_by, taken.about("nifti"))
        _write(draft / taken.names.of_brain(kind, "json"), _json(known))
        on_progress(done, len(by_kind))
    if not list(draft.rglob("*.nii.gz")):
        raise StoreError(f"{taken.brain.name}: no map could be put together to a volume ({_listed(left_out)})")
    return left_out


def _write_points(taken: Taken, draft: Path, on_progress: Progress) -> dict[str, str]:
    from cytoarch.embeddings.sampled import open_points

    left_out: dict[str, str] = {}
    names = taken.brain.catalogue.names(PointsStep.step)
    for done, name in enumerate(names, start=1):
        stored, sections = Stored(PointsStep, name), []
        for one in sections_with(taken.brain, stored):
            try:
                stored.record(Place(taken.brain, one))  # those older than their section lie at places of before
            except StoreError as error:
                left_out[f"{name} of {one.section_id}"] = str(error)
            else:
                sections.append(one)
        if not sections:
            continue
        table = open_points([stored.open(Place(taken.brain, one)) for one in sections])
        describe_points(table, _said_of_points(taken, sections, table.obs, left_out), taken.legends)
        path = draft / taken.names.of_brain(name, "h5ad", "points")
        path.parent.mkdir(parents=True, exist_ok=True)
        table.write_h5ad(path)
        on_progress(done, len(names))
    if not list(draft.rglob("*.h5ad")):
        raise StoreError(f"{taken.brain.name}: no points are current ({_listed(left_out)})")
    return left_out


def _said_of_points(
    taken: Taken, sections: Sequence[Section], points: "pd.DataFrame", left_out: dict[str, str]
) -> dict[str, NDArray[Any]]:
    """What every map says (n,) at the points of some sections; 0 where it says nothing or cannot be read."""
    found = {kind: np.zeros(len(points), dtype=np.int64) for kind in taken.legends}
    for section in sections:
        own = np.flatnonzero((points["section_id"] == section.section_id).to_numpy())
        scan = SECTION.open(Place(taken.brain, section)).grid
        places_px = points.iloc[own][["y_px", "x_px"]].to_numpy(dtype=np.float64)
        places_um = scan_to_section(scan, section.region_px)(places_px)
        try:
            for one in taken.maps(section):
                found[one.kind][own] = one.labels.levels[0].at(places_um)
        except (SectionError, StoreError) as error:
            left_out[f"maps of {section.section_id}"] = str(error)
    return {kind: values for kind, values in found.items() if values.any()}


def _write_neuroglancer(taken: Taken, draft: Path, on_progress: Progress) -> dict[str, str]:
    left_out: dict[str, str] = {}
    base = f"{taken.settings.served_at.rstrip('/')}/ome-zarr/{ngff.COLLECTION}"
    for section, maps in _each_section(taken, on_progress, left_out):
        image = SECTION.open(Place(taken.brain, section))
        home = f"{base}/{section.section_id}"
        layers = {one.kind: (f"{home}/labels/{one.kind}", one.legend, None) for one in maps}
        state = section_state(section.section_id, image, home, layers)
        _write(draft / taken.names.of_section(section.section_id, "neuroglancer", "json"), _json(state))
    return left_out


WRITERS: Mapping[Format, Callable[[Taken, Path, Progress], dict[str, str]]] = {
    "areas": _write_areas,
    "qupath": _write_qupath,
    "ome-zarr": _write_ome_zarr,
    "nifti": _write_nifti,
    "points": _write_points,
    "neuroglancer": _write_neuroglancer,
}


def _listed(left_out: Mapping[str, str]) -> str:
    return "; ".join(f"{one}: {why}" for one, why in left_out.items())


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode()


def _write(path: Path, content: bytes) -> None:
    """Write a new file; BIDS keeps letters and digits only, so that names that differ otherwise meet."""
    if path.exists():
        raise StoreError(f"{path.name} would be written twice: two names differ in signs only; export with plain names")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
