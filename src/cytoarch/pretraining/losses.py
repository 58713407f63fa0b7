"""One loss with three tables of targets: SpatialNCE, SimCLR (InfoNCE) and SupCon differ only in who belongs to whom.

For N embeddings z of length 1, s_ij = z_i . z_j / temperature and P_i = softmax over j != i of s_i. The loss is the
mean cross-entropy H(Q_i, P_i), where row Q_i says what share of i's likeness each j should have. Its gradient with
respect to s_ij is (P_ij - Q_ij) / N, so it is least, the mean entropy of the rows, where P = Q.

A process of several holds n rows and all N columns; its rows begin at `first`.
"""

import torch
from torch import Tensor
from torch.nn import functional


def contrastive_loss(
    embeddings: Tensor, targets: Tensor, temperature: float, *, keys: Tensor | None = None, first: int = 0
) -> Tensor:
    """Mean cross-entropy between targets and the softmax of likeness, over the rows that have a target.

    `embeddings` (n, d) of any length, `targets` (n, N) rows that sum to 1 or, where an embedding has no partner, to 0;
    `keys` (N, d) where they are not the embeddings themselves: row i of the embeddings is key first + i. Computed in
    float32 (float64 for float64), whatever autocast says. Returns a scalar, 0 if no row has a target.

    >>> same = torch.ones(4, 2)
    >>> round(float(contrastive_loss(same, pair_targets(4), 0.07)), 4)  # collapsed: log(N - 1)
    1.0986
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        anchors = functional.normalize(_exact(embeddings), dim=1)
        others = anchors if keys is None else functional.normalize(_exact(keys), dim=1)
        own = own_columns(len(anchors), len(others), first, anchors.device)
        # an embedding is no key of its own: out of the sum before its logarithm is taken, and out of the loss
        likeness = (anchors @ others.T / temperature).masked_fill(own, -torch.inf)
        log_shares = likeness.log_softmax(dim=1).masked_fill(own, 0.0)
        wanted = targets.to(log_shares.dtype)
        counted = (wanted.sum(dim=1) > 0).sum().clamp(min=1)
        return -(wanted * log_shares).sum() / counted


def spatial_targets(positions: Tensor, sigma: float, *, keys: Tensor | None = None, first: int = 0) -> Tensor:
    """Shares by nearness (n, N): rows of exp(-|p_i - p_j|^2 / 2 sigma^2), j != i, made to sum to 1.

    Equation 1 of Schiffer et al.

    `positions` (n, k) and `keys` (N, k) in the unit of sigma, float64 for brains in mm. Taken as a softmax, so that far
    points give shares instead of 0 / 0; sigma towards 0 gives all to the nearest.
    """
    others = positions if keys is None else keys
    squares = torch.cdist(positions, others, compute_mode="donot_use_mm_for_euclid_dist").square()
    own = own_columns(len(positions), len(others), first, positions.device)
    return (-squares / (2 * sigma**2)).masked_fill(own, -torch.inf).softmax(dim=1)


def pair_targets(count: int, device: "torch.device | str" = "cpu") -> Tensor:
    """Shares of SimCLR (N, N) for N = 2 B views, of which i and i + B show the same patch."""
    if count % 2:
        raise ValueError(
            f"{count} views are no pairs; an even number is needed, first all first views, then all second"
        )
    return torch.eye(count, device=device).roll(count // 2, dims=1)


def label_targets(labels: Tensor, *, keys: Tensor | None = None, first: int = 0) -> Tensor:
    """Shares of SupCon, L_out (n, N): all others of the same label alike; rows of 0 for labels that occur once.

    `labels` (n,) and `keys` (N,) int64. (Khosla et al. 2020, eq. 2)
    """
    others = labels if keys is None else keys
    same = labels[:, None] == others[None, :]
    same &= ~own_columns(len(labels), len(others), first, labels.device)
    return same / same.sum(dim=1, keepdim=True).clamp(min=1)


def own_columns(rows: int, columns: int, first: int, device: "torch.device | str") -> Tensor:
    """(rows, columns) bool, true where a row meets itself."""
    return torch.arange(first, first + rows, device=device)[:, None] == torch.arange(columns, device=device)[None, :]


def _exact(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
