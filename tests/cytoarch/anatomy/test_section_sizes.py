"""Sections shrink differently: links tell sizes, and what is a section's own is parted from the brain's shape."""

from dataclasses import replace

import numpy as np
import pytest

from cytoarch.anatomy.reconstruction import ReconstructionSettings, Rigid, direct, reconstruct
from cytoarch.anatomy.reconstruction.likeness import Likeness, likeness
from cytoarch.anatomy.reconstruction.sizes import Grown, own_sizes, to_usual_size
from cytoarch.geometry import Transform
from tests.cytoarch.anatomy.drawn_brains import CELL_UM, GRID, lying, overview, series


def told(sizes: np.ndarray, reach: int = 3, noise: float = 0.0, seed: int = 0) -> list[Grown]:
    rng = np.random.default_rng(seed)
    return [
        Grown(i, j, float(sizes[j] / sizes[i] * np.exp(noise * rng.normal())), 1.0)
        for i in range(len(sizes))
        for j in range(i + 1, min(len(sizes), i + 1 + reach))
    ]


def growing(count: int) -> np.ndarray:
    """How the shape of a brain makes sections larger towards its middle."""
    return np.asarray(1 - 0.3 * np.linspace(-1, 1, count) ** 2)


def test_what_a_section_shrank_is_told_from_the_shape_of_the_brain() -> None:
    own = np.exp(0.012 * np.random.default_rng(1).normal(size=60))
    found = own_sizes(np.arange(60.0), told(growing(60) * own, noise=0.002))
    left = own / found
    assert np.std(np.log(left / np.median(left))) < 0.5 * np.std(np.log(own))


def test_a_brain_whose_sections_shrank_alike_is_left_as_it_is() -> None:
    np.testing.assert_allclose(own_sizes(np.arange(40.0), told(growing(40))), 1, atol=2e-3)


def test_a_wrong_link_makes_no_section_larger() -> None:
    links = told(growing(40))
    links[30] = links[30]._replace(larger=1.3)
    np.testing.assert_allclose(own_sizes(np.arange(40.0), links), 1, atol=4e-3)


@pytest.mark.parametrize("lost", [range(20, 25), range(8, 13), range(10, 30), range(35, 41)], ids=str)
def test_where_sections_are_lost_no_size_is_changed(lost: range) -> None:
    """The shape of a brain goes on between its sections: it was taken for shrinkage on both sides of a gap."""
    places = np.delete(np.arange(45.0), list(lost))
    links = told(growing(45)[places.astype(int)])
    np.testing.assert_allclose(own_sizes(places, links), 1, atol=2e-3)
    np.testing.assert_allclose(own_sizes(-40 * places, links), 1, atol=2e-3)


def test_sizes_are_followed_over_places_that_are_not_even() -> None:
    places = np.sort(np.random.default_rng(4).uniform(0, 60, 60))
    shape = 1 - 0.3 * (places / 30 - 1) ** 2
    own = np.exp(0.012 * np.random.default_rng(1).normal(size=60))
    left = own / own_sizes(places, told(shape * own, noise=0.002))
    assert np.std(np.log(left)) < 0.7 * np.std(np.log(own))


def test_few_sections_and_those_without_links_keep_their_size() -> None:
    assert (own_sizes(np.arange(9.0), told(growing(9))) == 1).all()
    sizes = np.exp(0.01 * np.random.default_rng(2).normal(size=20))
    found = own_sizes(np.arange(22.0), told(sizes))
    assert (found[20:] == 1).all()
    assert (found[:20] != 1).all()


def test_a_size_is_undone_about_a_centre() -> None:
    undone = to_usual_size(1.25, (10.0, 20.0))
    np.testing.assert_allclose(undone(np.array([[10.0, 20.0], [15.0, 20.0]])), [[10.0, 20.0], [14.0, 20.0]])


def grown(lies: Rigid, times: float) -> Likeness:
    """A section that is so many times as large about the middle of the brain."""
    smaller = Transform.scaling((1 / times, 1 / times))
    found = likeness("s", overview(lies.transform.then(smaller)), CELL_UM)
    assert found is not None
    return found


@pytest.mark.parametrize("times", [0.97, 1.0, 1.02])
def test_a_link_tells_how_much_larger_a_section_is(times: float) -> None:
    fixed, moving = (Rigid(False, 0.0, (0.0, 0.0)).about(GRID.centre_um, (0.0, 0.0)), lying((4.0,), mirrored=(0,))[0])
    way = fixed.then(moving.inverse())
    one, other = grown(fixed, 1.0), grown(moving, times)
    assert direct.larger(one.levels[-1], other.levels[-1], way, one.centre_um) == pytest.approx(times, abs=2e-3)


def test_a_section_that_shrank_more_is_enlarged_and_its_middle_stays() -> None:
    true = lying((0.0,) * 13)
    pictures = [overview(one) for one in true]
    pictures[5] = overview(true[5].transform.then(Transform.scaling((1.03, 1.03))))
    stated, overviews = series(pictures)
    asked = ReconstructionSettings(reach=1, slides="ignored")
    evened = reconstruct("B", stated, overviews, asked)
    kept = reconstruct("B", stated, overviews, asked.model_copy(update={"sizes": "kept"}), links=evened.links)
    sizes = [float(np.sqrt(np.linalg.det(one.plane.linear))) for one in evened]
    assert sizes[5] / np.median(sizes) == pytest.approx(1.03, abs=0.006)
    assert np.abs(np.delete(sizes, 5) / np.median(sizes) - 1).max() < 0.009
    middle = np.array(GRID.centre_um)
    assert np.linalg.norm(evened["s5"].plane(middle) - kept["s5"].plane(middle)) < 60
    np.testing.assert_allclose([np.linalg.det(one.plane.linear) for one in kept], 1, atol=1e-9)
    for one in evened:  # the size is undone where the tissue is: as rigid maps, both lie where they did
        np.testing.assert_allclose(one.rigid.shift_um, kept[one.section_id].rigid.shift_um, atol=1e-6)
    stated[2] = replace(stated[2], transform=kept["s2"].plane)
    one_by_hand = reconstruct("B", stated, overviews, asked, links=evened.links)
    assert one_by_hand["s2"].plane == kept["s2"].plane
    assert one_by_hand["s5"].size == pytest.approx(sizes[5])
