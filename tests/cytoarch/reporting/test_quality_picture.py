"""What the picture of a scan's quality shows, asked of matplotlib before it becomes a PNG file."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.geometry import Grid
from cytoarch.images.layout import Pyramid
from cytoarch.images.pyramids import write_pyramid
from cytoarch.images.views import StoredImage
from cytoarch.reporting.pictures import OUTLINE, outlined, picture_grid, stain_picture
from cytoarch.reporting.quality import quality_picture, sample_section
from cytoarch.reporting.quality.figures import OVERVIEW_PX
from cytoarch.store.staging import Staging

SIZE, PIXEL_UM = (240, 480), 5.0
TISSUE, SLIDE, RED = "#2a5db0", "#9aa3b5", "#b3261e"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that would have been made into files."""
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: figures.append(self))
    return figures


def stored(folder: Path, pixels: np.ndarray, pixel_um: float = PIXEL_UM, **own: object) -> StoredImage:
    journal = Staging(folder).open()
    pyramid = Pyramid(pixels.shape, pixels.dtype, pixel_um, "mean", levels=1)
    write_pyramid(
        journal, pyramid, lambda y, x, h, w: pixels[..., y : y + h, x : x + w], name="i", own_attributes=own or None
    )
    return StoredImage.open(journal.path)


def tissue_of(image: StoredImage) -> TissueMask:
    """The right half, in pixels of ten."""
    mask = np.zeros((SIZE[0] // 10, SIZE[1] // 10), dtype=bool)
    mask[:, 24:] = True
    return TissueMask(mask, Grid.at_corner(mask.shape, 10 * image.pixel_size_um, image.grid.corner_um))


def noise(channels: int = 1, low: int = 20, high: int = 200, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(low, high, (channels, *SIZE)).astype(dtype)


def parts(figure: Figure, channels: int) -> tuple[Axes, Axes, Axes, list[Axes]]:
    """The axes of the stain, of sharpness, of its colours, and of the histograms."""
    stain, sharpness, colours, *histograms = figure.axes
    assert len(histograms) == channels
    return stain, sharpness, colours, histograms


def texts(axes: Axes) -> list[str]:
    return [one.get_text() for one in axes.texts]


def test_the_stain_is_shown_with_its_tissue_outlined_and_a_scale(tmp_path: Path, drawn: list[Figure]) -> None:
    image = stored(tmp_path, noise())
    tissue = tissue_of(image)
    quality_picture(image, tissue, {})
    shown = parts(drawn[0], 1)[0]
    picture = np.asarray(shown.images[0].get_array())
    expected = outlined(stain_picture(image, OVERVIEW_PX), tissue, picture_grid(image, OVERVIEW_PX))
    np.testing.assert_array_equal(picture, expected)
    assert (picture == OUTLINE).all(axis=-1).any()
    ((left, right), (low, other)) = shown.lines[0].get_data()
    assert low == other == 0.95 * 240
    assert (right - left) * PIXEL_UM == pytest.approx(500), "2.4 mm are shown, of which 0.5 is a fifth"
    assert left == pytest.approx(0.03 * 480)
    assert texts(shown) == ["500 um"]
    assert shown.texts[0].get_position() == (left, pytest.approx(0.93 * 240))
    assert shown.texts[0].get_va() == "bottom"
    assert (shown.get_xlim(), shown.get_ylim()) == ((-0.5, 479.5), (239.5, -0.5)), "the bar changes nothing"
    assert not shown.axison


@pytest.mark.parametrize(("left", "ink"), [(20, "#ffffff"), (230, "#000000")])
def test_the_scale_is_legible_on_what_lies_below_it(tmp_path: Path, drawn: list[Figure], left: int, ink: str) -> None:
    """Black on bright, white on dark, as the lower left corner is; the rest of the picture is the other way round."""
    pixels = np.full((1, *SIZE), 250 - left, dtype=np.uint8)
    pixels[:, 204:, :144] = left
    quality_picture(stored(tmp_path, pixels, 20.0), tissue_of(stored(tmp_path / "again", pixels, 20.0)), {})
    shown = parts(drawn[0], 1)[0]
    assert {to_hex(one.get_color()) for one in (*shown.lines, *shown.texts)} == {ink}
    assert texts(shown) == ["2 mm"]


def test_sharpness_is_drawn_where_its_windows_are(tmp_path: Path, drawn: list[Figure]) -> None:
    image = stored(tmp_path, noise())
    samples = sample_section(image, tissue_of(image))
    quality_picture(image, tissue_of(image), {}, samples)
    _, axes, bar, _ = parts(drawn[0], 1)
    below, over = axes.images
    np.testing.assert_array_equal(below.get_array(), stain_picture(image, OVERVIEW_PX).mean(axis=-1))
    assert below.get_clim() == (-400, 255)
    assert below.get_cmap().name == "gray"
    np.testing.assert_array_equal(over.get_array(), np.ma.masked_invalid(samples.sharpness))
    y0, x0, y1, x1 = (edge / PIXEL_UM - 0.5 for edge in samples.box_um)
    assert over.get_extent() == pytest.approx([x0, x1, y1, y0])
    assert axes.get_xlim() == pytest.approx((x0, x1))
    assert axes.get_ylim() == pytest.approx((y1, y0))
    assert over.get_clim() == (0.005, 1.0)
    assert over.norm.clip
    assert over.norm(0.05) == pytest.approx(np.log(10) / np.log(200))
    assert over.get_interpolation() == "nearest"
    assert over.get_alpha() == 0.8
    assert not axes.axison
    assert [one.get_text() for one in bar.get_yticklabels()] == ["0.01", "0.03", "0.1", "0.3", "1"]
    np.testing.assert_allclose(bar.get_yticks(), [0.01, 0.03, 0.1, 0.3, 1.0])
    at = {one.get_text(): one.get_position()[1] for one in drawn[0].texts}
    assert at["sharp"] > bar.get_position().y1 > bar.get_position().y0 > at["blurred"]


@pytest.mark.parametrize(
    ("channels", "kind", "names"),
    [
        (1, "grey", ["grey"]),
        (3, "rgb", ["red", "green", "blue"]),
        (3, "fluorescence", ["channel 0", "channel 1", "channel 2"]),
        (6, "fluorescence", ["channel 0", "channel 1", "channel 2", "channel 3"]),
    ],
)
def test_every_channel_has_its_histograms_one_below_the_other(
    tmp_path: Path, drawn: list[Figure], channels: int, kind: str, names: list[str]
) -> None:
    pixels = np.stack([noise(low=20 * (1 + one), high=40 * (1 + one))[0] for one in range(channels)])
    image = stored(tmp_path, pixels, kind=kind)
    samples = sample_section(image, tissue_of(image))
    quality_picture(image, tissue_of(image), {}, samples)
    histograms = parts(drawn[0], len(names))[3]
    tops = [axes.get_position().y1 for axes in histograms]
    assert tops == sorted(tops, reverse=True)
    assert all(one.get_position().y0 >= other.get_position().y1 for one, other in pairwise(histograms))
    for channel, (axes, name) in enumerate(zip(histograms, names, strict=True)):
        slide, tissue = (one for one in axes.patches if isinstance(one, StepPatch))
        for patch, counts, colour, filled in (
            (slide, samples.slide_counts, SLIDE, False),
            (tissue, samples.tissue_counts, TISSUE, True),
        ):
            values, edges, _ = patch.get_data()
            np.testing.assert_array_equal(edges, range(0, 257, 2))
            pairs = counts[channel].reshape(128, 2).sum(axis=1)
            np.testing.assert_allclose(values, pairs / pairs.sum())
            assert to_hex(patch.get_facecolor() if filled else patch.get_edgecolor()) == colour
            assert patch.get_fill() == filled
            assert patch.get_alpha() == (0.75 if filled else 1.0)
        assert texts(axes) == [name]
        assert axes.get_ylim() == (0, 1)
        assert axes.get_yscale() == "symlog"
        assert axes.get_xscale() == "linear"
        labels = [one.get_text() for one in axes.get_xticklabels()]
        last = channel == len(names) - 1
        assert labels == (["0", "64", "128", "192", "255"] if last else [""] * 5)
        assert len(axes.get_yticks()) == 0


def test_histograms_of_sixteen_bits_are_linear_first_and_logarithmic_then(tmp_path: Path, drawn: list[Figure]) -> None:
    image = stored(tmp_path, noise(low=10, high=3000, dtype=np.uint16))
    samples = sample_section(image, tissue_of(image))
    quality_picture(image, tissue_of(image), {}, samples)
    assert samples.full_scale == 4095
    (axes,) = parts(drawn[0], 1)[3]
    slide, tissue = (one for one in axes.patches if isinstance(one, StepPatch))
    for patch, counts in ((slide, samples.slide_counts), (tissue, samples.tissue_counts)):
        values, edges, _ = patch.get_data()
        np.testing.assert_allclose(edges[:16], np.arange(0, 256, 16))
        np.testing.assert_allclose(edges[16:], 256 * 16 ** np.linspace(0, 1, 96))
        inside = np.digitize(np.arange(4096), edges) - 1
        np.testing.assert_allclose(
            values, np.bincount(inside, counts[0][:4096], 111)[:111] / counts[0].sum(), atol=1e-12
        )
    assert axes.get_xscale() == "symlog"
    assert [one.get_text() for one in axes.get_xticklabels()] == ["0", "256", "1000", "4095"]


@pytest.mark.parametrize(("value", "side", "at"), [(0, "left", 0), (255, "right", 255)])
def test_what_is_clipped_in_tissue_is_marked_in_red(
    tmp_path: Path, drawn: list[Figure], value: int, side: str, at: int
) -> None:
    pixels = noise()
    chance = np.random.default_rng(1).random(SIZE)
    pixels[0][chance < 0.2] = value
    image = stored(tmp_path, pixels)
    samples = sample_section(image, tissue_of(image))
    quality_picture(image, tissue_of(image), {}, samples)
    (axes,) = parts(drawn[0], 1)[3]
    share = samples.tissue_counts[0, value] / samples.tissue_counts[0].sum()
    said, name = axes.texts
    assert (said.get_text(), name.get_text()) == (f"{share:.1%}", "grey")
    assert said.get_ha() == side
    assert said.get_position()[0] == (0.03 if side == "left" else 0.97)
    assert [list(one.get_xdata()) for one in axes.lines] == [[at, at]]
    assert {to_hex(one.get_color()) for one in (*axes.lines, said)} == {RED}


def test_little_that_is_clipped_is_not_marked(tmp_path: Path, drawn: list[Figure]) -> None:
    pixels = noise()
    pixels[0, 100, 300:310] = 0
    image = stored(tmp_path, pixels)
    quality_picture(image, tissue_of(image), {})
    (axes,) = parts(drawn[0], 1)[3]
    assert texts(axes) == ["grey"]
    assert not axes.lines


def test_facts_stand_in_lines_that_are_not_too_long_nor_too_many(tmp_path: Path, drawn: list[Figure]) -> None:
    image = stored(tmp_path, noise())
    own = {"tissue", "slide", "red: clipped in tissue", "sharp", "blurred"}

    def lines(facts: dict[str, str]) -> list[str]:
        quality_picture(image, tissue_of(image), facts)
        found = [one for one in drawn[-1].texts if one.get_text() not in own]
        heights = [one.get_position()[1] for one in found]
        assert heights == sorted(heights, reverse=True)
        assert all(0 < height < 1 for height in heights)
        assert not any(one.get_parse_math() for one in found)
        return [one.get_text() for one in found]

    assert lines({"section": "s1", "price": "$5_2$"}) == ["section: s1", "price: $5_2$"]
    long = lines({"remark": "word " * 100, "pixel": "2 um"})
    assert [len(one) <= 33 for one in long] == [True] * 5
    assert long[-1] == "pixel: 2 um", "a fact takes four lines at most"
    assert len(lines({f"fact {number}": "so" for number in range(30)})) == 20
