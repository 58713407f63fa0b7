"""Depth and points as products, and depth as an input of heads."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cytoarch.anatomy.depth_maps import DEPTH_CHANNELS, DepthMap
from cytoarch.anatomy.midline import MidlineSettings
from cytoarch.anatomy.tissue import TissueMask, TissueSettings
from cytoarch.embeddings.places import Points
from cytoarch.errors import TrainingError
from cytoarch.learning.training import ProbeSettings
from cytoarch.parcellation.inference import ParcellateSettings
from cytoarch.steps.depth import DepthStep
from cytoarch.steps.midline import CortexPointsStep, MidlineStep, schema_of
from cytoarch.steps.running import make
from cytoarch.steps.sources import open_head
from cytoarch.steps.step import Place
from tests.cytoarch.steps.small_brain import HEIGHT, IDS, SIZE_UM, WIDTH, SmallBrain, Steps

pytestmark = pytest.mark.xdist_group("steps")


@pytest.fixture
def banded(small: SmallBrain, monkeypatch: pytest.MonkeyPatch) -> SmallBrain:
    """The brain with grey matter on the left of every section and white matter on the right of it."""
    classes = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    classes[8:88, 8:64], classes[8:88, 64:120] = 1, 2
    made = TissueMask.open

    def told(path: Path) -> TissueMask:
        return dataclasses.replace(made(path), mask=classes > 0, matter=classes)

    monkeypatch.setattr(TissueMask, "open", told)
    return dataclasses.replace(
        small, chain=small.chain.model_copy(update={"tissue": TissueSettings(pixel_size_um=SIZE_UM)})
    )


def test_depth_is_kept_where_it_was_measured(banded: SmallBrain) -> None:
    with banded.opened() as opened:
        steps = Steps(banded, opened)
        steps.each(*banded.ingestion(), DepthStep())
        place = Place(opened, opened.sections[0])
        found = DepthStep().stored.open(place)
        facts = DepthStep().stored.record(place).facts
    assert found.cortex.sum() == 80 * 56
    assert facts["cortex_mm2"] == pytest.approx(80 * 56 * (SIZE_UM / 1000) ** 2)
    assert np.corrcoef(found.depth[48, 8:64], np.arange(56))[0, 1] > 0.9
    assert (found.depth[found.ribbon == 2] == 1).all()


def test_a_section_without_cortex_has_an_empty_depth_that_says_why(small: SmallBrain, monkeypatch: Any) -> None:
    with small.opened() as opened:
        made = TissueMask.open
        monkeypatch.setattr(
            TissueMask, "open", lambda path: dataclasses.replace(made(path), matter=made(path).mask.astype(np.uint8))
        )
        steps = Steps(small, opened)
        steps.each(DepthStep())
        place = Place(opened, opened.sections[0])
        assert not DepthStep().stored.open(place).cortex.any()
        (doubt,) = DepthStep().stored.record(place).facts["doubts"]
    assert "no cortex lies between the pial surface and white matter" in doubt
    assert "0 of white matter" in doubt


def test_points_of_a_brain_are_one_table_that_embed_points_reads(banded: SmallBrain) -> None:
    depth = DepthStep()
    middle = MidlineStep.of(depth, MidlineSettings(spacing_um=200, patch_um=160, shortest_um=300))
    with banded.opened() as opened:
        steps = Steps(banded, opened)
        steps.each(*banded.ingestion(), depth, middle)
        points = CortexPointsStep.of(middle.stored)
        make(points, opened)
        folder = opened.catalogue.path(points.product())
        files = points.opened(folder)
        read = Points.read(files.csv_path, [one.section_id for one in opened.sections])
    assert read.section_ids == set(IDS)
    table = pd.read_parquet(files.parquet_path)
    assert len(table) == sum(len(one.rows) for one in read.sections.values())
    assert [one["name"] for one in schema_of(folder)] == list(table.columns)
    assert not {"x_mm", "y_mm", "z_mm"} & set(table.columns), "no section states its place along the axis"
    rows, columns = np.array(read.sections["s0"].places_px).T
    assert ((columns >= 7.5) & (columns <= 63.5) & (rows >= 7.5) & (rows <= 87.5)).all()
    assert np.abs(table["depth"] - 0.5).max() < 0.1


# -- heads that are told of depth --------------------------------------------------------------------------------------


def test_a_head_learns_with_depth_and_maps_alike_from_cache_and_encoder(banded: SmallBrain) -> None:
    told = ProbeSettings(depth="laplace")
    chain = banded.chain.model_copy(update={"train": told})
    small = dataclasses.replace(banded, chain=chain)
    with small.opened() as opened:
        steps = Steps(small, opened)
        steps.each(*small.ingestion())
        steps.each(steps.embeddings)
        make(steps.scale, opened)
        with pytest.raises(
            TrainingError, match=r"6 of 6 labelled sections .* have no depth 'laplace'; run trace-cortex"
        ):
            make(steps.training, opened)
        steps.each(DepthStep())
        assert make(steps.training, opened)[1]
        assert "laplace" in steps.training.name
        from cytoarch.steps.training import keep_head

        keep_head(opened, steps.training.name)
        card = open_head(opened.store, steps.model).card
        assert card.depth == "laplace"
        assert card.dims == (*card.embedded_dims, DEPTH_CHANNELS)
        steps.each(*steps.parcellation)
        streamed = steps.parcellation[1].stored.open(Place(opened, opened.sections[0])).labels.levels[0].pixels()
        cached_chain = chain.model_copy(update={"parcellate": ParcellateSettings(source="cache")})
        cached = Steps(dataclasses.replace(small, chain=cached_chain), opened)
        cached.each(*cached.parcellation)
        stored = cached.parcellation[1].stored.open(Place(opened, opened.sections[0])).labels.levels[0].pixels()
    assert set(np.unique(streamed)) == {0, 3, 7}
    assert (streamed == stored).mean() > 0.95


def test_depth_reaches_the_tokens_of_a_section(banded: SmallBrain) -> None:
    with banded.opened() as opened:
        steps = Steps(banded, opened)
        steps.each(*banded.ingestion(), DepthStep())
        steps.each(steps.embeddings)
        place = Place(opened, opened.sections[0])
        embeddings, depth = steps.embeddings.stored.open(place), DepthStep().stored.open(place)
    joined = embeddings.joined_by(depth)
    assert joined.dims == (*embeddings.dims, DEPTH_CHANNELS)
    whole = joined.read(0, 0, *joined.grid)
    np.testing.assert_array_equal(whole[: sum(embeddings.dims)], embeddings.read(0, 0, *embeddings.grid))
    told = whole[-DEPTH_CHANNELS:]
    assert set(np.unique(told.sum(axis=0).round(5))) == {0.0, 1.0}
    part = joined.read(1, 2, 2, 3)
    np.testing.assert_array_equal(part, whole[:, 1:3, 2:5])


def test_the_map_of_depth_gives_codes_at_any_cells(banded: SmallBrain) -> None:
    with banded.opened() as opened:
        steps = Steps(banded, opened)
        steps.each(*banded.ingestion(), DepthStep())
        depth: DepthMap = DepthStep().stored.open(Place(opened, opened.sections[0]))
    codes = depth.codes(depth.grid)
    np.testing.assert_array_equal(codes[depth.cortex], depth.depth[depth.cortex])
    assert set(np.unique(codes[~depth.cortex])) == {-1.0, 2.0}
