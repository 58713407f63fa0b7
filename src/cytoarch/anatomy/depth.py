"""How deep in the cortex: the Laplace field between its two sides, and depth by volume, in 2D and 3D.

Depth is 0 at the pial and 1 at the white surface. The Laplace field u solves div grad u = 0 in the cortex with u = 0
and u = 1 on its sides (Jones, Buchbinder and Aharon 2000). Layers keep their share of a column's volume where cortex
bends (Bok 1929); depth by volume is that share (Waehnert et al. 2014), counted along the columns of u.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import sparse
from scipy.sparse.linalg import spsolve_triangular

from cytoarch.anatomy.ribbons import Faces, Float64, Int64, Mask, Ribbon, Sides, faces, touching
from cytoarch.errors import SectionError
from cytoarch.settings import Settings

Float32 = NDArray[np.float32]

TOLERANCE = 1e-8
"""Norm of what is left of the equations, relative to their right side."""
ROUNDS = 200
"""Steps of the solver after which a field counts as not found; some 15 are usual."""

DepthKind = Literal["laplace", "equivolumetric"]


class DepthSettings(Settings):
    """How depth in the cortex is measured."""

    kind: DepthKind = Field(
        default="laplace",
        description="laplace: the harmonic field between the sides; equivolumetric: share of the column above.",
    )
    sides: Sides = Field(
        default="outline",
        description="outline: all of the outline is pial surface; block: a piece cut out of a cortex, only what faces "
        "away from the white matter is.",
    )


@dataclass(frozen=True)
class Depth:
    """Depth on the cells of a ribbon."""

    depth: Float32
    """(..., y, x), 0 at the pial to 1 at the white side; 0 outside the cortex."""
    cortex: Mask
    """(..., y, x)."""


def measure_depth(ribbon: Ribbon, kind: DepthKind) -> Depth:
    """The depth of every cell of a ribbon, at its centre. Raises SectionError if it cannot be found."""
    field = laplace(ribbon)
    values = field.depth if kind == "laplace" else equivolumetric(field)
    depth = np.zeros(ribbon.cortex.shape, dtype=np.float32)
    depth[ribbon.cortex] = values
    return Depth(depth, ribbon.cortex)


class LaplaceField(NamedTuple):
    """The harmonic field of a ribbon on its n cells, in the order of `ribbon.cortex`, and the flow it drives."""

    depth: Float64
    """(n,) 0 to 1."""
    lower: Int64
    """(m,) cells below the faces between cells, and"""
    upper: Int64
    """(m,) above them."""
    flow: Float64
    """(m,) volume times difference of depth over squared distance: from lower to upper cells where positive."""
    from_pial: Float64
    """(n,) flow through faces on the pial side, and"""
    to_white: Float64
    """(n,) on the white side."""


def laplace(ribbon: Ribbon) -> LaplaceField:
    """The harmonic field between the sides of a ribbon; nothing flows through cuts.

    Finite volumes: a side lies on the faces of cells, half a cell from their centres, so that the field of a flat
    slab is exact. Solved by conjugate gradients with algebraic multigrid (pyamg). Raises SectionError if it is not
    found within `ROUNDS`.
    """
    cortex, pull = ribbon.cortex, _pulls(ribbon.cell_um)
    number = np.full(cortex.shape, -1, dtype=np.int64)
    number[cortex] = np.arange(int(cortex.sum()))
    lower, upper, weight = _pairs(number, faces(cortex.ndim), pull)
    near = tuple(2 * one for one in pull)  # a side is half a cell away
    pial, white = (touching(cortex, side, near)[cortex] for side in (ribbon.pial, ribbon.white))
    count = len(pial)
    joined = sparse.coo_array((weight, (lower, upper)), shape=(count, count)).tocsr()
    joined = joined + joined.T
    matrix = sparse.csr_array(sparse.diags_array(joined.sum(axis=1) + pial + white) - joined)
    depth = _solved(matrix, white)
    return LaplaceField(depth, lower, upper, weight * (depth[upper] - depth[lower]), pial * depth, white * (1 - depth))


def equivolumetric(field: LaplaceField) -> Float64:
    """The share (n,) of the volume of its column that lies above the middle of every cell, 0 to 1.

    With the flow of the field, which neither starts nor ends within the cortex, volume above is carried downstream:
    div(v grad u) = 1 with v = 0 on the pial side, and below upstream. Of a flat slab it is the depth itself, of a
    ring the share of its area. In a section it is the share of the area of the column that the section shows.
    """
    above = _carried(field, field.depth, field.from_pial)
    below = _carried(field, 1 - field.depth, field.to_white)
    return np.asarray(above / (above + below))


def _pulls(cell_um: tuple[float, ...]) -> tuple[float, ...]:
    """Area of a face over the distance of the cells that meet there, for every axis, in units of the last."""
    return tuple((cell_um[-1] / size) ** 2 for size in cell_um)


def _pairs(number: Int64, between: tuple[Faces, ...], pull: tuple[float, ...]) -> tuple[Int64, Int64, Float64]:
    """The faces between numbered cells: the cells below and above, and how strongly they are joined."""
    found: list[tuple[Int64, Int64, Float64]] = []
    for (below, above), weight in zip(between, pull, strict=True):
        lower, upper = number[below].ravel(), number[above].ravel()
        both = (lower >= 0) & (upper >= 0)
        found.append((lower[both], upper[both], np.full(int(both.sum()), weight)))
    lower, upper, weights = (np.concatenate(part) for part in zip(*found, strict=True))
    return lower, upper, weights


def _solved(matrix: "sparse.csr_array", right: Float64) -> Float64:
    """The solution (n,) of a symmetric positive system."""
    from pyamg import smoothed_aggregation_solver

    matrix.indices, matrix.indptr = matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32)
    solver = smoothed_aggregation_solver(sparse.csr_matrix(matrix), symmetry="symmetric", max_coarse=500)
    residuals: list[float] = []
    solution = solver.solve(right, tol=TOLERANCE, maxiter=ROUNDS, accel="cg", residuals=residuals)
    left = float(np.linalg.norm(right - matrix @ solution) / np.linalg.norm(right))
    if not left <= 10 * TOLERANCE:
        raise SectionError(
            f"the depth of {len(right)} cells was not found in {len(residuals)} rounds (what is left is {left:.1e} of "
            f"the right side, {TOLERANCE:.0e} is needed); check the tissue classes for specks and single rows of cells"
        )
    return np.asarray(np.clip(solution, 0.0, 1.0), dtype=np.float64)


def _carried(field: LaplaceField, potential: Float64, entering: Float64) -> Float64:
    """The volume (n,) upstream of the middle of every cell per unit of flow, where flow goes up the potential.

    Cell by cell in the order of the potential: sum of flow times (v of the cell - v upstream) = volume of the cell.
    """
    ascending = potential[field.upper] > potential[field.lower]
    source = np.where(ascending, field.lower, field.upper)
    sink = np.where(ascending, field.upper, field.lower)
    flow = np.abs(field.flow)
    count = len(potential)
    order = np.argsort(potential, kind="stable")
    rank = np.empty(count, dtype=np.int64)
    rank[order] = np.arange(count)
    arriving = np.bincount(sink, flow, count) + entering
    # where nothing arrives (a corner that no flow passes) the cell is a column of its own
    arriving = np.maximum(arriving, np.finfo(np.float64).tiny ** 0.5 + 1e-12 * arriving.max())
    system = sparse.coo_array((-flow, (rank[sink], rank[source])), shape=(count, count)).tocsr()
    system = sparse.csr_array(system + sparse.diags_array(arriving[order]))
    leaving = spsolve_triangular(system, np.ones(count), lower=True)[rank]
    return np.asarray(leaving - 0.5 / arriving)
