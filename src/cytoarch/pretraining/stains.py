"""Patches as other stains would show them: other colours, other strengths, bright on dark."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cytoarch.pretraining.sending import sent

COLOURED, DARKENED, GREYED = 0.5, 0.35, 0.3
"""Shares of patches that get a colour of their own, change bright for dark, and lose their colour."""
LEAST_LIGHT = 0.02


def restained(patches: Tensor, rng: np.random.Generator) -> Tensor:
    """Patches (n, 3, y, x) in [0, 1] in a stain of their own each.

    What a dye absorbs is multiplied by channel (the law of Beer and Lambert); then some lose their colour and some are
    turned over, as fluorescence is bright on dark; last a gamma.
    """
    count = len(patches)
    strength = np.exp(rng.uniform(-0.5, 0.5, (count, 1)))
    colour = np.where(rng.random((count, 1)) < COLOURED, np.exp(rng.uniform(-1.2, 0.4, (count, 3))), 1.0)
    grey, dark = rng.random(count) < GREYED, rng.random(count) < DARKENED
    gamma = np.exp(rng.uniform(-0.3, 0.3, count))
    light = patches.clamp(min=LEAST_LIGHT) ** _shaped(strength * colour, patches)
    light = torch.where(_shaped(grey[:, None], patches) > 0, light.mean(dim=1, keepdim=True), light)
    light = torch.where(_shaped(dark[:, None], patches) > 0, 1 - light, light)
    return light.clamp(0, 1) ** _shaped(gamma[:, None], patches)


def _shaped(values: NDArray[np.float64] | NDArray[np.bool_], like: Tensor) -> Tensor:
    return sent(values.astype(np.float32), like.device)[:, :, None, None]
