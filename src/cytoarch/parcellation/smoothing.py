"""Label maps made from probabilities, smoothed by total variation, and how sure they are."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cytoarch.anatomy.depth_maps import DepthMap
from cytoarch.brains import LabelClass
from cytoarch.images.layout import Journal, Pyramid, level_count
from cytoarch.images.ngff import image_label, label_dtype
from cytoarch.images.pyramids import create_array, write_group, write_pyramid
from cytoarch.images.views import Level, StoredImage
from cytoarch.learning.cards import HeadCard, Order
from cytoarch.learning.smoothing import DEFAULT_WEIGHT
from cytoarch.learning.targets import UNLABELLED, class_of_id, target_bands
from cytoarch.measures.class_boundaries import MapPair
from cytoarch.palette import class_colours
from cytoarch.parcellation.drawing import CONFIDENCE, draw_window
from cytoarch.parcellation.following import Following
from cytoarch.parcellation.sparse import Readable
from cytoarch.settings import Settings
from cytoarch.tiling import partition

SHARD_PX = 2048
"""Edge of a shard of a map: what a thread holds of it."""
WINDOW_CELLS = 1024
"""Edge of what is smoothed at once, in cells, beside what smoothing reaches: some 100 MB, whatever the classes."""
LEVELS_SHARE = 4 / 3
"""What all levels of an image take beside the finest."""
SCORED_CELLS = 1 << 19
"""Cells that are compared at once: about 40 MB."""


class SmoothSettings(Settings):
    """How parcellations are smoothed."""

    weight: float | None = Field(
        title="Strength",
        default=None,
        ge=0,
        le=10,
        description="Strength of total variation; 0 leaves all as it is; blank: what served best on sections that the "
        "model had not seen, or 0.05 where there were none.",
    )
    order: Literal["model", "none", "bands", "depth"] = Field(
        title="Layers follow each other",
        default="model",
        description="Classes in the order of the label table, from the pial surface inwards. none: every cell on its "
        "own; bands: ordered bands over the whole section, for pieces of cortex; depth: along the depth that "
        "trace-cortex measures; model: what served best on sections that the model had not seen.",
    )

    def order_for(self, card: HeadCard) -> Order:
        """How classes follow each other on the maps of a head."""
        return card.order if self.order == "model" else self.order

    def weight_for(self, card: HeadCard) -> float:
        """The strength for the maps of a head."""
        stated = card.smooth_weight if self.weight is None else self.weight
        return DEFAULT_WEIGHT if stated is None else stated


def label_level(sizes_um: Sequence[float], cell_um: float, level: int | None) -> int:
    """The pyramid level of the section that label maps are drawn on: as asked for, or closest to the head's cells.

    `sizes_um` are the pixel sizes of the levels.

    >>> label_level([4, 8, 16, 32], 14.0, None), label_level([4, 8], 14.0, 7)
    (2, 1)
    """
    if level is not None:
        return min(level, len(sizes_um) - 1)
    return int(np.argmin([abs(np.log2(size_um / cell_um)) for size_um in sizes_um]))


def map_cell_bytes(classes: Sequence[LabelClass]) -> float:
    """Bytes that a cell of a label map and of its confidence take with all levels, before compression."""
    return (label_dtype(max(one.ids[0] for one in classes)).itemsize + len(CONFIDENCE)) * LEVELS_SHARE


def write_parcellation(
    journal: Journal,
    image: StoredImage,
    probabilities: Readable,
    classes: Sequence[LabelClass],
    weight: float,
    level: int | None,
    name: str,
    order: Order = "none",
    depth: DepthMap | None = None,
    threads: int = 1,
) -> dict[str, Any]:
    """Write how sure a smoothed map is as an image (4, y, x) uint8, and the label map under it, on a section's level.

    Before they are smoothed, classes are made to follow each other as `order` says; `depth` is that of the section.
    See `drawing.CONFIDENCE` for the channels. A label's value is the first id of its class in the label table; 0 is
    outside tissue. A thread holds one shard of both and `WINDOW_CELLS` cells squared with what smoothing reaches.
    Shards that an earlier run finished are kept. Raises SectionError if the probabilities are damaged.
    """
    sizes_um = [one.pixel_size_um for one in image.levels]
    target = image.levels[label_level(sizes_um, probabilities.grid.cell_um, level)].grid
    values = [one.ids[0] for one in classes]
    dtype = label_dtype(max(values))
    levels = level_count(*target.shape)
    confidence = Pyramid.on(target, np.dtype(np.uint8), "mean", (len(CONFIDENCE),), levels=levels, shard=SHARD_PX)
    labels = Pyramid.on(target, dtype, "mode", levels=levels, shard=SHARD_PX)
    folder = f"labels/{name}"
    own = {"channels": list(CONFIDENCE)}
    source = probabilities if order == "none" else Following.of(probabilities, order, depth)
    pair = _Pair(journal, source, weight, np.array([0, *values], dtype=dtype), (confidence, labels), folder)
    pair.write(threads)
    colours = dict(zip(values, class_colours(classes), strict=True))
    names = {value: one.name for value, one in zip(values, classes, strict=True)}
    write_pyramid(journal, confidence, pair.finished, name="confidence", own_attributes=own, threads=threads)
    write_group(journal, "labels", {"ome": {"version": "0.5", "labels": [name]}})
    write_pyramid(
        journal,
        labels,
        pair.finished,
        name=name,
        folder=folder,
        attributes={"image-label": image_label(names, colours)},
        threads=threads,
    )
    return {"pixel_size_um": target.cell_um, "grid": list(target.shape), "smooth_weight": weight, "order": order}


@dataclass(frozen=True)
class _Pair:
    """The finest level of the confidence and of the label map, drawn together: smoothing costs most."""

    journal: Journal
    probabilities: Readable
    weight: float
    values: NDArray[Any]
    """The label value of every channel."""
    pyramids: tuple[Pyramid, Pyramid]
    folder: str

    def write(self, threads: int) -> None:
        """Write every shard that is missing, several at once."""
        create_array(self.journal, "0", self.pyramids[0], 0, "cyx")
        create_array(self.journal, f"{self.folder}/0", self.pyramids[1], 0, "yx")
        rows, columns = self.pyramids[0].shard_grid(0)
        with ThreadPoolExecutor(threads, thread_name_prefix="maps") as pool:
            running = [pool.submit(self._write, *place) for place in np.ndindex(rows, columns)]
            try:
                for one in running:
                    one.result()
            finally:
                pool.shutdown(cancel_futures=True)

    def finished(self, y: int, x: int, height: int, width: int) -> NDArray[Any]:
        """Never asked for pixels: by then the finest level is in the journal."""
        raise LookupError(f"the finest level at y={y}, x={x} ({height} x {width} px) is drawn before the coarser ones")

    def _write(self, row: int, column: int) -> None:
        keys = (f"0/c/0/{row}/{column}", f"{self.folder}/0/c/{row}/{column}")
        if all(map(self.journal.has, keys)):
            return
        confidence, labels = self.pyramids
        y, x, height, width = confidence.shard_window(0, row, column)
        sure = np.zeros((*confidence.lead, height, width), dtype=np.uint8)
        drawn = np.zeros((height, width), dtype=labels.dtype)
        target = labels.grid()
        edge = max(1, int(WINDOW_CELLS * self.probabilities.grid.cell_um / target.cell_um))
        for top, left, h, w in partition(height, width, edge):
            found = draw_window(self.probabilities, target, (y + top, x + left, h, w), self.weight)
            sure[:, top : top + h, left : left + w] = found.confidence
            drawn[top : top + h, left : left + w] = self.values[found.channels]
        self.journal.write(keys[0], confidence.encoded(sure))
        self.journal.write(keys[1], labels.encoded(drawn))


def score_label_map(
    label_map: StoredImage, labels: Level, classes: Sequence[LabelClass], truth: Sequence[LabelClass] | None = None
) -> tuple[NDArray[np.int64], MapPair]:
    """Confusion (t + 1, k + 1) of a label map against a label image, outside tissue first, and both side by side.

    `truth` says what ids the classes have in the label image, and may name more classes after them, which count as
    unknown side by side; None: the same as on the map. Takes `targets.TARGET_BYTES` at once. Raises SectionError if
    either is damaged.
    """
    known = classes if truth is None else truth
    drawn, lookup = label_map.levels[0], class_of_id(classes)
    confusion = np.zeros((len(known) + 1, len(classes) + 1), dtype=np.int64)
    pair = MapPair.blank(*drawn.grid.shape)
    for row, band in target_bands(labels, known, drawn.grid):
        values = drawn.pixels(slice(row, row + len(band)))
        for _, x, _, width in partition(1, band.shape[1], max(1, SCORED_CELLS // len(band))):
            true, predicted = (one[:, x : x + width] for one in (band, values))
            labelled = true != UNLABELLED
            found = lookup[predicted]
            pair.put(row, x, np.where(true < len(classes), true, UNLABELLED), found)
            pairs = (true[labelled] + 1) * confusion.shape[1] + found[labelled] + 1
            confusion += np.bincount(pairs, minlength=confusion.size).reshape(confusion.shape)
    return confusion, pair
