"""What the embeddings that a head was trained on look like, so that others can be told from them.

Per class a Gaussian in a space of few principal components, all with one covariance: the distance of Mahalanobis to the
centre of a class says how unlike its tokens an embedding is (Lee et al., A simple unified framework for detecting
out-of-distribution samples, NeurIPS 2018). How far the class's own tokens lie is measured on sections that its centre
was not fitted to, since those it was fitted to lie too near.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cytoarch.errors import ModelError
from cytoarch.learning.cards import HeadCard
from cytoarch.reproducible import single_threaded
from cytoarch.sampling import TokenSource, draw_tokens

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

COMPONENTS = 16
"""Principal components that distances are measured in."""
FOLDS = 5
"""Parts of the sections that distances are measured on, each by centres that are fitted to the others."""
MAX_SECTIONS = 64
"""Sections that the domain is fitted to, evenly chosen."""
TOKENS = 1 << 14
"""Tokens that it is fitted to, at most, or what fits `SAMPLE_BYTES`."""
SAMPLE_BYTES = 256 << 20
LEAST_TOKENS = 20
"""A class with fewer tokens takes the distances of all classes together."""
SHARES = (0.95, 0.99)
"""Shares of a class's own tokens that lie within its two reaches."""
RIDGE = 1e-3
"""Added to the covariance, in units of its mean variance: components that do not vary within a class."""


@dataclass(frozen=True)
class Domain:
    """How embeddings of each class are spread: whitened by what varies within classes."""

    mean: Float32
    """(c,)."""
    projection: Float32
    """(c, m): embeddings less the mean, times this, have unit covariance within classes."""
    centres: Float32
    """(k, m); of classes without tokens zero."""
    reach: Float32
    """(k, 2): the distances that 95 and 99 % of a class's own tokens lie within; 0: the class had no tokens."""

    @classmethod
    def from_tensors(cls, card: HeadCard, tensors: Mapping[str, Float32]) -> Self:
        """Rebuild a domain. Raises ModelError if its tensors do not fit the card."""
        check_domain(card, {name: tensor.shape for name, tensor in tensors.items()})
        if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
            raise ModelError("the domain of a head needs finite tensors, found others")
        return cls(**tensors)

    def tensors(self) -> Mapping[str, Float32]:
        """Its arrays by name."""
        return {"mean": self.mean, "projection": self.projection, "centres": self.centres, "reach": self.reach}

    def distances(self, embeddings: Float32, classes: Int64) -> Float32:
        """How far embeddings (c, y, x) lie from the centre of the class (y, x) that each is taken for, (y, x)."""
        import torch

        tokens = torch.from_numpy(np.ascontiguousarray(embeddings.reshape(len(embeddings), -1)))
        # torch, because numpy's product of the same matrices depends on how many threads compute it
        shifted = torch.from_numpy(self.projection).T @ (tokens - torch.from_numpy(self.mean)[:, None])
        from_centre = shifted.numpy().T - self.centres[classes.ravel()]
        return np.asarray(np.sqrt((from_centre**2).sum(axis=1)).reshape(classes.shape), dtype=np.float32)

    def grades(self, embeddings: Float32, classes: Int64) -> NDArray[np.uint8]:
        """How unlike the class (y, x) they are taken for embeddings (c, y, x) are.

        1: within the reach of 95 % of its tokens; 2: within that of 99 %; 3: beyond, or a class without tokens.
        """
        reach = self.reach[classes]
        far = self.distances(embeddings, classes)[..., None] > reach
        return np.asarray(np.where(reach[..., 1] > 0, 1 + far.sum(axis=-1), 3), dtype=np.uint8)


def check_domain(card: HeadCard, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ModelError unless these are the shapes of the domain of a head with this card, or there are none."""
    width, classes = sum(card.dims), len(card.classes)
    components = shapes["projection"][-1] if len(shapes.get("projection", ())) == 2 else 0
    wanted = {
        "mean": (width,),
        "projection": (width, components),
        "centres": (classes, components),
        "reach": (classes, len(SHARES)),
    }
    if shapes and (dict(shapes) != wanted or not 1 <= components <= COMPONENTS):
        raise ModelError(f"the domain of a head with tensors {wanted} is needed, found {dict(shapes)}"[:500])


def domain_of(sources: Sequence[TokenSource], classes: int, seed: int) -> Domain | None:
    """The domain of labelled tokens, whose strata are their classes; None where fewer than two classes have any.

    Raises UnreadableSectionError if a section is damaged.
    """
    chosen = np.unique(np.linspace(0, len(sources) - 1, min(len(sources), MAX_SECTIONS)).astype(int)).tolist()
    tokens: list[NDArray[Any]] = []
    strata: list[Int64] = []
    for index in chosen:
        budget = SAMPLE_BYTES // len(chosen)
        each = max(1, TOKENS // (len(chosen) * classes))
        sample = draw_tokens([sources[index]], classes, each, seed, budget_bytes=budget)
        tokens.append(sample.tokens.astype(np.float32))
        strata.append(sample.strata)
    if len(np.unique(np.concatenate(strata))) < 2:
        return None
    parts = np.repeat(np.arange(len(chosen)), [len(one) for one in strata])
    return fit_domain(np.concatenate(tokens), np.concatenate(strata), parts, classes)


def fit_domain(tokens: Float32, strata: Int64, parts: Int64, classes: int) -> Domain:
    """The domain of tokens (n, c) of classes (n,) from sections (n,), at least two tokens of two classes.

    Its space is that of all tokens; the reach of a class is measured on each fold of the sections by the centres and
    the covariance of the others. Where there is one section only, on that itself.
    """
    from sklearn.decomposition import PCA

    with single_threaded():
        count = min(COMPONENTS, len(tokens) - 1, tokens.shape[1])
        pca = PCA(count, svd_solver="randomized", random_state=0).fit(tokens)
        z = (tokens - pca.mean_) @ pca.components_.T
        centres, whitening = _within(z, strata, classes)
        reach = _reach(z, strata, parts, classes)
    projection = pca.components_.T @ whitening
    arrays = (pca.mean_, projection, centres @ whitening, reach)
    return Domain(*(np.ascontiguousarray(one, dtype=np.float32) for one in arrays))


def _within(z: NDArray[Any], strata: Int64, classes: int) -> tuple[Float64, Float64]:
    """Centres (k, m) of classes, and the whitening (m, m) of what is left when they are taken off."""
    centres = np.zeros((classes, z.shape[1]))
    for one in np.unique(strata):
        centres[one] = z[strata == one].mean(axis=0)
    residuals = z - centres[strata]
    covariance = residuals.T @ residuals / len(z)
    covariance += (RIDGE * np.trace(covariance) / len(covariance) + 1e-12) * np.eye(len(covariance))
    values, vectors = np.linalg.eigh(covariance)
    return centres, np.asarray(vectors / np.sqrt(values))


def _reach(z: NDArray[Any], strata: Int64, parts: Int64, classes: int) -> Float64:
    """The quantiles (k, 2) of the distances of tokens to the centres of their classes, fold by fold of sections."""
    places = np.unique(parts, return_inverse=True)[1]
    folds = places % min(FOLDS, int(places.max()) + 1)
    distances = np.full(len(z), np.nan)
    for fold in np.unique(folds):
        own = folds == fold
        others = ~own if not own.all() else own
        centres, whitening = _within(z[others], strata[others], classes)
        known = own & np.isin(strata, strata[others])
        distances[known] = np.linalg.norm((z[known] - centres[strata[known]]) @ whitening, axis=1)
    measured = np.isfinite(distances)
    reach = np.zeros((classes, len(SHARES)))
    for one in np.unique(strata):
        own = measured & (strata == one)
        reach[one] = np.quantile(distances[own if own.sum() >= LEAST_TOKENS else measured], SHARES)
    return reach
