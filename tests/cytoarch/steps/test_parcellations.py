"""Maps are smoothed as the settings say, and what they take is told beforehand."""

from dataclasses import replace

import numpy as np
import pytest

from cytoarch.errors import StoreError
from cytoarch.parcellation.drawing import draw_window
from cytoarch.parcellation.smoothing import SmoothSettings
from cytoarch.steps.embeddings import check_space
from cytoarch.steps.parcellations import estimated_bytes
from cytoarch.steps.sections import SECTION, ready_sections
from cytoarch.steps.sources import open_head
from cytoarch.steps.step import Place
from tests.cytoarch.steps.small_brain import Chain, SmallBrain, Steps

pytestmark = pytest.mark.xdist_group("steps")


def shown(small: SmallBrain, weight: float) -> np.ndarray:
    """How sure the map of a section is (4, y, x), smoothed so strongly, once its record says that it was."""
    other = replace(small, chain=Chain(smooth=SmoothSettings(weight=weight)))
    with other.opened() as opened:
        smoothed = Steps(other, opened).parcellation[1]
        Steps(other, opened).each(smoothed)
        place = Place(opened, opened.rows["s1"])
        assert smoothed.stored.record(place).facts["smooth_weight"] == weight
        return smoothed.stored.open(place).confidence.levels[0].pixels()


def test_maps_are_smoothed_as_strongly_as_the_settings_say(small: SmallBrain) -> None:
    with small.opened() as opened:
        steps = Steps(small, opened)
        place = Place(opened, opened.rows["s1"])
        image, raw = SECTION.open(place), steps.parcellation[0].stored.open(place)
    for weight in (0.0, 0.6):
        drawn = draw_window(raw, image.grid, (0, 0, *image.grid.shape), weight)
        np.testing.assert_array_equal(shown(small, weight), drawn.confidence)
    assert (shown(small, 0.0) != drawn.confidence).any()


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
        drawn = [smoothed.stored.open(Place(opened, one)).labels.levels[0].pixels() for one in sections]
        pixels = sum(int((one > 0).sum()) for one in drawn)
        assert 0.8 < maps / (pixels * (drawn[0].itemsize + 4) * 4 / 3) < 1.5
        both = estimated_bytes(opened, sections, card, (replace(raw, kept_classes=2), smoothed))
        assert both > maps
        with pytest.raises(StoreError, match=r"probabilities .* take up to .* GB.*choose fewer kept_classes"):
            check_space(opened.store, 10**18, "probabilities of 3 sections", "fewer kept_classes")
