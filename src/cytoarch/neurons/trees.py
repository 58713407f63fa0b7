"""Traced neurons as values: nodes, their radii, and to which other node each is joined."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cytoarch.errors import ScanError

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Triple = tuple[float, float, float]

ROOT = -1
"""The parent of a node that has none."""
UNDEFINED, SOMA, AXON, DENDRITE = 0, 1, 2, 3
"""Kinds of nodes, as SWC counts them."""


@dataclass(frozen=True)
class Tree:
    """Nodes joined to their parents. With several roots it is several trees; with no edge it is empty to all measures.

    Places are (z, y, x) um, zero at the centre of the first voxel.
    """

    points_um: Float64
    """(n, 3)."""
    radii_um: Float64
    """(n,)."""
    parents: Int64
    """(n,) places of the parents among the nodes; `ROOT` where there is none."""
    kinds: Int64
    """(n,)."""

    @classmethod
    def of(cls, points_um: Float64, radii_um: Float64, parents: Int64, kinds: Int64 | None = None) -> Self:
        """A tree of these nodes. Raises ScanError if a parent is not among them, or nodes run in a circle."""
        count = len(points_um)
        tree = cls(
            np.asarray(points_um, dtype=np.float64).reshape(-1, 3),
            np.asarray(radii_um, dtype=np.float64),
            np.asarray(parents, dtype=np.int64),
            np.zeros(count, dtype=np.int64) if kinds is None else np.asarray(kinds, dtype=np.int64),
        )
        if not np.isfinite(tree.points_um).all() or not np.isfinite(tree.radii_um).all():
            raise ScanError("places and radii of nodes are numbers; found NaN or infinite ones, remove these nodes")
        if ((tree.parents < ROOT) | (tree.parents >= count)).any():
            raise ScanError(f"nodes have parents that are not among the {count} nodes; join them to nodes there are")
        above = tree.parents.copy()
        for _ in range(count.bit_length()):  # every pass doubles how far up is seen
            above = np.where(above == ROOT, ROOT, above[above])
        if (above != ROOT).any():
            at = int(np.flatnonzero(above != ROOT)[0])
            raise ScanError(f"node {at} (counted from 0) is its own ancestor; a tree has no circles, cut one of them")
        return tree

    def __len__(self) -> int:
        return len(self.points_um)

    @property
    def edges(self) -> Int64:
        """(m, 2): each node that has a parent, and that parent."""
        child = np.flatnonzero(self.parents != ROOT)
        return np.stack([child, self.parents[child]], axis=1)

    @property
    def is_empty(self) -> bool:
        """Whether it has no edge, so no length to be compared: no node, or single ones."""
        return not (self.parents != ROOT).any()

    @property
    def length_um(self) -> float:
        """Summed length of all edges."""
        child, parent = self.edges.T
        return float(np.linalg.norm(self.points_um[child] - self.points_um[parent], axis=1).sum())

    @property
    def degrees(self) -> Int64:
        """(n,) edges at every node: 1 at an end, 3 or more at a branching."""
        return np.bincount(self.edges.ravel(), minlength=len(self)).astype(np.int64)

    @property
    def ends(self) -> int:
        """Nodes with one edge."""
        return int((self.degrees == 1).sum())

    @property
    def branchings(self) -> int:
        """Nodes with three edges or more."""
        return int((self.degrees >= 3).sum())

    @property
    def roots(self) -> int:
        """Nodes without parent: pieces that hang together with no other."""
        return int((self.parents == ROOT).sum())

    def in_units(self, unit_um: Triple) -> Float64:
        """(n, 3) places counted in units of so many um along each axis, such as voxels."""
        return np.asarray(self.points_um / np.asarray(unit_um))


EMPTY = Tree(np.zeros((0, 3)), np.zeros(0), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
"""Nothing traced."""


def joined(trees: list[Tree]) -> Tree:
    """Several trees as one value, with the roots of all."""
    if not trees:
        return EMPTY
    starts = np.cumsum([0, *(len(one) for one in trees[:-1])])
    parents = [np.where(one.parents == ROOT, ROOT, one.parents + at) for one, at in zip(trees, starts, strict=True)]
    return Tree(
        np.concatenate([one.points_um for one in trees]),
        np.concatenate([one.radii_um for one in trees]),
        np.concatenate(parents),
        np.concatenate([one.kinds for one in trees]),
    )
