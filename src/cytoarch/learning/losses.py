"""Losses of the decoder over labelled cells only."""

import torch
from torch import Tensor
from torch.nn import functional

from cytoarch.learning.targets import UNLABELLED


def focal_loss(logits: Tensor, targets: Tensor, gamma: float = 2.0, weights: Tensor | None = None) -> Tensor:
    """Focal cross-entropy -(1 - p)^gamma log p, averaged over labelled cells (Lin et al. 2017).

    (b, k, y, x) float, (b, y, x) int64 -> scalar; 0 where nothing is labelled. `weights` (k,) float say how much a cell
    of each class counts in the average; None: all the same.

    >>> import torch
    >>> round(float(focal_loss(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.int64))), 6)  # p = 0.5
    0.173287
    """
    log_p = functional.log_softmax(logits.float(), dim=1)
    labelled = targets != UNLABELLED
    own = log_p.gather(1, targets.clamp(min=0)[:, None])[:, 0]
    cells = -((1 - own.exp()) ** gamma) * own
    if weights is None:
        return (cells * labelled).sum() / labelled.sum().clamp(min=1)
    counted = weights[targets.clamp(min=0)] * labelled
    return (cells * counted).sum() / counted.sum().clamp(min=torch.finfo(torch.float32).tiny)


def dice_loss(logits: Tensor, targets: Tensor, smoothing: float = 1e-5) -> Tensor:
    """1 - soft Dice, averaged over the classes present in the batch; sums run over the whole batch's labelled cells.

    Shapes as `focal_loss`; 0 where nothing is labelled.
    """
    labelled = (targets != UNLABELLED)[:, None]
    p = logits.float().softmax(dim=1) * labelled
    truth = functional.one_hot(targets.clamp(min=0), logits.shape[1]).movedim(-1, 1) * labelled
    over = (0, 2, 3)
    overlap, size = (p * truth).sum(over), p.sum(over) + truth.sum(over)
    present = truth.sum(over) > 0
    dice = (2 * overlap + smoothing) / (size + smoothing)
    return ((1 - dice) * present).sum() / present.sum().clamp(min=1)
