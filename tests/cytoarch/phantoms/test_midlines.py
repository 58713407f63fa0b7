from dataclasses import replace

import numpy as np
import pytest

from cytoarch.errors import CytoarchError
from cytoarch.phantoms.damage import TEAR
from cytoarch.phantoms.kernels import GREY
from cytoarch.phantoms.nuisances import Nuisances
from cytoarch.phantoms.points import midline_points
from cytoarch.phantoms.sections import Phantom, PhantomSection, PhantomSettings, cut, make_phantom, section_count
from cytoarch.phantoms.truth import truth_at

NUMBERS = (250, 500, 750)
WHOLE = Nuisances(shrinkage=0.15, rotation=15, translation=0.5, tilt=6, tears=2)


def phantom_of(nuisances: Nuisances) -> Phantom:
    return make_phantom(PhantomSettings(seed=3, resolution=48, nuisances=nuisances))


@pytest.fixture(scope="module")
def sections() -> list[PhantomSection]:
    return [cut(phantom_of(WHOLE), number) for number in NUMBERS]


@pytest.mark.parametrize("spacing_mm", [1.0, 0.5])
def test_neighbours_on_a_line_are_a_spacing_of_tissue_apart(sections: list[PhantomSection], spacing_mm: float) -> None:
    for section in sections:
        points = midline_points(section, spacing_mm)
        step = spacing_mm * (1 - section.mounting.shrinkage)
        neighbours = np.diff(points.line) == 0
        gaps = np.linalg.norm(np.diff(points.slide_mm, axis=0), axis=1)[neighbours] / step
        assert len(gaps) > 40
        # a straight way is shorter than the one along a fold, and never longer
        assert gaps.max() <= 1.001
        assert np.median(gaps) > 0.93
        assert gaps.min() > 0.15


def test_points_lie_in_the_middle_of_the_cortex(sections: list[PhantomSection]) -> None:
    for section in sections:
        points = midline_points(section)
        assert (points.truth.tissue == GREY).all()
        assert np.abs(points.truth.depth - 0.5).max() < 0.1
        assert np.median(np.abs(points.truth.depth - 0.5)) < 0.01
        assert set(np.unique(points.truth.hemisphere).tolist()) == {1, 2}


def test_points_know_their_truth(sections: list[PhantomSection]) -> None:
    for section in sections:
        points = midline_points(section)
        again = truth_at(section, points.slide_mm)
        for name in ("area", "layer", "hemisphere"):
            np.testing.assert_array_equal(getattr(points.truth, name), getattr(again, name))
        assert len(np.unique(again.area)) > 4


def test_their_number_is_the_length_of_the_cortex_over_the_spacing(sections: list[PhantomSection]) -> None:
    for section in sections:
        counts = [len(midline_points(section, spacing).line) for spacing in (1.0, 0.5, 0.25)]
        assert counts[1] == pytest.approx(2 * counts[0], abs=4)
        assert counts[2] == pytest.approx(4 * counts[0], abs=8)


def test_shrinkage_and_mounting_leave_the_number_of_points() -> None:
    plain = Nuisances.none()
    counts = [
        len(midline_points(cut(phantom_of(nuisances), 500)).line)
        for nuisances in (plain, plain.but(shrinkage=0.2), plain.but(rotation=20, translation=1), plain.but(mirrored=1))
    ]
    assert max(counts) - min(counts) <= 3


def test_both_hemispheres_have_lines_of_their_own(sections: list[PhantomSection]) -> None:
    for section in sections:
        points = midline_points(section)
        assert all(len(np.unique(points.truth.hemisphere[points.line == line])) == 1 for line in np.unique(points.line))
        assert (np.diff(points.line) >= 0).all()


def test_no_point_lies_in_torn_tissue(sections: list[PhantomSection]) -> None:
    for section in sections:
        intact = midline_points(section)
        y, x = intact.slide_mm[len(intact.line) // 2]
        tear = np.array([[y - section.middle_mm[0], x - section.middle_mm[1], 0.4, 5.0, 0.8, 0.05, 0.3]])
        torn = midline_points(replace(section, mounting=replace(section.mounting, tears=tear)))
        assert (torn.truth.damage != TEAR).all()
        assert (torn.truth.tissue == GREY).all()
        assert np.abs(torn.truth.depth - 0.5).max() < 0.1
        lost = len(intact.line) - len(torn.line)
        assert 1 <= lost < len(intact.line) / 2


@pytest.mark.parametrize("beyond", [-1, 0, 500])
def test_a_section_that_the_brain_does_not_have_is_refused(beyond: int) -> None:
    phantom = phantom_of(WHOLE)
    number = beyond if beyond < 0 else section_count(phantom) + beyond
    with pytest.raises(CytoarchError, match=f"section {number} was asked for, the brain has 0 to"):
        cut(phantom, number)
