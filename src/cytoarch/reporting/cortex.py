"""The picture of the cortex of a section: outline, grey and white matter, depth, the middle and its points."""

import io

import numpy as np
from PIL import Image
from skimage.segmentation import find_boundaries

from cytoarch.anatomy.depth_maps import CORTEX, WHITE_MATTER, DepthMap
from cytoarch.anatomy.points import SectionMidline
from cytoarch.anatomy.ribbons import Float64
from cytoarch.anatomy.tissue import TissueMask
from cytoarch.geometry import Grid
from cytoarch.images.views import StoredImage
from cytoarch.palette import Rgb
from cytoarch.reporting.pictures import OUTLINE, Picture, picture_grid, stain_picture

CORTEX_PX = 900
"""Longer edge of the picture of the stain; the one of depth beside it is as large."""
WHITE_SURFACE: Rgb = (40, 110, 255)
MIDDLE: Rgb = (220, 0, 120)
BANDS = 8
"""Bands of depth that are told apart by colour."""
SHALLOW: Rgb = (255, 236, 170)
DEEP: Rgb = (110, 20, 90)
WHITE_COLOUR: Rgb = (215, 220, 230)
OTHER_COLOUR: Rgb = (165, 175, 160)
"""Of tissue that is neither cortex nor white matter."""
DOT_PX = 2


def cortex_picture(image: StoredImage, tissue: TissueMask, depth: DepthMap, midline: SectionMidline) -> bytes:
    """A PNG: the stain with outline, white surface, middle and points; beside it depth in eight bands.

    Everything is shown as it was scanned: neither flipped nor turned.
    """
    grid = picture_grid(image, CORTEX_PX)
    stain = _drawn(stain_picture(image, CORTEX_PX), tissue, depth, midline, grid)
    bands = _depth_bands(tissue, depth, grid)
    _draw_points(bands, midline, grid)
    shown = Image.fromarray(np.concatenate([stain, np.full((len(stain), 6, 3), 255, np.uint8), bands], axis=1))
    buffer = io.BytesIO()
    shown.save(buffer, format="png")
    return buffer.getvalue()


def _drawn(picture: Picture, tissue: TissueMask, depth: DepthMap, midline: SectionMidline, grid: Grid) -> Picture:
    """The stain with the borders of tissue and white matter, and the middle of the cortex."""
    result = picture.copy()
    result[find_boundaries(tissue.on_grid(grid), mode="thick")] = OUTLINE
    white = depth.codes(grid) > 1
    result[find_boundaries(white, mode="inner")] = WHITE_SURFACE
    for line in midline.lines_um:
        _paint(result, _dense(grid.cells(line)), MIDDLE, 0)
    _draw_points(result, midline, grid)
    return result


def _depth_bands(tissue: TissueMask, depth: DepthMap, grid: Grid) -> Picture:
    """Depth as bands of colour, in white where the slide is bare."""
    at = np.ix_(*grid.nearest_in(depth.grid))
    ribbon, value = depth.ribbon[at], depth.depth[at]
    band = np.clip(np.floor(value * BANDS), 0, BANDS - 1) / (BANDS - 1)
    ramp = (1 - band[..., None]) * np.array(SHALLOW) + band[..., None] * np.array(DEEP)
    result = np.full((*grid.shape, 3), 255, dtype=np.uint8)
    result[tissue.on_grid(grid)] = OTHER_COLOUR
    result[ribbon == WHITE_MATTER] = WHITE_COLOUR
    result[ribbon == CORTEX] = ramp[ribbon == CORTEX].astype(np.uint8)
    return result


def _draw_points(picture: Picture, midline: SectionMidline, grid: Grid) -> None:
    _paint(picture, grid.cells(midline.places_um), (255, 255, 255), DOT_PX + 1)
    _paint(picture, grid.cells(midline.places_um), MIDDLE, DOT_PX)


def _paint(picture: Picture, places: Float64, colour: Rgb, radius: int) -> None:
    """Colour the pixels around places (n, 2)."""
    height, width = picture.shape[:2]
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            if dy**2 + dx**2 > radius**2 + 1:
                continue
            rows, columns = (np.rint(places) + np.array([dy, dx])).astype(np.int64).T
            inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
            picture[rows[inside], columns[inside]] = colour


def _dense(places: Float64) -> Float64:
    """A line with a place in every pixel that it crosses."""
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(places, axis=0), axis=1))])
    at = np.arange(0.0, along[-1], 0.5)
    return np.stack([np.interp(at, along, places[:, axis]) for axis in (0, 1)], axis=1)
