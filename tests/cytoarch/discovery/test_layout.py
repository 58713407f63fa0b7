"""Embeddings laid out in two and three dimensions."""

import importlib.util

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics import calinski_harabasz_score

from cytoarch.discovery import layout as layout_module
from cytoarch.discovery.layout import LayoutSettings, lay_out, spread_of_groups
from cytoarch.errors import ModelError
from tests.cytoarch.discovery.made_up_tokens import known_tokens


def test_principal_components_are_those_of_scikit_learn() -> None:
    known = known_tokens()
    found = lay_out(known.tokens, LayoutSettings())
    np.testing.assert_allclose(np.abs(found.deep), np.abs(PCA(3).fit_transform(known.tokens)), atol=1e-3)
    np.testing.assert_array_equal(found.flat, found.deep[:, :2])


def test_how_far_groups_lie_apart_is_told_with_how_many_they_are() -> None:
    known = known_tokens()
    flat = lay_out(known.tokens, LayoutSettings()).flat
    found = spread_of_groups(flat, known)
    assert found["labels"]["calinski_harabasz"] == pytest.approx(calinski_harabasz_score(flat, known.area), rel=1e-3)
    assert (found["labels"]["groups"], found["labels"]["tokens"]) == (2, 400)
    assert found["labels"]["calinski_harabasz"] > 100 * found["sections"]["calinski_harabasz"]
    assert "hemispheres" not in found


def test_without_the_package_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout_module.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ModelError, match=r"pip install 'cytoarch\[umap\]', or choose pca"):
        lay_out(known_tokens(50).tokens, LayoutSettings(method="umap"))


def test_tokens_too_few_for_umap_are_said_to_be_laid_out_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout_module, "check_method", lambda _settings: None)
    settings = LayoutSettings(method="umap", neighbours=100)
    assert lay_out(known_tokens(50).tokens, settings).method == "pca"


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec("umap") is None, reason="umap-learn is not installed")
def test_umap_keeps_areas_apart_and_comes_out_the_same_again() -> None:
    known = known_tokens(150)
    settings = LayoutSettings(method="umap", neighbours=10)
    found = lay_out(known.tokens, settings)
    assert (found.flat.shape, found.deep.shape) == ((150, 2), (150, 3))
    assert spread_of_groups(found.flat, known)["labels"]["calinski_harabasz"] > 300
    np.testing.assert_array_equal(lay_out(known.tokens, settings).flat, found.flat)
