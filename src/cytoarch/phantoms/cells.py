"""The cells of a section, one by one: where they lie, how large and of what shape they are.

A fine grid in the plane of the section holds one candidate cell per square, somewhere in it; a candidate is a cell with
the probability that its layer's density asks for. Everything about a candidate follows from the seed, the section and
the square, so any window finds the same cells without knowing the others.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cytoarch.phantoms.anatomy import REFERENCE_SEED, PhantomBrain
from cytoarch.phantoms.compiling import kernel
from cytoarch.phantoms.kernels import (
    BACKGROUND,
    GREY,
    WHITE,
    Maps,
    area_at,
    column_at,
    laminar_depth,
    layer_at,
    outside,
    tissue_at,
)
from cytoarch.phantoms.sections import PhantomSection
from cytoarch.phantoms.sphere import Float64

WHITE_CELLS = (45e3, 2.7, 1.0, 0.0)
NUCLEUS_CELLS = (85e3, 5.0, 1.2, 0.2)
"""Cells per mm3, mean radius (um), length over width and taper, outside cortex: glia, and a nucleus of medium cells."""
SIZE_SPREAD = 0.18
"""Standard deviation of the logarithm of a cell's radius."""
LARGEST = float(np.exp(SIZE_SPREAD * np.sqrt(6)))
"""Radius of the largest cell over the mean."""
CELL_FIELDS = 10
_SQUARES = 16
"""Squares are skipped in blocks of this many where no tissue can be."""
_CHUNK = 1 << 18
"""Squares looked at before what they hold is put aside."""


class CellTable(NamedTuple):
    """Properties of cells by area (row 0: white matter, last row: nucleus) and layer, as kernels take them."""

    density_per_mm3: Float64
    radius_um: Float64
    elongation: Float64
    taper: Float64


class Cells(NamedTuple):
    """Cells of a section: arrays (n,)."""

    slide_mm: Float64
    """(n, 2) y, x of the middle on the slide."""
    radius_um: Float64
    """Of a disc as large as the cell body, on the slide."""
    layer: NDArray[np.int64]
    """1-6; 0 outside cortex."""
    area: NDArray[np.int64]
    """1-k; 0 in white matter, k + 1 in the nucleus."""
    depth: Float64
    """NaN outside cortex."""


def cell_table(brain: PhantomBrain) -> CellTable:
    """The cell table (k + 2, 6) of a brain."""
    columns = []
    for index, name in enumerate(("density_per_mm3", "radius_um", "elongation", "taper")):
        inside = [getattr(profile, name) for profile in brain.profiles]
        columns.append(np.array([np.full(6, WHITE_CELLS[index]), *inside, np.full(6, NUCLEUS_CELLS[index])]))
    return CellTable(*columns)


@kernel
def scramble(key: np.uint64) -> np.uint64:
    """A well-mixed 64-bit number from another (the finaliser of SplitMix64, Steele et al. 2014)."""
    key = np.uint64(key + np.uint64(0x9E3779B97F4A7C15))
    key = np.uint64((key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9))
    key = np.uint64((key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB))
    return np.uint64(key ^ (key >> np.uint64(31)))


@kernel
def part(bits: np.uint64, number: int) -> float:
    """One of three numbers in [0, 1) held by a 64-bit number."""
    return float((bits >> np.uint64(21 * number)) & np.uint64(0x1FFFFF)) / 2097152.0


@kernel
def _candidate(
    maps: Maps,
    table: CellTable,
    key: np.uint64,
    origin: Float64,
    axes: Float64,
    to_slide: Float64,
    thickness_mm: float,
    pitch_mm: float,
    row: int,
    column: int,
    out: Float64,
) -> int:
    """Fill `out` (10,) with the cell of a square; returns 1, or 0 where the square holds none.

    y, x on the slide (mm), radius (um), direction of the long axis on the slide (y, x), elongation, taper, layer, area
    and depth.
    """
    nucleus = table.density_per_mm3.shape[0] - 1
    per_candidate = thickness_mm * pitch_mm * pitch_mm
    square = scramble(scramble(key + np.uint64(row)) + np.uint64(column))
    down, right = (row + part(square, 0)) * pitch_mm, (column + part(square, 1)) * pitch_mm
    x = origin[0] + down * axes[0, 0] + right * axes[1, 0]
    y = origin[1] + down * axes[0, 1] + right * axes[1, 1]
    z = origin[2] + down * axes[0, 2] + right * axes[1, 2]
    side, tissue, distance, pial, white = tissue_at(maps, x, y, z)
    if tissue == BACKGROUND:
        return 0
    bits = scramble(square)
    layer, depth, size = 1, np.nan, 1.0
    angle = 2.0 * np.pi * part(bits, 2)
    along_y, along_x = np.sin(angle), np.cos(angle)
    if tissue == GREY:
        depth = (pial - distance) / (pial - white)
        cx, cy, cz, fx, fy, fz = column_at(maps, side, x, y, z, depth)
        area = area_at(maps, side, fx, fy, fz)
        layer = layer_at(maps, area, laminar_depth(maps, side, fx, fy, fz, depth))
    else:
        area = 0 if tissue == WHITE else nucleus
    if part(square, 2) >= table.density_per_mm3[area, layer - 1] * per_candidate:
        return 0
    elongation, taper = table.elongation[area, layer - 1], table.taper[area, layer - 1]
    if tissue == GREY:
        # pyramidal cells point to the pial surface; seen from above, where the cut is oblique, they are round
        if side == 0:
            cx = -cx
        length = np.sqrt(cx * cx + cy * cy + cz * cz)
        py = (cx * axes[0, 0] + cy * axes[0, 1] + cz * axes[0, 2]) / length
        px = (cx * axes[1, 0] + cy * axes[1, 1] + cz * axes[1, 2]) / length
        seen = np.sqrt(py * py + px * px)
        wobble = 0.5 * (part(bits, 2) - 0.5)
        py, px = py + wobble * px, px - wobble * py
        sy, sx = to_slide[0, 0] * py + to_slide[0, 1] * px, to_slide[1, 0] * py + to_slide[1, 1] * px
        norm = np.sqrt(sy * sy + sx * sx)
        if norm > 1e-9:
            along_y, along_x = sy / norm, sx / norm
        elongation, taper = 1.0 + (elongation - 1.0) * seen, taper * seen
    size = np.exp(SIZE_SPREAD * np.sqrt(6.0) * (part(bits, 0) + part(bits, 1) - 1.0))
    out[0] = to_slide[0, 0] * down + to_slide[0, 1] * right + to_slide[0, 2]
    out[1] = to_slide[1, 0] * down + to_slide[1, 1] * right + to_slide[1, 2]
    out[2] = table.radius_um[area, layer - 1] * size
    out[3], out[4] = along_y, along_x
    out[5], out[6] = elongation, taper
    out[7], out[8] = (layer if tissue == GREY else 0), area
    out[9] = depth
    return 1


@kernel
def _cells(
    maps: Maps,
    table: CellTable,
    key: np.uint64,
    origin: Float64,
    axes: Float64,
    to_slide: Float64,
    thickness_mm: float,
    pitch_mm: float,
    box: NDArray[np.int64],
    out: Float64,
) -> int:
    """Fill `out` (m, 10) with the cells of a box of squares: rows and columns from, to; returns how many there are."""
    count = 0
    for top in range(box[0], box[1], _SQUARES):
        for left in range(box[2], box[3], _SQUARES):
            down, right = (top + 0.5 * _SQUARES) * pitch_mm, (left + 0.5 * _SQUARES) * pitch_mm
            x = origin[0] + down * axes[0, 0] + right * axes[1, 0]
            y = origin[1] + down * axes[0, 1] + right * axes[1, 1]
            z = origin[2] + down * axes[0, 2] + right * axes[1, 2]
            if outside(maps, x, y, z, _SQUARES * pitch_mm):
                continue
            for row in range(top, min(top + _SQUARES, box[1])):
                for column in range(left, min(left + _SQUARES, box[3])):
                    count += _candidate(
                        maps, table, key, origin, axes, to_slide, thickness_mm, pitch_mm, row, column, out[count]
                    )
    return count


def to_slide(section: PhantomSection) -> Float64:
    """The affine (2, 3) from (down, right, 1) in the section to (y, x) on the slide: the inverse of `to_plane`."""
    inverse = np.linalg.inv(section.to_plane[:, :2])
    return np.concatenate([inverse, -(inverse @ section.to_plane[:, 2])[:, None]], axis=1)


def section_key(section: PhantomSection, purpose: int) -> np.uint64:
    """A number of its own for every brain, section and purpose."""
    seed = section.phantom.settings.seed
    sequence = np.random.SeedSequence([REFERENCE_SEED, purpose, 0 if seed is None else seed + 1, section.number])
    return np.uint64(sequence.generate_state(1, np.uint64)[0])


def drawn_cells(section: PhantomSection, table: CellTable, slide_box_mm: tuple[float, float, float, float]) -> Float64:
    """The cells whose middles may lie in y0, x0, y1, x1 (mm on the slide), as kernels take them."""
    y0, x0, y1, x1 = slide_box_mm
    corners = np.array([[y0, x0, 1], [y0, x1, 1], [y1, x0, 1], [y1, x1, 1]]) @ section.to_plane.T
    thickness_mm = section.phantom.settings.thickness_um / 1000
    pitch_mm = float(1 / np.sqrt(table.density_per_mm3.max() * thickness_mm))
    low = np.floor(corners.min(axis=0) / pitch_mm).astype(np.int64)
    high = np.ceil(corners.max(axis=0) / pitch_mm).astype(np.int64)
    rows = max(_SQUARES, int(_CHUNK // max(1, high[1] - low[1])) // _SQUARES * _SQUARES)
    chunks = [np.empty((0, CELL_FIELDS))]
    for top in range(int(low[0]), int(high[0]), rows):
        box = np.array([top, min(top + rows, high[0]), low[1], high[1]])
        out = np.empty((int((box[1] - box[0]) * (box[3] - box[2])), CELL_FIELDS))
        count = _cells(
            section.phantom.maps, table, section_key(section, 9), section.origin_mm, section.axes, to_slide(section),
            thickness_mm, pitch_mm, box, out,
        )  # fmt: skip
        chunks.append(out[:count].copy())
    return np.concatenate(chunks)


def cells_in(section: PhantomSection, slide_box_mm: tuple[float, float, float, float]) -> Cells:
    """The cells whose middles lie in y0, x0, y1, x1 (mm on the slide), before any damage."""
    drawn = drawn_cells(section, cell_table(section.phantom.brain), slide_box_mm)
    y0, x0, y1, x1 = slide_box_mm
    inside = (drawn[:, 0] >= y0) & (drawn[:, 0] < y1) & (drawn[:, 1] >= x0) & (drawn[:, 1] < x1)
    kept = drawn[inside]
    shrunk = 1 - section.mounting.shrinkage
    return Cells(kept[:, :2], kept[:, 2] * shrunk, kept[:, 7].astype(int), kept[:, 8].astype(int), kept[:, 9])
