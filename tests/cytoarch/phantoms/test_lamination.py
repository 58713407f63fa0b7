import numpy as np
import pytest

from cytoarch.phantoms.anatomy import AREA_COUNT, Variation, draw_brain, reference_profiles
from cytoarch.phantoms.legibility import Patches, sample_patches, times_chance
from cytoarch.phantoms.profiles import ISOCORTEX, LAYERS, SPREAD, LaminarProfile, area_profiles
from cytoarch.phantoms.sections import PhantomSettings, make_phantom
from cytoarch.phantoms.sphere import unit

PROPERTIES = ("thickness", "density_per_mm3", "radius_um")


def logarithms(profile: LaminarProfile) -> np.ndarray:
    return np.log(np.concatenate([getattr(profile, name) for name in PROPERTIES]))


def other_population() -> tuple[LaminarProfile, ...]:
    rng = np.random.default_rng(5)
    return area_profiles(unit(rng.normal(size=(40, 3))), rng)


@pytest.mark.parametrize("profiles", [reference_profiles(), other_population()], ids=["reference", "others"])
def test_all_areas_share_what_the_histogram_of_a_patch_sees(profiles: tuple[LaminarProfile, ...]) -> None:
    for profile in profiles:
        covered = profile.density_per_mm3 * profile.radius_um**2
        own = [
            (profile.thickness * covered).sum(),
            (profile.thickness * profile.density_per_mm3 * profile.radius_um).sum(),
            (profile.thickness * covered * profile.radius_um).sum(),
            (profile.thickness * covered**2).sum(),
        ]
        np.testing.assert_allclose(np.log(own), profile.moments, rtol=1e-12)
        np.testing.assert_allclose(profile.moments, ISOCORTEX.moments, rtol=0, atol=1e-6)


@pytest.mark.parametrize("profiles", [reference_profiles(), other_population()], ids=["reference", "others"])
def test_the_layers_of_every_area_make_up_its_depth(profiles: tuple[LaminarProfile, ...]) -> None:
    for profile in profiles:
        assert all(getattr(profile, name).shape == (len(LAYERS),) for name in (*PROPERTIES, "elongation", "taper"))
        assert profile.thickness.sum() == pytest.approx(1, abs=1e-12)
        assert all((getattr(profile, name) > 0).all() for name in PROPERTIES)
        assert profile.thickness.min() > 0.02


def test_every_two_areas_are_layered_differently() -> None:
    profiles = np.stack([logarithms(profile) for profile in reference_profiles()])
    assert len(profiles) == AREA_COUNT
    for one in range(AREA_COUNT):
        for other in range(one):
            assert np.abs(profiles[one] - profiles[other]).max() > 0.1


def test_areas_differ_about_as_much_as_the_spread_says() -> None:
    spread = np.stack([logarithms(profile) for profile in reference_profiles()]).std(axis=0).reshape(3, 6).mean(axis=1)
    for found, wanted in zip(spread, SPREAD.values(), strict=True):
        assert 0.5 * wanted < found < 1.6 * wanted


def test_a_profile_that_has_the_moments_stays_as_it_is() -> None:
    same = ISOCORTEX.with_moments(ISOCORTEX.moments)
    np.testing.assert_allclose(logarithms(same), logarithms(ISOCORTEX), rtol=1e-12)


def test_individuals_keep_the_profiles_of_the_reference_but_for_their_variation() -> None:
    reference = np.stack([logarithms(profile) for profile in reference_profiles()])
    for amount in (0.0, 0.02, 0.1):
        brain = draw_brain(4, Variation(profile=amount), 24)
        own = np.stack([logarithms(profile) for profile in brain.profiles])
        # 4 of the 18 figures follow from the others, which keep the moments
        assert (own - reference)[:, 6:].std() == pytest.approx(amount * np.sqrt(14 / 18), rel=0.1)
        for profile in brain.profiles:
            np.testing.assert_allclose(profile.moments, ISOCORTEX.moments, atol=1e-6)
        np.testing.assert_allclose([profile.thickness.sum() for profile in brain.profiles], 1, rtol=1e-12)


# -- legibility: what can be learned on some brains about others -------------------------------------------------------


@pytest.fixture(scope="module")
def patches() -> list[Patches]:
    brains = [make_phantom(PhantomSettings(seed=seed, resolution=64)) for seed in range(6)]
    return [sample_patches(brain, per_area=5, sections=12, pixel_size_um=5.0) for brain in brains]


@pytest.mark.long
def test_nearly_every_area_of_every_brain_is_sampled(patches: list[Patches]) -> None:
    for one in patches:
        counts = np.bincount(one.area, minlength=AREA_COUNT + 1)[1:]
        assert counts.max() == 5
        assert (counts > 0).mean() > 0.85
    assert set(np.concatenate([one.area for one in patches]).tolist()) == set(range(1, AREA_COUNT + 1))


@pytest.mark.long
@pytest.mark.parametrize("what", ["mean", "histogram"])
def test_grey_levels_do_not_give_areas_away(patches: list[Patches], what: str) -> None:
    assert times_chance(patches, what) <= 1.5


@pytest.mark.long
def test_laminar_profiles_tell_the_areas_of_unknown_brains(patches: list[Patches]) -> None:
    assert times_chance(patches, "profile") >= 5
