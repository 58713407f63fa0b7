"""The labels in label images, drafted as a table: ids are read from the pixels, what they mean only a person knows."""

import csv
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from cytoarch.brains import MOST_ID, Label
from cytoarch.containment import Contained
from cytoarch.drafting.asking import answered, ask
from cytoarch.drafting.folders import images_in, lacks_content
from cytoarch.drafting.headers import check_content
from cytoarch.errors import ScanError
from cytoarch.images.label_ids import counted_ids
from cytoarch.images.outlines import AREAL, read_outlines
from cytoarch.images.scans import DRAWN_SUFFIXES, LABEL_SUFFIXES, Spooling, open_labels
from cytoarch.progress import Progress
from cytoarch.store.disk import write_atomically
from cytoarch.tiling import partition

WINDOW_PX = 4096
"""Edge of the windows that ids are counted in."""
MOST_LABELS = 4096
"""An image of more values is no label image, but a scan that lies among them."""
FEW_LABELS = 32
"""An image of so many values or fewer is no scan."""
LEAST_ALIKE = 0.5
"""Of the pixels of a label image at least such a share has a neighbour of the same label, as areas have; of the pixels
of a scan few have one of the same grey. The commonest value is left out: both may have an even background."""


class KnownLabel(NamedTuple):
    """A label as files show it."""

    id: int
    name: str = ""
    """Of a class drawn as outlines; blank: only the number is known."""
    colour: str = ""
    """#rrggbb, as a palette shows it."""


def draft_label_table(folder: Path, path: Path, on_progress: Progress | None = None) -> tuple[int, list[str]]:
    """Write a label table of what the label images in a folder hold; returns how many labels, and remarks.

    Ids have the colours of palettes and no names, which a person writes; classes drawn as outlines have names, and get
    ids that are free. Nothing is written where there is no label, or a table already.
    """
    images = [one for one in images_in(folder, DRAWN_SUFFIXES) if one.suffix.lower() in LABEL_SUFFIXES]
    with closing(Contained()) as children:
        labels, faults = known_labels([one for one in images if not lacks_content(one)], children, on_progress)
    if labels and not path.exists():
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, tuple(Label.model_fields), restval="")
        writer.writeheader()
        writer.writerows(one._asdict() for one in labels)
        write_atomically(path, buffer.getvalue().encode())
    return len(labels), [f"{fault}; its ids are not in the table" for fault in faults]


def known_labels(
    images: Sequence[Path], children: Contained, on_progress: Progress | None = None
) -> tuple[list[KnownLabel], list[str]]:
    """The labels of all images by id, then the names of drawn classes with free ids; and what cannot be read."""
    found, faults = ask(images, f"{__name__}:labels_work", children, "the label image", on_progress)
    ids: dict[int, KnownLabel] = {}
    names: dict[str, None] = {}
    for told in found.values():
        names |= dict.fromkeys(told["names"])
        for value, colour in told["ids"]:
            ids.setdefault(value, KnownLabel(value, colour=colour))
    first = max(ids, default=0) + 1
    drawn = [KnownLabel(first + place, name) for place, name in enumerate(sorted(names))]
    return [*(ids[one] for one in sorted(ids)), *drawn], list(faults.values())


def labels_work(arguments: Mapping[str, Any], on_progress: Progress) -> dict[str, Any]:
    """Contained work: of every label image its ids with their colours, of every file of outlines its names."""
    return answered(_labels_in, arguments, on_progress)


def _labels_in(path: Path, alive: Callable[[], None]) -> dict[str, Any]:
    check_content(path)
    if path.suffix.lower() in DRAWN_SUFFIXES:
        drawn = read_outlines(path)
        return {"ids": [], "names": sorted({one.name for one in drawn if one.name and one.shape.geom_type in AREAL})}
    ids, alike = Counter[int](), Counter[int]()
    with open_labels(path, Spooling(on_progress=lambda _done, _total: alive())) as labels:
        for y, x, height, width in partition(*labels.shape[1:], WINDOW_PX):
            window = labels.read(y, x, height, width)[0]
            ids.update(counted_ids(window))
            alike.update(counted_ids(window[:, 1:][window[:, 1:] == window[:, :-1]]))
            alive()
            if len(ids) > MOST_LABELS:
                raise ScanError(f"{path}: holds more than {MOST_LABELS} values; it looks like a scan, not like labels")
        colours = labels.colours
    _check_ids(path, ids, alike)
    return {"ids": [(one, colours[one] if one < len(colours) else "") for one in sorted(ids) if one], "names": []}


def _check_ids(path: Path, ids: Counter[int], alike: Counter[int]) -> None:
    """Raise ScanError if what an image holds can be no labels, or looks like greys.

    Both count pixels by their value: all, and those like their neighbour.
    """
    if max(ids) > MOST_ID:
        raise ScanError(f"{path}: holds id {max(ids)}; ids of labels are from 1 to {MOST_ID}, number them anew")
    if len(ids) <= FEW_LABELS:
        return
    commonest, count = ids.most_common(1)[0]
    if alike.total() - alike[commonest] < LEAST_ALIKE * (ids.total() - count):
        raise ScanError(
            f"{path}: holds {len(ids)} values, and most pixels differ from their neighbours; it looks like a scan, not "
            "like labels"
        )
