"""Phantom neurons: branching trees that are known to the last node, drawn as a microscope would show them.

A tree grows from a cell body: its branches keep their direction for a while, fork, taper and end. It is drawn as tubes
of uneven brightness with gaps where the stain fails, other neurons cross it, and the whole is blurred (more along z),
lies on an uneven background, and is counted photon by photon.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cytoarch.neurons.trees import DENDRITE, ROOT, SOMA, Float64, Tree, Triple, joined
from cytoarch.neurons.tubes import Tubes

STEP_UM = 1.5
"""Length of an edge of a phantom."""


@dataclass(frozen=True)
class NeuronPhantom:
    """How a volume of phantom neurons is grown and drawn."""

    shape: tuple[int, int, int] = (64, 96, 96)
    voxel_um: Triple = (1.0, 1.0, 1.0)
    neurons: int = 2
    branches: int = 4
    """Neurites that leave a cell body."""
    fork_per_um: float = 0.02
    """Chance of forking on a micrometre."""
    length_um: float = 60.0
    """Mean length of a neurite from fork to fork or end, where none of them comes."""
    radius_um: float = 1.2
    soma_um: float = 4.0
    gaps_per_um: float = 0.01
    """Gaps that begin on a micrometre."""
    gap_um: float = 5.0
    gap_brightness: float = 0.08
    blur_um: Triple = (1.2, 0.7, 0.7)
    photons: float = 60.0
    """Counts of a bright neurite above the background."""
    background: float = 12.0
    noise: float = 3.0
    """Deviation of the camera, in counts."""
    seed: int = 0


@dataclass(frozen=True)
class NeuronVolume:
    """A drawn phantom and its truth."""

    pixels: NDArray[np.uint8]
    """(z, y, x)."""
    mask: NDArray[np.bool_]
    """(z, y, x): voxels of neurites and cell bodies, gaps among them."""
    tree: Tree
    voxel_um: Triple


def make_phantom(phantom: NeuronPhantom) -> NeuronVolume:
    """Grow and draw a phantom: the same bits for the same settings.

    >>> one = make_phantom(NeuronPhantom(shape=(16, 32, 32), neurons=1))
    >>> one.pixels.shape, bool(one.mask.any()), one.tree.roots
    ((16, 32, 32), True, 1)
    """
    rng = np.random.default_rng((20, phantom.seed))
    trees = [grown(phantom, rng) for _ in range(phantom.neurons)]
    tree = joined(trees)
    light, mask = drawn(tree, phantom, rng)
    return NeuronVolume(exposed(light, phantom, rng), mask, tree, phantom.voxel_um)


def grown(phantom: NeuronPhantom, rng: np.random.Generator) -> Tree:
    """A tree that lies in the volume: cell body first, neurites until they end or leave."""
    voxel = np.asarray(phantom.voxel_um)
    far = (np.asarray(phantom.shape) - 1) * voxel
    soma = far * rng.uniform(0.25, 0.75, 3)
    points, radii, parents, kinds = [soma], [phantom.soma_um], [ROOT], [SOMA]
    growing = [(0, _direction(rng), phantom.radius_um) for _ in range(phantom.branches)]
    while growing:
        at, direction, radius = growing.pop()
        left = rng.exponential(phantom.length_um) + 4 * STEP_UM
        while left > 0:
            direction = _unit(direction + 0.25 * rng.normal(size=3))
            place = points[at] + STEP_UM * direction
            if (place < 0).any() or (place > far).any():
                break
            points.append(place)
            parents.append(at)
            kinds.append(DENDRITE)
            radius = max(0.5 * phantom.radius_um, radius * 0.997)
            radii.append(radius)
            at, left = len(points) - 1, left - STEP_UM
            if rng.random() < phantom.fork_per_um * STEP_UM:
                growing.append((at, _unit(direction + rng.normal(size=3)), 0.9 * radius))
    return Tree.of(np.array(points), np.array(radii), np.array(parents), np.array(kinds))


def drawn(tree: Tree, phantom: NeuronPhantom, rng: np.random.Generator) -> tuple[Float64, NDArray[np.bool_]]:
    """Brightness (z, y, x) of the tubes, from 0 to 1 and soft at the edge, and the voxels they fill."""
    tubes = Tubes.of(tree, phantom.voxel_um)
    bright = _brightness(tree, phantom, rng)[tubes.nodes]
    soft = min(phantom.voxel_um)
    light = np.zeros(phantom.shape)
    for cells, away, balls in tubes.touched((0, 0, 0), phantom.shape, soft):
        inside = np.clip((tubes.radii_um[balls] - away) / soft + 0.5, 0, 1)
        np.maximum.at(light, tuple(cells.T), bright[balls] * inside)
    return light, tubes.mask((0, 0, 0), phantom.shape)


def _brightness(tree: Tree, phantom: NeuronPhantom, rng: np.random.Generator) -> Float64:
    """How bright every node is: it drifts along a neurite, and drops where a gap begins."""
    bright = np.ones(len(tree))
    steps = max(1, round(phantom.gap_um / STEP_UM))
    in_gap = np.zeros(len(tree), dtype=np.int64)
    for at in range(len(tree)):  # parents come first
        above = tree.parents[at]
        if above == ROOT:
            continue
        bright[at] = np.clip(bright[above] + 0.08 * rng.normal(), 0.35, 1)
        in_gap[at] = max(0, in_gap[above] - 1)
        if in_gap[at] == 0 and rng.random() < phantom.gaps_per_um * STEP_UM:
            in_gap[at] = steps
    return np.where(in_gap > 0, phantom.gap_brightness, bright)


def exposed(light: Float64, phantom: NeuronPhantom, rng: np.random.Generator) -> NDArray[np.uint8]:
    """What a camera counts (z, y, x): blurred light on an uneven background, with the noise of photons and camera."""
    voxel = np.asarray(phantom.voxel_um)
    blurred = gaussian_filter(light, np.asarray(phantom.blur_um) / voxel)
    uneven = gaussian_filter(rng.normal(size=light.shape), 12 / voxel, mode="reflect")
    uneven = 1 + 0.3 * uneven / max(float(uneven.std()), 1e-9)
    expected = phantom.photons * blurred + phantom.background * np.clip(uneven, 0.2, None)
    counts = rng.poisson(expected) + phantom.noise * rng.normal(size=light.shape)
    return np.asarray(np.clip(np.rint(2 * counts), 0, 255), dtype=np.uint8)


def anisotropic(phantom: NeuronPhantom, times: float) -> NeuronPhantom:
    """The same neurons, imaged with planes so many times farther apart."""
    z, y, x = phantom.voxel_um
    planes = max(1, round(phantom.shape[0] / times))
    return replace(phantom, shape=(planes, *phantom.shape[1:]), voxel_um=(z * times, y, x))


def _direction(rng: np.random.Generator) -> Float64:
    return _unit(rng.normal(size=3))


def _unit(vector: Float64) -> Float64:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12))
