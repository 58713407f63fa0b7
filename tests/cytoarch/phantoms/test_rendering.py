import tracemalloc

import numpy as np
import pytest
from scipy import ndimage

from cytoarch.phantoms.cells import cells_in
from cytoarch.phantoms.damage import FOLD, OUT_OF_FOCUS, TEAR
from cytoarch.phantoms.kernels import BACKGROUND, GREY
from cytoarch.phantoms.nuisances import Nuisances
from cytoarch.phantoms.rendering import LOOKS, render
from cytoarch.phantoms.sections import (
    PhantomSection,
    PhantomSettings,
    Stain,
    Window,
    cut,
    make_phantom,
    section_count,
)
from cytoarch.phantoms.truth import truth

STAINS = tuple(LOOKS)
STRONG = Nuisances(tears=4, folds=4, defocus=4, noise=4, gradient=0.1, shrinkage=0.1, rotation=10)
COARSE_UM, FINE_UM = 16.0, 4.0


def section_of(stain: Stain, number: int = 500, nuisances: Nuisances | None = None) -> PhantomSection:
    chosen = Nuisances.none() if nuisances is None else nuisances
    return cut(make_phantom(PhantomSettings(seed=3, stain=stain, resolution=48, nuisances=chosen)), number)


@pytest.fixture(scope="module")
def damaged() -> tuple[int, Window]:
    """A section that has every damage in tissue, and a window of fine pixels that shows them all."""
    phantom = make_phantom(PhantomSettings(seed=3, resolution=48, nuisances=STRONG))
    for number in range(300, section_count(phantom) - 300):
        section = cut(phantom, number)
        true = truth(section, Window(0, 0, *section.size_px(100.0)), 100.0)
        for y in range(40, true.tissue.shape[0] - 70, 20):
            for x in range(40, true.tissue.shape[1] - 70, 20):
                part = np.s_[y : y + 45, x : x + 50]
                here, tissue = true.damage[part], true.tissue[part] > 0
                if (here == TEAR).sum() > 15 and all(
                    ((here == one) & tissue).sum() > 15 for one in (FOLD, OUT_OF_FOCUS)
                ):
                    return number, Window(y * 25 - 3, x * 25 - 7, 45 * 25, 50 * 25)
    raise AssertionError("no section is damaged enough")


def in_windows(section: PhantomSection, window: Window, pixel_size_um: float, height: int, width: int) -> np.ndarray:
    """The window put together from others of this size, which reach past it."""
    tall, wide = -(-window.height // height), -(-window.width // width)
    rows = [
        np.concatenate(
            [
                render(
                    section, Window(window.y + row * height, window.x + column * width, height, width), pixel_size_um
                )
                for column in range(wide)
            ],
            axis=1,
        )
        for row in range(tall)
    ]
    return np.concatenate(rows)[: window.height, : window.width]


@pytest.mark.parametrize("stain", STAINS)
def test_window_by_window_gives_the_bits_of_the_whole_section(damaged: tuple[int, Window], stain: Stain) -> None:
    section = section_of(stain, damaged[0], STRONG)
    window = Window(0, 0, *section.size_px(COARSE_UM))
    whole = render(section, window, COARSE_UM)
    assert whole.shape[:2] == section.size_px(COARSE_UM)
    np.testing.assert_array_equal(in_windows(section, window, COARSE_UM, 331, 517), whole)


@pytest.mark.long
@pytest.mark.parametrize("stain", STAINS)
def test_window_by_window_gives_the_same_bits_amid_tears_folds_and_bands_out_of_focus(
    damaged: tuple[int, Window], stain: Stain
) -> None:
    number, window = damaged
    section = section_of(stain, number, STRONG)
    assert {TEAR, FOLD, OUT_OF_FOCUS} <= set(np.unique(truth(section, window, FINE_UM).damage).tolist())
    whole = render(section, window, FINE_UM)
    np.testing.assert_array_equal(in_windows(section, window, FINE_UM, 257, 173), whole)


def test_a_single_pixel_is_that_of_the_whole(damaged: tuple[int, Window]) -> None:
    number, window = damaged
    section = section_of("silver", number, STRONG)
    whole = render(section, window, FINE_UM)
    rng = np.random.default_rng(0)
    for y, x in zip(rng.integers(window.height, size=60), rng.integers(window.width, size=60), strict=True):
        assert render(section, Window(window.y + y, window.x + x, 1, 1), FINE_UM)[0, 0] == whole[y, x]


@pytest.mark.parametrize("stain", STAINS)
def test_a_window_may_reach_past_the_slide(stain: Stain) -> None:
    section = section_of(stain, nuisances=STRONG)
    height, width = section.size_px(COARSE_UM)
    for y, x in ((-90, -70), (height - 60, width - 80)):
        outer = render(section, Window(y, x, 150, 170), COARSE_UM)
        top, left = max(0, y), max(0, x)
        tall, wide = min(height, y + 150) - top, min(width, x + 170) - left
        inner = render(section, Window(top, left, tall, wide), COARSE_UM)
        np.testing.assert_array_equal(outer[top - y :, left - x :][:tall, :wide], inner)
        assert outer.std() < 0.1 * LOOKS[stain].full


@pytest.mark.parametrize(
    ("stain", "shape", "dtype"),
    [("silver", (30, 40), "uint8"), ("nissl", (30, 40, 3), "uint8"), ("dapi", (30, 40), "uint16")],
)
def test_a_stain_has_its_channels_and_depth(stain: Stain, shape: tuple[int, ...], dtype: str) -> None:
    pixels = render(section_of(stain), Window(500, 500, 30, 40), COARSE_UM)
    assert pixels.shape == shape
    assert pixels.dtype == dtype


@pytest.mark.parametrize("stain", STAINS)
def test_tissue_is_darker_than_the_slide_in_brightfield_and_brighter_in_fluorescence(stain: Stain) -> None:
    section = section_of(stain)
    window = Window(0, 0, *section.size_px(40.0))
    pixels, true = render(section, window, 40.0).astype(float), truth(section, window, 40.0)
    full = LOOKS[stain].full
    slide, cortex = pixels[true.tissue == BACKGROUND], pixels[true.tissue == GREY]
    assert pixels.max() <= full
    if stain == "dapi":
        assert np.median(slide) < 0.1 * full
        assert np.quantile(cortex, 0.05) > np.median(slide)
        assert cortex.mean() > 2 * np.median(slide)
    else:
        assert np.median(slide) > 0.9 * full
        assert np.quantile(cortex, 0.95) < np.median(slide)
        assert cortex.mean() < np.median(slide) - 0.1 * full


def test_nissl_is_violet() -> None:
    section = section_of("nissl")
    window = Window(0, 0, *section.size_px(40.0))
    red, green, blue = render(section, window, 40.0)[truth(section, window, 40.0).tissue == GREY].mean(axis=0)
    assert green < red - 10
    assert red < blue - 10


def test_layer_1_is_the_palest_layer() -> None:
    section = section_of("silver")
    window = Window(0, 0, *section.size_px(20.0))
    pixels, true = render(section, window, 20.0).astype(float), truth(section, window, 20.0)
    means = [pixels[true.layer == layer].mean() for layer in range(1, 7)]
    assert int(np.argmax(means)) == 0
    assert means[0] > sorted(means)[-2] + 10


@pytest.mark.parametrize("stain", STAINS)
def test_light_at_a_coarse_pixel_size_is_that_of_the_fine_pixels_it_covers(stain: Stain) -> None:
    section = section_of(stain)
    fine_window, coarse_window = Window(2200, 800, 1600, 1600), Window(550, 200, 400, 400)
    fine = render(section, fine_window, FINE_UM).astype(float)
    coarse = render(section, coarse_window, COARSE_UM).astype(float)
    binned = fine.reshape(400, 4, 400, 4, -1).mean(axis=(1, 3)).reshape(coarse.shape)
    true = truth(section, coarse_window, COARSE_UM)
    levels = LOOKS[stain].full / 255
    for layer in range(1, 7):
        here = true.layer == layer
        assert here.sum() > 500
        gap = np.abs(coarse[here].mean(axis=0) - binned[here].mean(axis=0)).max() / levels
        assert gap < 6, (layer, gap)
    cortex = true.tissue == GREY
    assert np.corrcoef(coarse[cortex].ravel(), binned[cortex].ravel())[0, 1] > 0.8


def test_a_mirrored_section_shows_its_pixels_the_other_way_round() -> None:
    straight, turned = section_of("silver"), section_of("silver", nuisances=Nuisances.none().but(mirrored=1))
    window = Window(0, 0, *straight.size_px(20.0))
    one, other = (render(section, window, 20.0).astype(float) for section in (straight, turned))
    cortex = truth(straight, window, 20.0).tissue == GREY
    assert np.corrcoef(one[cortex], other[:, ::-1][cortex])[0, 1] > 0.98
    assert np.abs(one - other[:, ::-1])[cortex].mean() < 4
    assert np.abs(one - other)[cortex].mean() > 20


def test_cells_are_dark_where_they_lie() -> None:
    section = section_of("silver")
    window = Window(11000, 5000, 800, 800)
    pixels = render(section, window, 1.0).astype(float)
    cells = cells_in(section, (11.0, 5.0, 11.8, 5.8))
    y, x = np.clip((cells.slide_mm * 1000 - [11000, 5000]).astype(int), 0, 799).T
    assert len(y) > 300
    assert (pixels[y, x] < np.median(pixels) - 30).mean() > 0.99


def peak_bytes(section: PhantomSection, window: Window, pixel_size_um: float) -> int:
    """The most memory that rendering a window takes at once."""
    render(section, window, pixel_size_um)
    tracemalloc.start()
    render(section, window, pixel_size_um)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_section() -> None:
    section = section_of("silver", nuisances=STRONG.but(defocus=0))
    tissue = truth(section, Window(0, 0, *section.size_px(100.0)), 100.0).tissue > 0
    depth = ndimage.distance_transform_edt(tissue)
    corner_mm = (np.array(np.unravel_index(depth.argmax(), depth.shape)) - 5) * 0.1
    peaks = []
    for pixel_size_um in (2.0, 0.5):
        y, x = (corner_mm * 1000 / pixel_size_um).astype(int).tolist()
        window = Window(y, x, 512, 512)
        assert (truth(section, window, pixel_size_um).tissue > 0).mean() > 0.9
        peaks.append(peak_bytes(section, window, pixel_size_um))
    assert peaks[1] < 1.2 * peaks[0]


def test_a_large_window_takes_the_memory_of_its_largest_block_beside_its_result() -> None:
    section = section_of("silver", nuisances=STRONG)
    side = 1024
    blocks = [Window(1000 + y, 500 + x, side, side) for y in (0, side) for x in (0, side)]
    largest = max(peak_bytes(section, block, FINE_UM) for block in blocks)
    assert peak_bytes(section, Window(1000, 500, 2 * side, 2 * side), FINE_UM) < largest + 4 * side**2 + 1e6
