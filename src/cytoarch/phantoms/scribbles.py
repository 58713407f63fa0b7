"""Scribbles: sparse strokes as an expert would draw them, along the middle of an area or layer, within a budget."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree
from skimage.morphology import skeletonize

from cytoarch.phantoms.anatomy import REFERENCE_SEED
from cytoarch.phantoms.compiling import kernel
from cytoarch.phantoms.sections import PhantomSection, Window
from cytoarch.phantoms.truth import truth

Float64 = NDArray[np.float64]
UInt8 = NDArray[np.uint8]
Target = Literal["areas", "layers"]

GRID_UM = 50.0
"""Pixel size at which strokes are planned."""
LENGTH_MM = (0.8, 2.5)
PEN_MM = 0.08
"""Width of a stroke."""
_SMALLEST_PX = 40


@dataclass(frozen=True)
class Stroke:
    """One stroke of a pen on one section."""

    number: int
    """The section."""
    label: int
    """Value of the area or layer it marks."""
    path_mm: Float64
    """(n, 2) y, x on the slide."""


def label_image(section: PhantomSection, target: Target, window: Window, pixel_size_um: float) -> UInt8:
    """The true areas or layers (height, width) of a window, 0 outside the tissue."""
    whole = truth(section, window, pixel_size_um)
    return whole.area if target == "areas" else whole.layer


def draw_scribbles(sections: Sequence[PhantomSection], target: Target, budget: int) -> list[Stroke]:
    """At most `budget` strokes over these sections; labels take turns, so that all get nearly the same number.

    A stroke follows the skeleton of one connected piece of its label. Labels that are nowhere large enough to be drawn
    in are left out, so fewer strokes than the budget are drawn only where no label is left to draw.
    """
    if not sections:
        return []
    seed = sections[0].phantom.settings.seed
    rng = np.random.default_rng([REFERENCE_SEED, 20, 0 if seed is None else seed + 1])
    images = [label_image(one, target, Window(0, 0, *one.size_px(GRID_UM)), GRID_UM) for one in sections]
    places: dict[int, list[int]] = {}
    for index, image in enumerate(images):
        values, counts = np.unique(image, return_counts=True)
        for value in values[(values > 0) & (counts >= _SMALLEST_PX)].tolist():
            places.setdefault(value, []).append(index)
    strokes: list[Stroke] = []
    while places and len(strokes) < budget:
        for value in sorted(places):
            if len(strokes) == budget:
                break
            index = int(rng.choice(places[value]))
            path = _stroke(images[index] == value, rng)
            if path is None:
                places[value].remove(index)
                if not places[value]:
                    del places[value]
                continue
            strokes.append(Stroke(sections[index].number, value, (path + 0.5) * GRID_UM / 1000))
    return strokes


def _stroke(mask: NDArray[np.bool_], rng: np.random.Generator) -> Float64 | None:
    """A path (n, 2) in pixels along the middle of one piece of the mask, or None where every piece is too small."""
    pieces, count = ndimage.label(mask, np.ones((3, 3)))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    large = np.flatnonzero(sizes >= _SMALLEST_PX)
    if not len(large):
        return None
    for piece in rng.permutation(large) + 1:
        path = longest_path(np.argwhere(skeletonize(pieces == piece)))
        length = round(float(rng.uniform(*LENGTH_MM)) * 1000 / GRID_UM)
        start = int(rng.integers(max(0, len(path) - length) + 1))
        path = path[start : start + length]
        if len(path) > 1:
            return np.asarray(ndimage.gaussian_filter1d(path.astype(np.float64), 2.0, axis=0, mode="nearest"))
    return None


def longest_path(nodes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The longest of the shortest ways (n, 2) through a skeleton: from the node farthest from any, to its farthest."""
    pairs = cKDTree(nodes).query_pairs(1.5, output_type="ndarray")
    lengths = np.linalg.norm(nodes[pairs[:, 0]] - nodes[pairs[:, 1]], axis=1)
    graph = sparse.csr_matrix((lengths, (pairs[:, 0], pairs[:, 1])), shape=(len(nodes), len(nodes)))
    reached = dijkstra(graph, directed=False, indices=0)
    start = int(np.where(np.isfinite(reached), reached, -1).argmax())
    reached, before = dijkstra(graph, directed=False, indices=start, return_predecessors=True)
    way = [int(np.where(np.isfinite(reached), reached, -1).argmax())]
    while before[way[-1]] >= 0:
        way.append(int(before[way[-1]]))
    return nodes[way]


@kernel
def _mark(path: Float64, half: float, label: int, corner: NDArray[np.int64], labels: UInt8, out: UInt8) -> None:
    """Mark the pixels within `half` of a path (n, 2), all in pixels, where the truth is this label."""
    for index in range(path.shape[0] - 1):
        ay, ax, by, bx = path[index, 0], path[index, 1], path[index + 1, 0], path[index + 1, 1]
        length = max((by - ay) ** 2 + (bx - ax) ** 2, 1e-12)
        for row in range(
            max(0, int(min(ay, by) - half) - corner[0]), min(out.shape[0], int(max(ay, by) + half) + 1 - corner[0])
        ):
            for column in range(
                max(0, int(min(ax, bx) - half) - corner[1]), min(out.shape[1], int(max(ax, bx) + half) + 1 - corner[1])
            ):
                y, x = corner[0] + row + 0.5, corner[1] + column + 0.5
                along = min(max(((y - ay) * (by - ay) + (x - ax) * (bx - ax)) / length, 0.0), 1.0)
                dy, dx = y - ay - along * (by - ay), x - ax - along * (bx - ax)
                if dy * dy + dx * dx <= half * half and labels[row, column] == label:
                    out[row, column] = label


def scribble_image(
    section: PhantomSection, strokes: Sequence[Stroke], target: Target, window: Window, pixel_size_um: float
) -> UInt8:
    """The strokes of a section (height, width) uint8, 0 elsewhere; a pen never leaves the area or layer it marks.

    Strokes are at least a pixel wide.
    """
    out = np.zeros((window.height, window.width), np.uint8)
    own = [stroke for stroke in strokes if stroke.number == section.number]
    if own:
        labels = label_image(section, target, window, pixel_size_um)
        corner = np.array([window.y, window.x])
        for stroke in own:
            half = max(PEN_MM / 2 * 1000 / pixel_size_um, 0.71)
            _mark(stroke.path_mm * 1000 / pixel_size_um, half, stroke.label, corner, labels, out)
    return out
