from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest

from cytoarch.phantoms.damage import FOLD, INTACT, OUT_OF_FOCUS, TEAR, damage_at
from cytoarch.phantoms.nuisances import BrainStaining, Nuisances, SectionMounting, draw_mounting, draw_staining
from cytoarch.phantoms.rendering import render
from cytoarch.phantoms.sections import (
    PhantomSection,
    PhantomSettings,
    Window,
    cut,
    make_phantom,
    section_count,
)
from cytoarch.phantoms.truth import truth

SLIDE_MM = (22.0, 27.0)
STRONG = Nuisances(
    gain=0.4, offset=0.2, gamma=0.4, gradient=0.3, section_gain=0.4, noise=10, tilt=15, rotation=30, translation=1.5,
    shrinkage=0.2, mirrored=0.5, missing=0.5, tears=4, folds=4, defocus=4,
)  # fmt: skip
OF_BRAIN = {"gain": "gain", "offset": "offset", "gamma": "gamma", "gradient": "gradient", "tilt": "tilt_deg"}
OF_SECTION = {
    "section_gain": "gain", "rotation": "rotation_deg", "translation": "translation_mm", "shrinkage": "shrinkage",
    "mirrored": "mirrored", "missing": "missing", "tears": "tears", "folds": "folds", "defocus": "blurs",
}  # fmt: skip
KNOBS = tuple(Nuisances.model_fields)


def drawn(nuisances: Nuisances, seed: int = 3, section: int = 40) -> dict[str, np.ndarray]:
    of_brain, of_section = draw_staining(seed, nuisances), draw_mounting(seed, section, nuisances, SLIDE_MM)
    return {
        f"{type(one).__name__}.{field.name}": np.asarray(getattr(one, field.name), np.float64)
        for one in (of_brain, of_section)
        for field in fields(one)
    }


def changed(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> set[str]:
    return {name for name in one if not np.array_equal(one[name], other[name])}


def field_of(knob: str) -> set[str]:
    if knob in OF_BRAIN:
        return {f"{BrainStaining.__name__}.{OF_BRAIN[knob]}"}
    return {f"{SectionMounting.__name__}.{OF_SECTION[knob]}"} if knob in OF_SECTION else set()


def test_every_knob_is_known_to_these_tests() -> None:
    assert set(KNOBS) == {*OF_BRAIN, *OF_SECTION, "noise"}
    assert all(getattr(STRONG, knob) > 0 for knob in KNOBS)


@pytest.mark.parametrize("knob", KNOBS)
def test_a_nuisance_switched_off_leaves_all_others_exactly_as_they_were(knob: str) -> None:
    ever: set[str] = set()
    for section in range(12):
        full = drawn(STRONG, section=section)
        for value in (0.0, getattr(STRONG, knob) / 3):
            now = changed(full, drawn(STRONG.but(**{knob: value}), section=section))
            assert now <= field_of(knob)
            ever |= now
    assert ever == field_of(knob)


@pytest.mark.parametrize("knob", KNOBS)
def test_a_nuisance_switched_on_alone_changes_its_own_field_only(knob: str) -> None:
    ever: set[str] = set()
    for section in range(12):
        alone = Nuisances.none().but(**{knob: getattr(STRONG, knob)})
        now = changed(drawn(Nuisances.none(), section=section), drawn(alone, section=section))
        assert now <= field_of(knob)
        ever |= now
    assert ever == field_of(knob)


def test_without_nuisances_a_section_lies_on_its_slide_as_it_was_in_the_brain() -> None:
    for seed in (None, 0, 9):
        assert draw_staining(seed, Nuisances.none()) == BrainStaining(1.0, 0.0, 1.0, (0.0, 0.0, 0.0), (0.0, 0.0))
        mounting = draw_mounting(seed, 17, Nuisances.none(), SLIDE_MM)
        assert (mounting.gain, mounting.rotation_deg, mounting.translation_mm) == (1.0, 0.0, (0.0, 0.0))
        assert (mounting.shrinkage, mounting.mirrored, mounting.missing) == (0.0, False, False)
        assert [one.shape for one in (mounting.tears, mounting.folds, mounting.blurs)] == [(0, 7)] * 3


@pytest.mark.parametrize("knob", ["tears", "folds", "defocus"])
def test_a_larger_mean_keeps_the_first_bands_and_adds_others(knob: str) -> None:
    (name,) = field_of(knob)
    means = (0.3, 1.0, 2.5, 5.0)
    bands = [[drawn(STRONG.but(**{knob: mean}), section=section)[name] for section in range(80)] for mean in means]
    for mean, found in zip(means, bands, strict=True):
        assert np.mean([len(one) for one in found]) == pytest.approx(mean, abs=4 * np.sqrt(mean / 80))
    for fewer, more in pairwise(bands):
        assert all(np.array_equal(one, other[: len(one)]) for one, other in zip(fewer, more, strict=True))
        assert sum(map(len, more)) > sum(map(len, fewer))


@pytest.mark.parametrize("knob", ["mirrored", "missing"])
def test_a_larger_share_keeps_the_sections_that_a_smaller_one_took(knob: str) -> None:
    (name,) = field_of(knob)
    taken = [
        np.array([bool(drawn(STRONG.but(**{knob: share}), section=section)[name]) for section in range(300)])
        for share in (0.1, 0.5)
    ]
    assert (taken[1] >= taken[0]).all()
    for found, share in zip(taken, (0.1, 0.5), strict=True):
        assert found.mean() == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 300))


def test_brains_and_sections_have_nuisances_of_their_own() -> None:
    own = drawn(STRONG)
    assert changed(own, drawn(STRONG, seed=4)) >= {"BrainStaining.gain", "SectionMounting.rotation_deg"}
    of_section = changed(own, drawn(STRONG, section=41))
    assert "SectionMounting.rotation_deg" in of_section
    assert not any(name.startswith("BrainStaining") for name in of_section)


# -- what they do to a section -----------------------------------------------------------------------------------------

PIXEL_UM = 40.0
BAND = np.array([[11.0, 7.5, 0.3, 3.0, 0.25, 0.05, 0.4]])
"""Through the middle of one hemisphere."""
BANDS = {"tears": TEAR, "folds": FOLD, "defocus": OUT_OF_FOCUS}
IN_TRANSFORM = ("tilt", "rotation", "translation", "shrinkage", "mirrored")
IN_PIXELS = ("gain", "offset", "gamma", "gradient", "section_gain", "noise", *BANDS)


@pytest.fixture(scope="module")
def plain() -> PhantomSection:
    return cut(make_phantom(PhantomSettings(seed=3, resolution=48, nuisances=Nuisances.none())), 500)


def spoiled(plain: PhantomSection, knob: str) -> PhantomSection:
    """The same section of the same brain with one nuisance on, on a slide of the same size."""
    if knob in BANDS:
        band = BAND - np.array([*plain.middle_mm, 0, 0, 0, 0, 0])
        return replace(plain, mounting=replace(plain.mounting, **{OF_SECTION[knob]: band}))
    nuisances = Nuisances.none().but(**{knob: 1.0 if knob == "mirrored" else getattr(STRONG, knob)})
    settings = plain.phantom.settings.model_copy(update={"nuisances": nuisances})
    return cut(replace(plain.phantom, settings=settings, staining=draw_staining(3, nuisances)), plain.number)


def whole(section: PhantomSection) -> Window:
    return Window(0, 0, *section.size_px(PIXEL_UM))


@pytest.mark.parametrize("knob", IN_TRANSFORM)
def test_cutting_and_mounting_change_the_transform_and_the_pixels(plain: PhantomSection, knob: str) -> None:
    section = spoiled(plain, knob)
    assert np.abs(section.to_brain - plain.to_brain).max() > 0.05
    pixels, before = (render(one, whole(plain), PIXEL_UM).astype(float) for one in (section, plain))
    assert np.abs(pixels - before).mean() > 1


@pytest.mark.parametrize("knob", IN_PIXELS)
def test_staining_light_damage_and_focus_change_the_pixels_and_not_the_transform(
    plain: PhantomSection, knob: str
) -> None:
    section = spoiled(plain, knob)
    np.testing.assert_array_equal(section.to_brain, plain.to_brain)
    pixels, before = (render(one, Window(1000, 400, 240, 500), 10.0).astype(float) for one in (section, plain))
    assert (pixels != before).mean() > (0.01 if knob in BANDS else 0.5)


@pytest.mark.parametrize("knob", [*BANDS, "gain", "offset", "gamma", "gradient", "section_gain", "noise"])
def test_what_changes_only_pixels_leaves_the_truth_but_for_damage(plain: PhantomSection, knob: str) -> None:
    before, now = truth(plain, whole(plain), PIXEL_UM), truth(spoiled(plain, knob), whole(plain), PIXEL_UM)
    assert set(np.unique(now.damage).tolist()) == {INTACT, *([BANDS[knob]] if knob in BANDS else [])}
    kept = now.damage != TEAR
    for name in ("tissue", "hemisphere", "layer", "area", "depth", "position_mm"):
        np.testing.assert_array_equal(getattr(now, name)[kept], getattr(before, name)[kept])


@pytest.mark.parametrize("knob", BANDS)
def test_damage_is_a_band_of_its_length_and_width(plain: PhantomSection, knob: str) -> None:
    grid = np.stack(np.meshgrid(np.arange(7, 15, 0.01), np.arange(3, 12, 0.01), indexing="ij"), axis=-1)
    marked = damage_at(spoiled(plain, knob).damage, grid) == BANDS[knob]
    # a band tapers as a parabola: two thirds of its length times its width; a fold covers the side it fell on, and
    # half of the light is lost within half of a band out of focus
    size = BAND[0, 3] * 2 * BAND[0, 4] * 4 / 3 * {"tears": 1, "folds": 0.5, "defocus": 0.5}[knob]
    assert marked.sum() * 0.01**2 == pytest.approx(size, rel=0.03)
    far = np.hypot(grid[..., 0] - 11.0, grid[..., 1] - 7.5) > 3.2
    assert not marked[far].any()


def test_only_the_camera_makes_noise(plain: PhantomSection) -> None:
    bare = Window(0, 0, 20, 300)
    assert np.ptp(render(plain, bare, PIXEL_UM)) == 0
    noisy = render(spoiled(plain, "noise"), bare, PIXEL_UM).astype(float)
    assert noisy.mean() == pytest.approx(float(render(plain, bare, PIXEL_UM)[0, 0]), abs=1)
    assert noisy.std() == pytest.approx(STRONG.noise, rel=0.1)


@pytest.mark.long
def test_tears_show_the_slide_and_folds_are_darker(plain: PhantomSection) -> None:
    for knob in ("tears", "folds"):
        section = spoiled(plain, knob)
        window = Window(0, 0, *section.size_px(20.0))
        pixels, plain_pixels = render(section, window, 20.0).astype(float), render(plain, window, 20.0).astype(float)
        here = (truth(section, window, 20.0).damage == BANDS[knob]) & (truth(plain, window, 20.0).tissue > 0)
        assert here.sum() > 100
        if knob == "tears":
            assert np.ptp(pixels[here]) == 0
            assert pixels[here].min() == plain_pixels[0, 0]
        else:
            assert (pixels[here] <= plain_pixels[here]).all()
            assert pixels[here].mean() < plain_pixels[here].mean() - 10


def test_a_section_out_of_focus_is_smoother_and_as_bright(plain: PhantomSection) -> None:
    window = Window(1300, 750, 200, 200)
    sharp, soft = (render(one, window, 8.0).astype(float) for one in (plain, spoiled(plain, "defocus")))
    here = truth(spoiled(plain, "defocus"), window, 8.0).damage == OUT_OF_FOCUS
    assert here.sum() > 1000
    assert soft[here].std() < 0.9 * sharp[here].std()
    assert soft[here].mean() == pytest.approx(sharp[here].mean(), abs=2)


@pytest.mark.parametrize("knob", ["rotation", "translation", "shrinkage", "missing", "mirrored"])
def test_a_knob_of_the_mounting_leaves_damage_and_light_where_they_were(knob: str) -> None:
    strong = Nuisances(tears=3, folds=3, defocus=3)
    on, off = (
        make_phantom(PhantomSettings(seed=3, resolution=48, nuisances=one)) for one in (strong, strong.but(**{knob: 0}))
    )
    assert on.field_mm == off.field_mm
    assert on.staining == off.staining
    assert on.extent_mm == off.extent_mm
    for number in (100, 400, 700):
        with_it, without = cut(on, number), cut(off, number)
        for bands, others in zip(with_it.damage, without.damage, strict=True):
            np.testing.assert_allclose(bands[:, :2] - with_it.middle_mm, others[:, :2] - without.middle_mm, atol=1e-9)
            np.testing.assert_array_equal(bands[:, 2:], others[:, 2:])


@pytest.mark.parametrize(
    "knobs", [{"rotation": 45}, {"translation": 2}, {"tilt": 15}, {"rotation": 20, "translation": 1, "tilt": 10}]
)
@pytest.mark.parametrize("seed", [0, 2])
def test_no_section_reaches_the_edge_of_its_slide(knobs: dict[str, float], seed: int) -> None:
    nuisances = Nuisances(shrinkage=0, mirrored=0.5).but(**knobs)
    phantom = make_phantom(PhantomSettings(seed=seed, resolution=48, nuisances=nuisances))
    for number in range(0, section_count(phantom), 60):
        tissue = truth(cut(phantom, number), Window(0, 0, *cut(phantom, number).size_px(100.0)), 100.0).tissue
        assert not tissue[[0, -1]].any()
        assert not tissue[:, [0, -1]].any()
