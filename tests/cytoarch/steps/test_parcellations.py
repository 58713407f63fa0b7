"""Maps are smoothed as the settings say, and what they take is told beforehand."""

from dataclasses import replace

import numpy as np
import pytest

from cytoarch.errors import StoreError
from cytoarch.parcellation.smoothing import SmoothSettings
from cytoarch.steps.embeddings import check_space
from cytoarch.steps.parcellations import estimated_bytes
from cytoarch.steps.sections import ready_sections
from cytoarch.steps.sources import open_head
from cytoarch.steps.step import Place
from tests.cytoarch.steps.small_brain import Chain, SmallBrain, Steps

pytestmark = pytest.mark.xdist_group("steps")


def borders(small: SmallBrain, weight: float) -> tuple[int, int]:
    """How many neighbours in a row differ in class, as the head says and on the map."""
    other = replace(small, chain=Chain(smooth=SmoothSettings(weight=weight)))
    with other.opened() as opened:
        raw, smoothed = Steps(other, opened).parcellation
        Steps(other, opened).each(smoothed)
        place = Place(opened, opened.rows["s1"])
        drawn = smoothed.stored.open(place).labels.levels[0]
        before, after = raw.stored.open(place).first(drawn.grid), drawn.pixels()
    return int((np.diff(before, axis=1) != 0).sum()), int((np.diff(after.astype(int), axis=1) != 0).sum())


def test_no_weight_leaves_a_map_as_it_is_and_more_of_it_smooths_more(small: SmallBrain) -> None:
    raw, untouched = borders(small, 0.0)
    assert untouched == pytest.approx(raw, rel=0.1)
    some, more = (borders(small, weight)[1] for weight in (0.15, 0.6))
    assert raw > some > more > 0


def test_what_is_there_takes_no_more_space_and_what_is_not_is_estimated_above_what_it_takes(small: SmallBrain) -> None:
    other = replace(small, chain=Chain(smooth=SmoothSettings(weight=0.07)))
    with small.opened() as opened:
        steps = Steps(small, opened)
        card = open_head(opened.store, steps.model).card
        assert estimated_bytes(opened, ready_sections(opened), card, steps.parcellation) == 0
    with other.opened() as opened:
        steps = Steps(other, opened)
        sections = ready_sections(opened)
        maps = estimated_bytes(opened, sections, card, steps.parcellation)
        raw, smoothed = steps.parcellation
        cells = sum(
            int((raw.stored.open(Place(opened, one)).first(_grid(raw, opened, one)) > 0).sum()) for one in sections
        )
        assert 0.5 * cells * 5 < maps < 4 * cells * 6
        both = estimated_bytes(opened, sections, card, (replace(raw, kept_classes=2), smoothed))
        assert both > maps
        with pytest.raises(StoreError, match=r"probabilities .* take up to .* GB.*choose fewer kept_classes"):
            check_space(opened.store, 10**18, "probabilities of 3 sections", "fewer kept_classes")


def _grid(raw, opened, section):
    return raw.stored.open(Place(opened, section)).grid
