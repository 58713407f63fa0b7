from dataclasses import fields

import numpy as np
import pytest
from scipy.spatial import cKDTree

from cytoarch.phantoms.anatomy import AREA_COUNT, CENTRE_MM
from cytoarch.phantoms.damage import TEAR
from cytoarch.phantoms.kernels import BACKGROUND, GREY, NUCLEUS, WHITE, describe, tissue_at
from cytoarch.phantoms.nuisances import Nuisances
from cytoarch.phantoms.sections import (
    Phantom,
    PhantomSection,
    PhantomSettings,
    Window,
    cut,
    make_phantom,
    section_count,
)
from cytoarch.phantoms.sphere import unit
from cytoarch.phantoms.truth import (
    NUCLEUS_AREA,
    NUCLEUS_LAYER,
    WHITE_MATTER_AREA,
    WHITE_MATTER_LAYER,
    Truth,
    truth,
    truth_at,
)

PIXEL_UM = 50.0
STRONG = Nuisances(tilt=8, rotation=20, translation=0.8, shrinkage=0.1, tears=4, folds=3, defocus=2)
IN_CORTEX = ("depth", "laminar_depth", "cut_angle_deg", "thickness_mm", "curvature_per_mm")


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(PhantomSettings(seed=3, resolution=48, nuisances=STRONG))


@pytest.fixture(scope="module")
def sections(phantom: Phantom) -> list[PhantomSection]:
    return [cut(phantom, number) for number in range(150, section_count(phantom) - 150, 200)]


@pytest.fixture(scope="module")
def wholes(sections: list[PhantomSection]) -> list[Truth]:
    return [truth(section, whole(section), PIXEL_UM) for section in sections]


def plain_phantom(seed: int | None = 3, **nuisances: float) -> Phantom:
    settings = PhantomSettings(seed=seed, resolution=48, nuisances=Nuisances.none().but(**nuisances))
    return make_phantom(settings)


@pytest.fixture(scope="module")
def plain() -> Phantom:
    return plain_phantom()


def whole(section: PhantomSection, pixel_size_um: float = PIXEL_UM) -> Window:
    return Window(0, 0, *section.size_px(pixel_size_um))


def middles(window: Window, pixel_size_um: float = PIXEL_UM) -> np.ndarray:
    """(y, x) mm on the slide of the middles of pixels."""
    rows, columns = np.mgrid[window.y : window.y + window.height, window.x : window.x + window.width]
    return (np.stack([rows, columns], axis=-1) + 0.5) * pixel_size_um / 1000


def assert_equal(one: Truth, other: Truth) -> None:
    for field in fields(Truth):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), err_msg=field.name)


# -- labels ------------------------------------------------------------------------------------------------------------


def test_areas_and_layers_partition_the_cortex(wholes: list[Truth]) -> None:
    for one in wholes:
        cortex = one.tissue == GREY
        assert cortex.any()
        np.testing.assert_array_equal((one.layer >= 1) & (one.layer <= 6), cortex)
        np.testing.assert_array_equal((one.area >= 1) & (one.area <= AREA_COUNT), cortex)


def test_what_is_no_cortex_has_values_of_its_own(wholes: list[Truth]) -> None:
    for one in wholes:
        for tissue, layer, area in (
            (BACKGROUND, 0, 0), (WHITE, WHITE_MATTER_LAYER, WHITE_MATTER_AREA), (NUCLEUS, NUCLEUS_LAYER, NUCLEUS_AREA),
        ):  # fmt: skip
            np.testing.assert_array_equal(one.layer == layer, one.tissue == tissue)
            np.testing.assert_array_equal(one.area == area, one.tissue == tissue)
        np.testing.assert_array_equal(one.hemisphere == 0, one.tissue == BACKGROUND)
    assert {WHITE_MATTER_LAYER, NUCLEUS_LAYER} <= set(np.unique([one.layer for one in wholes]).tolist())


def test_values_are_nan_exactly_where_they_have_no_meaning(wholes: list[Truth]) -> None:
    for one in wholes:
        cortex = one.tissue == GREY
        for name in IN_CORTEX:
            np.testing.assert_array_equal(np.isfinite(getattr(one, name)), cortex, err_msg=name)
        np.testing.assert_array_equal(np.isfinite(one.position_mm).all(axis=-1), one.tissue > 0)
        np.testing.assert_array_equal(np.isfinite(one.density_per_mm3).all(axis=-1), cortex)
        np.testing.assert_array_equal(np.isnan(one.density_per_mm3).all(axis=-1), ~cortex)


def test_values_lie_within_their_bounds(wholes: list[Truth]) -> None:
    for one in wholes:
        cortex = one.tissue == GREY
        for values in (one.depth[cortex], one.laminar_depth[cortex]):
            assert values.min() >= 0
            assert values.max() <= 1
        assert one.cut_angle_deg[cortex].min() >= 0
        assert one.cut_angle_deg[cortex].max() <= 90
        assert one.thickness_mm[cortex].min() > 0.2
        assert one.thickness_mm[cortex].max() < 2.5


def test_densities_are_those_of_the_profile_of_the_area(phantom: Phantom, wholes: list[Truth]) -> None:
    for one in wholes:
        for area in np.unique(one.area[one.tissue == GREY]).tolist():
            here = one.density_per_mm3[one.area == area]
            own = phantom.brain.profiles[area - 1].density_per_mm3.astype(np.float32)
            np.testing.assert_array_equal(here, np.broadcast_to(own, here.shape))


def test_layers_follow_each_other_with_laminar_depth_and_end_where_the_profile_says(
    phantom: Phantom, wholes: list[Truth]
) -> None:
    for one in wholes:
        for area in np.unique(one.area[one.tissue == GREY]).tolist():
            here = one.area == area
            laminar, layer = one.laminar_depth[here], one.layer[here].astype(int)
            order = np.lexsort((layer, laminar))
            assert (np.diff(layer[order]) >= 0).all()
            ends = np.cumsum(phantom.brain.profiles[area - 1].thickness)[:5]
            away = np.abs(laminar[:, None] - ends).min(axis=1) > 1e-6
            np.testing.assert_array_equal(layer[away], 1 + (laminar[away, None] >= ends).sum(axis=1))


def test_torn_tissue_is_gone_and_other_damage_leaves_the_truth(wholes: list[Truth]) -> None:
    found = set()
    for one in wholes:
        torn = one.damage == TEAR
        assert not one.tissue[torn].any()
        found |= set(np.unique(one.damage).tolist())
        assert one.tissue[one.damage > TEAR].any() or not (one.damage > TEAR).any()
    assert found == {0, 1, 2, 3}


# -- depth -------------------------------------------------------------------------------------------------------------


def test_every_ray_from_the_middle_of_a_hemisphere_meets_each_surface_once(plain: Phantom) -> None:
    directions = unit(np.random.default_rng(0).normal(size=(400, 3)))
    for side in (-1, 1):
        for direction in directions:
            steps = np.arange(0.01, 13, 0.05)
            points = steps[:, None] * direction * [side, 1, 1] + [side * CENTRE_MM, 0, 0]
            own = points[:, 0] * side > 0  # beyond the midline a ray is in the other hemisphere's hands
            labels = np.empty((own.sum(), 4), np.uint8)
            values = np.empty((own.sum(), 8), np.float32)
            describe(plain.maps, np.ascontiguousarray(points[own]), np.array([0.0, 1.0, 0.0]), labels, values)
            tissue, depth = labels[:, 1], values[:, 0]
            order = np.array([3, 2, 1, 0])[tissue]  # nucleus, white matter, cortex, background
            assert (np.diff(order) >= 0).all()
            assert (labels[tissue > 0, 0] == (1 if side < 0 else 2)).all()
            cortex = depth[tissue == GREY]
            assert len(cortex) >= 2
            assert (np.diff(cortex) < 0).all()


def test_depth_begins_at_the_pial_and_ends_at_the_white_surface(plain: Phantom) -> None:
    for direction in unit(np.random.default_rng(1).normal(size=(300, 3))):
        for side in (-1, 1):
            axis = direction * [side, 1, 1]
            *_, pial, white = tissue_at(plain.maps, *(1.0 * axis + [side * CENTRE_MM, 0, 0]))
            radii = np.array([white + 1e-6, (white + pial) / 2, pial - 1e-6, white - 1e-6, pial + 1e-6])
            points = radii[:, None] * axis + [side * CENTRE_MM, 0, 0]
            labels, values = np.empty((5, 4), np.uint8), np.empty((5, 8), np.float32)
            describe(plain.maps, points, np.array([0.0, 1.0, 0.0]), labels, values)
            np.testing.assert_allclose(values[:3, 0], [1, 0.5, 0], atol=1e-5)
            np.testing.assert_allclose(values[[0, 2], 7], [1, 0], atol=1e-4)
            np.testing.assert_array_equal(labels[:, 1] == GREY, [True, True, True, False, False])


def test_laminar_depth_grows_with_depth_along_every_column(plain: Phantom) -> None:
    ratio = plain.maps.sheet[..., 2]
    depth = np.linspace(0, 1, 50)[:, None]
    laminar = depth * (2 + (ratio.ravel() - 1) * depth) / (1 + ratio.ravel())
    assert (np.diff(laminar, axis=0) > 0).all()


def test_the_outline_of_the_cortex_is_shallow_and_its_inner_border_deep(plain: Phantom) -> None:
    section = cut(plain, 520)
    one = truth(section, whole(section, 10.0), 10.0)
    cortex, bare, white = one.tissue == GREY, one.tissue == BACKGROUND, one.tissue == WHITE

    def beside(mask: np.ndarray) -> np.ndarray:
        return np.roll(mask, 1, 0) | np.roll(mask, -1, 0) | np.roll(mask, 1, 1) | np.roll(mask, -1, 1)

    outer, inner = one.depth[cortex & beside(bare)], one.depth[cortex & beside(white)]
    assert np.median(outer) < 0.02
    assert np.quantile(outer, 0.95) < 0.05
    assert np.median(inner) > 0.98
    assert np.quantile(inner, 0.95) > 0.95
    assert np.quantile(inner, 0.05) > 0.95


def test_cortex_is_as_thick_as_it_says_where_it_is_cut_straight(plain: Phantom) -> None:
    section = cut(plain, 520)
    one = truth(section, whole(section, 20.0), 20.0)
    straight = (one.tissue == GREY) & (one.cut_angle_deg > 85)
    outside = np.argwhere(one.tissue == BACKGROUND) * 0.02
    reach, _ = cKDTree(outside).query(np.argwhere(straight & (one.depth > 0.97)) * 0.02)
    thickness = one.thickness_mm[straight & (one.depth > 0.97)]
    assert len(reach) > 50
    assert np.median(reach / thickness) == pytest.approx(1, abs=0.05)


# -- places ------------------------------------------------------------------------------------------------------------


def test_the_true_transform_maps_the_slide_to_the_brain(sections: list[PhantomSection]) -> None:
    for section in sections:
        places = np.random.default_rng(2).uniform(0, 20, (100, 2))
        homogeneous = np.concatenate([places, np.ones((100, 1))], axis=1)
        np.testing.assert_allclose(section.brain_mm(places), homogeneous @ section.to_brain.T, atol=1e-12)
        np.testing.assert_allclose(section.axes @ section.axes.T, np.eye(3), atol=1e-12)
        # a section is flat, and shrunk in it
        np.testing.assert_allclose((section.brain_mm(places) - section.origin_mm) @ section.axes[2], 0, atol=1e-12)
        stretch = np.linalg.norm(np.diff(section.brain_mm(places), axis=0), axis=1)
        stretch /= np.linalg.norm(np.diff(places, axis=0), axis=1)
        np.testing.assert_allclose(stretch, 1 / (1 - section.mounting.shrinkage), rtol=1e-9)


def test_without_nuisances_the_middle_of_the_slide_is_the_middle_of_the_brain(plain: Phantom) -> None:
    one, two = cut(plain, 300), cut(plain, 301)
    height, width = plain.slide_mm
    y = plain.extent_mm[0] + 300.5 * 0.02
    np.testing.assert_allclose(one.brain_mm(np.array([height / 2, width / 2])), [0, y, 0], atol=1e-12)
    np.testing.assert_allclose(one.brain_mm(np.array([height / 2 - 1, width / 2 + 2])), [2, y, 1], atol=1e-12)
    np.testing.assert_allclose(two.origin_mm - one.origin_mm, [0, 0.02, 0], atol=1e-12)


def test_the_hemisphere_is_the_left_one_where_x_is_negative(
    sections: list[PhantomSection], wholes: list[Truth]
) -> None:
    for section, one in zip(sections, wholes, strict=True):
        x = section.brain_mm(middles(whole(section)))[..., 0]
        tissue = one.tissue > 0
        np.testing.assert_array_equal(one.hemisphere[tissue] == 1, x[tissue] < 0)
        assert set(np.unique(one.hemisphere).tolist()) == {0, 1, 2}
        np.testing.assert_array_equal(np.sign(one.position_mm[tissue][:, 0]), np.sign(x[tissue]))


def test_in_the_reference_a_place_is_its_own_place_in_the_reference() -> None:
    reference = plain_phantom(None)
    for number in (200, 520, 900):
        section = cut(reference, number)
        one = truth(section, whole(section), PIXEL_UM)
        gap = np.linalg.norm(one.position_mm - section.brain_mm(middles(whole(section))), axis=-1)
        # what bilinear look-up of directions leaves: a few um
        assert np.nanmax(gap) < 0.002


def test_places_in_the_reference_change_smoothly_within_a_hemisphere(plain: Phantom) -> None:
    section = cut(plain, 520)
    one = truth(section, whole(section, 20.0), 20.0)
    for axis in (0, 1):
        steps = np.linalg.norm(np.diff(one.position_mm, axis=axis), axis=-1) / 0.02
        same = np.diff(one.hemisphere.astype(int), axis=axis) == 0
        steps = steps[same & np.isfinite(steps)]
        assert steps.min() > 0.5
        assert steps.max() < 2.0
    gap = np.linalg.norm(one.position_mm - section.brain_mm(middles(whole(section, 20.0), 20.0)), axis=-1)
    assert 0.05 < np.nanmedian(gap) < 2


def test_an_area_lies_near_the_same_place_of_the_reference_in_every_brain() -> None:
    places: list[dict[int, np.ndarray]] = []
    for seed in (None, 3):
        phantom = plain_phantom(seed)
        found = [
            truth(section, whole(section, 100.0), 100.0) for section in (cut(phantom, n) for n in range(50, 1100, 50))
        ]
        area = np.concatenate([one.area[one.hemisphere == 2] for one in found])
        position = np.concatenate([one.position_mm[one.hemisphere == 2] for one in found])
        places.append(
            {number: position[area == number].mean(axis=0) for number in range(1, 25) if (area == number).sum() > 100}
        )
    both = places[0].keys() & places[1].keys()
    assert len(both) > 18
    assert np.median([np.linalg.norm(places[0][area] - places[1][area]) for area in both]) < 1.0


def test_neighbouring_sections_agree(plain: Phantom) -> None:
    one, two = (truth(cut(plain, number), whole(cut(plain, number)), PIXEL_UM) for number in (500, 501))
    tissue = (one.tissue > 0) | (two.tissue > 0)
    assert (one.tissue == two.tissue)[tissue].mean() > 0.97
    cortex = (one.tissue == GREY) & (two.tissue == GREY)
    assert (one.area == two.area)[cortex].mean() > 0.98
    assert (one.layer == two.layer)[cortex].mean() > 0.93
    assert np.median(np.abs(one.depth - two.depth)[cortex]) < 0.03
    moved = (two.position_mm - one.position_mm)[cortex]
    np.testing.assert_allclose(np.median(moved, axis=0), [0, 0.02, 0], atol=0.01)


# -- how it is asked for -----------------------------------------------------------------------------------------------


def test_the_truth_of_windows_is_that_of_the_whole(sections: list[PhantomSection]) -> None:
    section = sections[2]
    complete = truth(section, whole(section), PIXEL_UM)
    height, width = section.size_px(PIXEL_UM)
    for y in range(0, height, 171):
        for x in range(0, width, 233):
            h, w = min(171, height - y), min(233, width - x)
            part = truth(section, Window(y, x, h, w), PIXEL_UM)
            assert_equal(part, complete[np.s_[y : y + h, x : x + w]])


def test_a_window_may_reach_past_the_slide(sections: list[PhantomSection]) -> None:
    one = truth(sections[2], Window(-30, -20, 40, 40), PIXEL_UM)
    assert not one.tissue.any()
    assert np.isnan(one.depth).all()


def test_truth_at_two_pixel_sizes_agrees_where_pixels_share_their_middles(sections: list[PhantomSection]) -> None:
    # the middle of a pixel of 60 um is that of the second of the three pixels of 20 um across it
    section = sections[1]
    coarse, fine = truth(section, Window(50, 60, 200, 200), 60.0), truth(section, Window(150, 180, 600, 600), 20.0)
    assert (coarse.tissue > 0).any()
    same = fine[np.s_[1::3, 1::3]]
    for name in ("tissue", "hemisphere", "layer", "area", "damage"):
        assert (getattr(coarse, name) != getattr(same, name)).sum() <= 2, name
    both = (coarse.tissue == GREY) & (same.tissue == GREY)
    for name in ("depth", "laminar_depth", "position_mm", "thickness_mm"):
        np.testing.assert_allclose(getattr(coarse, name)[both], getattr(same, name)[both], atol=1e-4, err_msg=name)


def test_the_truth_of_points_is_that_of_the_pixels_they_are_the_middles_of(sections: list[PhantomSection]) -> None:
    window = Window(100, 150, 80, 90)
    assert_equal(truth_at(sections[1], middles(window)), truth(sections[1], window, PIXEL_UM))


def test_a_mirrored_section_shows_the_brain_the_wrong_way_round_and_keeps_its_sides() -> None:
    straight, turned = cut(plain_phantom(), 520), cut(plain_phantom(mirrored=1), 520)
    assert turned.mounting.mirrored
    one, other = (truth(section, whole(section), PIXEL_UM) for section in (straight, turned))
    for name in ("tissue", "hemisphere", "layer", "area"):
        assert (getattr(one, name)[:, ::-1] != getattr(other, name)).sum() <= 5, name
    assert np.median(np.argwhere(one.hemisphere == 1)[:, 1]) < np.median(np.argwhere(one.hemisphere == 2)[:, 1])
    assert np.median(np.argwhere(other.hemisphere == 1)[:, 1]) > np.median(np.argwhere(other.hemisphere == 2)[:, 1])
    left = other.hemisphere == 1
    assert (other.position_mm[left][:, 0] < 0).all()
