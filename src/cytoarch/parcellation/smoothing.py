"""Probabilities smoothed by total variation, and label maps made from them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cytoarch.anatomy.depth_maps import DepthMap
from cytoarch.brains import LabelClass
from cytoarch.images.layout import Journal, Pyramid, level_count
from cytoarch.images.ngff import image_label, label_dtype
from cytoarch.images.pyramids import write_group, write_pyramid
from cytoarch.images.views import Level, StoredImage
from cytoarch.learning.cards import HeadCard, Order
from cytoarch.learning.ordering import COARSE_CELLS, ordered
from cytoarch.learning.smoothing import DEFAULT_WEIGHT, smooth_probabilities
from cytoarch.learning.targets import UNLABELLED, class_of_id, target_bands
from cytoarch.measures.class_boundaries import MapPair
from cytoarch.palette import class_colours
from cytoarch.settings import Settings
from cytoarch.tiling import partition
from cytoarch.variation import REACH_CELLS

if TYPE_CHECKING:
    import zarr

Float32 = NDArray[np.float32]

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


def following(probabilities: StoredImage, order: Order, depth: DepthMap | None = None) -> StoredImage:
    """What classes (k, y, x) are multiplied by so that they follow each other, on a coarse grid of the section.

    `probabilities` (k + 1, y, x) have "outside tissue" first. Raises SectionError if they are damaged.
    """
    level = next((one for one in probabilities.levels if max(one.size) <= COARSE_CELLS), probabilities.levels[-1])
    seen = level.pixels().astype(np.float32)
    inside = seen[0] < seen[1:].sum(axis=0)
    codes = None if depth is None else depth.codes(level.grid)
    cortex = None if codes is None else (codes >= 0) & (codes <= 1)
    factors = ordered(seen[1:], inside, order, codes, cortex)
    return StoredImage((Level(_in_memory(factors), level.pixel_size_um, level.origin_um),), {})


def _in_memory(values: Float32) -> "zarr.Array[Any]":
    import zarr

    array = zarr.create_array(zarr.storage.MemoryStore(), shape=values.shape, dtype=values.dtype, chunks=values.shape)
    array[:] = values
    return array


def reweighted(probabilities: Float32, factors: Float32) -> Float32:
    """Probabilities (k + 1, y, x), the classes multiplied by factors (k, y, x); what is outside tissue stays."""
    outside = probabilities[:1]
    classes = probabilities[1:] * factors
    share = (1 - outside) / np.maximum(classes.sum(axis=0), 1e-9)
    return np.concatenate([outside, classes * share]).astype(np.float32)


def label_level(image: StoredImage, cell_um: float, level: int | None) -> int:
    """The pyramid level of the section that label maps are drawn on: as asked for, or closest to the head's cells."""
    if level is not None:
        return min(level, len(image.levels) - 1)
    distances = [abs(np.log2(one.pixel_size_um / cell_um)) for one in image.levels]
    return int(np.argmin(distances))


def write_parcellation(
    journal: Journal,
    image: StoredImage,
    probabilities: StoredImage,
    classes: Sequence[LabelClass],
    weight: float,
    level: int | None,
    name: str,
    order: Order = "none",
    depth: DepthMap | None = None,
) -> dict[str, Any]:
    """Write smoothed probabilities (k + 1, y, x) as an image, and under it the label map on a level of the section.

    Before they are smoothed, classes are made to follow each other as `order` says; `depth` is that of the section.
    A label's value is the first id of its class in the label table; 0 is outside tissue. Both have the same number of
    levels. Raises SectionError if the probabilities are damaged.
    """
    source = probabilities.levels[0]
    height, width = source.size
    levels = level_count(height, width)
    follow = None if order == "none" else following(probabilities, order, depth).on(source.grid)

    def smoothed(y: int, x: int, h: int, w: int) -> Float32:
        y0, x0 = max(0, y - REACH_CELLS), max(0, x - REACH_CELLS)
        y1, x1 = min(height, y + h + REACH_CELLS), min(width, x + w + REACH_CELLS)
        block = source.pixels(slice(y0, y1), slice(x0, x1))
        if follow is not None:
            block = reweighted(block, follow.read(y0, x0, y1 - y0, x1 - x0))
        return smooth_probabilities(block, weight)[:, y - y0 : y - y0 + h, x - x0 : x - x0 + w]

    pyramid = Pyramid.on(source.grid, np.dtype(np.float32), "mean", (probabilities.channels,), levels=levels)
    write_pyramid(journal, pyramid, smoothed, name=name, own_attributes=probabilities.attributes)
    target = image.levels[label_level(image, source.pixel_size_um, level)]
    view = StoredImage.open(journal.path).on(target.grid)
    values = [one.ids[0] for one in classes]
    dtype = label_dtype(max(values))
    value_of_channel = np.array([0, *values], dtype=dtype)

    def labels(y: int, x: int, h: int, w: int) -> NDArray[Any]:
        return np.asarray(value_of_channel[view.read(y, x, h, w).argmax(axis=0)])

    label_pyramid = Pyramid.on(target.grid, dtype, "mode", levels=levels)
    colours = dict(zip(values, class_colours(classes), strict=True))
    names = {value: one.name for value, one in zip(values, classes, strict=True)}
    write_group(journal, "labels", {"ome": {"version": "0.5", "labels": [name]}})
    write_pyramid(
        journal,
        label_pyramid,
        labels,
        name=name,
        folder=f"labels/{name}",
        attributes={"image-label": image_label(names, colours)},
    )
    return {"pixel_size_um": target.pixel_size_um, "grid": list(target.size), "smooth_weight": weight, "order": order}


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
