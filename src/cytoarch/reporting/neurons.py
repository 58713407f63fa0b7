"""Pictures of traced neurons and the page that shows them: projections, and where a trace and the known tree differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cytoarch.geometry import HALF
from cytoarch.images.volumes import StoredVolume
from cytoarch.neurons.patches import Scale
from cytoarch.neurons.scoring import DIFFERENT, distances
from cytoarch.neurons.trees import Float64, Tree, Triple
from cytoarch.palette import Rgb
from cytoarch.reporting.pictures import Picture
from cytoarch.reporting.rendered import templates

LONGEST_PX = 720
"""Longer edge of a projection."""
PLANES_AT_ONCE = 16
AGREED: Rgb = (64, 200, 255)
MISSED: Rgb = (255, 64, 200)
EXTRA: Rgb = (255, 176, 32)
SCALES_UM = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
"""Lengths of scale bars."""


class Projection(NamedTuple):
    """The brightest voxels along an axis, as a picture of square pixels."""

    picture: Picture
    axis: int
    px_per_um: float
    edges_um: tuple[float, float]
    """Of a voxel, down and along the picture."""

    def places(self, points_um: Float64) -> Float64:
        """(n, 3) um, 0 the middle of the first voxel -> (n, 2) (column, row) from the corner of the picture."""
        row, column = (one for one in range(3) if one != self.axis)
        from_corner = points_um[:, [column, row]] + HALF * np.array(self.edges_um[::-1])
        return np.asarray(from_corner * self.px_per_um)


def projections(volume: StoredVolume, scale: Scale) -> tuple[Projection, Projection]:
    """The volume seen along z, and along y; a few planes are held at a time."""
    depth, height, width = volume.grid.shape
    along_z = np.zeros((height, width), dtype=np.float32)
    along_y = np.zeros((depth, width), dtype=np.float32)
    for first in range(0, depth, PLANES_AT_ONCE):
        slab = np.asarray(volume.pixels[first : first + PLANES_AT_ONCE])
        along_z = np.maximum(along_z, slab.max(axis=0))
        along_y[first : first + len(slab)] = slab.max(axis=1)
    z_um, y_um, x_um = volume.grid.edges_um
    per_um = LONGEST_PX / max(height * y_um, width * x_um, depth * z_um)
    return (
        _projection(along_z, scale, 0, (y_um, x_um), per_um),
        _projection(along_y, scale, 1, (z_um, x_um), per_um),
    )


def _projection(
    brightest: NDArray[np.float32], scale: Scale, axis: int, edges_um: tuple[float, float], per_um: float
) -> Projection:
    grey = np.clip((brightest - scale.black) / (scale.white - scale.black), 0, 1) ** 0.7 * 255
    size = [max(1, round(n * edge * per_um)) for n, edge in zip(brightest.shape, edges_um, strict=True)]
    image = Image.fromarray(grey.astype(np.uint8)).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return Projection(np.repeat(np.asarray(image)[..., None], 3, axis=2), axis, per_um, edges_um)


def drawn_errors(projection: Projection, traced: Tree, known: Tree | None, unit_um: float) -> Picture:
    """The projection, darkened, with the trees over it: agreed, missed by the trace, in the trace alone."""
    image = Image.fromarray((projection.picture * 0.55).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    if known is None or known.is_empty or traced.is_empty:
        for tree, colour in ((known, MISSED), (traced, AGREED if known is None else EXTRA)):
            if tree is not None and not tree.is_empty:
                _draw(pen, projection, tree, np.zeros(len(tree.edges), dtype=bool), (colour, colour))
    else:
        _draw(pen, projection, known, _far(known, traced, unit_um), (AGREED, MISSED))
        far = _far(traced, known, unit_um)
        _draw(pen, projection, traced, far, (None, EXTRA))
    _scale_bar(pen, projection, image.size)
    return np.asarray(image)


def _far(tree: Tree, other: Tree, unit_um: float) -> NDArray[np.bool_]:
    """Which edges of a tree have their middle farther from the other than what counts as different."""
    child, parent = tree.edges.T
    middles = (tree.points_um[child] + tree.points_um[parent]) * 0.5
    ends = other.edges.T
    return distances(middles, other.points_um[ends[0]], other.points_um[ends[1]]) >= DIFFERENT * unit_um


def _draw(
    pen: ImageDraw.ImageDraw,
    projection: Projection,
    tree: Tree,
    far: NDArray[np.bool_],
    colours: tuple[Rgb | None, Rgb],
) -> None:
    places = projection.places(tree.points_um)
    for (child, parent), is_far in zip(tree.edges, far, strict=True):
        colour = colours[int(is_far)]
        if colour is not None:
            pen.line([*map(float, places[child]), *map(float, places[parent])], fill=colour, width=3 if is_far else 2)


def _scale_bar(pen: ImageDraw.ImageDraw, projection: Projection, size: tuple[int, int]) -> None:
    """A bar of about a sixth of the picture, with its length."""
    wanted = size[0] / 6 / projection.px_per_um
    length = max([one for one in SCALES_UM if one <= wanted], default=SCALES_UM[0])
    left, bottom = 12, size[1] - 12
    pen.rectangle([left, bottom - 4, left + length * projection.px_per_um, bottom], fill=(255, 255, 255))
    pen.text((left, bottom - 26), f"{length} um", fill=(255, 255, 255), font=ImageFont.load_default(size=16))


# -- the page ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NeuronEntry:
    """A volume on the page."""

    volume_id: str
    use: str
    voxel_um: Triple
    shape: Sequence[int]
    traced: Mapping[str, Any]
    """Facts of the trace."""
    scores: Mapping[str, float] = field(default_factory=dict)
    pictures: Mapping[str, str] = field(default_factory=dict)
    """Caption -> path relative to the page."""


@dataclass(frozen=True)
class NeuronPage:
    """Everything the page shows."""

    study: str
    figures: Sequence[tuple[str, str]]
    notices: Sequence[str]
    volumes: Sequence[NeuronEntry]
    loss_chart: str
    """Path relative to the page; blank: no training."""


SCORE_COLUMNS = (
    ("esa", "ESA"),
    ("dsa", "DSA"),
    ("pds", "PDS"),
    ("precision", "precision"),
    ("recall", "recall"),
    ("f1", "F1"),
    ("voxel_f1", "voxel F1"),
    ("voxel_hd95_um", "HD95 um"),
)


def render_neurons(page: NeuronPage) -> bytes:
    """The page; every text from outside is escaped."""
    environment = templates()
    colours = {"agreed": AGREED, "missed by the trace": MISSED, "in the trace alone": EXTRA}
    template = environment.get_template("neurons.html.jinja")
    return template.render(page=page, columns=SCORE_COLUMNS, colours=colours).encode()
