"""What a network is shown: patches of volumes with known trees, drawn by a seed and a number and by nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cytoarch.errors import TrainingError
from cytoarch.measures.greys import grey_range
from cytoarch.neurons.losses import tube_of
from cytoarch.neurons.trees import Int64, Tree, Triple
from cytoarch.neurons.tubes import Corner, Tubes

GREY_MEAN, GREY_SPREAD = 0.449, 0.226
"""Of grey photographs, as what a pretrained encoder was shown: means over the channels of ImageNet's statistics."""
Float32 = NDArray[np.float32]


class Scale(NamedTuple):
    """The grey values of a volume that are shown as black and as white."""

    black: float
    white: float

    def shown(self, pixels: NDArray[Any]) -> Float32:
        """Pixels as the network sees them: black and white as in photographs, what is brighter than twice white cut."""
        grey = np.clip((pixels.astype(np.float32) - self.black) / (self.white - self.black), -1, 2)
        return np.asarray((grey - GREY_MEAN) / GREY_SPREAD, dtype=np.float32)


def scale_of(histogram: Int64) -> Scale:
    """That of a volume, by its counts of voxels by grey value."""
    return Scale(*map(float, grey_range(histogram)))


@dataclass(frozen=True)
class Known:
    """A volume whose tree is known."""

    pixels: Any
    """(z, y, x) unsigned, read by slices: an array in memory or in the store."""
    scale: Scale
    tree: Tree
    tubes: Tubes

    @classmethod
    def of(cls, pixels: Any, scale: Scale, tree: Tree, voxel_um: Triple, least_um: float = 0.0) -> "Known":
        """A volume and its tree. Raises TrainingError if the tree has no edge or lies outside."""
        places = np.rint(tree.in_units(voxel_um))
        inside = ((places >= 0) & (places < pixels.shape)).all(axis=1)
        if tree.is_empty or not inside.any():
            raise TrainingError(
                f"a tree of {len(tree)} nodes has {int(inside.sum())} in the volume of {tuple(pixels.shape)} voxels; "
                "check the voxel size and the unit of the SWC file"
            )
        return cls(pixels, scale, tree, Tubes.of(tree, voxel_um, least_um))


class Batch(NamedTuple):
    """Patches as a network takes them."""

    volumes: Tensor
    """(b, 1, z, y, x) float32."""
    targets: Tensor
    """(b, z, y, x) int64."""
    lines: Tensor
    """(b, z, y, x) float32: skeletons, a voxel thicker; zeros where they are not asked for."""


def draw_batch(
    volumes: Sequence[Known], patch: Corner, size: int, near: float, seed: tuple[int, int], lines: bool = False
) -> Batch:
    """The patches of one step: a pure function of its arguments.

    Args:
        volumes: What is drawn from, each as likely as any other.
        patch: Edges (z, y, x) of a patch.
        size: Patches.
        near: Share of the patches that have a node of a tree near their middle; others lie anywhere.
        seed: The training's and the step's number.
        lines: Whether skeletons are asked for.

    """
    rng = np.random.default_rng(seed)
    drawn = [_patch(volumes[int(rng.integers(len(volumes)))], patch, near, rng) for _ in range(size)]
    pixels = torch.from_numpy(np.stack([one for one, _ in drawn]))[:, None]
    masks = np.stack([mask for _, mask in drawn])
    tubes = np.stack([tube_of(mask) for mask in masks]) if lines else np.zeros_like(masks)
    targets = torch.from_numpy(masks.astype(np.int64))
    return Batch(pixels, targets, torch.from_numpy(tubes.astype(np.float32)))


def _patch(volume: Known, patch: Corner, near: float, rng: np.random.Generator) -> tuple[Float32, NDArray[np.bool_]]:
    shape = np.asarray(volume.pixels.shape)
    edges = np.asarray(patch)
    centre = rng.uniform(0, shape)
    if rng.random() < near:
        node = volume.tree.points_um[int(rng.integers(len(volume.tree)))] / np.asarray(volume.tubes.voxel_um)
        centre = node + rng.uniform(-0.25, 0.25, 3) * edges
    low = np.clip(np.rint(centre - edges / 2), 0, np.maximum(shape - edges, 0)).astype(np.int64)
    first: Corner = (int(low[0]), int(low[1]), int(low[2]))
    last: Corner = (first[0] + patch[0], first[1] + patch[1], first[2] + patch[2])
    pixels = volume.scale.shown(read_window(volume.pixels, first, last, volume.scale.black))
    return _varied(pixels, volume.tubes.mask(first, last), rng)


def read_window(pixels: Any, low: Corner, high: Corner, outside: float) -> NDArray[Any]:
    """The voxels from `low` up to before `high`, which may lie beyond the volume; there they have a stated value."""
    inner = [(max(0, a), min(n, b)) for a, b, n in zip(low, high, pixels.shape, strict=True)]
    inside = np.asarray(pixels[tuple(slice(a, max(a, b)) for a, b in inner)])
    if inside.shape == tuple(b - a for a, b in zip(low, high, strict=True)):
        return inside
    block = np.full([b - a for a, b in zip(low, high, strict=True)], outside, dtype=inside.dtype)
    block[tuple(slice(a - first, a - first + n) for (a, _), first, n in zip(inner, low, inside.shape, strict=True))] = (
        inside
    )
    return block


def _varied(pixels: Float32, mask: NDArray[np.bool_], rng: np.random.Generator) -> tuple[Float32, NDArray[np.bool_]]:
    """A patch mirrored, turned in its plane where that is square, brighter or darker, noisier."""
    axes = tuple(axis for axis in range(3) if rng.random() < 0.5)
    pixels, mask = np.flip(pixels, axes), np.flip(mask, axes)
    turns = int(rng.integers(4)) if pixels.shape[1] == pixels.shape[2] else 0
    pixels, mask = np.rot90(pixels, turns, (1, 2)), np.rot90(mask, turns, (1, 2))
    gain, offset, noise = rng.uniform(0.8, 1.25), rng.uniform(-0.2, 0.2), rng.uniform(0, 0.2)
    pixels = gain * pixels + offset + noise * rng.standard_normal(pixels.shape, dtype=np.float32)
    return np.ascontiguousarray(pixels, dtype=np.float32), np.ascontiguousarray(mask)
