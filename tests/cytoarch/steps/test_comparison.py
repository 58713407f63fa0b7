"""Brains compared by how alike their areas are."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cytoarch.discovery.known import KnownTokens
from cytoarch.discovery.layout import LayoutSettings
from cytoarch.errors import StoreError
from cytoarch.steps.cluster_checks import CheckSettings, ClusterChecksStep
from cytoarch.steps.comparison import ComparisonStep, spread_out
from cytoarch.steps.opened import open_study
from cytoarch.steps.retrieval import RetrievalSettings
from cytoarch.steps.running import make
from cytoarch.steps.step import Place
from tests.cytoarch.steps.small_brain import SmallBrain, Steps

pytestmark = pytest.mark.xdist_group("steps")

HOW = CheckSettings(runs=2, counts=(2,), tokens=300), LayoutSettings(), RetrievalSettings(queries=2, neighbours=2)


def test_areas_that_a_brain_lacks_are_left_blank() -> None:
    found = spread_out({"areas": ["c", "a"], "values": [[1, 2], [2, None]]}, ["a", "b", "c"])
    np.testing.assert_array_equal(found, [[np.nan, np.nan, 2], [np.nan] * 3, [2, np.nan, 1]])


def test_a_comparison_is_kept_and_current_until_a_brain_changes(small: SmallBrain) -> None:
    with small.opened() as opened:
        name = Steps(small, opened).cluster_fit.name
    step = ComparisonStep.of(["B1"], name, *HOW)
    with open_study(small.folder / "store", "cortex") as study:
        assert make(step, study)[1]
        assert not make(step, study)[1]
        found = step.stored.open(Place(study))
    assert (found["brains"], found["pairs"], found["correlation_mean"]) == (["B1"], [], None)
    assert found["areas"] == ["cortex", "white matter"]
    assert found["checks"]["followed"]["labels"]["excess"] > 0.5  # the halves of the sections differ
    assert found["retrieval"]["shared"]["labels"]["share"] > found["retrieval"]["shared"]["labels"]["chance"] + 0.2
    assert "brains" not in found["checks"]["followed"]  # there is one
    folder = study.catalogue.path(step.product())
    page = (folder / "index.html").read_text()
    for shown in ("layout.png", "nearest.png"):
        assert f'src="{shown}"' in page
        with Image.open(folder / shown) as picture:
            assert min(picture.size) > 200
    rows = list(csv.DictReader((folder / "layout.csv").read_text().splitlines()))
    assert {one["area"] for one in rows} <= {"cortex", "white matter", ""}
    assert len(rows) == found["layout"]["tokens"]


def test_more_clusters_than_tokens_are_refused_before_anything_is_clustered(
    small: SmallBrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small.opened() as opened:
        fit = Steps(small, opened).cluster_fit
    many = replace(fit, cluster=fit.cluster.model_copy(update={"clusters": 200}))
    with pytest.raises(StoreError, match=r"check\.tokens is 100, too few for 200 clusters"):
        ClusterChecksStep.of(many, CheckSettings(tokens=100))
    monkeypatch.setattr(KnownTokens, "__len__", lambda _: 0)
    step = ComparisonStep.of(["B1"], fit.name, *HOW)
    with open_study(small.folder / "store", "none") as study, pytest.raises(StoreError, match="every brain gives 0"):
        make(step, study)


def test_brains_without_labelled_areas_cannot_be_compared(small: SmallBrain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClusterChecksStep, "opened", classmethod(lambda _cls, _folder: {"followed": {}}))
    with small.opened() as opened:
        name = Steps(small, opened).cluster_fit.name
    with open_study(small.folder / "store", "bare") as study, pytest.raises(StoreError, match="no labels lie on"):
        make(ComparisonStep.of(["B1"], name, *HOW), study)
