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


def found(pixels: Array) -> Tissue:
    return find_tissue(pixels.astype(np.float32), 64.0, TissueSettings())


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
    tissue = found(picture(classes)).mask
    assert tissue[strip].all()
    assert tissue[sulcus].mean() < 0.1
    without = classes > 0
    without[sulcus] = False
    assert dice(tissue, without) > 0.99


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


def stained_by(classes: Array, red_over_green: float) -> Array:
    """White matter takes up twice as much of a dye that absorbs so much red for its green, beside a stain of nuclei."""
    amount = ndimage.gaussian_filter(np.array([0.0, 0.15, 0.3])[classes], 0.6)
    nuclei = ndimage.gaussian_filter((classes > 0) * 0.08, 0.6)
    absorbed = np.stack([red_over_green * amount + nuclei, amount + nuclei, 0.2 * amount + 0.5 * nuclei])
    grain = np.random.default_rng(3).normal(0, 1.5, absorbed.shape)
    return np.clip(np.rint(235 * 10**-absorbed + grain), 0, 255).astype(np.float32)


def test_eosin_tells_no_matter_and_that_is_said() -> None:
    tissue = found(stained_by(brain(), 0.15))
    assert (tissue.classes[tissue.mask] == 1).all()
    assert tissue.doubts[-1].startswith("eosin beside another dye")
    assert dice(tissue.mask, brain() > 0) > 0.98
    one_dye = found(stained_by(brain(), 0.9))
    assert one_dye.white_mm2 > 0
    assert not one_dye.doubts


def test_no_white_matter_is_guessed_within_what_a_person_drew_where_eosin_hides_it() -> None:
    drawn = (brain() > 0).astype(np.uint8)
    told = find_tissue(stained_by(brain(), 0.15), 64.0, TissueSettings(), drawn)
    assert (told.classes == drawn).all()


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
