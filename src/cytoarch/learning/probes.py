"""The linear probe: multinomial logistic regression on standardised embeddings, token by token."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from cytoarch.errors import ModelError
from cytoarch.learning.cards import HeadCard
from cytoarch.reproducible import single_threaded
from cytoarch.sampling import moments, standardised

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

ITERATIONS = 1000
"""Steps of the solver after which a fit counts as not converged."""
ABSENT_LOGIT = -1e4
"""Bias of a class that no training token has: its probability is zero."""


@dataclass(frozen=True)
class Probe:
    """A linear layer over standardised embeddings."""

    card: HeadCard
    weight: Float32
    """(k, c), the standardisation folded in."""
    bias: Float32
    """(k,)."""

    @classmethod
    def check_shapes(cls, card: HeadCard, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise ModelError unless these are the shapes of the probe that a card describes."""
        wanted = {"weight": (len(card.classes), sum(card.dims)), "bias": (len(card.classes),)}
        if dict(shapes) != wanted:
            raise ModelError(f"a probe with tensors {wanted} is needed, found {dict(shapes)}"[:500])

    @classmethod
    def from_tensors(cls, card: HeadCard, tensors: Mapping[str, Float32]) -> Self:
        """Rebuild a probe. Raises ModelError if its tensors do not fit its card."""
        cls.check_shapes(card, {name: tensor.shape for name, tensor in tensors.items()})
        if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
            raise ModelError(f"a probe's finite tensors are needed, found others among {sorted(tensors)}")
        return cls(card, tensors["weight"], tensors["bias"])

    @property
    def bytes_per_token(self) -> int:
        """Memory that `probabilities` takes per token at its peak (bytes)."""
        return 4 * (2 * sum(self.card.dims) + 4 * len(self.card.classes))

    def tensors(self) -> Mapping[str, Float32]:
        """Its weights by name."""
        return {"weight": self.weight, "bias": self.bias}

    def probabilities(self, embeddings: Float32) -> Float32:
        """(b, c, y, x) -> (b, k, y, x), sums to 1 over k."""
        import torch

        b, c, y, x = embeddings.shape
        # torch, because numpy's product of the same matrices depends on how many threads compute it
        tokens = torch.from_numpy(np.ascontiguousarray(embeddings.reshape(b, c, y * x)))
        logits = (torch.from_numpy(self.weight) @ tokens).numpy() + self.bias[:, None]
        logits -= logits.max(axis=1, keepdims=True)
        np.exp(logits, out=logits)
        return np.asarray(logits / logits.sum(axis=1, keepdims=True)).reshape(b, -1, y, x)


def fit_bytes_per_token(width: int, classes: int) -> int:
    """Memory that fitting a probe takes per token of so many values, beside the tokens themselves (bytes).

    The standardised token as float32, and in the solver its logits, probabilities and their gradient as float64.
    """
    return 4 * width + 8 * 5 * classes


def evenness(dims: Sequence[int]) -> Float64:
    """What standardised tokens (c,) are multiplied by so that every layer varies alike in all, however long it is.

    A penalty on weights would else leave little to 26 values beside 1,536. Of one layer, or of equal ones, 1.

    >>> evenness((2, 8)).round(3).tolist()
    [1.581, 1.581, 0.791, 0.791, 0.791, 0.791, 0.791, 0.791, 0.791, 0.791]
    """
    return np.repeat([np.sqrt(sum(dims) / (len(dims) * width)) for width in dims], dims)


def evened(tokens: NDArray[Any], dims: Sequence[int], mean: Float64, spread: Float64) -> Float32:
    """Tokens (n, c) of layers `dims` as a probe learns from them: standardised, every layer varying alike in all."""
    return standardised(tokens, mean, spread / evenness(dims))


def fit_probe(
    card: HeadCard, embeddings: NDArray[Any], targets: NDArray[np.int64], regularisation: float, sharpness: float = 1.0
) -> tuple[Probe, dict[str, int | bool]]:
    """Fit a probe to tokens (n, c) of classes (n,), classes weighted alike; returns it and how the fit went.

    Tokens are standardised, and the penalty weighs every layer of the embeddings alike, however long it is.
    `regularisation` is scikit-learn's 1/C; logits are multiplied by `sharpness`, which changes no order of classes.
    Classes without a token keep probability zero.
    """
    model = LogisticRegression(C=1 / regularisation, class_weight="balanced", max_iter=ITERATIONS, tol=1e-4)
    with single_threaded(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        mean, spread = moments([embeddings])
        model.fit(evened(embeddings, card.dims, mean, spread), targets)
    spread = spread / evenness(card.dims)
    converged = not any(issubclass(one.category, ConvergenceWarning) for one in caught)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn gives one row for two classes
        coefficients, intercepts = (np.stack([-half, half]) / 2 for half in (coefficients[0], intercepts[0]))
    weight = np.zeros((len(card.classes), embeddings.shape[1]))
    bias = np.full(len(card.classes), ABSENT_LOGIT)
    coefficients, intercepts = sharpness * coefficients, sharpness * intercepts
    weight[model.classes_] = coefficients / spread
    bias[model.classes_] = intercepts - (coefficients / spread * mean).sum(axis=1)
    fit = {"iterations": int(np.max(model.n_iter_)), "converged": converged}
    return Probe(card, weight.astype(np.float32), bias.astype(np.float32)), fit
