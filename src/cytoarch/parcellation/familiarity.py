"""Where a map should not be trusted: tokens that look unlike those of the class they were taken for."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.embeddings import SectionEmbeddings
from cytoarch.embeddings.stored import BLOCK_BYTES
from cytoarch.images.layout import Journal, Pyramid, level_count
from cytoarch.images.ngff import image_label
from cytoarch.images.pyramids import write_group, write_pyramid
from cytoarch.images.views import StoredImage
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.domain import Domain
from cytoarch.learning.targets import UNLABELLED, class_of_id
from cytoarch.tiling import partition

Int64 = NDArray[np.int64]

GRADES = {1: "like what the model learned from", 2: "unlike it", 3: "far from it"}
GRADE_COLOURS = {1: (200, 220, 200), 2: (250, 180, 60), 3: (200, 30, 30)}
NAME = "familiarity"
COUNTED_TOKENS = 1024
"""Edge of what is counted at once, in tokens."""


def write_familiarity(
    journal: Journal,
    embeddings: SectionEmbeddings,
    tissue: TissueMask,
    labels: StoredImage,
    card: HeadCard,
    domain: Domain,
) -> dict[str, Any]:
    """Write how unlike its class every token is, as a label image (y, x) on the token grid: see `GRADES`; 0: no tissue.

    `labels` is the label map of the head. The facts count tokens (k, 3) by class of the map and by grade.
    """
    grid = embeddings.layers[0].grid
    mask = embeddings.inside(tissue)
    lookup = class_of_id(card.classes)
    edge = max(1, math.isqrt(BLOCK_BYTES // (4 * sum(embeddings.dims))))
    level = labels.level_for(grid.cell_um)

    def taken_for(y: int, x: int, height: int, width: int) -> Int64:
        rows, columns = grid.window(y, x, height, width).nearest_in(level.grid)
        block = level.pixels(slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        return np.asarray(lookup[block[np.ix_(rows - rows[0], columns - columns[0])]])

    def read(y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        grades = np.zeros((height, width), dtype=np.uint8)
        for top, left, h, w in partition(height, width, edge):
            part = (y + top, x + left, h, w)
            classes = taken_for(*part)
            inside = mask[y + top : y + top + h, x + left : x + left + w] & (classes != UNLABELLED)
            found = domain.grades(embeddings.read(*part), np.maximum(classes, 0)) if inside.any() else 0
            grades[top : top + h, left : left + w] = found * inside
        return grades

    levels = level_count(*grid.shape)
    shown = Pyramid.on(grid, np.dtype(np.uint8), "mean", levels=levels)
    write_pyramid(journal, shown, lambda y, x, h, w: mask[y : y + h, x : x + w] * np.uint8(255), name="tissue")
    write_group(journal, "labels", {"ome": {"version": "0.5", "labels": [NAME]}})
    pyramid = Pyramid.on(grid, np.dtype(np.uint8), "mode", levels=levels)
    attributes = {"image-label": image_label(GRADES, GRADE_COLOURS)}
    write_pyramid(journal, pyramid, read, name=NAME, folder=f"labels/{NAME}", attributes=attributes)
    drawn = StoredImage.open(journal.path / "labels" / NAME).levels[0]  # some of it may be of an earlier run
    counts = np.zeros((len(card.classes), len(GRADES)), dtype=np.int64)
    for y, x, height, width in partition(*grid.shape, COUNTED_TOKENS):
        grades = drawn.pixels(slice(y, y + height), slice(x, x + width)).astype(np.int64)
        inside = grades > 0
        np.add.at(counts, (taken_for(y, x, height, width)[inside], grades[inside] - 1), 1)
    return {"grades": counts.tolist()}
