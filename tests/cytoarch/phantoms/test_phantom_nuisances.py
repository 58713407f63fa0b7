from dataclasses import fields, replace

import numpy as np
import pytest

from cytoarch.phantoms.damage import FOLD, INTACT, OUT_OF_FOCUS, TEAR, damage_at
from cytoarch.phantoms.nuisances import BrainStaining, Nuisances, SectionMounting, draw_mounting, draw_staining
from cytoarch.phantoms.rendering import render
from cytoarch.phantoms.sections import PhantomSection, PhantomSettings, Window, cut, make_phantom
from cytoarch.phantoms.truth import truth

SLIDE_MM = (22.0, 27.0)
STRONG = Nuisances(
    gain=0.4, offset=0.2, gamma=0.4, gradient=0.3, section_gain=0.4, noise=10, tilt=20, rotation=30, translation=1.5,
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
    counts = []
    for mean in (0.3, 1.0, 2.5, 5.0):
        bands = [drawn(STRONG.but(**{knob: mean}), section=section)[next(iter(field_of(knob)))] for section in range(80)]
        counts.append([len(one) for one in bands])
        if len(counts) > 1:
            assert all(np.array_equal(one, more[: len(one)]) for one, more in zip(before, bands, strict=True))
        before = bands
        assert np.mean(counts[-1]) == pytest.approx(mean, abs=4 * np.sqrt(mean / 80))
    assert sum(counts[-1]) > sum(counts[0])


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


@pytest.fixture(scope="module")
def plain() -> PhantomSection:
    return cut(make_phantom(PhantomSettings(seed=3, resolution=48, nuisances=Nuisances.none())), 500)


def spoiled(plain: PhantomSection, knob: str, mounting: SectionMounting | None = None) -> PhantomSection:
    """The same section of the same brain with one nuisance on, on a slide of the same size."""
    nuisances = Nuisances.none().but(**{knob: getattr(STRONG, knob)})
    settings = plain.phantom.settings.model_copy(update={"nuisances": nuisances})
    phantom = replace(plain.phantom, settings=settings, staining=draw_staining(3, nuisances))
    for number in range(plain.number, plain.number + 40):
        section = cut(phantom, number)
        if knob not in OF_SECTION or np.size(getattr(section.mounting, OF_SECTION[knob])):
            break
    return section if knob not in ("tears", "folds", "defocus", "mirrored") else _with_band(plain, phantom, knob)


def _with_band(plain: PhantomSection, phantom: object, knob: str) -> PhantomSection:
    """The plain section with a wide band through the middle of one hemisphere, or mirrored."""
    if knob == "mirrored":
        section = cut(phantom, plain.number)  # type: ignore[arg-type]
        if section.mounting.mirrored:
            return section
        always = phantom.settings.model_copy(update={"nuisances": Nuisances.none().but(mirrored=1)})  # type: ignore[attr-defined]
        return cut(replace(phantom, settings=always), plain.number)  # type: ignore[type-var]
    band = np.array([[11.0, 7.5, 0.3, 3.0, 0.25, 0.05, 0.4]])
    return replace(plain, mounting=replace(plain.mounting, **{OF_SECTION[knob]: band}))
