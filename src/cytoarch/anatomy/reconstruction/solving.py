"""From links to places: which sections lie mirrored, and the turns and shifts that agree with all links at once.

A map of the plane per section, links as measurements between pairs: the pose graph of simultaneous localisation and
mapping (Lu and Milios 1997), solved by Gauss-Newton with Cauchy weights, so that one wrong link does not bend the rest.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, eye_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree
from scipy.sparse.linalg import spsolve

from cytoarch.anatomy.reconstruction.rigid import Rigid, apart_deg
from cytoarch.geometry import Float64, Pair

ROUNDS = 30
CLOSE_UM = 0.01
OUTLIER_UM = 150.0
"""Links that disagree with the others by more count less and less."""


class Measured(NamedTuple):
    """A link between two nodes."""

    fixed: int
    moving: int
    rigid: Rigid
    """From the fixed node's um to the moving one's."""
    weight: float
    centre_um: Pair
    """Middle of the fixed section's tissue."""
    radius_um: float
    """Root mean square distance of its tissue from there."""


def components(count: int, links: Sequence[Measured]) -> list[list[int]]:
    """The nodes that links hold together, largest group first."""
    graph = _graph(count, links, np.ones(len(links)))
    _, names = connected_components(graph, directed=False)
    groups: dict[int, list[int]] = {}
    for node, name in enumerate(names.tolist()):
        groups.setdefault(name, []).append(node)
    return sorted(groups.values(), key=lambda group: (-len(group), group[0]))


def mirrored_nodes(
    count: int, roots: Mapping[int, Rigid], links: Sequence[Measured], stated: Sequence[bool], held: Sequence[bool]
) -> list[bool]:
    """Which nodes lie mirrored against the brain: as stated where that is held, else by the votes of all links.

    Links only say which nodes differ. Of the two answers that differ everywhere the one is taken that agrees with more
    of what is stated. Nodes that no root reaches are as stated.
    """
    chain = chained(count, roots, links)
    parity = np.array([int(flip if one is None else one.mirrored) for one, flip in zip(chain, stated, strict=True)])
    for _ in range(count):  # a node that most of its links contradict changes sides
        votes = np.zeros(count)
        for one in links:
            differs = parity[one.fixed] ^ parity[one.moving] ^ int(one.rigid.mirrored)
            votes[[one.fixed, one.moving]] += one.weight if differs else -one.weight
        worst = int(votes.argmax())
        if votes[worst] <= 0:
            break
        parity[worst] ^= 1
    reached = np.array([one is not None for one in chain])
    trust = np.where(held, 1 + count, 1) * reached  # what is held decides before all others together
    wrong = float((trust * (parity != np.array(stated, dtype=int))).sum())
    if 2 * wrong > trust.sum():
        parity[reached] ^= 1
    return [flip if keep else bool(found) for flip, keep, found in zip(stated, held, parity, strict=True)]


def chained(count: int, roots: Mapping[int, Rigid], links: Sequence[Measured]) -> list[Rigid | None]:
    """The maps from every node to the plane along the strongest links from the roots; None where there is no way."""
    hub = count  # a node of its own that ties the roots together
    strength = np.array([one.weight for one in links])
    ties = [Measured(hub, root, Rigid.identity(), 1.0, (0.0, 0.0), 0.0) for root in roots]
    lengths = np.concatenate([1.0 / np.maximum(strength, 1e-9), np.full(len(ties), 1e-12)])
    tree = minimum_spanning_tree(_graph(count + 1, [*links, *ties], lengths))
    order, before = breadth_first_order(tree, hub, directed=False)
    between = {(one.fixed, one.moving): one.rigid for one in links}
    placed: list[Rigid | None] = [None] * count
    for node in order[1:].tolist():
        parent = int(before[node])
        if parent == hub:
            placed[node] = roots[node]
            continue
        onward = between.get((node, parent)) or between[parent, node].inverse()
        up = placed[parent]
        placed[node] = None if up is None else onward.then(up)
    return placed


class Solution(NamedTuple):
    """Places that agree with the links."""

    places: list[Rigid]
    """From every node's um to the plane of the brain."""
    disagreement_um: Float64
    """(links,) root mean square distance of each link from them, over the tissue."""


def solved(start: Sequence[Rigid], links: Sequence[Measured], held: Sequence[int], rounds: int = ROUNDS) -> Solution:
    """The turns and shifts that all links agree with best, near a start; nodes that are held stay where they are.

    Links must not mirror other than their nodes do. The squared distance of a link is the mean over the tissue of the
    fixed section, which is that over four places at the tissue's root mean square distance from its middle.
    """
    angles = np.radians([one.angle_deg for one in start])
    shifts = np.array([one.shift_um for one in start])
    mirrors = np.array([[1.0, -1.0 if one.mirrored else 1.0] for one in start])
    free = np.setdiff1d(np.arange(len(start)), np.asarray(held, dtype=np.int64))
    if not {end for one in links for end in (one.fixed, one.moving)} - set(held):  # no link moves anything
        return Solution(list(start), _disagreement(angles, shifts, mirrors, links)[1])
    column = np.full(len(start), -1)
    column[free] = 3 * np.arange(len(free))
    for _ in range(rounds):
        off, apart = _disagreement(angles, shifts, mirrors, links)
        weights = np.array([one.weight for one in links]) / (1 + (apart / OUTLIER_UM) ** 2)
        slopes = _slopes(angles, mirrors, links, column, 3 * len(free))
        weighted = slopes.T.multiply(np.repeat(weights, 8)).tocsr()
        normal = (weighted @ slopes).tocsc()
        step = spsolve(normal + RIDGE * eye_array(normal.shape[0], format="csc"), -(weighted @ off.ravel())).reshape(
            -1, 3
        )
        angles[free] += step[:, 0] / REACH_UM
        shifts[free] += step[:, 1:]
        if np.abs(step).max() < CLOSE_UM:
            break
    places = [
        Rigid(one.mirrored, apart_deg(0.0, float(np.degrees(angle))), (float(y), float(x)))
        for one, angle, (y, x) in zip(start, angles, shifts, strict=True)
    ]
    return Solution(places, _disagreement(angles, shifts, mirrors, links)[1])


RIDGE = 1e-9
"""Added to the equations, so that a node without links stays where it is."""
REACH_UM = 1e4
"""Unit of an angle in the equations (1 / 10000 rad), so that turns are as large as shifts."""


def _points(one: Measured) -> tuple[Float64, Float64]:
    """Four places in the fixed section and where the link leads them, (4, 2) um."""
    cross = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]]) * one.radius_um
    places = np.array(one.centre_um) + cross
    return places, one.rigid(places)


def _turned(angle: float, mirror: Float64, places: Float64) -> Float64:
    cos, sin = np.cos(angle), np.sin(angle)
    y, x = (places * mirror).T
    return np.stack([cos * y - sin * x, sin * y + cos * x], axis=-1)


def _disagreement(
    angles: Float64, shifts: Float64, mirrors: Float64, links: Sequence[Measured]
) -> tuple[Float64, Float64]:
    """How far every link's four places are apart (links, 4, 2), and the root mean square of that (links,)."""
    off = np.empty((len(links), 4, 2))
    for k, one in enumerate(links):
        here, there = _points(one)
        i, j = one.fixed, one.moving
        off[k] = _turned(angles[j], mirrors[j], there) + shifts[j] - _turned(angles[i], mirrors[i], here) - shifts[i]
    return off, np.sqrt((off**2).sum(axis=2).mean(axis=1))


def _slopes(
    angles: Float64, mirrors: Float64, links: Sequence[Measured], column: NDArray[np.int64], width: int
) -> csr_array:
    """How the distances change with turns and shifts, (8 links, width)."""
    rows, columns, values = [], [], []
    for k, one in enumerate(links):
        for node, places, sign in zip((one.fixed, one.moving), _points(one), (-1.0, 1.0), strict=True):
            if column[node] < 0:
                continue
            turned = _turned(angles[node], mirrors[node], places)
            turning = np.stack([-turned[:, 1], turned[:, 0]], axis=-1) / REACH_UM
            for part, value in enumerate((turning, np.tile([1.0, 0.0], (4, 1)), np.tile([0.0, 1.0], (4, 1)))):
                rows.append(8 * k + np.arange(8))
                columns.append(np.full(8, column[node] + part))
                values.append(sign * value.ravel())
    parts = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return coo_array(parts, shape=(8 * len(links), width)).tocsr()


def _graph(count: int, links: Sequence[Measured], lengths: Float64) -> csr_array:
    """The links as a graph; of two between the same nodes the shorter one."""
    ends = np.sort(np.array([[one.fixed, one.moving] for one in links], dtype=np.int64).reshape(-1, 2), axis=1)
    order = np.argsort(lengths, kind="stable")
    ends, first = np.unique(ends[order], axis=0, return_index=True)
    return coo_array((lengths[order][first], (ends[:, 0], ends[:, 1])), shape=(count, count)).tocsr()
