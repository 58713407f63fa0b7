"""Embeddings laid out in two and three dimensions, to be looked at: by UMAP, or by their principal components."""

import importlib.util
import warnings
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sklearn.decomposition import PCA
from sklearn.metrics import calinski_harabasz_score

from cytoarch.discovery.known import KnownTokens
from cytoarch.discovery.quality import UNKNOWN
from cytoarch.errors import ModelError
from cytoarch.reproducible import single_threaded
from cytoarch.settings import Settings

Float32 = NDArray[np.float32]


class LayoutSettings(Settings):
    """How embeddings are laid out."""

    method: Literal["pca", "umap"] = Field(
        default="pca", description="umap keeps neighbours together and needs umap-learn; pca keeps large distances."
    )
    tokens: int = Field(default=4000, ge=50, le=200_000, description="Tokens that are laid out, at most.")
    neighbours: int = Field(default=15, ge=2, le=200, description="Neighbours that UMAP keeps together.")
    min_distance: float = Field(default=0.1, ge=0, le=0.99, description="How dense UMAP draws what is alike.")
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of the choice of tokens, and of UMAP.")


class Layout(NamedTuple):
    """Where tokens lie."""

    flat: Float32
    """(n, 2)."""
    deep: Float32
    """(n, 3)."""
    method: Literal["pca", "umap"]
    """How they were laid out: UMAP needs more tokens than the neighbours it keeps."""


def check_method(settings: LayoutSettings) -> None:
    """Raise ModelError, saying what to install, if the method cannot be used here."""
    if settings.method == "umap" and importlib.util.find_spec("umap") is None:
        raise ModelError(
            "layout by umap: the package umap-learn is not installed; pip install 'cytoarch[umap]', or choose pca"
        )


def lay_out(tokens: Float32, settings: LayoutSettings) -> Layout:
    """Tokens (n, c), standardised, in two and in three dimensions.

    Those that are too few for the neighbours of UMAP are laid out by their principal components, and said to be.
    Raises ModelError if the method cannot be used.
    """
    check_method(settings)
    if settings.method == "pca" or len(tokens) <= settings.neighbours + 1:
        with single_threaded():
            found = PCA(3, random_state=settings.seed).fit_transform(tokens).astype(np.float32)
        return Layout(found[:, :2], found, "pca")
    flat, deep = (_umap(tokens, dimensions, settings) for dimensions in (2, 3))
    return Layout(flat, deep, "umap")


def _umap(tokens: Float32, dimensions: int, settings: LayoutSettings) -> Float32:
    """UMAP by umap-learn (McInnes et al., 2018), with one thread, so that a seed gives the same picture again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of tensorflow that is not there, and of the one thread asked for
        from umap import UMAP

        model = UMAP(
            n_neighbors=settings.neighbours,
            min_dist=settings.min_distance,
            n_components=dimensions,
            metric="euclidean",
            random_state=settings.seed,
            n_jobs=1,
        )
        return np.asarray(model.fit_transform(tokens), dtype=np.float32)


def spread_of_groups(flat: Float32, known: KnownTokens) -> dict[str, dict[str, float]]:
    """Calinski and Harabasz's index of all that is known, on a layout (n, 2), with how many tokens and groups it is of.

    It grows with the number of tokens: only layouts of as many compare.
    """
    found = {}
    for name, values in known.values().items():
        at = values != UNKNOWN
        groups = len(np.unique(values[at]))
        if 1 < groups < at.sum():
            score = float(calinski_harabasz_score(flat[at], values[at]))
            found[name] = {"calinski_harabasz": round(score, 3), "groups": groups, "tokens": int(at.sum())}
    return found
