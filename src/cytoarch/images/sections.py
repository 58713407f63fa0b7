"""Sections and their label images brought into the store: pixels as scanned, with a pyramid and physical scale."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from cytoarch.brains import Brain, LabelTable, Section
from cytoarch.errors import ScanError
from cytoarch.images.ngff import NGFF_VERSION, image_label, label_dtype, omero
from cytoarch.images.pixel_size import PixelSize, resolve_pixel_size
from cytoarch.images.pyramids import Journal, Pyramid, level_count, write_group, write_pyramid
from cytoarch.images.scans import open_scan, read_labels
from cytoarch.palette import class_colours
from cytoarch.stores import BrainStore, Product

SECTIONS_VERSION = 1
LABELS_VERSION = 1

LABEL_NAME = "labels"
"""Name of the label image that came with the manifest, under its section's `labels` group."""


class IngestSettings(BaseModel):
    """How scans are read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rehash: bool = Field(default=False, description="Read every scan again to see whether it changed.")


def check_sha256(section: Section, digest: str) -> None:
    """Raise ScanError if the manifest states another checksum for the scan."""
    if section.sha256 is not None and section.sha256 != digest:
        raise ScanError(
            f"{section.path}: its sha256 is {digest[:12]}..., the manifest states {section.sha256[:12]}...: the file "
            "is not the one that was meant, or it was damaged; copy it again or correct the manifest"
        )


def write_section(journal: Journal, scan_path: Path, section: Section, on_progress: Any = None) -> dict[str, Any]:
    """Stream a scan into the journal's folder as an NGFF image (c, y, x); returns facts for its record.

    Flips and rotations stay with the manifest: a correction never touches the pixels. Raises ScanError if the scan
    cannot be read.
    """
    with open_scan(scan_path, section.plane_index, section.region_px) as scan:
        size: PixelSize = resolve_pixel_size(section, scan.stated_pixel_sizes)
        _, height, width = scan.shape
        background = 255 if scan.kind == "rgb" else 0
        pyramid = Pyramid(
            scan.shape, scan.dtype, size.value_um, "mean", fill=background, levels=level_count(height, width)
        )
        full_range = (0.0, float(np.iinfo(scan.dtype).max))
        facts = {
            "shape": list(scan.shape),
            "dtype": str(scan.dtype),
            "kind": scan.kind,
            "pixel_size_um": size.value_um,
            "pixel_size_source": size.source,
            "remarks": [*scan.remarks, *size.remarks],
        }
        write_pyramid(
            journal,
            pyramid,
            scan.read,
            name=section.section_id,
            attributes={"omero": omero(scan.shape[0], scan.kind == "rgb", full_range)},
            own_attributes=facts,
            on_progress=on_progress,
        )
    return facts


def write_labels(
    journal: Journal,
    label_path: Path,
    section: Section,
    table: LabelTable,
    shape: tuple[int, int],
    pixel_size_um: float,
) -> dict[str, Any]:
    """Write a label image as the `labels` group of its section, with as many levels as the image has.

    Raises ScanError if the file is no label image, has another size than the section, or holds ids that are not in
    the label table.
    """
    labels = read_labels(label_path)
    if section.region_px is not None and labels.shape != shape:
        y0, y1, x0, x1 = section.region_px
        labels = labels[y0:y1, x0:x1]
    if labels.shape != shape:
        raise ScanError(
            f"{section.labels}: the label image has {labels.shape[0]} x {labels.shape[1]} pixels where the scan has "
            f"{shape[0]} x {shape[1]}; draw it on the scan as it was scanned"
        )
    counts = np.bincount(labels.ravel(), minlength=1)
    known = {label.id for label in table.labels}
    unknown = [int(value) for value in np.flatnonzero(counts) if value and int(value) not in known]
    if unknown:
        shown = ", ".join(map(str, unknown[:10])) + (", ..." if len(unknown) > 10 else "")
        raise ScanError(f"{section.labels}: holds ids {shown} that are not in the label table; add them or correct it")
    dtype = label_dtype(max(known))
    typed: NDArray[Any] = labels.astype(dtype)
    classes = table.classes(by_group=False)
    values = [one.ids[0] for one in classes]
    label = image_label(
        {value: one.name for value, one in zip(values, classes, strict=True)},
        dict(zip(values, class_colours(classes), strict=True)),
    )
    pyramid = Pyramid(shape, dtype, pixel_size_um, "mode", levels=level_count(*shape))
    write_group(journal, "", {"ome": {"version": NGFF_VERSION, "labels": [LABEL_NAME]}})
    write_pyramid(
        journal,
        pyramid,
        lambda y, x, h, w: typed[y : y + h, x : x + w],
        name=LABEL_NAME,
        folder=LABEL_NAME,
        attributes={"image-label": label},
        own_attributes={"origin": section.labels_origin},
    )
    return {"labelled_px": int(counts[1:].sum()), "origin": section.labels_origin}


def write_collection(store: BrainStore, brain: Brain) -> None:
    """Write the metadata of a brain's collection of sections: those committed, in cutting order (bioformats2raw)."""
    kept = [s for s in brain.kept if store.record(Product(brain.brain_id, "sections", "scan", s.section_id))]
    folder = store.brain_path(brain.brain_id) / "sections.ome.zarr"
    store.write_group(folder, {"ome": {"version": NGFF_VERSION, "bioformats2raw.layout": 3}})
    series = [section.section_id for section in kept]
    store.write_group(folder / "OME", {"ome": {"version": NGFF_VERSION, "series": series}})
