"""The layers of a section in napari: scan, what the store knows of it, the decoder's map, its confidence, scribbles.

World coordinates are um. Flips and rotations that the manifest states are an affine of the layers, for display alone:
everything that is drawn goes back to pixels of the section's image.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dask.array as da
import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels, Shapes
from napari.utils import Colormap, DirectLabelColormap
from napari.utils.colormaps import AVAILABLE_COLORMAPS
from numpy.typing import NDArray

from cytoarch.annotations.exchange import shapes_of
from cytoarch.annotations.scribbles import RUBBER, Scribble
from cytoarch.brains import Label, Section
from cytoarch.geometry import Grid, Transform, scan_corner_to_section
from cytoarch.images.views import StoredImage
from cytoarch.interactive.regions import Layout
from cytoarch.interactive.showing import Known
from cytoarch.interactive.views import Seen
from cytoarch.palette import Rgb, class_colours

SCAN, MAP, CONFIDENCE, SCRIBBLES = "scan", "map", "confidence", "scribbles"
RUBBED: Rgb = (128, 128, 128)
MAP_OPACITY = 0.45
THINNED_PX = 1024
"""Longest edge of the coarsest level of a map that is shown."""


def upright(section: Section, grid: Grid) -> NDArray[np.float64]:
    """The affine (3, 3) from (y, x) um in the frame of a section to the world, turned as the manifest states."""
    centre = grid.centre_um
    about = Transform.shift((-centre[0], -centre[1])).then(Transform.orientation(section.flip, section.rotation))
    placed = about.then(Transform.shift(centre))
    return np.vstack([np.array(placed.matrix), [0.0, 0.0, 1.0]])


def pixels_of(image: StoredImage) -> tuple[list[Any], bool]:
    """The levels of an image as dask arrays, finest first, and whether they are in colour (y, x, 3)."""
    as_dask: Callable[..., Any] = da.from_array  # dask leaves it untyped
    levels = [as_dask(level.array, chunks=level.array.chunks) for level in image.levels]
    if levels[0].ndim == 3 and levels[0].shape[0] == 3:
        return [da.moveaxis(one, 0, -1) for one in levels], True
    return [one[0] if one.ndim == 3 else one for one in levels], False


def colours_by_id(labels: Sequence[Label]) -> dict[int, Rgb]:
    """The colour of every class."""
    return dict(zip((one.id for one in labels), class_colours(labels), strict=True))


class SectionLayers:
    """The layers of the section that is shown."""

    def __init__(self, viewer: ViewerModel, section: Section, layout: Layout, cells_per_token: int) -> None:
        self.viewer, self.section, self.layout = viewer, section, layout
        self.affine = upright(section, layout.image.grid)
        image = layout.image
        levels, rgb = pixels_of(image)
        self.scan: Image = viewer.add_image(
            levels if len(levels) > 1 else levels[0],
            multiscale=len(levels) > 1,
            rgb=rgb,
            name=SCAN,
            **self._place(image.grid),
        )
        self.cells = layout.tokens.split(cells_per_token)
        shown = self._place(self.cells)
        self.found = np.zeros(self.cells.shape, dtype=np.uint32)
        """(y, x) ids of the classes that the map shows."""
        self.sure = np.zeros(self.cells.shape, dtype=np.float32)
        """(y, x) in [0, 1]: how sure the model is."""
        levels = _thinned(self.found)
        self.map: Labels = viewer.add_labels(
            levels if len(levels) > 1 else levels[0], multiscale=len(levels) > 1,
            name=MAP, opacity=MAP_OPACITY, **shown,
        )  # fmt: skip
        self.map.editable = False
        levels = _thinned(self.sure)
        self.confidence: Image = viewer.add_image(
            levels if len(levels) > 1 else levels[0], multiscale=len(levels) > 1,
            name=CONFIDENCE, colormap=_sureness(), contrast_limits=(0, 1), visible=False, opacity=0.7, **shown,
        )  # fmt: skip
        self.scribbles: Shapes = viewer.add_shapes(name=SCRIBBLES, ndim=2, **self._place(image.grid))
        self.scribbles.editable = False
        self._drawn: list[Scribble] = []
        self._colours: dict[int, Rgb] = {}
        self._map_colours: dict[int, Rgb] = {}

    def add_known(self, known: Known) -> None:
        """Show an image of the store beside the scan, hidden at first; with labels it is a label map."""
        levels, rgb = pixels_of(known.image)
        data = levels if len(levels) > 1 else levels[0]
        shown = {"name": known.name, "visible": False, **self._place(known.image.grid)}
        if known.labels:
            layer = self.viewer.add_labels(data, opacity=MAP_OPACITY, **shown)
            layer.colormap = _colormap(colours_by_id(known.labels))
        else:
            layer = self.viewer.add_image(data, multiscale=len(levels) > 1, rgb=rgb, **shown)
        self.viewer.layers.move(self.viewer.layers.index(layer), 1)

    def set_opacity(self, percent: int) -> None:
        """How strongly the map covers the scan."""
        self.map.opacity = percent / 100

    def show_confidence(self, shown: bool) -> None:
        """Show how sure the model is, or hide it."""
        self.confidence.visible = bool(shown)

    def remove(self) -> None:
        """Take all layers away."""
        self.viewer.layers.clear()

    def paint(self, seen: Seen) -> None:
        """Show a part of the map."""
        y, x = seen.at
        height, width = seen.labels.shape
        window = slice(y, y + height), slice(x, x + width)
        self.found[window] = seen.labels
        self.sure[window] = seen.confidence
        self._refresh()

    def clear_map(self) -> None:
        """Show no map."""
        self.found.fill(0)
        self.sure.fill(0)
        self._refresh()

    def _refresh(self) -> None:
        for layer in (self.map, self.confidence):
            layer.refresh(extent=False, highlight=False)

    def in_view(self) -> tuple[int, int, int, int]:
        """Which of the map's cells (y, x, height, width) the canvas shows; none high or wide: it shows none."""
        factor = self.map.downsample_factors[self.map.data_level]
        first, last = np.asarray(self.map.corner_pixels, dtype=np.float64)
        top, left = np.floor(first * factor).astype(np.int64).tolist()
        bottom, right = np.minimum(np.ceil((last + 1) * factor), self.cells.shape).astype(np.int64).tolist()
        alone = (last <= first).any()  # there is no canvas, or the section lies beside it
        return (top, left, 0, 0) if alone else (top, left, bottom - top, right - left)

    def colour(self, labels: Sequence[Label]) -> None:
        """Give the map the colours of its classes."""
        colours = colours_by_id(labels)
        if colours != self._map_colours:
            self.map.colormap = _colormap(colours)
        self._map_colours = colours

    def show_scribbles(self, scribbles: Sequence[Scribble], labels: Sequence[Label]) -> None:
        """Show what is drawn on the section, in the colours of the classes; only what is new is drawn anew."""
        colours, drawn = {RUBBER: RUBBED, **colours_by_id(labels)}, list(scribbles)
        before, kept = self._drawn, min(len(self._drawn), len(drawn))
        with self.scribbles.events.data.blocker():
            if colours != self._colours or before[:kept] != drawn[:kept]:
                self.scribbles.data, kept = [], 0
            elif len(before) > kept:
                self.scribbles.remove(list(range(kept, len(before))))
            self._add_scribbles(drawn[kept:], colours)
        self._drawn, self._colours = drawn, colours

    def _add_scribbles(self, scribbles: Sequence[Scribble], colours: Mapping[int, Rgb]) -> None:
        # napari counts from the centre of the section's first pixel, scribbles from the corner of the scan's
        grid = self.layout.image.grid
        to_um = scan_corner_to_section(grid, self.section.region_px)
        shapes = shapes_of(scribbles, to_um.then(grid.transform.inverse()))
        if not shapes.data:
            return
        edges = [[part / 255 for part in colours[one]] for one in shapes.label]
        filled = [0.0 if kind == "path" else 0.35 for kind in shapes.shape_type]
        faces = [[*edge, alpha] for edge, alpha in zip(edges, filled, strict=True)]
        self.scribbles.add(
            shapes.data, shape_type=shapes.shape_type, edge_width=shapes.edge_width,
            edge_color=np.array(edges), face_color=np.array(faces),
        )  # fmt: skip

    def to_section_px(self, world: Sequence[float]) -> NDArray[np.float64]:
        """A place (y, x) in the world as pixels of the section's image, zero at the corner of the first one."""
        um = np.linalg.inv(self.affine) @ np.array([*world[-2:], 1.0])
        return self.layout.image.grid.from_corner(um[:2])

    def to_world(self, place_px: Sequence[float]) -> NDArray[np.float64]:
        """The way back."""
        grid = self.layout.image.grid
        um = np.array(place_px) * grid.cell_um + np.array(grid.corner_um)
        return np.asarray((self.affine @ np.array([*um, 1.0]))[:2])

    def _place(self, grid: Grid) -> dict[str, Any]:
        scale, units = (grid.cell_um, grid.cell_um), ("um", "um")
        return {"scale": scale, "translate": grid.origin_um, "affine": self.affine, "units": units}


def _thinned(cells: NDArray[Any]) -> list[NDArray[Any]]:
    """The same cells (y, x), and every second, fourth, ... of them: views, so that what is drawn costs what is seen."""
    levels = [cells]
    while max(levels[-1].shape) > THINNED_PX:
        levels.append(levels[-1][::2, ::2])
    return levels


def _sureness() -> Colormap:
    """Dark where the model wavers, bright where it is sure, nothing where it says nothing."""
    shades = AVAILABLE_COLORMAPS["viridis"].colors.copy()
    shades[0, 3] = 0
    return Colormap(shades, name="sureness")


def _colormap(colours: dict[int, Rgb]) -> DirectLabelColormap:
    shades: dict[int | None, Any] = {one: np.array([*rgb, 255]) / 255 for one, rgb in colours.items()}
    return DirectLabelColormap(color_dict={None: np.zeros(4), 0: np.zeros(4), **shades})
