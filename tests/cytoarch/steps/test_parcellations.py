"""Maps are smoothed as the settings say, and what they take is told beforehand."""

from dataclasses import replace

import numpy as np
import pytest

from cytoarch.brains import LabelClass
from cytoarch.errors import ModelError, StoreError
from cytoarch.parcellation.drawing import draw_window
from cytoarch.parcellation.smoothing import SmoothSettings
from cytoarch.steps.embeddings import check_space
from cytoarch.steps.parcellations import ProbabilitiesStep, check_order, estimated_bytes
from cytoarch.steps.sections import SECTION, ready_sections
from cytoarch.steps.sources import Maybe, open_head
from cytoarch.steps.step import MissingInputError, Place
from cytoarch.store.drafts import remove
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


def test_an_order_that_cannot_be_followed_is_refused_before_anything_is_computed(small: SmallBrain) -> None:
    for order, classes, error, told in (
        ("depth", 2, StoreError, r"no section has a depth laplace; run trace-cortex, or .*--smooth\.order none"),
        ("bands", 33, ModelError, r"33 classes and at most 32 .*--smooth\.order none"),
    ):
        other = replace(small, chain=Chain(smooth=SmoothSettings.model_validate({"order": order})))
        with other.opened() as opened:
            steps = Steps(other, opened)
            card = open_head(opened.store, steps.model).card
            more = tuple(LabelClass(name=f"c{number}", ids=(number + 1,)) for number in range(classes))
            with pytest.raises(error, match=told):
                check_order(opened, opened.sections, card.model_copy(update={"classes": more}), steps.parcellation[1])


def test_what_only_shows_a_product_goes_without_one_that_is_older(
    small: SmallBrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small.opened() as opened:
        stored = Steps(small, opened).parcellation[0].stored
        place, shown = Place(opened, opened.rows["s1"]), Maybe(stored, "gap")
        assert shown.digests(place) == stored.digests(place)
        assert shown.open(place) is not None
        with monkeypatch.context() as patch:
            patch.setattr(ProbabilitiesStep, "version", ProbabilitiesStep.version + 1)
            assert (shown.digests(place), shown.open(place)) == ({}, None)
        remove(opened.catalogue, SECTION.product("s1"))
        assert (shown.digests(place), shown.addresses(place), shown.open(place)) == ({}, {}, None)
        with pytest.raises(MissingInputError, match="older"):
            Maybe(stored).digests(place)
