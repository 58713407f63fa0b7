"""Augmented draws of many patches at once, on the device that trains; those of `augmentation`, in a batch."""

import math
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cytoarch.augmentation import FILTER_SHARE, SHIFT_MM
from cytoarch.geometry import centres
from cytoarch.pretraining.sending import sent

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
REACH_PX = 4
"""Of a Gaussian of the largest sigma, 1 px."""


@dataclass(frozen=True)
class Draws:
    """How n patches are taken and changed, arrays of n; see `augmentation.Augmentation` for one."""

    linear: Float64
    """(n, 2, 2) from the patch's (y, x) to the section's: turned, mirrored, scaled."""
    shift_px: Float64
    """(n, 2) of the centre, in pixels of the section."""
    alpha: Float64
    beta: Float64
    gamma: Float64
    blur_px: Float64
    """Sigma of a blur, 0 for none."""
    sharpen_px: Float64
    """Sigma of unsharp masking, 0 for none."""
    strength: Float64
    """Of unsharp masking."""

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        count: int,
        pixel_size_um: float,
        *,
        shift_mm: float = SHIFT_MM,
        scales: tuple[float, float] = (1.0, 1.0),
    ) -> Self:
        """Random draws for sections of this pixel size; a pixel of the patch is `scales` pixels of the section wide."""
        angle, mirror = rng.uniform(-math.pi, math.pi, count), rng.random(count) < 0.5
        scale = (
            np.exp(rng.uniform(math.log(scales[0]), math.log(scales[1]), count))
            if scales[0] < scales[1]
            else np.full(count, scales[0])
        )
        direction, distance = (
            rng.uniform(-math.pi, math.pi, count),
            rng.uniform(0, shift_mm * 1000 / pixel_size_um, count),
        )
        z = rng.uniform(-0.05, 0.05, count) / math.sqrt(2)
        filtered = rng.random((2, count)) < FILTER_SHARE
        sigmas = rng.uniform(0.125, 1, (2, count)) * filtered
        return cls(
            linear=linear_of(angle, mirror, scale),
            shift_px=distance[:, None] * np.stack([np.sin(direction), np.cos(direction)], axis=1),
            alpha=rng.uniform(0.9, 1, count),
            beta=rng.uniform(-0.1, 0.1, count),
            gamma=np.log(0.5 + z) / np.log(0.5 - z),
            blur_px=sigmas[0],
            sharpen_px=sigmas[1],
            strength=rng.uniform(0.5, 1.5, count),
        )

    def __getitem__(self, some: slice) -> Self:
        """Some of the draws."""
        return type(self)(**{one.name: getattr(self, one.name)[some] for one in fields(self)})

    @classmethod
    def plain(cls, count: int, scale: float = 1.0) -> Self:
        """Patches as they are, of pixels `scale` pixels of the section wide."""
        zero, one = np.zeros(count), np.ones(count)
        linear = linear_of(zero, zero > 0, np.full(count, scale))
        return cls(linear, np.zeros((count, 2)), one, zero, one, zero, zero, zero)


def linear_of(angle: Float64, mirrored: NDArray[np.bool_], scale: Float64) -> Float64:
    """(n, 2, 2) from the (y, x) of patches to those of their section: mirrored top to bottom, turned, scaled."""
    cos, sin = np.cos(angle), np.sin(angle)
    down = np.where(mirrored, -1.0, 1.0)
    linear = np.stack([np.stack([cos * down, sin], axis=1), np.stack([-sin * down, cos], axis=1)], axis=1)
    return np.asarray(scale[:, None, None] * linear)


def taken(windows: Tensor, centres_px: Float64, draws: Draws, patch_px: int) -> Tensor:
    """The pixels (n, c, P, P) float32 in [0, 1] of patches, linearly interpolated in windows (n, c, h, w) uint8.

    Centres (n, 2) count (y, x) from the corner of a window's first pixel. Windows of `augmentation.window_px`
    hold all that is seen; past them their edge goes on.
    """
    height, width = windows.shape[2:]
    middle = centres_px + draws.shift_px
    # grid_sample counts from -1 to 1 across a window, x first; a patch from -1 to 1 is P pixels wide
    size = np.array([height, width])
    to_window = np.concatenate([draws.linear * (patch_px / size)[:, None], (2 * middle / size - 1)[..., None]], axis=2)
    theta = sent(to_window[:, ::-1][:, :, [1, 0, 2]].astype(np.float32), windows.device)
    grid = functional.affine_grid(theta, [len(windows), 1, patch_px, patch_px], align_corners=False)
    return functional.grid_sample(windows.float().div_(255), grid, padding_mode="border", align_corners=False)


def places_px(centres_px: Float64, draws: Draws, patch_px: int, cells: int, chosen: Int64) -> Float64:
    """Where some cells of a grid (g, g) over each patch lie: (n, t, 2), (y, x) in pixels, counted as centres are.

    `chosen` (n, t) counts cells row by row.
    """
    line = centres(-patch_px / 2, patch_px / 2, cells)
    within = np.stack([line[chosen // cells], line[chosen % cells]], axis=-1)
    return np.asarray(within @ draws.linear.transpose(0, 2, 1) + (centres_px + draws.shift_px)[:, None])


def changed(patches: Tensor, draws: Draws) -> Tensor:
    """Patches (n, c, y, x) in [0, 1] with other grey values: alpha x^gamma + beta, blur, unsharp mask; clipped."""
    alpha, beta, gamma = (_column(one, patches) for one in (draws.alpha, draws.beta, draws.gamma))
    found = (patches**gamma).mul_(alpha).add_(beta)
    some = np.flatnonzero(draws.blur_px)
    if len(some):
        at = sent(some, patches.device)
        found.index_copy_(0, at, blurred(found.index_select(0, at), draws.blur_px[some]))
    some = np.flatnonzero(draws.sharpen_px)
    if len(some):
        at = sent(some, patches.device)
        soft, strength = found.index_select(0, at), _column(draws.strength[some], patches)
        found.index_copy_(0, at, soft + strength * (soft - blurred(soft, draws.sharpen_px[some])))
    return found.clamp_(0, 1)


def blurred(patches: Tensor, sigma_px: Float64) -> Tensor:
    """Patches (n, c, y, x) under a Gaussian each, of sigma at most 1 px; their edges go on."""
    height, width = patches.shape[2:]
    weights = np.exp(-0.5 * (np.arange(REACH_PX + 1) / sigma_px[:, None]) ** 2)
    weights /= 2 * weights.sum(axis=1, keepdims=True) - weights[:, :1]
    share = sent(weights.astype(np.float32), patches.device)[:, :, None, None, None]
    padded = functional.pad(patches, [REACH_PX] * 4, mode="replicate")
    # sums of shifted patches: a convolution of every patch with a kernel of its own takes four times as long
    down = padded[:, :, REACH_PX : REACH_PX + height] * share[:, 0]
    for by in range(1, REACH_PX + 1):
        above, below = (padded[:, :, REACH_PX + at : REACH_PX + at + height] for at in (-by, by))
        down.addcmul_(above + below, share[:, by])
    found = down[..., REACH_PX : REACH_PX + width] * share[:, 0]
    for by in range(1, REACH_PX + 1):
        left, right = (down[..., REACH_PX + at : REACH_PX + at + width] for at in (-by, by))
        found.addcmul_(left + right, share[:, by])
    return found


def _column(values: Float64, like: Tensor) -> Tensor:
    return sent(values.astype(np.float32), like.device)[:, None, None, None]
