"""Maps are smoothed as the settings say."""

from dataclasses import replace

import numpy as np
import pytest

from cytoarch.parcellation.smoothing import SmoothSettings
from cytoarch.steps.step import Place
from tests.cytoarch.steps.small_brain import Chain, SmallBrain, Steps

pytestmark = pytest.mark.xdist_group("steps")


def roughness(small: SmallBrain, weight: float) -> tuple[float, float]:
    """Mean step between neighbours of the probabilities as the head gave them, and as they were smoothed."""
    other = replace(small, chain=Chain(smooth=SmoothSettings(weight=weight)))
    with other.opened() as opened:
        raw, smoothed = Steps(other, opened).parcellation
        Steps(other, opened).each(smoothed)
        place = Place(opened, opened.rows["s1"])
        images = raw.stored.open(place), smoothed.stored.open(place).probabilities
        before, after = (np.abs(np.diff(one.levels[0].pixels().astype(float), axis=-1)).mean() for one in images)
    return float(before), float(after)


def test_no_weight_leaves_probabilities_as_they_are_and_more_of_it_smooths_more(small: SmallBrain) -> None:
    raw, untouched = roughness(small, 0.0)
    assert untouched == pytest.approx(raw, rel=1e-3)
    some, more = (roughness(small, weight)[1] for weight in (0.15, 0.6))
    assert raw > some > more
