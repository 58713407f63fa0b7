"""Augmented draws of a patch, as CytoNet is trained and probed with them (Schiffer et al., after Schiffer 2021a)."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Float32 = NDArray[np.float32]

AUGMENTATION_VERSION = 1
SHIFT_MM = 0.2
"""A patch's centre moves by up to so much."""
FILTER_SHARE = 0.25
"""Share of draws that are blurred, and, independently, sharpened."""


@dataclass(frozen=True)
class Augmentation:
    """One draw: where the patch is taken, and how its grey values change."""

    angle: float
    """Rotation (rad)."""
    shift_px: tuple[float, float]
    """(y, x)."""
    mirrored: bool
    """Whether it is mirrored top to bottom, after it was turned."""
    alpha: float
    beta: float
    gamma: float
    """Grey values x in [0, 1] become alpha x^gamma + beta, clipped to [0, 1]."""
    blur_px: float | None
    """Sigma of a Gaussian blur."""
    sharpen: tuple[float, float] | None
    """Sigma (px) and strength of unsharp masking."""

    @classmethod
    def draw(cls, rng: np.random.Generator, pixel_size_um: float) -> Self:
        """A random draw for pixels of this size."""
        direction = rng.uniform(-math.pi, math.pi)
        distance = rng.uniform(0, SHIFT_MM * 1000 / pixel_size_um)
        # the published exponent 2^(-Z/2) has no real value for any Z drawn: 2^(-1/2) Z is meant
        z = rng.uniform(-0.05, 0.05) / math.sqrt(2)
        blurred, sharpened = rng.random(2) < FILTER_SHARE
        blur_px, sharpen_px, strength = rng.uniform(0.125, 1), rng.uniform(0.125, 1), rng.uniform(0.5, 1.5)
        return cls(
            angle=rng.uniform(-math.pi, math.pi),
            shift_px=(distance * math.sin(direction), distance * math.cos(direction)),
            mirrored=bool(rng.random() < 0.5),
            alpha=rng.uniform(0.9, 1),
            beta=rng.uniform(-0.1, 0.1),
            gamma=math.log(0.5 + z) / math.log(0.5 - z),
            blur_px=blur_px if blurred else None,
            sharpen=(sharpen_px, strength) if sharpened else None,
        )

    def patch(self, window: Float32, centre_px: tuple[float, float], patch_px: int) -> Float32:
        """The patch (c, T, T) float32 in [0, 1] around a centre (y, x) of a window (c, h, w) float32 in [0, 1].

        The centre counts from the corner of the window's first pixel. A window of `window_px` holds all that is seen.
        """
        taken = self._taken(window, centre_px, patch_px)
        changed = self.alpha * taken**self.gamma + self.beta
        if self.blur_px is not None:
            changed = gaussian_filter(changed, (0, self.blur_px, self.blur_px))
        if self.sharpen is not None:
            sigma, strength = self.sharpen
            changed = changed + strength * (changed - gaussian_filter(changed, (0, sigma, sigma)))
        return np.asarray(np.clip(changed, 0, 1), dtype=np.float32)

    def _taken(self, window: Float32, centre_px: tuple[float, float], patch_px: int) -> Float32:
        """The pixels at the turned, moved and mirrored grid, linearly interpolated."""
        import torch

        height, width = window.shape[1:]
        offset = torch.arange(patch_px, dtype=torch.float64) + 0.5 - patch_px / 2
        v, u = torch.meshgrid(-offset if self.mirrored else offset, offset, indexing="ij")
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        y = centre_px[0] + self.shift_px[0] + cos * v + sin * u
        x = centre_px[1] + self.shift_px[1] - sin * v + cos * u
        grid = torch.stack([2 * x / width - 1, 2 * y / height - 1], dim=-1).float()
        pixels = torch.from_numpy(np.ascontiguousarray(window))[None]
        taken = torch.nn.functional.grid_sample(pixels, grid[None], padding_mode="border", align_corners=False)
        return np.asarray(taken[0].numpy(), dtype=np.float32)


def window_px(patch_px: int, pixel_size_um: float) -> int:
    """Edge of a window that holds every draw of a patch, whichever way it is turned and moved.

    >>> window_px(2048, 2.0)
    3100
    """
    return math.ceil(patch_px * math.sqrt(2)) + 2 * math.ceil(SHIFT_MM * 1000 / pixel_size_um) + 3
