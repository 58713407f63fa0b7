"""A section as its scan: any window of it, at any pixel size, the same bits whatever window it is asked for in."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cytoarch.phantoms.cells import (
    LARGEST,
    CellTable,
    cell_table,
    drawn_cells,
    part,
    scramble,
    section_key,
)
from cytoarch.phantoms.compiling import keep_kernels, kernel
from cytoarch.phantoms.damage import across, blurred, mirrored, torn, touching
from cytoarch.phantoms.kernels import NUCLEUS, WHITE, Maps, outside, tissue_at
from cytoarch.phantoms.sections import PhantomSection, Stain, Window, check_pixel_size
from cytoarch.phantoms.sphere import Float64
from cytoarch.tiling import partition

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]

BLUR_UM = 7.0
"""Standard deviation of the blur in the middle of a band out of focus."""
GRAIN, GRAIN_MM = 0.45, 0.006
"""Unevenness of what lies between cells: share of its absorbance, and how coarse it is."""
SMALL_PX = 0.6
"""Cells of a smaller radius are spread over the four nearest pixels."""
_BLOCK_PX = 1024
_ONE = 1 << 20
"""Absorbance is summed over cells in fixed point, so that their order does not matter to a single bit."""


@dataclass(frozen=True)
class StainLook:
    """How a stain looks under its microscope."""

    cell: float
    """Share of the light that a cell body takes (brightfield) or gives (fluorescence)."""
    body: float
    """Radius of what is stained over that of the cell body: a nuclear stain shows the nucleus only."""
    shape: float
    """How much of the elongation and taper of cell bodies is seen."""
    cell_colour: tuple[float, ...]
    """Absorbance of cells by channel."""
    neuropil: tuple[float, float, float]
    """Absorbance of what lies between cells in grey matter, white matter and the nucleus."""
    neuropil_colour: tuple[float, ...]
    """The same by channel, relative."""
    full: float
    """Value of full light."""
    bright: bool
    """Whether cells are bright on a dark ground."""
    dtype: type[np.unsignedinteger]


LOOKS: dict[Stain, StainLook] = {
    "silver": StainLook(0.86, 1.0, 1.0, (1.0,), (0.20, 0.16, 0.20), (1.0,), 255, False, np.uint8),
    "nissl": StainLook(0.80, 1.0, 1.0, (0.66, 1.0, 0.30), (0.16, 0.09, 0.16), (0.45, 1.0, 0.40), 255, False, np.uint8),
    "dapi": StainLook(0.75, 0.7, 0.3, (1.0,), (0.06, 0.05, 0.06), (1.0,), 4095, True, np.uint16),
}


@kernel
def _grain(key: np.uint64, y: float, x: float) -> float:
    """Smooth noise in [-1, 1]: random numbers at whole places, blended between."""
    top, left = int(np.floor(y)), int(np.floor(x))
    down, right = y - top, x - left
    value = 0.0
    for row in (0, 1):
        line = key + np.uint64(top + row) * np.uint64(0xD1B54A32D192ED03)
        for column in (0, 1):
            draw = 2.0 * part(scramble(line + np.uint64(left + column)), 0) - 1.0
            value += draw * (down if row else 1.0 - down) * (right if column else 1.0 - right)
    return value


@kernel
def _neuropil(
    maps: Maps,
    to_brain: Float64,
    tears: Float64,
    all_tears: Float64,
    folds: Float64,
    shades: Float64,
    key: np.uint64,
    corner: NDArray[np.int64],
    pixel_mm: float,
    out: Float32,
    intact: Float32,
) -> None:
    """Absorbance between cells (h, w), and what share of every pixel is tissue that is not torn (h, w)."""
    # scalars, which the compiler keeps in registers; it must reread arrays after every store
    xy, xx, x0 = to_brain[0, 0], to_brain[0, 1], to_brain[0, 2]
    yy, yx, y0 = to_brain[1, 0], to_brain[1, 1], to_brain[1, 2]
    zy, zx, z0 = to_brain[2, 0], to_brain[2, 1], to_brain[2, 2]
    grey, white_matter, nucleus = shades[0], shades[1], shades[2]
    top, left = corner[0], corner[1]
    grain = GRAIN * min(1.0, GRAIN_MM / pixel_mm)
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            slide_y, slide_x = (top + row + 0.5) * pixel_mm, (left + column + 0.5) * pixel_mm
            total, share = 0.0, 0.0
            if not torn(tears, slide_y, slide_x):
                for sheet in range(folds.shape[0] + 1):
                    y, x = slide_y, slide_x
                    if sheet:
                        distance, half = across(folds[sheet - 1], y, x)
                        if not 0.0 < distance < half:
                            continue
                        y, x = mirrored(folds[sheet - 1], y, x, distance)
                        if torn(all_tears, y, x):
                            continue
                    bx, by, bz = xy * y + xx * x + x0, yy * y + yx * x + y0, zy * y + zx * x + z0
                    if outside(maps, bx, by, bz, pixel_mm):
                        continue
                    _, tissue, radius, pial, _ = tissue_at(maps, bx, by, bz)
                    covered = min(max((pial - radius) / pixel_mm + 0.5, 0.0), 1.0)
                    if covered > 0.0:
                        shade = white_matter if tissue == WHITE else nucleus if tissue == NUCLEUS else grey
                        total += shade * covered * (1.0 + grain * _grain(key, y / GRAIN_MM, x / GRAIN_MM))
                        share = max(share, covered)
            out[row, column], intact[row, column] = total, share


@kernel
def _stamp(
    cells: Float64,
    opacity: float,
    scale: float,
    shape: float,
    corner: NDArray[np.int64],
    pixel_um: float,
    out: Int32,
) -> None:
    """Add the absorbance of cells (m, 10) to pixels; `scale` is the size of what is stained on the slide."""
    height, width = out.shape
    for index in range(cells.shape[0]):
        y, x = cells[index, 0] * 1000 / pixel_um - corner[0], cells[index, 1] * 1000 / pixel_um - corner[1]
        radius = cells[index, 2] * scale / pixel_um
        # cells differ a little in how dark they are; the last digits of the position serve as the draw
        dark = opacity * (0.85 + 0.3 * (cells[index, 0] * 1e5 % 1.0))
        if radius < SMALL_PX:
            # smaller than a pixel: the covered share goes to the four nearest pixels
            y, x = y - 0.5, x - 0.5
            top, left = int(np.floor(y)), int(np.floor(x))
            down, right, share = y - top, x - left, np.pi * radius * radius
            for row in (0, 1):
                for column in (0, 1):
                    if 0 <= top + row < height and 0 <= left + column < width:
                        covered = min(share * (down if row else 1 - down) * (right if column else 1 - right), 1.0)
                        out[top + row, left + column] += int(-np.log(1.0 - covered * dark) * _ONE + 0.5)
            continue
        soft = 1.0 / (1.0 + 1.0 / (12.0 * radius * radius))  # a disc with a soft edge is larger by this
        stretch = np.sqrt(1.0 + (cells[index, 5] - 1.0) * shape)
        along, aside = radius * stretch, radius / stretch
        ty, tx, taper = cells[index, 3], cells[index, 4], 0.45 * cells[index, 6] * shape
        reach = along * 1.3 + 1.0
        for row in range(max(0, int(y - reach)), min(height, int(y + reach) + 2)):
            for column in range(max(0, int(x - reach)), min(width, int(x + reach) + 2)):
                dy, dx = row + 0.5 - y, column + 0.5 - x
                a, b = (dy * ty + dx * tx) / along, (dx * ty - dy * tx) / aside
                # narrower towards the tip, wider at the base: an ellipse becomes a pyramid
                b *= 1.0 + taper * a
                covered = 0.5 + (1.0 - np.sqrt(a * a + b * b)) * radius
                if covered > 0.0:
                    out[row, column] += int(-np.log(1.0 - min(covered, 1.0) * soft * dark) * _ONE + 0.5)


@kernel
def _double(cells: Float64, folds: Float64, tears: Float64, out: Float64) -> int:
    """The cells (m, 10) that a fold shows a second time, at their mirrored places; returns how many there are."""
    count = 0
    for index in range(cells.shape[0]):
        if torn(tears, cells[index, 0], cells[index, 1]):
            continue
        for fold in range(folds.shape[0]):
            distance, _ = across(folds[fold], cells[index, 0], cells[index, 1])
            y, x = mirrored(folds[fold], cells[index, 0], cells[index, 1], distance)
            back, half = across(folds[fold], y, x)
            if 0.0 < back < half:
                out[count] = cells[index]
                out[count, 0], out[count, 1] = y, x
                # mirrored across the middle line, whose direction is (sine, cosine) in (y, x)
                sine, cosine = np.sin(folds[fold, 2]), np.cos(folds[fold, 2])
                along = cells[index, 3] * sine + cells[index, 4] * cosine
                out[count, 3] = 2.0 * along * sine - cells[index, 3]
                out[count, 4] = 2.0 * along * cosine - cells[index, 4]
                count += 1
    return count


@kernel
def _light(
    cells: Int32,
    neuropil: Float32,
    intact: Float32,
    corner: NDArray[np.int64],
    middle_px: Float64,
    half_px: Float64,
    look: Float64,
    gradient: Float64,
    out: Float32,
) -> None:
    """The light (h, w) of one channel, 0 to 1; `look` holds cell and neuropil colour, gain, offset, gamma, bright."""
    cell_colour, neuropil_colour, gain, offset, gamma, bright = look
    for row in range(out.shape[0]):
        v = (corner[0] + row + 0.5 - middle_px[0]) / half_px[0]
        for column in range(out.shape[1]):
            u = (corner[1] + column + 0.5 - middle_px[1]) / half_px[1]
            lamp = 1.0 + gradient[0] * v + gradient[1] * u + gradient[2] * (0.5 * (u * u + v * v) - 0.33)
            stained = cells[row, column] / _ONE * cell_colour * intact[row, column]
            absorbed = gain * (stained + neuropil_colour * (neuropil[row, column] + offset * intact[row, column]))
            passed = np.exp(-absorbed)
            value = 0.03 + 0.85 * (1.0 - passed) if bright else 0.94 * passed
            out[row, column] = min(max(lamp * value, 0.0), 1.0) ** gamma


@kernel
def _focus(light: Float32, soft: Float32, blurs: Float64, corner: NDArray[np.int64], pixel_mm: float) -> None:
    """Replace light by its blurred self where a band is out of focus."""
    for row in range(light.shape[0]):
        for column in range(light.shape[1]):
            share = blurred(blurs, (corner[0] + row + 0.5) * pixel_mm, (corner[1] + column + 0.5) * pixel_mm)
            light[row, column] += share * (soft[row, column] - light[row, column])


@kernel
def _expose(
    light: Float32, key: np.uint64, corner: NDArray[np.int64], full: float, noise: float, out: NDArray[np.uint16]
) -> None:
    """Grey levels (h, w) with the camera's noise, which belongs to the pixel wherever the window begins."""
    for row in range(out.shape[0]):
        line = scramble(key + np.uint64(corner[0] + row))
        for column in range(out.shape[1]):
            bits = scramble(line + np.uint64(corner[1] + column))
            draw = (part(bits, 0) + part(bits, 1) + part(bits, 2) - 1.5) * 2.0  # mean 0, variance 1
            value = light[row, column] * full + noise * draw + 0.5
            out[row, column] = int(min(max(value, 0.0), full))


def render(section: PhantomSection, window: Window, pixel_size_um: float) -> NDArray[np.unsignedinteger]:
    """The pixels of a window of the scan: (height, width) or, for nissl, (height, width, 3); uint8, dapi uint16.

    A window may reach past the slide, which is bare there. Memory beyond the result is that of one block of 1024 px.
    """
    keep_kernels()
    check_pixel_size(pixel_size_um)
    look = LOOKS[section.phantom.settings.stain]
    table = cell_table(section.phantom.brain)
    out = np.empty((window.height, window.width, len(look.cell_colour)), look.dtype)
    for y, x, height, width in partition(window.height, window.width, _BLOCK_PX):
        block = Window(window.y + y, window.x + x, height, width)
        out[y : y + height, x : x + width] = _block(section, look, table, block, pixel_size_um)
    return out if len(look.cell_colour) > 1 else out[..., 0]


def _block(
    section: PhantomSection, look: StainLook, table: CellTable, window: Window, pixel_size_um: float
) -> NDArray[np.unsignedinteger]:
    """`render` of one block (h, w, c)."""
    staining, pixel_mm = section.phantom.staining, pixel_size_um / 1000
    blurs = touching(section.damage.blurs, *_disc_mm(window, pixel_mm))
    sigma = BLUR_UM / pixel_size_um
    halo = int(np.ceil(4 * sigma)) if len(blurs) else 0
    wide = Window(window.y - halo, window.x - halo, window.height + 2 * halo, window.width + 2 * halo)
    corner, inner = np.array(wide[:2]), np.array(window[:2])
    absorbed = _absorbed(section, look, table, wide, pixel_size_um)
    middle_px, half_px = np.array(section.middle_mm) / pixel_mm, np.array(section.phantom.field_mm) / 2 / pixel_mm
    gain = staining.gain * section.mounting.gain
    noise = section.phantom.settings.nuisances.noise * look.full / 255
    out = np.empty((window.height, window.width, len(look.cell_colour)), look.dtype)
    for channel, colours in enumerate(zip(look.cell_colour, look.neuropil_colour, strict=True)):
        light = np.empty((wide.height, wide.width), np.float32)
        optics = np.array([*colours, gain, staining.offset, staining.gamma, float(look.bright)])
        _light(*absorbed, corner, middle_px, half_px, optics, np.array(staining.gradient), light)
        if halo:
            _focus(light, ndimage.gaussian_filter(light, sigma, truncate=4.0), blurs, corner, pixel_mm)
        light = np.ascontiguousarray(light[halo : halo + window.height, halo : halo + window.width])
        levels = np.empty(light.shape, np.uint16)
        _expose(light, section_key(section, 10 + channel), inner, look.full, noise, levels)
        out[..., channel] = levels
    return out


def _disc_mm(window: Window, pixel_mm: float) -> tuple[tuple[float, float], float]:
    """Middle (y, x) and radius on the slide of the disc around a window."""
    middle = ((window.y + window.height / 2) * pixel_mm, (window.x + window.width / 2) * pixel_mm)
    return middle, float(np.hypot(window.height, window.width)) / 2 * pixel_mm


def _absorbed(
    section: PhantomSection, look: StainLook, table: CellTable, window: Window, pixel_size_um: float
) -> tuple[Int32, Float32, Float32]:
    """Absorbance of cells (fixed point) and of what lies between them, and the share of tissue, each (h, w)."""
    mounting, pixel_mm, corner = section.mounting, pixel_size_um / 1000, np.array(window[:2])
    shape = (window.height, window.width)
    tears, folds = (touching(bands, *_disc_mm(window, pixel_mm)) for bands in section.damage[:2])
    all_tears = section.damage.tears
    cells, neuropil, intact = np.zeros(shape, np.int32), np.empty(shape, np.float32), np.empty(shape, np.float32)
    shades, key = np.array(look.neuropil), section_key(section, 13)
    _neuropil(
        section.phantom.maps, section.to_brain, tears, all_tears, folds, shades, key, corner, pixel_mm, neuropil, intact
    )
    if intact.any():
        reach_mm = 2 * LARGEST * float(table.radius_um.max()) / 1000 + 2 * pixel_mm
        if len(folds):
            reach_mm += float(4 * (folds[:, 4] + folds[:, 5]).max())  # cells beyond the fold are seen in it
        low, high = corner * pixel_mm - reach_mm, (corner + shape) * pixel_mm + reach_mm
        drawn = drawn_cells(section, table, (low[0], low[1], high[0], high[1]))
        doubled = np.empty((len(drawn) * len(folds), drawn.shape[1]))
        doubled = doubled[: _double(drawn, folds, all_tears, doubled)]
        for some in (drawn, doubled):
            _stamp(some, look.cell, look.body * (1 - mounting.shrinkage), look.shape, corner, pixel_size_um, cells)
    return cells, neuropil, intact
