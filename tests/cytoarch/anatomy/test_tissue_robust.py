"""Tissue stays what it is when the picture around it changes: light, padding, ink, noise, size."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from cytoarch.anatomy.slide import commonest, find_slide
from cytoarch.anatomy.tissue import Tissue, TissueSettings, find_tissue

Array = NDArray[Any]
H, W = 300, 400
PURPLE, PALE, GLASS = (130, 100, 170), (215, 205, 225), (238, 238, 234)


def brain() -> Array:
    """0 slide, 1 grey, 2 white: two hemispheres of 18 mm with a ventricle each, at 64 um."""
    y, x = np.mgrid[:H, :W]
    classes = np.zeros((H, W), np.uint8)
    for middle in (125, 275):
        wave = 1 + 0.08 * np.sin(9 * np.arctan2(y - 150, x - middle))
        radius = np.hypot(y - 150, 1.5 * (x - middle)) / wave
        classes[radius < 105] = 1
        classes[radius < 75] = 2
        classes[np.hypot(y - 150, x - middle) < 14] = 0
    return classes


def picture(classes: Array, noise: float = 2.0) -> Array:
    """Purple grey and pale white matter on glass (3, y, x) float32."""
    colours = np.array([GLASS, PURPLE, PALE], dtype=np.float64)[classes]
    soft = ndimage.gaussian_filter(colours, (0.6, 0.6, 0))
    grain = np.random.default_rng(3).normal(0, noise, soft.shape)
    return np.moveaxis(np.clip(np.rint(soft + grain), 0, 255), -1, 0).astype(np.float32)


def found(pixels: Array, **asked: float) -> Tissue:
    return find_tissue(pixels.astype(np.float32), 64.0, TissueSettings(**asked))


def dice(a: Array, b: Array) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def lines(pixels: Array) -> Array:
    pixels[:, ::40] = pixels[:, :, ::40] = 0
    return pixels


def letters(pixels: Array) -> Array:
    for at in range(5):
        pixels[:, 10:34, 10 + 22 * at : 14 + 22 * at] = pixels[:, 10:14, 10 + 22 * at : 26 + 22 * at] = 5
    return pixels


def pen(pixels: Array) -> Array:
    pixels[:, 140:160, 0:70] = np.array([20, 60, 200])[:, None, None]
    return pixels


def dots(pixels: Array) -> Array:
    for at in range(8, 292, 4):
        for row, column in ((at, 6), (at, 10), (6, at), (10, at)):
            pixels[:, row : row + 2, column : column + 2] -= 40
    return pixels


def uneven(pixels: Array) -> Array:
    y, x = np.mgrid[-1 : 1 : H * 1j, -1 : 1 : W * 1j]
    return np.asarray(pixels * (1 - 0.06 * (x * x + y * y) - 0.04 * x))


def saturated(pixels: Array) -> Array:
    return np.minimum(uneven(pixels) * 1.09, 255)


def around(value: float) -> Callable[[Array], Array]:
    def padded(pixels: Array) -> Array:
        pixels[:, :22] = pixels[:, -22:] = pixels[:, :, :30] = pixels[:, :, -30:] = value
        return pixels

    return padded


@pytest.mark.parametrize(
    "change",
    [
        lambda pixels: pixels,
        lambda pixels: 255 * (pixels / 255) ** 1.5,
        lambda pixels: 255 * (pixels / 255) ** 0.7,
        lambda pixels: 255 - pixels,
        lambda pixels: pixels.mean(axis=0),
        lambda pixels: pixels * 257,
        lambda pixels: pixels + np.random.default_rng(0).normal(0, 6, pixels.shape),
        *(lines, letters, pen, dots, uneven, saturated, around(255), around(0), around(128)),
    ],
    ids=[
        "same",
        "darker",
        "paler",
        "negative",
        "grey",
        "16bit",
        "noisy",
        "lines",
        "letters",
        "pen",
        "dots",
        "uneven",
        "saturated",
        "white",
        "black",
        "mid",
    ],
)
def test_the_same_tissue_is_found_in_a_changed_picture(change: Callable[[Array], Array]) -> None:
    truth = brain()
    tissue = found(change(picture(truth)))
    assert dice(tissue.mask, truth > 0) > 0.97
    assert dice(tissue.classes == 2, truth == 2) > 0.9
    assert not tissue.mask[145:155, 120:130].any(), "the ventricle"


def test_classes_are_those_of_the_mirror_image() -> None:
    pixels = picture(brain())
    np.testing.assert_array_equal(found(pixels[:, :, ::-1]).classes[:, ::-1], found(pixels).classes)


def test_a_sulcus_full_of_meninges_is_open_and_pale_tissue_between_dense_is_tissue() -> None:
    """Both are as pale and as narrow; the sulcus opens to the outside."""
    classes = brain()
    sulcus, strip = (slice(30, 66), slice(123, 127)), (slice(230, 246), slice(123, 127))
    classes[sulcus] = classes[strip] = 2
    tissue = found(picture(classes), cleft_mm=0.32).mask
    assert tissue[strip].all()
    assert tissue[sulcus].mean() < 0.1
    without = classes > 0
    without[sulcus] = False
    assert dice(tissue, without) > 0.99


def test_clefts_are_opened_in_fine_pixels_as_in_coarse_ones() -> None:
    classes = brain()[:120, 40:210]
    classes[30:66, 83:87] = 2
    fine = picture(np.kron(classes, np.ones((4, 4), np.uint8)))
    tissue = find_tissue(fine, 16.0, TissueSettings(cleft_mm=0.32)).mask
    assert tissue[4 * 30 : 4 * 66, 4 * 83 : 4 * 87].mean() < 0.1
    without = np.kron(classes, np.ones((4, 4), np.uint8)) > 0
    without[4 * 30 : 4 * 66, 4 * 83 : 4 * 87] = False
    assert dice(tissue, without) > 0.98


def small_brain(callosum_px: int, pale: float) -> Array:
    """(3, y, x) two hemispheres of some 4 mm, a fissure of 0.2 mm between them, beneath it their white matter.

    It is a band so many pixels thick, with so much of the stain of the grey matter beside and below it.
    """
    y, x = np.mgrid[:160, :200]
    brain = np.hypot(y - 80, 0.8 * (x - 100)) < 62
    fissure = (np.abs(x - 99.5) < 2) & (y < 70)
    band = (y >= 70) & (y < 70 + callosum_px) & (np.abs(x - 99.5) < 30)
    amount = np.where(brain & ~fissure, np.where(band, pale, 1.0), 0.0)
    absorbed = np.array([0.25, 0.35, 0.15])[:, None, None] * ndimage.gaussian_filter(amount, 0.6)
    grain = np.random.default_rng(3).normal(0, 1.5, absorbed.shape)
    return np.clip(np.rint(235 * 10**-absorbed + grain), 0, 255).astype(np.float32)


@pytest.mark.parametrize("pale", [0.33, 0.4])
@pytest.mark.parametrize("callosum_px", [3, 4, 5])
def test_a_thin_callosum_beneath_a_fissure_is_tissue(callosum_px: int, pale: float) -> None:
    tissue = found(small_brain(callosum_px, pale))
    assert tissue.mask[70 : 70 + callosum_px, 72:128].mean() > 0.9
    assert not tissue.mask[30:66, 99:101].any()
    assert tissue.pieces == 1


def test_opened_clefts_are_told_where_there_is_much_of_them() -> None:
    classes = (brain() > 0).astype(np.uint8)
    for at in range(100, 150, 10):
        classes[20:130, at : at + 4] *= 2
    assert any("clefts of" in one for one in found(picture(classes), cleft_mm=0.32).doubts)
    assert not any("clefts of" in one for one in found(picture(classes)).doubts)


def test_a_hole_with_pale_tissue_is_filled_and_one_with_slide_is_not() -> None:
    truth = brain()
    truth[150:170, 230:250] = 0
    pixels = picture(truth)
    open_hole = found(pixels)
    pixels[:, 150:170, 230:250] = (0.5 * np.array(PALE) + 0.5 * np.array(GLASS))[:, None, None] - 4
    assert not open_hole.mask[155:165, 235:245].any()
    assert found(pixels).mask[150:170, 230:250].all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda pixels: pixels[:, 100:200, 80:200], "edge"),
        (lambda pixels: np.full_like(pixels, 240) + np.random.default_rng(1).normal(0, 2, pixels.shape), "no tissue"),
        (lambda pixels: pen(letters(pixels)), "ink"),
        (lambda pixels: pixels[:, :, np.r_[0:120, 40:120, 0:400]], "pieces"),
    ],
    ids=["cut off", "empty", "ink", "pieces"],
)
def test_what_is_doubtful_is_said(change: Callable[[Array], Array], said: str) -> None:
    assert not found(picture(brain())).doubts
    assert any(said in one for one in found(change(picture(brain()))).doubts)


def test_of_a_photomicrograph_all_but_padding_is_tissue() -> None:
    pixels = around(255)(picture(brain()))
    whole = find_tissue(pixels, 64.0, TissueSettings(method="whole"))
    assert whole.mask[24:-24, 32:-32].all()
    assert not whole.mask[:20].any()
    assert whole.white_mm2 == 0
    assert found(pixels).doubts == ()
    assert find_tissue(pixels, 4.0, TissueSettings()).doubts[0].startswith("only 1.6 mm across")


EOSIN, HAEMATOXYLIN, CRESYL = (0.1, 0.99, 0.1), (0.65, 0.7, 0.29), (0.6, 0.75, 0.3)
DAB, NEUTRAL_RED = (0.27, 0.57, 0.78), (0.1, 0.9, 0.5)


def passed(*dyes: tuple[tuple[float, ...], Array]) -> Array:
    """(3, y, x) what light dyes let through, each with its colour and (y, x) amount."""
    absorbed = sum(np.array(colour)[:, None, None] * ndimage.gaussian_filter(amount, 0.6) for colour, amount in dyes)
    grain = np.random.default_rng(3).normal(0, 1.5, np.shape(absorbed))
    return np.clip(np.rint(235 * 10 ** -np.asarray(absorbed) + grain), 0, 255).astype(np.float32)


def h_and_e(classes: Array) -> Array:
    """Eosin, of which white matter takes up more, and nuclei that lie about regardless of it."""
    nuclei = ndimage.gaussian_filter(np.random.default_rng(5).normal(0, 1, classes.shape), 3)
    crowd = (classes > 0) * np.clip(0.12 + 0.05 * nuclei / nuclei.std(), 0, None)
    return passed((EOSIN, np.array([0.0, 0.15, 0.25])[classes]), (HAEMATOXYLIN, crowd))


def one_dye(classes: Array, colour: tuple[float, ...]) -> Array:
    """A dye that white matter takes up little of."""
    return passed((colour, np.array([0.0, 0.3, 0.12])[classes]))


@pytest.mark.parametrize("colour", [DAB, NEUTRAL_RED, CRESYL, HAEMATOXYLIN], ids=["dab", "neutral", "cresyl", "nuclei"])
def test_a_single_dye_is_no_eosin_whatever_its_colour(colour: tuple[float, ...]) -> None:
    tissue = found(one_dye(brain(), colour))
    assert dice(tissue.classes == 2, brain() == 2) > 0.9
    assert not tissue.doubts


def test_eosin_tells_no_matter_and_that_is_said() -> None:
    tissue = found(h_and_e(brain()))
    assert (tissue.classes[tissue.mask] == 1).all()
    assert tissue.doubts[-1].startswith("eosin beside another dye")
    assert dice(tissue.mask, brain() > 0) > 0.98


def test_no_white_matter_is_guessed_within_what_a_person_drew_where_eosin_hides_it() -> None:
    drawn = (brain() > 0).astype(np.uint8)
    told = find_tissue(h_and_e(brain()), 64.0, TissueSettings(), drawn)
    assert (told.classes == drawn).all()
    assert any(one.startswith("eosin beside another dye") for one in told.doubts)
    drawn[brain() == 2] = 2
    assert not find_tissue(h_and_e(brain()), 64.0, TissueSettings(), drawn).doubts


def test_the_papers_chain_finds_the_ring_that_it_was_described_for() -> None:
    y, x = np.mgrid[:H, :H]
    radius = np.hypot(y - 150, x - 150)
    grey = np.where(radius < 60, 150.0, np.where(radius < 100, 90.0, 230.0))
    noisy = (grey + np.random.default_rng(0).normal(0, 10, grey.shape)).astype(np.float32)
    tissue = find_tissue(noisy, 64.0, TissueSettings(method="paper"))
    assert dice(tissue.mask, radius < 100) > 0.98
    assert dice(tissue.classes == 2, radius < 60) > 0.9
    later = find_tissue(noisy + 500, 64.0, TissueSettings(method="paper"))
    assert dice(later.mask, tissue.mask) > 0.999


def test_a_level_is_the_commonest_value_with_the_noise_around_it() -> None:
    rng = np.random.default_rng(0)
    values = np.r_[rng.normal(200, 2, 6000), rng.uniform(0, 180, 6000)]
    level, noise = commonest(values)
    assert level == pytest.approx(200, abs=0.7)
    assert 2 < noise < 4.6  # half of the values: the quarter that is looked at is half of the population
    assert commonest(values[:6000]) == pytest.approx((200, 2), rel=0.1)


def test_the_slide_is_the_surface_that_light_made_and_padding_is_none_of_it() -> None:
    light = uneven(np.full((3, H, W), 220.0))
    pixels = light.copy()
    pixels[:, brain() > 0] *= 0.6
    slide = find_slide(around(255)(pixels).astype(np.float32))
    np.testing.assert_allclose(slide.level[:, 30:-30, 40:-40], light[:, 30:-30, 40:-40], atol=1.5)
    assert not slide.scanned[:20].any()
    assert slide.scanned[30:-30, 40:-40].all()
