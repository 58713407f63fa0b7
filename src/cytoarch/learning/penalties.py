"""How strongly a probe is held small: told by parts of what it learns from, each by a fit to the others.

Parts are whole brains, where tokens are of several, else every fourth section: areas of a stretch of sections may be
nowhere else. What lies in one part only cannot be told by the others, whatever the penalty: scores are of classes that
two parts have, each of the same weight, as in the fit. The score is the log-loss, which is proper, of probabilities
that were made no surer than they are right: logits times the one factor that suits the parts left out (Guo et al., ICML
2017). Without it a probe of many classes would be held so small that it hardly tells them apart, for what is far too
sure may name the right class more often. The factor goes with the penalty into the probe, which names the same classes
by it, with truer probabilities. The penalty does not change when axes are turned, so that fits in the first principal
components tell the same for less.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from cytoarch.learning.probes import evened
from cytoarch.reproducible import fixed_torch_threads, single_threaded
from cytoarch.sampling import moments
from cytoarch.tiling import evenly

if TYPE_CHECKING:
    from torch import Tensor

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

DEFAULT_PENALTY = 1.0
"""Where there is nothing to choose by."""
PENALTIES = (1e4, 3e3, 1e3, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0)
"""That are tried, for `TOKENS` tokens; each fit begins where the one before ended."""
TOKENS = 6000
"""Tokens that are tried on, at most, evenly chosen; the penalty grows with their number."""
COMPONENTS = 256
"""Principal components of them."""
FOLDS = 4
"""Parts, at most."""
LEAST_SHARPNESS = 0.05
"""Least factor of logits; none makes a probe surer than it was fitted."""
EQUAL = 3
"""Decimals of losses that count; of equal ones the least penalty is taken."""
STEPS, ENOUGH = 40, 1e-5
"""Of L-BFGS, which ends where the loss of a token changes by less."""


class Penalty(NamedTuple):
    """The penalty that was chosen, and what each cost on the parts left out."""

    regularisation: float
    sharpness: float
    """What logits are multiplied by (at most 1), so that the probe is as sure as it was right on the parts left out."""
    log_loss: tuple[tuple[float, float], ...]
    """By penalty, nats a token, the mean over classes, each at its own sharpness."""

    def facts(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "regularisation": self.regularisation,
            "sharpness": round(self.sharpness, 6),
            **({"log_loss": [[one, round(loss, 6)] for one, loss in self.log_loss]} if self.log_loss else {}),
        }


def choose_penalty(
    dims: Sequence[int], tokens: NDArray[Any], strata: Int64, sections: Int64, groups: Sequence[int] = ()
) -> Penalty | None:
    """The penalty for tokens (n, c) of classes (n,) from sections (n,), numbered in cutting order.

    `dims` are the lengths of the layers that c holds; `groups` says how many of the sections, one after the other, are
    of each brain; none: all are of one. None: no class lies in two parts, so that nothing tells one from another.
    """
    chosen = evenly(len(tokens), TOKENS)
    classes, targets = np.unique(strata[chosen], return_inverse=True)
    parts = folds_of(sections, groups)[chosen]
    shared = np.array([len(np.unique(parts[targets == one])) > 1 for one in range(len(classes))])
    if not shared.any():
        return None
    reduced = _components(tokens[chosen], dims)
    asked = shared[targets]
    logits = {penalty: np.zeros((len(targets), len(classes)), dtype=np.float32) for penalty in PENALTIES}
    for fold in np.unique(parts):
        learned, left_out = parts != fold, (parts == fold) & asked
        if not left_out.any():
            continue
        for penalty, told in _path(reduced[learned], targets[learned], reduced[left_out], len(classes)):
            logits[penalty][left_out] = told
    found = {penalty: _sharpened(told[asked], targets[asked]) for penalty, told in logits.items()}
    best = min(found, key=lambda penalty: (round(found[penalty][0], EQUAL), penalty))
    losses = tuple((penalty, loss) for penalty, (loss, _) in found.items())
    return Penalty(best * len(tokens) / TOKENS, found[best][1], losses)


def _sharpened(logits: Float32, targets: Int64) -> tuple[float, float]:
    """The least log-loss of logits (n, k) times one factor up to 1, classes (n,) weighted alike, and that factor."""
    weights = 1 / np.bincount(targets)[targets]
    weights /= weights.sum()

    def loss(power: float) -> float:
        told = log_softmax(np.exp(power) * logits, axis=1)
        return -float(weights @ told[np.arange(len(told)), targets])

    found = minimize_scalar(loss, bounds=(np.log(LEAST_SHARPNESS), 0), method="bounded", options={"xatol": 0.02})
    plain = loss(0)
    return (plain, 1.0) if plain <= found.fun else (float(found.fun), float(np.exp(found.x)))


def folds_of(sections: Int64, groups: Sequence[int] = ()) -> Int64:
    """The part (n,) that each token belongs to: by its brain, of one brain by its section; at most `FOLDS`.

    >>> folds_of(np.array([0, 1, 2, 3, 4])), folds_of(np.array([0, 1, 2]), (1, 2))
    (array([0, 1, 2, 3, 0]), array([0, 1, 1]))
    """
    units = np.repeat(np.arange(len(groups)), groups)[sections] if len(groups) > 1 else sections
    return np.asarray(np.unique(units, return_inverse=True)[1] % FOLDS, dtype=np.int64)


def _components(tokens: NDArray[Any], dims: Sequence[int]) -> Float32:
    """Tokens as a probe sees them, on their first principal components (n, m)."""
    from sklearn.decomposition import PCA

    with single_threaded():
        mean, spread = moments([tokens])
        seen = evened(tokens, dims, mean, spread)
        count = min(COMPONENTS, *seen.shape)
        found = PCA(count, svd_solver="randomized", random_state=0).fit_transform(seen)
    return np.asarray(found, dtype=np.float32)


def _path(learned: Float32, targets: Int64, asked: Float32, classes: int) -> Iterator[tuple[float, Float32]]:
    """Logits (m, k) of tokens (m, c), by penalty, of probes that learned from others (n, c)."""
    import torch

    with single_threaded(), fixed_torch_threads(1):
        mean = learned.mean(axis=0)
        x, y = torch.from_numpy(learned - mean), torch.from_numpy(targets)
        free = torch.zeros(classes, x.shape[1] + 1, requires_grad=True)
        for penalty in PENALTIES:
            _improve(free, x, y, penalty / TOKENS)
            weight, bias = free.detach()[:, :-1].numpy(), free.detach()[:, -1].numpy()
            yield penalty, (asked - mean) @ weight.T + bias


def _improve(free: "Tensor", x: "Tensor", y: "Tensor", penalty: float) -> None:
    """Improve weights and bias (k, c + 1): cross-entropy of classes weighted alike + penalty |W|^2 / 2, a token."""
    import torch
    from torch.nn import functional

    count = torch.bincount(y, minlength=len(free))
    share = len(y) / (count.clamp(min=1) * (count > 0).sum())
    solver = torch.optim.LBFGS([free], max_iter=STEPS, tolerance_change=ENOUGH, line_search_fn="strong_wolfe")

    def loss() -> "Tensor":
        solver.zero_grad()
        logits = x @ free[:, :-1].T + free[:, -1]
        cost = functional.cross_entropy(logits, y, weight=share, reduction="sum") / len(y)
        cost = cost + penalty / 2 * free[:, :-1].square().sum()
        cost.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward untyped
        return cost

    solver.step(loss)  # type: ignore[no-untyped-call]  # torch leaves LBFGS.step untyped
