"""How strongly a probe is held small: told by parts of what it learns from, each by a fit to the others.

Parts are whole brains, where tokens are of several, else every fourth section: areas of a stretch of sections may be
nowhere else. What lies in one part only cannot be told by the others, whatever the penalty: scores are of classes that
two parts have. Of penalties that are about as good the greatest is taken: what is held small says less of how these
very brains were stained. The penalty does not change when axes are turned, so that fits in the first principal
components tell the same for less.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cytoarch.learning.probes import evened
from cytoarch.measures.overlap import class_scores, confusion_matrix, mean_of_defined
from cytoarch.reproducible import single_threaded
from cytoarch.sampling import moments
from cytoarch.tiling import evenly

if TYPE_CHECKING:
    from torch import Tensor

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

DEFAULT_PENALTY = 1.0
"""Where there is nothing to choose by."""
PENALTIES = (1e4, 1e3, 100.0, 10.0, 1.0)
"""That are tried, for `TOKENS` tokens; each fit begins where the one before ended."""
TOKENS = 6000
"""Tokens that are tried on, at most, evenly chosen; the penalty grows with their number."""
COMPONENTS = 256
"""Principal components of them."""
FOLDS = 4
"""Parts, at most."""
ABOUT = 0.01
"""Macro-F1 by which penalties may miss the best."""
STEPS, ENOUGH = 40, 1e-5
"""Of L-BFGS, which ends where the loss of a token changes by less."""


class Penalty(NamedTuple):
    """The penalty that was chosen, and what each gave on the parts left out."""

    regularisation: float
    macro_f1: tuple[tuple[float, float], ...]

    def facts(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "regularisation": self.regularisation,
            "strengths": [[penalty, round(score, 6)] for penalty, score in self.macro_f1],
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
    confusions = {penalty: np.zeros((len(classes), len(classes)), dtype=np.int64) for penalty in PENALTIES}
    for fold in np.unique(parts):
        learned, asked = parts != fold, (parts == fold) & shared[targets]
        if not asked.any():
            continue
        for penalty, told in _path(reduced[learned], targets[learned], reduced[asked], len(classes)):
            counts = confusion_matrix(targets[asked], told, len(classes))
            np.add(confusions[penalty], counts, out=confusions[penalty])
    scores = {one: mean_of_defined(class_scores(counts).f1[shared]) for one, counts in confusions.items()}
    return _chosen(scores, len(tokens))


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


def _path(learned: Float32, targets: Int64, asked: Float32, classes: int) -> Iterator[tuple[float, Int64]]:
    """The classes (m,) that a probe tells of tokens (m, c), by penalty, having learned from others (n, c)."""
    import torch

    with single_threaded():
        mean = learned.mean(axis=0)
        x, y = torch.from_numpy(learned - mean), torch.from_numpy(targets)
        free = torch.zeros(classes, x.shape[1] + 1, requires_grad=True)
        for penalty in PENALTIES:
            _improve(free, x, y, penalty / TOKENS)
            weight, bias = free.detach()[:, :-1].numpy(), free.detach()[:, -1].numpy()
            yield penalty, np.asarray(((asked - mean) @ weight.T + bias).argmax(axis=1), dtype=np.int64)


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


def _chosen(scores: Mapping[float, float], tokens: int) -> Penalty:
    """The greatest penalty that is about as good as the best, for so many tokens; the default where all are equal."""
    if len(set(scores.values())) == 1:
        return Penalty(DEFAULT_PENALTY, tuple(scores.items()))
    best = max(scores.values())
    penalty = max(one for one, score in scores.items() if score >= best - ABOUT)
    return Penalty(penalty * tokens / TOKENS, tuple(scores.items()))
