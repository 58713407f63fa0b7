"""How deep in the cortex: the Laplace field between its two sides, depth by length and by volume, in 2D and 3D.

Depth is 0 at the pial and 1 at the white surface. The Laplace field u solves div grad u = 0 in the cortex with u = 0
and u = 1 on its sides (Jones, Buchbinder and Aharon 2000). Its gradient draws columns from side to side. Equidistant
depth is the share of a column's length that lies above (Yezzi and Prince 2003). Layers keep their share of a column's
volume where cortex bends (Bok 1929); depth by volume is that share (Waehnert et al. 2014).
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

DepthKind = Literal["laplace", "equidistant", "equivolumetric"]


class DepthSettings(Settings):
    """How depth in the cortex is measured."""

    kind: DepthKind = Field(
        title="How depth is measured",
        default="laplace",
        description="laplace: the harmonic field between the sides; equidistant: share of the length of its columns; "
        "equivolumetric: share of their volume.",
    )
    sides: Sides = Field(
        title="What is pial surface",
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
    if kind == "laplace":
        values = field.depth
    else:
        values = equidistant(field) if kind == "equidistant" else equivolumetric(field)
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
    axis: Int64
    """(m,) the axis on which the two follow each other."""
    flow: Float64
    """(m,) volume times difference of depth over squared distance: from lower to upper cells where positive."""
    entering: Float64
    """(axes, n) flow through faces on the pial side, and"""
    leaving: Float64
    """(axes, n) on the white side."""
    cell: Float64
    """(axes,) edges of a cell, in units of the last."""

    @property
    def from_pial(self) -> Float64:
        """(n,) flow from the pial side."""
        return np.asarray(self.entering.sum(axis=0))

    @property
    def to_white(self) -> Float64:
        """(n,) flow to the white side."""
        return np.asarray(self.leaving.sum(axis=0))


def laplace(ribbon: Ribbon) -> LaplaceField:
    """The harmonic field between the sides of a ribbon; nothing flows through cuts.

    Finite volumes: a side lies on the faces of cells, half a cell from their centres, so that the field of a flat
    slab is exact. Solved by conjugate gradients with algebraic multigrid (pyamg). Raises SectionError if it is not
    found within `ROUNDS`.
    """
    cortex, pull = ribbon.cortex, _pulls(ribbon.cell_um)
    number = np.full(cortex.shape, -1, dtype=np.int64)
    number[cortex] = np.arange(int(cortex.sum()))
    lower, upper, axis = _pairs(number, faces(cortex.ndim))
    weight = np.asarray(pull)[axis]
    near = 2 * np.diag(pull)  # a side is half a cell away
    pial, white = (
        np.stack([touching(cortex, side, tuple(one))[cortex] for one in near]) for side in (ribbon.pial, ribbon.white)
    )
    count = pial.shape[1]
    joined = sparse.coo_array((weight, (lower, upper)), shape=(count, count)).tocsr()
    joined = joined + joined.T
    matrix = sparse.csr_array(sparse.diags_array(joined.sum(axis=1) + (pial + white).sum(axis=0)) - joined)
    depth = _solved(matrix, white.sum(axis=0))
    flow = weight * (depth[upper] - depth[lower])
    sizes = np.asarray(ribbon.cell_um) / ribbon.cell_um[-1]
    return LaplaceField(depth, lower, upper, axis, flow, pial * depth, white * (1 - depth), sizes)


def equidistant(field: LaplaceField) -> Float64:
    """The share (n,) of the length of its column that lies above the middle of every cell, 0 to 1.

    Lengths grow along the gradient of u by as much as one goes: grad L . grad u = |grad u| with L = 0 on the pial side,
    and likewise from the white side (Yezzi and Prince 2003), upwind. Of a flat slab it is the depth itself; of a ring,
    where u is logarithmic, it is the share of the radius. Cells that no flow reaches keep their u.
    """
    above = _lengths(field, field.depth, field.entering)
    below = _lengths(field, 1 - field.depth, field.leaving)
    whole = above + below
    return np.where(whole > 0, above / np.where(whole > 0, whole, 1), field.depth)


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


def _pairs(number: Int64, between: tuple[Faces, ...]) -> tuple[Int64, Int64, Int64]:
    """The faces between numbered cells: the cells below and above, and the axis."""
    found: list[tuple[Int64, Int64, Int64]] = []
    for axis, (below, above) in enumerate(between):
        lower, upper = number[below].ravel(), number[above].ravel()
        both = (lower >= 0) & (upper >= 0)
        found.append((lower[both], upper[both], np.full(int(both.sum()), axis, dtype=np.int64)))
    lower, upper, axes = (np.concatenate(part) for part in zip(*found, strict=True))
    return lower, upper, axes


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


class _Stream(NamedTuple):
    """The flow up a potential: every face from its source to its sink."""

    source: Int64
    """(m,) cells."""
    sink: Int64
    """(m,) cells."""
    flow: Float64
    """(m,) not negative."""
    order: Int64
    """(n,) cells by their potential."""

    @classmethod
    def up(cls, field: LaplaceField, potential: Float64) -> "_Stream":
        ascending = potential[field.upper] > potential[field.lower]
        source = np.where(ascending, field.lower, field.upper)
        sink = np.where(ascending, field.upper, field.lower)
        return cls(source, sink, np.abs(field.flow), np.argsort(potential, kind="stable"))

    def solved(self, own: Float64, right: Float64) -> Float64:
        """(n,) x with own x - sum of flow times x of the sources = right, cell by cell upwards."""
        count = len(self.order)
        rank = np.empty(count, dtype=np.int64)
        rank[self.order] = np.arange(count)
        system = sparse.coo_array((-self.flow, (rank[self.sink], rank[self.source])), shape=(count, count)).tocsr()
        system = sparse.csr_array(system + sparse.diags_array(own[self.order]))
        return np.asarray(spsolve_triangular(system, right[self.order], lower=True)[rank], dtype=np.float64)


def _above_nothing(arriving: Float64) -> Float64:
    """What arrives, a little where nothing does: a corner that no flow passes is a column of its own."""
    return np.asarray(np.maximum(arriving, np.finfo(np.float64).tiny ** 0.5 + 1e-12 * arriving.max()))


def _lengths(field: LaplaceField, potential: Float64, entering: Float64) -> Float64:
    """The length (n,) of its column upstream of the middle of every cell, in edges of a cell along the last axis."""
    stream, count = _Stream.up(field, potential), len(potential)
    by_axis = np.stack(
        [np.bincount(stream.sink, stream.flow * (field.axis == axis), count) for axis in range(len(entering))]
    )
    steep = np.sqrt((((by_axis + entering) * field.cell[:, None]) ** 2).sum(axis=0))
    # a side is half a cell away: what enters there counts twice
    return stream.solved(_above_nothing((by_axis + 2 * entering).sum(axis=0)), steep)


def _carried(field: LaplaceField, potential: Float64, entering: Float64) -> Float64:
    """The volume (n,) upstream of the middle of every cell per unit of flow, where flow goes up the potential.

    Sum of flow times (v of the cell - v upstream) = volume of the cell.
    """
    stream, count = _Stream.up(field, potential), len(potential)
    arriving = _above_nothing(np.bincount(stream.sink, stream.flow, count) + entering)
    return np.asarray(stream.solved(arriving, np.ones(count)) - 0.5 / arriving)
