"""Pictures of sections: the stain with the tissue outlined, maps as colours, maps over the stain."""

import io
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.segmentation import find_boundaries
from skimage.transform import rotate

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.geometry import Grid, first_around
from cytoarch.images.views import StoredImage, intensity_range
from cytoarch.palette import Rgb

Float32 = NDArray[np.float32]
Picture = NDArray[np.uint8]
"""(y, x, 3)"""

OUTLINE: Rgb = (255, 140, 0)
HATCH: Rgb = (25, 25, 25)
HATCH_PX, HATCH_LINE_PX = 7, 2
"""From one slanting line to the next, and the width of one."""
ROWS_AT_ONCE = 32
HALF = 127
"""Share of tissue in a pixel (of 255) above which it is shown."""
PICTURE_PX = 560
"""Longer edge of a picture."""


def picture_grid(image: StoredImage, longest_px: int = PICTURE_PX) -> Grid:
    """Where the pixels of a section's pictures lie."""
    height_um, width_um = image.extent_um
    size_um = max(height_um, width_um) / longest_px
    shape = max(1, round(height_um / size_um)), max(1, round(width_um / size_um))
    return Grid.at_corner(shape, size_um, image.grid.corner_um)


def stain_picture(image: StoredImage, longest_px: int = PICTURE_PX) -> Picture:
    """The section as it looks: RGB as scanned, other scans as the grey of their first channel, contrast stretched."""
    grid = picture_grid(image, longest_px)
    return _as_seen(image, image.on(grid).read(0, 0, *grid.shape))


def patch_picture(image: StoredImage, centre_um: tuple[float, float], edge_um: float, edge_px: int) -> Picture:
    """A square of a section around a place (y, x) um, as `stain_picture` shows it; mirrored beyond the scan."""
    view = image.at(edge_um / edge_px)
    y, x = view.grid.from_corner(np.array(centre_um)).tolist()
    return _as_seen(image, view.read(first_around(y, edge_px), first_around(x, edge_px), edge_px, edge_px))


def _as_seen(image: StoredImage, pixels: Float32) -> Picture:
    """Pixels (c, y, x) of a section in the colours of its pictures."""
    if image.attributes.get("kind") == "rgb":
        return np.moveaxis(np.clip(pixels / _white(image) * 255, 0, 255).astype(np.uint8), 0, -1)
    low, high = intensity_range(image)[0]
    grey = np.clip((pixels[0] - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def _white(image: StoredImage) -> float:
    dtype = image.levels[0].array.dtype
    return 255.0 if dtype.itemsize == 1 else 65535.0


def outlined(picture: Picture, tissue: TissueMask, grid: Grid) -> Picture:
    """The picture, which lies on `grid`, with the border of the tissue drawn on it."""
    result = picture.copy()
    result[find_boundaries(tissue.on_grid(grid), mode="thick")] = OUTLINE
    return result


def colour_picture(colours: StoredImage, grid: Grid) -> Picture:
    """An RGB map of the store on a picture's grid."""
    return np.moveaxis(colours.on(grid).read(0, 0, *grid.shape).astype(np.uint8), 0, -1)


def label_values(labels: StoredImage, grid: Grid) -> NDArray[np.int64]:
    """The label values at the centres of a picture's pixels. Raises SectionError if the labels are damaged."""
    level = labels.level_for(grid.cell_um)
    return level.pixels()[np.ix_(*grid.nearest_in(level.grid))].astype(np.int64)


def painted(values: NDArray[np.int64], colours: Mapping[int, Rgb], ground: Rgb = (255, 255, 255)) -> Picture:
    """Label values in their colours; value 0 in the ground colour."""
    used, at = np.unique(values, return_inverse=True)
    shown = [ground if value == 0 else colours.get(value, (0, 0, 0)) for value in used.tolist()]
    return np.array(shown, dtype=np.uint8).reshape(-1, 3)[at.reshape(values.shape)]


def overlaid(picture: Picture, values: NDArray[np.int64], colours: Mapping[int, Rgb], opacity: float = 0.6) -> Picture:
    """Labels in colour over a picture, with their borders; where the value is 0 the picture shows as it is."""
    colour = painted(values, colours)
    blend = (picture * (1 - opacity) + colour * opacity).astype(np.uint8)
    result = np.where((values > 0)[..., None], blend, picture)
    borders = find_boundaries(values, mode="inner") & (values > 0)
    result[borders] = (colour * 0.8).astype(np.uint8)[borders]
    return np.asarray(result, dtype=np.uint8)


class Certainty(NamedTuple):
    """How sure a map is at the pixels of a picture (y, x); NaN outside tissue."""

    top: Float32
    """The probability of the most probable class."""
    margin: Float32
    """How far that is ahead of the next."""


def certainty(confidence: StoredImage, grid: Grid) -> Certainty:
    """How sure a map is, from its confidence (4, y, x) uint8; read a few rows at a time."""
    view, (height, width) = confidence.on(grid), grid.shape
    top, margin = (np.full(grid.shape, np.nan, dtype=np.float32) for _ in range(2))
    for row in range(0, height, ROWS_AT_ONCE):
        rows = slice(row, min(row + ROWS_AT_ONCE, height))
        tissue, best, lead, _ = view.read(row, 0, rows.stop - row, width)
        shown = tissue > HALF
        for result, plane in ((top, best), (margin, lead)):
            result[rows][shown] = plane[shown] / tissue[shown]
    return Certainty(top, margin)


def confidence_picture(top: Float32, classes: int) -> Picture:
    """The probability of the most probable of so many classes, from chance (dark) to 1 (bright); white outside."""
    from matplotlib import colormaps

    scaled = np.clip((np.nan_to_num(top) - 1 / classes) / max(1 - 1 / classes, 1e-6), 0, 1)
    picture = (colormaps["viridis"](scaled)[..., :3] * 255).astype(np.uint8)
    picture[np.isnan(top)] = 255
    return np.asarray(picture)


def hatched(picture: Picture, where: NDArray[np.bool_]) -> Picture:
    """The picture with slanting dark lines where (y, x) something is to be looked at twice."""
    rows, columns = np.indices(where.shape)
    lines = (rows + columns) % HATCH_PX < HATCH_LINE_PX
    result = picture.copy()
    result[where & lines] = HATCH
    return result


def oriented(picture: Picture, flip: str, rotation_degrees: float) -> Picture:
    """The picture in anatomical orientation: mirrored as stated, then turned counter-clockwise."""
    if flip == "horizontal":
        picture = picture[:, ::-1]
    elif flip == "vertical":
        picture = picture[::-1]
    if rotation_degrees % 90 == 0:
        return np.ascontiguousarray(np.rot90(picture, int(rotation_degrees // 90) % 4))
    turned = rotate(picture, rotation_degrees, resize=True, cval=255, preserve_range=True)
    return np.asarray(turned, dtype=np.uint8)


def png(picture: NDArray[np.uint8]) -> bytes:
    """The picture, which may have a fourth channel that says how opaque it is, as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=False)
    return buffer.getvalue()


def see_through(picture: Picture, where: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The picture (y, x, 4), shown only where (y, x) there is something to show: to be laid over another."""
    return np.concatenate([picture, np.where(where, 255, 0).astype(np.uint8)[..., None]], axis=-1)


def webp(picture: Picture) -> bytes:
    """The picture as a WebP file, a tenth of a PNG where it shows a scan."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="WEBP", quality=80, method=4)
    return buffer.getvalue()
