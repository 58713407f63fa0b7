"""When a section is told of, and in which words: every rule at its limits."""

from typing import Any

import numpy as np
import pytest

from cytoarch.reporting.quality import QualityEntry, flags, render_quality_page
from tests.cytoarch.reporting.html_elements import parsed

SOUND = {
    "sharpness": 0.5,
    "detail_um": 3.0,
    "blurred_share": 0.05,
    "clipped_dark": 0.01,
    "clipped_bright": 0.01,
    "tissue_level": 100.0,
    "slide_level": 220.0,
    "contrast": 0.4,
    "separation": 5.0,
    "tissue_mm2": 50.0,
    "tissue_share": 0.4,
    "edge_share": 0.1,
    "full_scale": 255.0,
    "pixel_size_um": 2.0,
    "height_px": 500.0,
    "width_px": 700.0,
}
Figures = dict[str, dict[str, float]]


def alone(**changed: float) -> list[str]:
    return flags({"one": SOUND | changed})["one"]


@pytest.mark.parametrize(
    ("within", "beyond", "said"),
    [
        ({"clipped_bright": 0.1}, {"clipped_bright": 0.101}, "over-exposed: 10% of the tissue is saturated"),
        ({"clipped_dark": 0.1}, {"clipped_dark": 0.15}, "under-exposed: 15% of the tissue is black"),
        ({"tissue_mm2": 0.051}, {"tissue_mm2": 0.05}, "tissue of 0.05 mm2: check the pixel size"),
        ({"tissue_mm2": 39_999.0}, {"tissue_mm2": 40_000.0}, "tissue of 40000 mm2: check the pixel size"),
        (
            {"edge_share": 0.5},
            {"edge_share": 0.51},
            "most of the scan's edge is tissue: cut off, or wrong mask or polarity",
        ),
        (
            {"separation": 0.5},
            {"separation": 0.49},
            "tissue and slide are of the same grey: empty scan, or wrong mask",
        ),
        ({"sharpness": 0.001}, {"sharpness": 0.0}, "no structure in the tissue to judge its sharpness by"),
        ({"tissue_mm2": 1.0}, {"tissue_mm2": 0.0}, "no tissue found: empty scan, or wrong threshold or polarity"),
    ],
)
def test_alone_a_section_is_told_of_beyond_a_limit(within: Any, beyond: Any, said: str) -> None:
    assert alone(**within) == []
    assert alone(**beyond) == [said]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_where_there_is_tissue_or_slide_alone_nothing_is_told_apart(share: float) -> None:
    assert alone(tissue_share=share, separation=0.0) == []


def test_a_section_without_tissue_has_no_other_flag() -> None:
    said = alone(tissue_mm2=0.0, clipped_dark=1.0, sharpness=0.0, edge_share=1.0)
    assert said == ["no tissue found: empty scan, or wrong threshold or polarity"]


def test_everything_that_is_doubtful_is_said() -> None:
    assert len(alone(clipped_bright=0.2, clipped_dark=0.2, edge_share=0.9, separation=0.1, sharpness=0.0)) == 5


# -- beside others -----------------------------------------------------------------------------------------------------


def series(count: int = 12, **changed: float) -> Figures:
    """Sections that are alike in every figure, and the sixth with what is changed."""
    alike = {f"s{i}": dict(SOUND) for i in range(count)}
    alike["s5"] |= changed
    return alike


def said_of_sixth(**changed: float) -> list[str]:
    found = flags(series(**changed))
    assert [one for one, texts in found.items() if texts and one != "s5"] == []
    return found["s5"]


@pytest.mark.parametrize(
    ("within", "beyond", "said"),
    [
        (
            {"detail_um": 4.04},
            {"detail_um": 4.06},
            "blurred compared with its neighbours: finest detail 4.06 um, usual is 3 um",
        ),
        (
            {"blurred_share": 0.199},
            {"blurred_share": 0.201},
            "blurred in parts: 20% of the places looked at, usual is 5.0%",
        ),
        (
            {"tissue_mm2": 64.9},
            {"tissue_mm2": 65.1},
            "more tissue than in its neighbours: 65.1 mm2, about 50 expected (mask? pixel size?)",
        ),
        (
            {"tissue_mm2": 38.5},
            {"tissue_mm2": 38.4},
            "less tissue than in its neighbours: 38.4 mm2, about 50 expected (mask? pixel size?)",
        ),
        (
            {"clipped_bright": 0.0199},
            {"clipped_bright": 0.0201},
            "over-exposed: 2.0% of the tissue is saturated, usual is 1.0%",
        ),
        (
            {"clipped_dark": 0.0199},
            {"clipped_dark": 0.0201},
            "under-exposed: 2.0% of the tissue is black, usual is 1.0%",
        ),
        (
            {"tissue_level": 139.9},
            {"tissue_level": 140.1},
            "tissue brighter than in the other sections: grey value 140, usual is 100 (exposure? stain?)",
        ),
        (
            {"tissue_level": 71.5},
            {"tissue_level": 71.4},
            "tissue darker than in the other sections: grey value 71.4, usual is 100 (exposure? stain?)",
        ),
        (
            {"edge_share": 0.249},
            {"edge_share": 0.251},
            "tissue on 25% of the scan's edge, usual is 10% (cut off? mask?)",
        ),
    ],
)
def test_beside_others_a_section_is_told_of_where_it_differs_by_enough_to_matter(
    within: Any, beyond: Any, said: str
) -> None:
    assert said_of_sixth(**within) == []
    (found,) = said_of_sixth(**beyond)
    assert found == said


@pytest.mark.parametrize("figure", ["detail_um", "blurred_share", "clipped_bright", "clipped_dark", "edge_share"])
def test_nothing_is_said_where_less_is_better(figure: str) -> None:
    assert said_of_sixth(**{figure: 1e-4}) == []


def test_what_differs_much_but_not_more_than_sections_do_is_not_told_of() -> None:
    spread = {f"s{i}": SOUND | {"tissue_level": level} for i, level in enumerate(np.linspace(40, 160, 12))}
    assert not any(flags(spread).values())


@pytest.mark.parametrize("size", [1.97, 2.03])
def test_pixel_sizes_within_two_percent_are_the_same(size: float) -> None:
    assert said_of_sixth(pixel_size_um=size) == []


@pytest.mark.parametrize(("size", "shown"), [(1.95, "1.95"), (2.05, "2.05"), (4.0, "4")])
def test_another_pixel_size_is_told_and_explains_another_sharpness(size: float, shown: str) -> None:
    said = said_of_sixth(pixel_size_um=size, detail_um=12.0)
    assert said == [f"pixel size {shown} um where most sections have 2 um"]


@pytest.mark.parametrize(("contrast", "here", "there"), [(-0.4, "brighter", "darker"), (0.4, "darker", "brighter")])
def test_the_other_polarity_than_most_is_told(contrast: float, here: str, there: str) -> None:
    changed = {name: one | {"contrast": -contrast} for name, one in series().items()}
    changed["s5"]["contrast"] = contrast
    found = flags(changed)
    text = f"tissue is {here} than the slide where in most sections it is {there}: check polarity"
    assert {name: texts for name, texts in found.items() if texts} == {"s5": [text]}


def test_five_sections_with_tissue_are_compared_and_four_are_not() -> None:
    def found(count: int) -> list[str]:
        few = {f"s{i}": dict(one) for i, one in enumerate(list(series().values())[:count])}
        few["s1"]["tissue_level"] = 200.0
        few["empty"] = SOUND | {"tissue_mm2": 0.0, "tissue_level": 0.0}
        return flags(few)["s1"]

    assert found(4) == []
    assert found(5) == ["tissue brighter than in the other sections: grey value 200, usual is 100 (exposure? stain?)"]


# -- curves ------------------------------------------------------------------------------------------------------------


def test_curves_rise_with_their_figure_and_flagged_sections_are_dots_on_them() -> None:
    figures = {f"s{i}": SOUND | {"tissue_mm2": 10.0 * (1 + i)} for i in range(4)}
    figures["s3"]["clipped_dark"] = 0.5
    entries = [QualityEntry(name, number, figures=one) for number, (name, one) in enumerate(figures.items())]
    page = parsed(render_quality_page("b", entries))
    lines = [attributes["points"] for tag, attributes in page.found if tag == "polyline"]

    def line(*shares: float) -> str:
        return " ".join(f"{x},{52 - 48 * share:.1f}" for x, share in zip(middles, shares, strict=True))

    middles = ("125.0", "375.0", "625.0", "875.0")
    flat, rising, last = line(1, 1, 1, 1), line(0.25, 0.5, 0.75, 1), line(0.25, 0.25, 0.25, 1)
    assert lines == [flat, rising, flat, last], "what is beyond four times the median is cut off"
    dots = [(attributes["cx"], attributes["cy"]) for tag, attributes in page.found if tag == "ellipse"]
    assert dots == [("875.0", "4.0")] * 4
    text = " ".join(" ".join(page.text).split())
    assert text.count("s3: under-exposed: 50% of the tissue is black") == 4
    for words, top in (
        ("finest detail (um): low is sharp", "3"),
        ("tissue (mm2)", "40"),
        ("grey value of the tissue", "100"),
        ("clipped tissue (share)", "0.04"),
    ):
        assert f"{words} 0 to {top}" in text


@pytest.mark.parametrize("figure", ["detail_um", "clipped_bright"])
def test_a_curve_of_nothing_lies_at_the_bottom(figure: str) -> None:
    entries = [QualityEntry(f"s{i}", i, figures=SOUND | {figure: 0.0, "clipped_dark": 0.0}) for i in range(3)]
    lines = [one["points"] for tag, one in parsed(render_quality_page("b", entries)).found if tag == "polyline"]
    assert lines[0 if figure == "detail_um" else 3] == "166.7,52.0 500.0,52.0 833.3,52.0"


def test_one_section_has_no_curve() -> None:
    page = render_quality_page("b", [QualityEntry("s0", 0, figures=SOUND)])
    assert not [tag for tag, _ in parsed(page).found if tag == "polyline"]
