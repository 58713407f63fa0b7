"""What a network learns from: overlap of voxels at every resolution, and how well lines are kept.

Three ways to speak of lines. `tasl` is the topology-aware skeleton loss as its authors released it: a number that
weighs the batch and has no gradient. `cldice` (Shit et al. 2021) and `skeleton-recall` (Kirchhoff et al. 2024) have
one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, generate_binary_structure, label
from scipy.spatial import cKDTree
from skimage.morphology import skeletonize
from torch import Tensor
from torch.nn import functional

Mask = NDArray[np.bool_]
Topology = Literal["none", "tasl", "cldice", "skeleton-recall"]

SMOOTHING = 1e-5
TASL_BETA = 0.1
TASL_WEIGHTS = (1.0, 0.5, 0.2)
"""Of the distances between nodes, of the counts of edges, of the sizes of pieces."""
EDGE_REACH = 2.0
"""Voxels of a skeleton no farther apart than this are joined by an edge."""
NODE_CAP = 10.0
"""Most that distances between nodes count, in voxels: as released they are unbounded and can explode a step."""
SOFT_ITERATIONS = 5
"""Peelings of a soft skeleton: neurites of up to twice as many voxels thin to lines."""


def level_weights(levels: int) -> list[float]:
    """The weight of each resolution: half that of the one before, summing to 1.

    >>> [round(one, 4) for one in level_weights(5)]
    [0.5161, 0.2581, 0.129, 0.0645, 0.0323]
    """
    raw = [0.5**level for level in range(levels)]
    return [one / sum(raw) for one in raw]


def coarser(targets: Tensor, shape: Sequence[int]) -> Tensor:
    """Targets (b, z, y, x) int64 at the nearest voxels of a coarser grid."""
    nearest = functional.interpolate(targets[:, None].float(), size=tuple(shape), mode="nearest")
    return nearest[:, 0].long()


def overlap_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy plus 1 - Dice of the foreground, summed over the batch.

    (b, 2, z, y, x) float, (b, z, y, x) int64 -> scalar.
    """
    logits = logits.float()
    found = logits.softmax(dim=1)[:, 1]
    known = targets.float()
    hits = (found * known).sum()
    dice = (2 * hits + SMOOTHING) / (found.sum() + known.sum() + SMOOTHING)
    return functional.cross_entropy(logits, targets) + 1 - dice


@dataclass(frozen=True)
class LineLoss:
    """How lines enter the loss."""

    topology: Topology = "cldice"
    weight: float = 0.5
    """Of the two that have a gradient, beside the overlap."""

    def of(self, outputs: Sequence[Tensor], targets: Tensor, lines: Tensor) -> Tensor:
        """The loss of the outputs at all resolutions, the full one first.

        Args:
            outputs: (b, 2, z, y, x) float, and coarser ones.
            targets: (b, z, y, x) int64, 1 where there is a neuron.
            lines: (b, z, y, x) float, the skeletons of the targets, one voxel thicker.

        """
        total = torch.zeros((), device=targets.device)
        for level, (weight, logits) in enumerate(zip(level_weights(len(outputs)), outputs, strict=True)):
            wanted = targets if level == 0 else coarser(targets, logits.shape[2:])
            loss = overlap_loss(logits, wanted)
            if self.topology == "tasl":
                # skeletons cost seconds on a processor: the batch is weighed by those of the full resolution
                loss = loss * (1 + TASL_BETA * tasl_of_batch(outputs[0], targets)) if level == 0 else loss
            total = total + weight * loss
        if self.topology == "cldice":
            total = total + self.weight * soft_cldice_loss(outputs[0].float().softmax(dim=1)[:, 1], targets.float())
        elif self.topology == "skeleton-recall":
            total = total + self.weight * skeleton_recall_loss(outputs[0], lines)
        return total


# -- with a gradient ---------------------------------------------------------------------------------------------------


def soft_skeleton(image: Tensor, iterations: int = SOFT_ITERATIONS) -> Tensor:
    """The soft skeleton of values in [0, 1], (b, z, y, x): what openings of ever thinner erosions take away."""
    image = image[:, None]
    skeleton = torch.zeros_like(image)
    for _ in range(iterations + 1):
        thinner = _eroded(image)
        rest = functional.relu(image - functional.max_pool3d(thinner, 3, 1, 1))  # what an opening takes away
        skeleton = skeleton + functional.relu(rest - skeleton * rest)
        image = thinner
    return skeleton[:, 0]


def soft_cldice_loss(found: Tensor, known: Tensor, iterations: int = SOFT_ITERATIONS) -> Tensor:
    """1 - clDice of soft masks (b, z, y, x): how much of each skeleton the other mask covers, their harmonic mean."""
    precision = _covered(soft_skeleton(found, iterations), known)
    recall = _covered(soft_skeleton(known, iterations), found)
    return 1 - 2 * precision * recall / (precision + recall)


def skeleton_recall_loss(logits: Tensor, lines: Tensor) -> Tensor:
    """1 - the share of the known lines (b, z, y, x) that the foreground covers; 0 where there are none."""
    found = logits.float().softmax(dim=1)[:, 1]
    there = lines.sum()
    return torch.where(there > 0, 1 - (found * lines).sum() / there.clamp(min=1), torch.zeros_like(there))


def _covered(skeleton: Tensor, mask: Tensor) -> Tensor:
    return ((skeleton * mask).sum() + 1.0) / (skeleton.sum() + 1.0)


def _eroded(image: Tensor) -> Tensor:
    """The least of each voxel and its six neighbours."""
    along = ((3, 1, 1), (1, 3, 1), (1, 1, 3))
    pools = [-functional.max_pool3d(-image, k, 1, tuple(n // 2 for n in k)) for k in along]
    return torch.minimum(torch.minimum(pools[0], pools[1]), pools[2])


# -- as released -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SkeletonGraph:
    """A mask's skeleton, thickened by a voxel: its voxels, the pairs of them that are near, and its pieces."""

    nodes: NDArray[np.int64]
    """(n, 3)."""
    edges: int
    pieces: int


def skeleton_graph(mask: Mask) -> SkeletonGraph:
    """The graph of a mask (z, y, x)."""
    tube = tube_of(mask)
    nodes = np.argwhere(tube)
    edges = len(cKDTree(nodes).query_pairs(EDGE_REACH, output_type="ndarray")) if len(nodes) else 0
    reach = np.ones((3, 3, 3), dtype=bool)
    return SkeletonGraph(nodes, edges, int(label(tube, reach)[1]))


def tube_of(mask: Mask) -> Mask:
    """The skeleton of a mask (z, y, x), one voxel thicker, within the mask."""
    if not mask.any():
        return np.zeros_like(mask)
    thick = binary_dilation(skeletonize(mask), generate_binary_structure(3, 1))
    return np.asarray(thick & mask)


def tasl_terms(found: Mask, known: Mask) -> tuple[float, float, float]:
    """How two masks (z, y, x) differ in nodes, edges and pieces of their skeletons.

    As released, except that nothing found counts 1 in each (as released it costs least of all mistakes) and that
    distances between nodes are capped. Nothing known and nothing found is no difference.
    """
    if not found.any() or not known.any():
        return (0.0, 0.0, 0.0) if found.any() == known.any() else (1.0, 1.0, 1.0)
    return graph_terms(skeleton_graph(found), skeleton_graph(known))


def graph_terms(ours: SkeletonGraph, theirs: SkeletonGraph) -> tuple[float, float, float]:
    """The three differences of two graphs that have nodes."""
    there = cKDTree(theirs.nodes).query(ours.nodes)[0].mean()
    back = cKDTree(ours.nodes).query(theirs.nodes)[0].mean()
    nodes = min(NODE_CAP, float(there + back) / 2)
    edges = abs(theirs.edges - ours.edges) / (theirs.edges + 1e-6) if theirs.edges and ours.edges else 0.0
    if min(len(ours.nodes), len(theirs.nodes)) < 2:
        return nodes, edges, 1.0
    sizes = [len(one.nodes) / one.pieces for one in (theirs, ours)]
    return nodes, edges, abs(sizes[0] - sizes[1]) / (sizes[0] + 1e-6)


def tasl_of_batch(logits: Tensor, targets: Tensor) -> float:
    """The weighted difference of skeletons, the mean over a batch: a number without gradient."""
    with torch.no_grad():
        found = (logits.float().softmax(dim=1)[:, 1] > 0.5).cpu().numpy()
    known = targets.cpu().numpy() > 0
    each = [np.dot(TASL_WEIGHTS, tasl_terms(one, other)) for one, other in zip(found, known, strict=True)]
    return float(np.mean(each))
