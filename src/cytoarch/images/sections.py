"""Sections and their label images brought into the store: pixels as scanned, with a pyramid and physical scale."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cytoarch.brains import LabelTable, Section
from cytoarch.errors import ScanError
from cytoarch.images.label_ids import counted_ids
from cytoarch.images.layout import CHUNK_PX, SHARD_CHUNKS, Journal, Pyramid, level_count
from cytoarch.images.ngff import NGFF_VERSION, image_label, label_dtype, omero
from cytoarch.images.pixel_size import PixelSize, resolve_pixel_size
from cytoarch.images.planes import Pixels, Scan, reading
from cytoarch.images.pyramids import write_group, write_pyramid
from cytoarch.images.scans import DRAWN_SUFFIXES, Spooling, open_labels, open_scan
from cytoarch.palette import class_colours, hex_colour
from cytoarch.progress import Progress
from cytoarch.settings import Settings
from cytoarch.tiling import partition

LABEL_NAME = "labels"
"""Name of the label image that came with the manifest, under its section's `labels` group."""


class IngestSettings(Settings):
    """How scans are read."""

    CONDUCT: ClassVar[frozenset[str]] = frozenset({"rehash", "threads", "memory_gb", "stall_s"})
    """Fields that do not decide results."""

    rehash: bool = Field(
        default=False, title="Read every scan again", description="Read every scan again to see whether it changed."
    )
    threads: int = Field(
        title="Threads that write a section",
        default=0,
        ge=0,
        le=64,
        description="Threads that write a section; 0: the processor's cores, shared out.",
    )
    memory_gb: float = Field(
        default=3.0, ge=0.5, le=1024.0, description="Memory the process that reads a section may take (GB)."
    )
    stall_s: float = Field(
        title="Give a section up after silence of (s)",
        default=60.0,
        ge=1.0,
        le=86400.0,
        description="Seconds without progress after which a section is given up.",
    )


def write_section(
    journal: Journal, scan_path: Path, section: Section, on_progress: Progress | None = None, threads: int = 1
) -> dict[str, Any]:
    """Stream a scan into the journal's folder as an NGFF image (c, y, x); returns facts for its record.

    Flips and rotations stay with the manifest: a correction never touches the pixels. The number of threads changes
    nothing in the result; `on_progress` counts bytes. Raises ScanError if the scan cannot be read.
    """
    phases = _Phases(on_progress)
    spooling = Spooling(journal.scratch, phases.spooled)
    with open_scan(scan_path, section.plane_index, section.region_px, spooling=spooling) as scan:
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
            on_progress=phases.written,
            threads=threads,
        )
    return facts


class _Phases:
    """Progress over the phases of a section: it may be spooled, labels are checked, then it is written."""

    def __init__(self, on_progress: Progress | None) -> None:
        self._tell = on_progress or (lambda _done, _total: None)
        self._earlier_bytes = 0

    def spooled(self, done: int, total: int) -> None:
        self._earlier_bytes = done
        self._tell(done, 2 * total)

    def checked(self, done: int, total: int) -> None:
        earlier = self._earlier_bytes
        self._tell(done + earlier, 2 * total + earlier)
        if done == total:
            self._earlier_bytes += total

    def written(self, done: int, total: int) -> None:
        earlier = self._earlier_bytes
        self._tell(done + earlier, total + earlier)


def write_labels(
    journal: Journal,
    label_path: Path,
    section: Section,
    table: LabelTable,
    shape: tuple[int, int],
    pixel_size_um: float,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Write a label image as the `labels` group of its section, with as many levels as the image has.

    Raises ScanError if the file is no label image, has another size than the section, or holds ids that are not in
    the label table.
    """
    phases = _Phases(on_progress)
    known = {label.id for label in table.labels}
    dtype = label_dtype(max(known))
    with _opened(label_path, section, table, shape, Spooling(journal.scratch, phases.spooled)) as labels:
        read = fitted_labels(labels, section, section.labels, shape)
        counts = _counted(read, section, shape, known, phases.checked)
        _check_colours(labels.colours, counts, section, table)
        remarks = [*labels.remarks, *_unknown_colours(labels.colours, counts, table)]
        own = {"origin": section.labels_origin, **({"remarks": remarks} if remarks else {})}
        pyramid = Pyramid(shape, dtype, pixel_size_um, "mode", levels=level_count(*shape))
        write_group(journal, "", {"ome": {"version": NGFF_VERSION, "labels": [LABEL_NAME]}})
        write_pyramid(
            journal,
            pyramid,
            lambda y, x, h, w: read(y, x, h, w).astype(dtype),
            name=LABEL_NAME,
            folder=LABEL_NAME,
            attributes={"image-label": _label_entry(table)},
            own_attributes=own,
            on_progress=phases.written,
        )
    return {"labelled_px": sum(count for value, count in counts.items() if value), **own}


@contextmanager
def _opened(
    path: Path, section: Section, table: LabelTable, shape: tuple[int, int], spooling: Spooling
) -> Iterator[Scan]:
    """The label image in a file, or the areas drawn in one, open for reading by window."""
    if path.suffix.lower() in DRAWN_SUFFIXES:
        from cytoarch.images.drawn import drawn_labels

        with reading(path, "GeoJSON"):
            labels = drawn_labels(path, table, shape, section.region_px)
        yield labels
        return
    with open_labels(path, spooling) as labels:
        yield labels


ReadPlane = Callable[[int, int, int, int], NDArray[Any]]
"""(y, x, height, width) -> (height, width)"""


def fitted_labels(labels: Scan, section: Section, stated: str | None, shape: tuple[int, int]) -> ReadPlane:
    """Reads the label image, which is `stated` so, on the pixels of its section. Raises ScanError on another size."""
    _, height, width = labels.shape
    y0, x0 = 0, 0
    if section.region_px is not None and (height, width) != shape:
        y0, y1, x0, x1 = section.region_px
        height, width = min(y1, height) - y0, min(x1, width) - x0
    if (height, width) != shape:
        raise ScanError(
            f"{stated}: the label image has {labels.shape[1]} x {labels.shape[2]} pixels where the scan has "
            f"{shape[0]} x {shape[1]}; draw it on the scan as it was scanned"
        )

    def read(y: int, x: int, h: int, w: int) -> Pixels:
        plane: Pixels = labels.read(y + y0, x + x0, h, w)[0]
        return plane

    return read


def _counted(
    read: ReadPlane, section: Section, shape: tuple[int, int], known: set[int], on_progress: Progress
) -> Mapping[int, int]:
    """How many pixels carry each id. Raises ScanError if some id is not known, before anything is written."""
    counts: Counter[int] = Counter()
    done = 0
    for y, x, h, w in partition(*shape, CHUNK_PX * SHARD_CHUNKS):
        counts.update(counted_ids(read(y, x, h, w)))
        done += h * w
        on_progress(done, shape[0] * shape[1])
    unknown = [value for value in sorted(counts) if value and value not in known]
    if unknown:
        shown = ", ".join(map(str, unknown[:10])) + (", ..." if len(unknown) > 10 else "")
        raise ScanError(f"{section.labels}: holds ids {shown} that are not in the label table; add them or correct it")
    return counts


def _check_colours(colours: Sequence[str], used: Collection[int], section: Section, table: LabelTable) -> None:
    """Raise ScanError if a palette shows a number in the colour of another label: optimisers reorder palettes."""
    given = [label.colour.lower() for label in table.labels if label.colour]
    ids = {label.colour.lower(): label.id for label in table.labels if label.colour}
    for number in sorted(one for one in used if one < len(colours)):
        meant = ids.get(colours[number], number)
        if meant != number and given.count(colours[number]) == 1:
            raise ScanError(
                f"{section.labels}: its palette shows number {number} in {colours[number]}, which is the colour of id "
                f"{meant} in the label table; either may be meant, as optimisers reorder palettes. Save it as grey "
                "PNG of ids, or correct the table's colours"
            )


def _unknown_colours(colours: Sequence[str], used: Collection[int], table: LabelTable) -> list[str]:
    """A remark where a palette shows ids in colours that the table does not give: nothing can tell who chose them."""
    given = {label.id: (label.colour or "").lower() for label in table.labels}
    named = sorted(one for one in used if 0 < one < len(colours))
    unknown = [one for one in named if colours[one] not in (given.get(one), hex_colour((one, one, one)))]
    if not unknown:
        return []
    more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
    shown = f"the palette shows id {unknown[0]}{more} in colours that the label table does not give"
    return [f"{shown}: whether an optimiser has reordered it cannot be told"]


def _label_entry(table: LabelTable) -> dict[str, Any]:
    classes = table.classes(by_group=False)
    values = [one.ids[0] for one in classes]
    names = {value: one.name for value, one in zip(values, classes, strict=True)}
    return image_label(names, dict(zip(values, class_colours(classes), strict=True)))
