"""SWC files: one node a line, `id kind x y z radius parent`, comments after `#` (Cannon et al. 1998)."""

from pathlib import Path

import numpy as np

from cytoarch.errors import ScanError
from cytoarch.neurons.trees import EMPTY, ROOT, Float64, Int64, Tree, Triple

COLUMNS = 7
MAX_BYTES = 256 << 20
"""Largest file that is read: some millions of nodes."""
MICROMETRES: Triple = (1.0, 1.0, 1.0)
"""What a unit of an SWC file is where it says no other: um along (z, y, x)."""


def read_swc(path: Path, unit_um: Triple = MICROMETRES) -> Tree:
    """The tree in an SWC file whose unit is so many um along (z, y, x): the voxel's edges where it counts voxels.

    Nodes may come in any order and with any ids. Raises ScanError, naming the line, if it is no SWC file, an id comes
    twice, a parent is not there, or nodes run in a circle.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ScanError(f"{path.name}: holds more than {MAX_BYTES} bytes; split it into trees")
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise ScanError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    try:
        return _tree(_rows(lines), unit_um)
    except ScanError as error:
        raise ScanError(f"{path.name}: {error}") from None


def write_swc(tree: Tree, remarks: tuple[str, ...] = ()) -> str:
    """A tree as the text of an SWC file in um: parents before children, ids from 1.

    Places have four decimals, a tenth of a nanometre.
    """
    lines = [f"# {one}" for one in (*remarks, "um; id kind x y z radius parent")]
    order = _from_the_roots(tree)
    number = np.empty(len(tree), dtype=np.int64)
    number[order] = np.arange(1, len(tree) + 1)
    for at in order:
        z, y, x = tree.points_um[at]
        parent = ROOT if tree.parents[at] == ROOT else number[tree.parents[at]]
        lines.append(f"{number[at]} {tree.kinds[at]} {x:.4f} {y:.4f} {z:.4f} {tree.radii_um[at]:.4f} {parent}")
    return "\n".join(lines) + "\n"


def _from_the_roots(tree: Tree) -> Int64:
    """The nodes by their distance from their root in edges, those of equal distance in their own order."""
    depth = np.zeros(len(tree), dtype=np.int64)
    above = tree.parents.copy()
    while (above != ROOT).any():
        depth += above != ROOT
        above = np.where(above == ROOT, ROOT, tree.parents[above])
    return np.argsort(depth, kind="stable").astype(np.int64)


def _rows(lines: list[str]) -> Float64:
    rows: list[list[float]] = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].replace(",", " ").split()
        if not words:
            continue
        try:
            rows.append([float(word) for word in words[:COLUMNS]])
        except ValueError:
            raise ScanError(f"line {number}: {line.strip()[:60]!r} holds no numbers; {COLUMNS} are needed") from None
        if len(rows[-1]) < COLUMNS:
            raise ScanError(f"line {number}: {len(words)} columns; id kind x y z radius parent are needed")
    return np.array(rows, dtype=np.float64).reshape(-1, COLUMNS)


def _tree(rows: Float64, unit_um: Triple) -> Tree:
    if not len(rows):
        return EMPTY
    if not np.isfinite(rows).all():
        raise ScanError("holds NaN or infinite numbers; remove these nodes")
    ids, kinds, parents = (rows[:, column].astype(np.int64) for column in (0, 1, 6))
    order = np.argsort(ids, kind="stable")
    twice = np.flatnonzero(np.diff(ids[order]) == 0)
    if len(twice):
        raise ScanError(f"id {ids[order][twice[0]]} comes more than once; every node needs an id of its own")
    place = np.clip(np.searchsorted(ids[order], parents), 0, len(ids) - 1)
    known = ids[order][place] == parents
    missing = ~known & (parents >= 0)
    if missing.any():
        at = int(np.flatnonzero(missing)[0])
        raise ScanError(f"node {ids[at]} has the parent {parents[at]}, which is not there; add it or write -1")
    points = rows[:, [4, 3, 2]] * np.asarray(unit_um)
    radii = rows[:, 5] * float(np.prod(unit_um)) ** (1 / 3)
    return Tree.of(points, radii, np.where(known & (parents >= 0), order[place], ROOT), kinds)
