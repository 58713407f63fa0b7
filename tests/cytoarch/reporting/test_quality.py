"""Quality of scans: planted faults are found, sound sections are left alone, hostile names stay text."""

import io
import json
from collections.abc import Callable

import numpy as np
import pytest
from html_elements import parsed
from PIL import Image
from scipy import ndimage

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.geometry import Grid
from cytoarch.images.layout import Pyramid, level_count
from cytoarch.images.pyramids import write_pyramid
from cytoarch.images.views import StoredImage
from cytoarch.reporting.quality import (
    QualityEntry,
    flags,
    quality_picture,
    render_quality_page,
    sample_section,
    section_quality,
    shown_figures,
)
from cytoarch.reporting.quality.figures import GRID
from cytoarch.reporting.quality.flags import OUTLIER_Z
from cytoarch.reporting.quality.picture import scale_bar_um
from cytoarch.store.staging import Staging

HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>&amp;$\\frac{"
SIZE, PIXEL_UM, MASK_UM = (500, 700), 2.0, 20.0

Pixels = np.ndarray
Write = Callable[..., StoredImage]


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Write:
    """Writes pixels as an image of the store and opens it."""
    tmp_path = tmp_path_factory.mktemp("quality")
    count = 0

    def put(pixels: Pixels, pixel_size_um: float = PIXEL_UM) -> StoredImage:
        nonlocal count
        count += 1
        journal = Staging(tmp_path / f"image{count}").open()
        pyramid = Pyramid(pixels.shape, pixels.dtype, pixel_size_um, "mean", levels=level_count(*pixels.shape[-2:]))
        own = {"kind": "rgb" if len(pixels) == 3 else "grey"}
        write_pyramid(
            journal, pyramid, lambda y, x, h, w: pixels[..., y : y + h, x : x + w], name="image", own_attributes=own
        )
        return StoredImage.open(journal.path)

    return put


def ellipse(size: tuple[int, int] = SIZE) -> np.ndarray:
    y, x = np.indices(size)
    return ((y + 0.5) / size[0] - 0.5) ** 2 + ((x + 0.5) / size[1] - 0.5) ** 2 < 0.16


def tissue_on(mask: np.ndarray, size_um: float) -> TissueMask:
    """A mask at the corner of the section."""
    return TissueMask(mask, Grid.at_corner(mask.shape, size_um, (-PIXEL_UM / 2, -PIXEL_UM / 2)))


def tissue_of(size: tuple[int, int] = SIZE) -> TissueMask:
    return tissue_on(ellipse((size[0] // 10, size[1] // 10)), MASK_UM)


def section(seed: int = 0, blur_px: float = 1.5, channels: int = 1, level: float = 110.0) -> Pixels:
    """A dark textured ellipse on a bright slide, (c, y, x) uint8."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SIZE), blur_px)
    grey = np.where(ellipse(), level + 25 * noise / noise.std(), 225)
    return np.repeat(np.clip(grey, 1, 254).astype(np.uint8)[None], channels, axis=0)


# -- figures -----------------------------------------------------------------------------------------------------------


def test_figures_state_what_the_section_is(write: Write):
    figures = section_quality(write(section()), tissue_of())
    assert (figures["height_px"], figures["width_px"], figures["pixel_size_um"]) == (500, 700, PIXEL_UM)
    assert figures["tissue_mm2"] == pytest.approx(tissue_of().mask.sum() * 0.0004, rel=1e-4)
    assert figures["tissue_level"] == pytest.approx(110, abs=5)
    assert figures["slide_level"] == pytest.approx(225, abs=1)
    assert figures["contrast"] == pytest.approx((225 - 110) / (225 + 110), abs=0.03)
    assert figures["detail_um"] == pytest.approx(1.5 * PIXEL_UM, rel=0.2)
    assert figures["clipped_dark"] == figures["clipped_bright"] == figures["edge_share"] == 0


def test_a_blurred_section_is_less_sharp_and_a_half_blurred_one_is_so_in_parts(write: Write):
    sharp, blurred = section(), section(blur_px=4.0)
    half = np.where(np.arange(SIZE[1]) < SIZE[1] * 0.4, blurred, sharp)
    found = [section_quality(write(one), tissue_of()) for one in (sharp, half, blurred)]
    assert found[2]["sharpness"] < 0.4 * found[0]["sharpness"]
    assert max(found[0]["blurred_share"], found[2]["blurred_share"]) < 0.05
    assert found[1]["blurred_share"] == pytest.approx(0.35, abs=0.12)


@pytest.mark.parametrize(("dtype", "end"), [(np.uint8, 255), (np.uint16, 4095), (np.uint16, 65535)])
def test_clipped_shares_are_the_planted_ones_in_the_worst_channel(write: Write, dtype: type, end: int):
    rng = np.random.default_rng(3)
    pixels = np.full((2, *SIZE), end // 2, dtype=dtype)
    chance = rng.random(SIZE)
    pixels[1][chance < 0.2] = end
    pixels[1][chance > 0.95] = 0
    figures = section_quality(write(pixels), tissue_of())
    assert figures["full_scale"] == end
    assert figures["clipped_bright"] == pytest.approx(0.2, abs=0.01)
    assert figures["clipped_dark"] == pytest.approx(0.05, abs=0.01)


def test_what_is_clipped_on_the_slide_alone_is_no_fault(write: Write):
    pixels = section()
    pixels[:, ~ellipse()] = 255
    assert section_quality(write(pixels), tissue_of())["clipped_bright"] < 0.02


@pytest.mark.parametrize("kind", ["constant", "black", "no tissue", "all tissue", "tiny", "one pixel"])
def test_figures_are_finite_and_json_whatever_the_section(write: Write, kind: str):
    size = {"tiny": (5, 40), "one pixel": (1, 1)}.get(kind, SIZE)
    pixels = np.full((1, *size), {"constant": 90, "no tissue": 200}.get(kind, 0), dtype=np.uint8)
    if kind == "all tissue":
        pixels = section()
    mask = np.full((max(1, size[0] // 10), max(1, size[1] // 10)), kind != "no tissue")
    image, tissue = write(pixels), tissue_on(mask, MASK_UM)
    figures = section_quality(image, tissue)
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert shown_figures(figures)
    assert quality_picture(image, tissue, {}).startswith(b"\x89PNG")
    assert flags({"one": figures})["one"] if kind != "all tissue" else True


def test_windows_are_few_whatever_the_size(write: Write):
    pixels = np.zeros((1, 3000, 9000), dtype=np.uint8)
    mask = np.ones((150, 450), dtype=bool)
    samples = sample_section(write(pixels), tissue_on(mask, 40.0))
    assert samples.sharpness.shape == (4, GRID)
    assert samples.tissue_counts.sum() + samples.slide_counts.sum() == samples.window_px**2 * 4 * GRID


def test_windows_lie_on_the_tissue(write: Write):
    mask = np.zeros((50, 70), dtype=bool)
    mask[10:20, 40:60] = True
    samples = sample_section(write(section()), tissue_on(mask, MASK_UM))
    y0, x0, y1, x1 = samples.box_um
    assert 190 <= y0 <= 200 <= 400 <= y1 <= 411
    assert 780 <= x0 <= 800 <= 1200 <= x1 <= 1221


# -- flags -------------------------------------------------------------------------------------------------------------


def test_windows_span_the_tissue_and_a_rim_of_slide_to_the_micrometer(write: Write):
    mask = np.zeros((59, 83), dtype=bool)
    mask[10:20, 5:30] = True
    y0, x0, y1, x1 = sample_section(write(section()), tissue_on(mask, 17.0)).box_um
    height_um, width_um = 17.0 * 10, 17.0 * 25
    assert (y0, y1) == pytest.approx((170 - 0.05 * height_um, 340 + 0.05 * height_um), abs=1e-6)
    assert (x0, x1) == pytest.approx((85 - 0.05 * width_um, 510 + 0.05 * width_um), abs=1e-6)


@pytest.fixture(scope="module")
def measured(write: Write) -> dict[str, dict[str, float]]:
    return {f"s{i}": section_quality(write(section(i)), tissue_of()) for i in range(10)}


@pytest.fixture
def brain(measured: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    return {name: dict(one) for name, one in measured.items()}


def test_a_sound_brain_has_no_flags_nor_has_a_copy_of_one_of_its_sections(brain: dict[str, dict[str, float]]):
    assert not any(flags(brain).values())
    assert not any(flags(brain | {"copy": dict(brain["s4"])}).values())
    assert not any(flags({f"c{i}": dict(brain["s1"]) for i in range(9)}).values())


@pytest.mark.parametrize("place", [0, 5, 9])
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda p: section(77, blur_px=4.0), "blurred compared with its neighbours"),
        (lambda p: np.where(np.random.default_rng(1).random(SIZE) < 0.3, 255, p).astype(np.uint8), "over-exposed"),
        (lambda p: np.where(np.random.default_rng(1).random(SIZE) < 0.3, 0, p).astype(np.uint8), "under-exposed"),
        (lambda p: 255 - p, "check polarity"),
        (lambda p: section(77, level=60), "tissue darker"),
    ],
)
def test_the_one_bad_section_among_ten_is_flagged_and_no_other(brain, write: Write, place: int, fault, words: str):
    brain[f"s{place}"] = section_quality(write(fault(section(place))), tissue_of())
    found = flags(brain)
    assert [name for name, texts in found.items() if texts] == [f"s{place}"]
    assert words in " ".join(found[f"s{place}"])


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_wrong_pixel_size_is_flagged(brain: dict[str, dict[str, float]], write: Write, factor: float):
    mask = tissue_on(tissue_of().mask, MASK_UM * factor)
    brain["s3"] = section_quality(write(section(3), PIXEL_UM * factor), mask)
    found = flags(brain)
    assert "pixel size" in found["s3"][0]
    assert not [text for text in found["s3"] if "blurred" in text]
    assert [name for name, texts in found.items() if texts] == ["s3"]


def test_a_section_without_tissue_is_flagged_and_disturbs_no_other(brain: dict[str, dict[str, float]], write: Write):
    empty = tissue_on(np.zeros((50, 70), dtype=bool), MASK_UM)
    brain["s6"] = section_quality(write(np.full((1, *SIZE), 225, dtype=np.uint8)), empty)
    found = flags(brain)
    assert [name for name, texts in found.items() if texts] == ["s6"]
    assert "no tissue" in found["s6"][0]


def test_a_brain_that_grows_and_shrinks_is_no_fault_but_a_gap_in_its_tissue_is(brain: dict[str, dict[str, float]]):
    place = np.linspace(-0.95, 0.95, 40)
    areas = 60 * (1 - place**2) * np.random.default_rng(0).normal(1, 0.03, 40)
    series = {f"s{i}": dict(brain["s0"]) | {"tissue_mm2": float(area)} for i, area in enumerate(areas)}
    assert not any(flags(series).values())
    series["s12"]["tissue_mm2"] *= 0.5
    found = flags(series)
    assert [name for name, texts in found.items() if texts] == ["s12"]
    assert "less tissue" in found["s12"][0]


def test_a_batch_out_of_focus_is_flagged_though_its_neighbours_are_too(brain: dict[str, dict[str, float]]):
    series = {f"s{i}": dict(brain[f"s{i % 10}"]) for i in range(60)}
    for i in range(20, 35):
        series[f"s{i}"]["detail_um"] *= 2
    found = flags(series)
    assert [name for name, texts in found.items() if texts] == [f"s{i}" for i in range(20, 35)]
    assert OUTLIER_Z == 3.5


def test_noise_cut_in_two_is_no_section(write: Write):
    noise = np.random.default_rng(0).normal(120, 10, SIZE)
    mask = ndimage.gaussian_filter(noise, 10)[5::10, 5::10]
    figures = section_quality(write(noise.astype(np.uint8)[None]), tissue_on(mask > np.median(mask), MASK_UM))
    assert "same grey" in flags({"one": figures})["one"][0]


def test_few_sections_are_not_compared(brain: dict[str, dict[str, float]]):
    few = {name: brain[name] for name in ("s0", "s1", "s2")}
    few["s1"] = few["s1"] | {"detail_um": 100.0}
    assert not any(flags(few).values())
    assert flags({}) == {}


# -- the picture -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_the_picture_is_the_same_every_time_and_carries_no_dates(write: Write, channels: int):
    image = write(section(channels=channels))
    facts = {"section": HOSTILE, "remarks": "脑 ħ\n" * 200}
    content = quality_picture(image, tissue_of(), facts)
    assert content == quality_picture(image, tissue_of(), facts, sample_section(image, tissue_of()))
    picture = Image.open(io.BytesIO(content))
    assert picture.size == (1320, 330)
    assert set(picture.info) <= {"dpi"}


@pytest.mark.parametrize("width_um", [0.5, 3.9, 4.0, 100.0, 12_345.0, 2e5])
def test_a_scale_bar_is_round_and_fills_a_tenth_to_a_quarter(width_um: float):
    length = scale_bar_um(width_um)
    assert 0.09 < length / width_um <= 0.2501
    assert round(float(f"{length:e}".split("e")[0]), 6) in (1, 2, 5)


# -- the page ----------------------------------------------------------------------------------------------------------


def entries_of(brain: dict[str, dict[str, float]], reason: str = "why") -> list[QualityEntry]:
    kept = [QualityEntry(name, i, "kept", reason, f"p/{name}.png", one) for i, (name, one) in enumerate(brain.items())]
    return [*kept, QualityEntry("bad", 20, "failed", reason), QualityEntry("left", 21, "excluded", reason)]


def test_hostile_names_stay_text(brain: dict[str, dict[str, float]]):
    renamed = {f"{HOSTILE}{i}": one for i, one in enumerate(brain.values())}
    elements, plain = (
        parsed(render_quality_page(name, entries_of(sections, name), name))
        for name, sections in ((HOSTILE, renamed), ("plain", brain))
    )
    assert [tag for tag, _ in elements.found] == [tag for tag, _ in plain.found]
    assert not [tag for tag, _ in elements.found if tag == "script"]
    assert not [attrs for _, attrs in elements.found if any(name.startswith("on") for name in attrs)]
    assert HOSTILE in "".join(elements.text)


def test_every_section_is_there_once_in_cutting_order_with_its_picture_loaded_late(brain: dict[str, dict[str, float]]):
    elements = parsed(render_quality_page("b", entries_of(brain)[::-1]))
    places = [attrs["id"] for _, attrs in elements.found if "id" in attrs]
    assert places == [*brain, "bad", "left"]
    images = [attrs for tag, attrs in elements.found if tag == "img"]
    assert [one["src"] for one in images] == [f"p/{name}.png" for name in brain]
    assert all(one["loading"] == "lazy" and one["alt"] and one["width"] for one in images)


def test_failed_sections_come_first_then_flagged_ones(brain: dict[str, dict[str, float]]):
    brain["s4"] = brain["s4"] | {"detail_um": 50.0}
    page = render_quality_page("b", entries_of(brain, "torn file")).decode()
    assert page.index('href="#bad"') < page.index('href="#s4"') < page.index('id="s0"')
    assert "blurred compared with its neighbours" in page
    links = {attrs["href"] for tag, attrs in parsed(page.encode()).found if tag == "a"}
    assert links == {"#bad", "#s4"}


@pytest.mark.parametrize("count", [0, 1])
def test_a_page_of_few_or_no_sections_is_a_page(brain: dict[str, dict[str, float]], count: int):
    entries = entries_of(brain)[:count]
    content = render_quality_page("b", entries)
    assert content == render_quality_page("b", entries)
    assert b"<h1>b</h1>" in content
